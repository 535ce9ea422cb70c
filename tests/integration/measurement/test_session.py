"""Sessions with real processes: structure, fairness, and contestants that fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper
from tests.integration.measurement.conftest import Small
from tests.integration.measurement.small_models import SOURCE, digits_model, variant
from tests.telling import assert_tells, telling

from penstock.errors import Invalid
from penstock.optimization.measurements import EnergyMethod, Role
from penstock.optimization.recipes import EngineName, EngineSettings, PruneMethod
from penstock_optimizer.measure.channel import Channel, ChildGone
from penstock_optimizer.measure.controls import negative_control
from penstock_optimizer.measure.session import Contestant, SessionResult, SessionSettings, run_session
from penstock_optimizer.measure.variant import read_variant
from penstock_optimizer.search.statistics import controls
from penstock_runtime.engines import why_unavailable
from penstock_runtime.hardware import probe

WORKER = "penstock_optimizer.measure.worker"


@pytest.fixture(scope="session")
def control(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return negative_control(small.baseline, tmp_path_factory.mktemp("control") / "variant")


@pytest.fixture(scope="session")
def session(small: Small, control: Path) -> SessionResult:
    """One session with all roles and three that cannot run."""
    contestants = [
        Contestant(Role.BASELINE, "base", small.baseline),
        Contestant(Role.CANDIDATE, "damaged", small.damaged),
        Contestant(Role.SAME_AGAIN, "base", small.baseline),
        Contestant(Role.CANDIDATE, "absent", small.baseline / "nothing"),
        Contestant(Role.NEGATIVE_CONTROL, "control", control),
        Contestant(Role.CANDIDATE, "fixed", small.fixed),
    ]
    settings = SessionSettings(batch_size=8, samples=Path(small.data.test), rounds=5, seconds_per_round=0.02, seed=1)
    return run_session(contestants, settings)


def test_those_that_finish_are_told_in_the_order_of_the_contestants(session: SessionResult) -> None:
    assert [(timing.role, timing.recipe_key) for timing in session.timings] == [
        (Role.BASELINE, "base"),
        (Role.SAME_AGAIN, "base"),
        (Role.NEGATIVE_CONTROL, "control"),
        (Role.CANDIDATE, "fixed"),
    ]


def test_those_that_cannot_run_are_told_with_the_reason(session: SessionResult) -> None:
    assert set(session.problems) == {"damaged", "absent"}
    assert "model.onnx" in session.problems["damaged"]
    assert "variant.json" in session.problems["absent"]


def test_timings_are_whole(session: SessionResult) -> None:
    for timing in session.timings:
        assert timing.rounds == 5 == len(timing.cpu_seconds_per_run) == len(timing.wall_seconds_per_run)
        assert timing.runs % 5 == 0, "a contestant has as many runs in every round"
        assert min(timing.cpu_seconds_per_run) > 0
        assert 0 < timing.wall_milliseconds_p50 <= timing.wall_milliseconds_p99
        assert sum(count for _, count in timing.histogram_milliseconds) == timing.runs
        assert 10_000_000 < timing.peak_memory_bytes < 1_000_000_000
        assert timing.load_seconds > 0
        assert timing.energy.cpu_seconds_per_sample > 0
        assert (timing.energy.joules_per_sample is None) is (timing.energy.method is EnergyMethod.ESTIMATED)
        assert not timing.accelerated


def test_the_controls_of_a_session_are_read(session: SessionResult) -> None:
    assert [control.name for control in controls(session.timings)] == [Role.SAME_AGAIN, Role.NEGATIVE_CONTROL]


def test_the_number_of_runs_can_be_fixed(small: Small) -> None:
    settings = SessionSettings(batch_size=1, samples=Path(small.data.test), rounds=2, runs_per_round=3)
    (timing,) = run_session([Contestant(Role.BASELINE, "base", small.baseline)], settings).timings
    assert (timing.rounds, timing.runs) == (2, 6)


@pytest.mark.gpu
def test_on_a_gpu_wall_time_counts_and_its_own_counter_tells_joules(small: Small, tmp_path: Path) -> None:
    missing = why_unavailable(EngineName.ONNX_RUNTIME_CUDA, probe())
    if missing is not None:
        pytest.skip(missing)
    folder = variant(tmp_path / "cuda", digits_model(), engine=EngineSettings(name=EngineName.ONNX_RUNTIME_CUDA))
    settings = SessionSettings(batch_size=8, samples=Path(small.data.test), rounds=5)
    (timing,) = run_session([Contestant(Role.CANDIDATE, "cuda", folder)], settings).timings
    assert timing.accelerated
    assert timing.energy.method is EnergyMethod.MEASURED_NVML
    assert timing.energy.joules_per_sample is not None


def test_a_worker_that_dies_in_the_middle_is_out_and_the_others_go_on(small: Small) -> None:
    killed: list[int] = []

    def kill_one() -> None:
        """The second contestant, which was started last, once it has had time to get to work."""
        deadline = time.monotonic() + 20
        while len(workers := _workers(os.getpid())) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(1.5)
        killed.append(max(workers))
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill_one)
    thread.start()
    contestants = [
        Contestant(Role.BASELINE, "base", small.baseline),
        Contestant(Role.CANDIDATE, "near", small.near),
    ]
    settings = SessionSettings(batch_size=1, samples=Path(small.data.test), rounds=40, seconds_per_round=0.05)
    result = run_session(contestants, settings)
    thread.join()
    assert killed
    assert [timing.recipe_key for timing in result.timings] == ["base"]
    assert "killed by SIGKILL" in result.problems["near"]
    assert not _workers(os.getpid()), "no worker outlives its session"


def test_a_worker_that_hangs_is_out(small: Small) -> None:
    settings = SessionSettings(batch_size=1, samples=Path(small.data.test), rounds=1, timeout=0.01)
    result = run_session([Contestant(Role.CANDIDATE, "near", small.near)], settings)
    assert not result.timings
    assert_tells(result.problems["near"], "not answer")


def test_workers_end_with_their_parent() -> None:
    code = (
        "import sys, time; from penstock_optimizer.measure.channel import Channel;"
        f"child = Channel('{WORKER}'); print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait(10)
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and _state(child) != "Z":
        assert time.monotonic() < deadline, "the worker lives on"
        time.sleep(0.02)


def test_a_child_that_writes_to_its_output_does_not_garble_the_answers() -> None:
    with Channel(WORKER) as channel:
        channel.tell('{"type":"run","runs":1}')
        assert b"came before 'load'" in channel.hear(30)


def test_a_child_that_ends_says_how() -> None:
    with Channel("penstock_optimizer.no_such_module") as channel, pytest.raises(ChildGone, match="No module named"):
        channel.hear(30)


def test_the_negative_control_is_the_baseline_with_half_its_weights_at_zero(small: Small, control: Path) -> None:
    before = onnx.load(str(small.baseline / "model.onnx")).graph.initializer
    after = onnx.load(str(control / "model.onnx")).graph.initializer
    for old, new in zip(before, after, strict=True):
        first, second = numpy_helper.to_array(old), numpy_helper.to_array(new)
        if first.ndim == 1:
            assert (first == second).all(), "biases stay"
        else:
            assert (second == 0).sum() == first.size // 2
            assert (second[second != 0] == first[second != 0]).all()
    described, baseline = read_variant(control), read_variant(small.baseline)
    assert described.recipe.steps[0].method == PruneMethod.UNSTRUCTURED
    assert described.recipe.key != baseline.recipe.key
    assert (described.engine, described.signature) == (baseline.engine, SOURCE.signature)
    assert described.files["model.onnx"].size_bytes == (control / "model.onnx").stat().st_size
    assert negative_control(small.damaged, control) == control, "one that is there is taken as it is"


def test_only_onnx_has_a_negative_control(small: Small, tmp_path: Path) -> None:
    folder = tmp_path / "openvino"
    folder.mkdir()
    text = (small.baseline / "variant.json").read_text().replace('"format":"onnx"', '"format":"openvino"')
    (folder / "variant.json").write_text(text)
    with pytest.raises(Invalid, match=telling("ONNX not openvino")):
        negative_control(folder, tmp_path / "out")


def _workers(parent: int) -> list[int]:
    """Children of a process that run the worker's module and have not ended."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
            command = (status.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z" and WORKER.encode() in command:
            found.append(int(status.parent.name))
    return found


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
