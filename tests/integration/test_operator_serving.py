"""From an applied resource to an HTTP answer, on real parts: store, operator, Ray, replica, gateway."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from tests.at_once import AtOnce
from tests.integration.local_ray import ACCELERATOR, LocalRay, another_node
from tests.integration.operator_parts import Platform, platform, scaling_model
from tests.waiting import eventually

from penstock_operator.deployment import steps
from penstock_operator.kinds import SERVING_POOL
from penstock_operator.runtime.cluster import Key

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

AT_ONCE = AtOnce()


@pytest.fixture(scope="module")
def up(ray_head: LocalRay, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(ray_head, tmp_path_factory.mktemp("p")) as built, pytest.MonkeyPatch.context() as patch:
        # What nobody tells the operator, that a node came or a model went to sleep, it finds when it looks again.
        patch.setattr(steps, "RESYNC_SECONDS", 5.0)
        yield built


@pytest.fixture(scope="module")
def begun(
    request: pytest.FixtureRequest, up: Platform, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[None]]]:
    """Those that have deployments of their own."""
    with AT_ONCE.begin(request, lambda _: {"up": up, "tmp_path": tmp_path_factory.mktemp("at-once")}) as begun:
        yield begun


@pytest.fixture(scope="module")
def served(up: Platform, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that `steady` serves from one replica, which tests change and leave as it was."""
    path = scaling_model(tmp_path_factory.mktemp("steady") / "steady.onnx", 2.0)
    up.apply("steady", path, digest=_digest(path))
    up.wait("steady", "Ready", "True", "Ready")
    return path


def _digest(model: Path) -> str:
    return "sha256:" + hashlib.sha256(model.read_bytes()).hexdigest()


@AT_ONCE
def test_from_apply_to_an_answer_through_a_change_of_model_to_nothing(up: Platform, tmp_path: Path) -> None:
    up.apply("scale", scaling_model(tmp_path / "one.onnx", 2.0))
    up.wait("scale", "Ready", "True", "Ready")
    assert up.infer("scale", [1, 2, 3, 4]) == (200, [2, 4, 6, 8])
    status = (up.get("scale") or {})["status"]
    assert status["url"] == f"{up.gateway.url}/default/v2/models/scale"
    assert status["replicas"]["ready"] == 1
    first = status["activeRevision"]

    up.apply("scale", scaling_model(tmp_path / "two.onnx", 3.0))
    answers = []

    def rolled() -> bool:
        answers.append(up.infer("scale", [1, 1, 1, 1]))
        now = (up.get("scale") or {})["status"]
        return now["activeRevision"] != first and up.condition("scale", "Ready")[0] == "True"

    eventually(rolled, "the new revision is active")
    assert {status for status, _ in answers} == {200}
    assert up.infer("scale", [1, 1, 1, 1]) == (200, [3, 3, 3, 3])
    eventually(
        lambda: len([n for n in up.applications() if "-scale-" in n]) == 1, "the old application is gone", pause=0.5
    )

    up.delete("scale")
    eventually(lambda: up.get("scale") is None, "the object is gone")
    assert [name for name in up.applications() if "-scale-" in name] == []
    assert up.infer("scale", [1, 1, 1, 1])[0] == 404


@AT_ONCE
def test_a_missing_file_is_told_and_heals_once_it_is_there(up: Platform, tmp_path: Path) -> None:
    path = tmp_path / "late.onnx"
    up.apply("late", path)
    text = up.wait("late", "ModelResolved", "False", "ModelNotFound")
    assert "late.onnx" in text
    scaling_model(path, 5.0)
    up.wait("late", "Ready", "True", "Ready")
    assert up.infer("late", [1, 0, 0, 0]) == (200, [5, 0, 0, 0])


def test_a_digest_that_differs_is_told_while_the_old_revision_serves(up: Platform, served: Path) -> None:
    up.apply("steady", served, digest="sha256:" + "0" * 64)
    up.wait("steady", "Ready", "False", "DigestMismatch")
    assert up.condition("steady", "Serving")[:2] == ("True", "ReplicasReady")
    assert up.infer("steady", [1, 0, 0, 0]) == (200, [2, 0, 0, 0])
    up.apply("steady", served, digest=_digest(served))
    up.wait("steady", "Ready", "True", "Ready")


@AT_ONCE
def test_what_no_node_can_hold_is_told_with_what_there_is(up: Platform, tmp_path: Path) -> None:
    up.apply("huge", scaling_model(tmp_path / "huge.onnx", 1.0), resources={"cpu": "4096"})
    text = up.wait("huge", "Ready", "False", "Unschedulable")
    assert "4096 CPU" in text
    assert "8 CPU" in text
    # Serve waits half a minute for a replica that never started to stop.
    up.delete("huge")


@AT_ONCE
def test_two_replicas_share_an_accelerator_and_a_third_does_not_fit(up: Platform, tmp_path: Path) -> None:
    model = scaling_model(tmp_path / "half.onnx", 2.0)
    half = {"type": ACCELERATOR, "count": "0.5"}
    up.apply(
        "half", model, resources={"cpu": "100m", "accelerator": half}, scaling={"minReplicas": 2, "maxReplicas": 2}
    )
    up.wait("half", "Ready", "True", "Ready")
    assert (up.get("half") or {})["status"]["replicas"]["ready"] == 2
    assert up.infer("half", [1, 2, 3, 4]) == (200, [2, 4, 6, 8])
    up.apply("third", model, resources={"cpu": "100m", "accelerator": half})
    text = up.wait("third", "Ready", "False", "Unschedulable")
    assert ACCELERATOR in text
    up.delete("half")
    up.wait("third", "Ready", "True", "Ready")
    up.delete("third")


@AT_ONCE
def test_an_accelerator_of_another_type_is_not_taken_for_it(up: Platform, tmp_path: Path) -> None:
    other = {"type": "nvidia-h100", "count": 1}
    up.apply("other", scaling_model(tmp_path / "other.onnx", 2.0), resources={"cpu": "100m", "accelerator": other})
    assert "nvidia-h100" in up.wait("other", "Ready", "False", "Unschedulable")
    up.delete("other")


@pytest.mark.usefixtures("served")
def test_a_killed_replica_server_is_replaced(up: Platform) -> None:
    victims = _servers(up, "steady")
    assert victims
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: up.infer("steady", [1, 1, 1, 1]) == (200, [2, 2, 2, 2]), "a new replica answers")


def _servers(up: Platform, name: str) -> list[int]:
    """The replica servers of a deployment: children of its replica actors."""
    listed = json.loads(up.ray.get("/api/serve/applications/"))["applications"]
    actors = {
        replica["pid"]
        for app, details in listed.items()
        if f"-{name}-" in app
        for each in details["deployments"].values()
        for replica in each["replicas"]
    }
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it ended while we looked
            continue
        if parent in actors:
            found.append(int(entry.name))
    return found


def test_the_pool_tells_what_it_has(up: Platform) -> None:
    eventually(
        lambda: (up.cluster.get(SERVING_POOL, Key("default", "default")) or {}).get("status", {}).get("rayVersion"),
        "the pool's status",
    )
    status = (up.cluster.get(SERVING_POOL, Key("default", "default")) or {})["status"]
    assert status["capacity"]["cpu"] == "8"
    assert status["capacity"]["nodes"] == 1
    assert status["conditions"][0]["status"] == "True"


@AT_ONCE
def test_an_idle_model_goes_to_zero_and_the_next_request_wakes_it(up: Platform, tmp_path: Path) -> None:
    scaling = {"minReplicas": 0, "maxReplicas": 2, "scaleToZeroAfterSeconds": 2, "stabilizationWindowSeconds": 2}
    up.apply("sleepy", scaling_model(tmp_path / "sleepy.onnx", 4.0), scaling=scaling)
    up.wait("sleepy", "Ready", "True", "Ready")
    up.wait("sleepy", "Serving", "True", "ScaledToZero")
    assert up.condition("sleepy", "Ready")[0] == "True"
    assert up.infer("sleepy", [1, 1, 1, 1]) == (200, [4, 4, 4, 4])


def test_a_batch_size_and_a_number_of_replicas_change_in_place(up: Platform, served: Path) -> None:

    def ready() -> int:
        return int(((up.get("steady") or {})["status"]["replicas"]).get("ready") or 0)

    # The status counts one that was killed until the operator has looked again.
    before = eventually(
        lambda: ready() == 1 and len(found := _servers(up, "steady")) == 1 and found, "one replica serves"
    )
    up.apply("steady", served, digest=_digest(served), batching={"maxBatchSize": 4}, scaling={"replicas": 2})
    eventually(lambda: ready() == 2, "two replicas answer")
    up.wait("steady", "Ready", "True", "Ready")
    assert set(before) < set(_servers(up, "steady"))
    assert up.infer("steady", [1, 1, 1, 1]) == (200, [2, 2, 2, 2])


@AT_ONCE
def test_load_adds_replicas_and_its_end_takes_them_away_without_a_failed_request(up: Platform, tmp_path: Path) -> None:
    scaling = {"minReplicas": 1, "maxReplicas": 2, "targetInFlightRequests": 1, "stabilizationWindowSeconds": 3}
    # Its requests wait for the engine, which has one thread: four clients at once leave a core to the replica that is added.
    up.apply("busy", scaling_model(tmp_path / "busy.onnx", 2.0, idle_layers=40), scaling=scaling)
    up.wait("busy", "Ready", "True", "Ready")
    stop, failed = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            answer = up.infer("busy", [1, 1, 1, 1])
            if answer != (200, [2, 2, 2, 2]):
                failed.append(answer)

    def replicas() -> int:
        return up.receiving("busy")

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        eventually(lambda: replicas() >= 2, "replicas were added")
    finally:
        stop.set()
        for client in clients:
            client.join()
    eventually(lambda: replicas() == 1, "replicas were taken away")
    assert failed == []


def test_replicas_on_one_node_move_apart_without_a_failed_request_once_another_has_room(
    up: Platform, served: Path
) -> None:
    up.apply("steady", served, digest=_digest(served), scaling={"replicas": 2})
    eventually(lambda: up.receiving("steady") == 2, "two replicas answer")
    assert len(_nodes(up, "steady")) == 1
    stop, failed, fewest = threading.Event(), [], [2]

    def ask() -> None:
        while not stop.is_set():
            fewest[0] = min(fewest[0], up.receiving("steady"))
            for _ in range(2):
                answer = up.infer("steady", [1, 1, 1, 1])
                if answer != (200, [2, 2, 2, 2]):
                    failed.append(answer)
                time.sleep(0.02)

    def are_apart() -> bool:
        return len(_nodes(up, "steady")) == 2

    client = threading.Thread(target=ask)
    with another_node(up.ray, cpus=1):
        client.start()
        try:
            eventually(are_apart, "the replicas are on two nodes", pause=0.5)
            eventually(lambda: up.receiving("steady") == 2 and are_apart(), "there are two of them again", pause=0.5)
            up.wait("steady", "Ready", "True", "Ready")
        finally:
            stop.set()
            client.join()
        history = (up.get("steady") or {})["status"]["scalingHistory"]
        # Serve gives up a replica of the node that has the fewest, and of the head last.
        up.apply("steady", served, digest=_digest(served), scaling={"replicas": 1})
        eventually(
            lambda: up.receiving("steady") == 1 and len(_nodes(up, "steady")) == 1, "one node is empty", pause=0.5
        )
    assert failed == []
    assert fewest == [2]
    assert history[-1]["toReplicas"] == 2, "a move is no change of the number"


def _nodes(up: Platform, name: str) -> set[str]:
    """Ray's nodes that replicas of a model run on; three of Ray's processes compute for an answer, so it is not asked for at each turn."""
    listed = json.loads(up.ray.get("/api/serve/applications/"))["applications"]
    return {
        replica["node_id"]
        for application, each in listed.items()
        if application.startswith(f"penstock-default-{name}-")
        for deployment in each["deployments"].values()
        for replica in deployment["replicas"]
        if replica["state"] == "RUNNING"
    }
