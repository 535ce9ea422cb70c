"""What the demo waits for: a verdict, and then the optimized revision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.telling import telling

from penstock.errors import Unavailable
from penstock_cli.demo.optimization import wait_for_verdict, wait_until_optimized
from penstock_operator.kinds import INFERENCE_DEPLOYMENT, OPTIMIZATION_RUN
from penstock_operator.runtime.cluster import Key
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster

KEY = Key("default", "digits")
RUN = "digits-1"
MODEL = {"storageUri": "file:///m", "modelFormat": "onnx"}


class World:
    """A store whose statuses the test writes, and what the waiting said."""

    def __init__(self, folder: Path) -> None:
        self.cluster = EmbeddedCluster(folder / "store")
        self.said: list[str] = []
        self.write(INFERENCE_DEPLOYMENT, "digits", {"model": MODEL}, {})

    def write(self, kind: Any, name: str, spec: dict[str, Any], status: dict[str, Any]) -> None:
        metadata = {"name": name, "namespace": "default"}
        self.cluster.apply(kind, {"metadata": metadata, "spec": spec}, "test")
        self.cluster.apply_status(kind, {"metadata": metadata, "status": status}, "test")

    def deployment(self, status: str, reason: str, message: str = "", **more: Any) -> None:
        about = {"lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1, "message": message}
        applied = {"type": "ProfileApplied", "status": status, "reason": reason, **about}
        ready = {"type": "Ready", "status": "True", "reason": "Ready", **about}
        content = {"observedGeneration": 1, "conditions": [applied, ready], "optimizationRun": RUN, **more}
        self.write(INFERENCE_DEPLOYMENT, "digits", {"model": MODEL}, content)

    def run(self, **status: Any) -> None:
        self.write(OPTIMIZATION_RUN, RUN, {"model": MODEL, "profileRef": {"name": "balanced"}}, status)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.cluster.close()


def test_the_verdict_is_what_is_waited_for_and_progress_is_told(world: World) -> None:
    world.deployment("Unknown", "Optimizing")
    world.run(progress={"stage": "Measure", "message": "Measure (3 of 12)", "found": "b is fast"})

    def say(text: str) -> None:
        world.said.append(text)
        world.run(verdict="Rejected", summary="no", completionTime="2026-01-01T00:00:00Z")

    run = wait_for_verdict(world.cluster, KEY, 10, say, lambda: None)
    assert (run.status.verdict, world.said) == ("Rejected", ["Measure (3 of 12)\nSo far: b is fast"])


def test_a_search_that_ended_without_a_verdict_is_an_error_with_its_reason(world: World) -> None:
    world.deployment("False", "OptimizationFailed")
    world.run(summary="out of memory", completionTime="2026-01-01T00:00:00Z")
    with pytest.raises(Unavailable, match="out of memory"):
        wait_for_verdict(world.cluster, KEY, 10, world.said.append, lambda: None)


def test_a_profile_that_is_not_there_is_told_at_once(world: World) -> None:
    world.deployment("False", "ProfileNotFound", "There is no ClusterOptimizationProfile balanced")
    with pytest.raises(Unavailable, match=telling("ProfileNotFound ClusterOptimizationProfile balanced")):
        wait_for_verdict(world.cluster, KEY, 10, world.said.append, lambda: None)


def test_where_nothing_happens_the_time_is_up(world: World) -> None:
    world.deployment("Unknown", "Optimizing", "it is being created")
    with pytest.raises(Unavailable, match=telling("0 s it is being created")):
        wait_for_verdict(world.cluster, KEY, 0.0, world.said.append, lambda: None)


def test_the_optimized_revision_serves_once_no_candidate_is_left(world: World) -> None:
    world.deployment("True", "Optimized", candidateRevision="v1b", activeRevision="v1a")
    settle = lambda _: world.deployment("True", "Optimized", activeRevision="v1b")  # noqa: E731  # the step that it waits for
    ready = wait_until_optimized(world.cluster, KEY, 10, settle, lambda: None)
    assert ready.status.active_revision == "v1b"


def test_a_refused_artifact_ends_the_waiting(world: World) -> None:
    world.deployment("False", "ArtifactRefused", "the signature does not fit")
    with pytest.raises(Unavailable, match="the signature does not fit"):
        wait_until_optimized(world.cluster, KEY, 10, world.said.append, lambda: None)
