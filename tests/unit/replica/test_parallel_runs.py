"""Whether cores serve one run or a run each: what is chosen from measured times, and that they can be measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.integration.replica_process import save_linear

from penstock.optimization.recipes import EngineName, EngineSettings
from penstock.serving.joining import Joining
from penstock.serving.manifest import Signature
from penstock_runtime.engines import Array, load_engine
from penstock_serving.replica.model.parallel import MeasuredRuns, choose_runs, measure_runs

MS = 1e-3
JOINING = Joining(inputs={"x": 0}, outputs={"y": 0})


@pytest.mark.parametrize(
    ("measured", "runs", "says"),
    [
        pytest.param(
            MeasuredRuns(
                0.45 * MS, {1: 0.64 * MS, 4: 1.5 * MS, 16: 4.1 * MS}, {1: 0.5 * MS, 4: 1.3 * MS, 16: 4.8 * MS}
            ),
            2,
            "2 runs at once answer so many times as much",
            id="many small operators: threads that share a run wait for each other",
        ),
        pytest.param(
            MeasuredRuns(0.065 * MS, {1: 0.114 * MS, 32: 1.2 * MS}, {1: 0.1 * MS, 32: 1.9 * MS}),
            1,
            "runs so short happen on the event loop",
            id="the replica itself takes more than its runs",
        ),
        pytest.param(
            MeasuredRuns(1.29 * MS, {1: 1.07 * MS, 32: 3.0 * MS}, {1: 1.3 * MS, 32: 5.4 * MS}),
            1,
            "a lone row takes 1.29 ms on one thread and 1.07 ms on 2",
            id="a lone request would wait for longer",
        ),
        pytest.param(
            MeasuredRuns(1.0 * MS, {1: 1.0 * MS, 8: 1.1 * MS}, {1: 1.0 * MS, 8: 2.4 * MS}),
            1,
            "0.92 with 16",
            id="faster with few around, slower with many",
        ),
        pytest.param(
            MeasuredRuns(1.0 * MS, {1: 1.0 * MS, 8: 8.0 * MS}, {1: 1.9 * MS, 8: 15.5 * MS}),
            1,
            "1.05 with 2",
            id="what is gained cannot be told from noise",
        ),
        pytest.param(MeasuredRuns(), 1, "nothing was measured", id="zeros do not suit the model"),
        pytest.param(MeasuredRuns(1.0 * MS, {1: 1.0 * MS}), 1, "were not measured", id="runs at once failed"),
    ],
)
def test_runs_at_once_are_chosen_where_they_answer_more_at_every_load(
    measured: MeasuredRuns, runs: int, says: str
) -> None:
    chosen = choose_runs(measured, 2)
    assert (chosen.runs, chosen.threads) == ((2, 1) if runs == 2 else (1, 2))
    assert says in chosen.reason


def test_a_real_model_is_measured_both_ways(tmp_path: Path) -> None:
    path = save_linear(tmp_path / "model.onnx")
    shared, apart = (
        load_engine(path, EngineSettings(name=EngineName.ONNX_RUNTIME, threads=threads)) for threads in (2, 1)
    )
    measured = measure_runs(shared, apart, JOINING, 4, 2)
    assert sorted(measured.shared) == sorted(measured.apart)
    assert 1 in measured.shared
    assert 0 < measured.lone < 1


class Failing:
    """Refuses what it is given."""

    platform = "python"

    def __init__(self, signature: Signature) -> None:
        self.signature = signature

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        raise ValueError(str(len(inputs)))


def test_a_model_that_fails_in_threads_is_left_at_one_run(tmp_path: Path) -> None:
    shared = load_engine(save_linear(tmp_path / "model.onnx"), EngineSettings(name=EngineName.ONNX_RUNTIME, threads=2))
    measured = measure_runs(shared, Failing(shared.signature), JOINING, 4, 2)
    assert choose_runs(measured, 2).runs == 1
