"""The supervisor of the replica server, on the real server process, without Ray."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from tests.integration.operator_parts import scaling_model
from tests.telling import telling
from tests.waiting import eventually, is_alive

from penstock.serving.arguments import FAILURE_MARKER
from penstock.serving.control import Reconfigure, ReplicaSettings
from penstock.serving.settings import BatchingSettings
from penstock_serving.replica.supervision import ReplicaFailedError, Supervisor

PATIENCE = 60.0


def settings(model: Path, **changes: object) -> ReplicaSettings:
    base = ReplicaSettings(
        namespace="default", model="scale", revision="v1", replica_id="r1", storage_uri=model.as_uri(), drain_seconds=5
    )
    return base.model_copy(update=changes)


@pytest.fixture
def deaths() -> queue.Queue[int]:
    return queue.Queue()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return scaling_model(tmp_path / "model.onnx", 2.0)


def test_it_starts_answers_reports_takes_settings_and_drains(model: Path, deaths: queue.Queue[int]) -> None:
    supervisor = Supervisor(settings(model), deaths.put)
    try:
        ready = supervisor.start(PATIENCE)
        assert supervisor.alive
        assert ready.digest.startswith("sha256:")
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
        body = json.dumps({"inputs": [tensor]}).encode()
        request = urllib.request.Request(f"http://{ready.address}/v2/models/scale/infer", body)
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            assert json.load(response)["outputs"][0]["data"] == [2, 4, 6, 8]
        supervisor.reconfigure(Reconfigure(batching=BatchingSettings(max_batch_size=2)))
        assert supervisor.statistics().result(PATIENCE).in_flight >= 0
        assert supervisor.drain(PATIENCE)
    finally:
        supervisor.kill()
    assert not supervisor.alive
    assert deaths.empty()


def test_a_missing_model_fails_with_a_reason_that_a_condition_can_carry(
    tmp_path: Path, deaths: queue.Queue[int]
) -> None:
    supervisor = Supervisor(settings(tmp_path / "none.onnx"), deaths.put)
    with pytest.raises(ReplicaFailedError) as caught:
        supervisor.start(PATIENCE)
    assert caught.value.failure.reason == "ModelNotFound"
    assert str(caught.value).startswith(FAILURE_MARKER)
    assert deaths.empty()


def test_a_server_that_is_killed_is_told_of(model: Path, deaths: queue.Queue[int]) -> None:
    supervisor = Supervisor(settings(model), deaths.put)
    supervisor.start(PATIENCE)
    assert supervisor._process is not None
    os.kill(supervisor._process.pid, signal.SIGKILL)
    assert deaths.get(timeout=PATIENCE) == -signal.SIGKILL
    assert not supervisor.alive


def test_a_server_that_says_nothing_is_given_up(model: Path, deaths: queue.Queue[int]) -> None:
    silent = [sys.executable, "-c", "import time; time.sleep(600)"]
    supervisor = Supervisor(settings(model), deaths.put, silent)
    with pytest.raises(ReplicaFailedError, match=telling("not ready 0.5 s")):
        supervisor.start(0.5)
    assert deaths.empty()


def test_a_server_that_ends_at_once_is_told_with_its_status(model: Path, deaths: queue.Queue[int]) -> None:
    supervisor = Supervisor(settings(model), deaths.put, [sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(ReplicaFailedError, match=telling("status 3")):
        supervisor.start(PATIENCE)


def test_a_program_that_is_not_there_is_told(model: Path, deaths: queue.Queue[int]) -> None:
    supervisor = Supervisor(settings(model), deaths.put, ["/nonexistent/program"])
    with pytest.raises(ReplicaFailedError, match=telling("not start")):
        supervisor.start(PATIENCE)


def test_the_server_dies_with_a_killed_supervisor(model: Path) -> None:
    script = (
        "import sys, time\n"
        "from penstock.serving.control import ReplicaSettings\n"
        "from penstock_serving.replica.supervision import Supervisor\n"
        "supervisor = Supervisor(ReplicaSettings.model_validate_json(sys.argv[1]), print)\n"
        "supervisor.start(60)\n"
        "print(supervisor._process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, settings(model).model_dump_json()], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()

    eventually(lambda: not is_alive(child), "the server ended", PATIENCE)
