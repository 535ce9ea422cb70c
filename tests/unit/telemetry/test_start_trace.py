"""The trace of a start."""

from __future__ import annotations

import pytest

from penstock.api.meta import Condition, ConditionStatus, ObjectMeta
from penstock.api.optimization import OptimizationRun
from penstock.api.v1alpha1 import InferenceDeployment, InferenceDeploymentStatus
from penstock.planning.arguments import Attempt
from penstock.telemetry.spans import SpanRecord
from penstock.telemetry.startup import Phase, operator_spans, replica_start, start_context

SECOND = 1_000_000_000
APPLIED = 1_790_000_000
AT = "2026-09-21T14:13:20Z"
"""`APPLIED`, as Kubernetes writes it."""


def at(seconds: int) -> str:
    return f"2026-09-21T14:13:{20 + seconds:02}Z"


def conditions(**since: int) -> tuple[Condition, ...]:
    return tuple(
        Condition(type=kind, status=ConditionStatus.TRUE, reason="R", last_transition_time=at(seconds))
        for kind, seconds in since.items()
    )


def deployment(generation: int = 1, **status: object) -> InferenceDeployment:
    return InferenceDeployment.model_validate(
        {
            "metadata": ObjectMeta(name="digits", uid="u", generation=generation, creation_timestamp=AT),
            "spec": {"model": {"storageUri": "file:///m", "modelFormat": "onnx"}},
            "status": status,
        }
    )


def ready(revision: str = "v1a", **since: int) -> InferenceDeploymentStatus:
    return InferenceDeploymentStatus(active_revision=revision, conditions=conditions(**since))


def run(ended: int) -> OptimizationRun:
    return OptimizationRun.model_validate(
        {
            "metadata": {"name": "digits-1", "creationTimestamp": at(1)},
            "spec": {
                "model": {"storageUri": "file:///m", "modelFormat": "onnx"},
                "profileRef": {"kind": "ClusterOptimizationProfile", "name": "balanced"},
            },
            "status": {"conditions": [each.model_dump(mode="json") for each in conditions(Complete=ended)]},
        }
    )


def seconds(spans: tuple[SpanRecord, ...]) -> dict[str, tuple[float, float]]:
    return {each.name: (each.start_ns / SECOND - APPLIED, each.end_ns / SECOND - APPLIED) for each in spans}


def test_operator_and_replica_add_to_one_trace_without_being_told() -> None:
    attempt = Attempt(number=0, attempted_at=APPLIED + 3)
    (root, *_) = operator_spans(deployment(), ready(Ready=9), attempt)
    place = replica_start("u", "v1a", attempt, (APPLIED + 5) * SECOND, "r1")
    spans = place.spans([Phase("pull", (APPLIED + 5) * SECOND, (APPLIED + 6) * SECOND)])
    assert {each.context.trace_id for each in spans} == {root.context.trace_id}
    assert {each.parent for each in spans} == {root.context}
    assert seconds(spans) == {"schedule": (3, 5), "pull": (5, 6)}


@pytest.mark.parametrize(
    ("status", "attempted", "runs", "expected"),
    [
        pytest.param(
            ready(Ready=9), 1, [], {"start": (0, 9), "validate": (0, 1)}, id="a pool that was there takes no time"
        ),
        pytest.param(
            ready(Ready=30, PoolReady=20),
            21,
            [],
            {"start": (0, 30), "pool": (0, 20), "validate": (20, 21)},
            id="a pool that had to be made is the time until it was ready",
        ),
        pytest.param(
            ready(Ready=30),
            12,
            [run(11)],
            {"start": (0, 30), "validate": (0, 12), "optimize": (1, 11)},
            id="a search that ended before the start did is part of it",
        ),
        pytest.param(
            ready(Ready=5),
            1,
            [run(11)],
            {"start": (0, 5), "validate": (0, 1)},
            id="a search that ended later is not",
        ),
    ],
)
def test_the_operators_phases(
    status: InferenceDeploymentStatus, attempted: int, runs: list[OptimizationRun], expected: dict[str, object]
) -> None:
    spans = operator_spans(deployment(), status, Attempt(attempted_at=APPLIED + attempted), runs)
    assert seconds(spans) == expected


@pytest.mark.parametrize(
    ("before", "status", "told"),
    [
        pytest.param(deployment(), ready(), False, id="nothing is told while it is not ready"),
        pytest.param(deployment(), ready(Ready=9), True, id="a first readiness is told"),
        pytest.param(
            deployment(active_revision="v1a", conditions=conditions(Ready=9)),
            ready(Ready=9),
            False,
            id="a readiness that was there before is not told again",
        ),
        pytest.param(
            deployment(2, active_revision="v1a", conditions=conditions(Ready=9)),
            ready("v1b", Ready=9),
            True,
            id="another revision's is",
        ),
    ],
)
def test_a_start_is_told_once(before: InferenceDeployment, status: InferenceDeploymentStatus, told: bool) -> None:  # noqa: FBT001  # a row of a table
    assert bool(operator_spans(before, status, Attempt(attempted_at=APPLIED))) is told


def test_a_later_revision_starts_when_it_was_declared() -> None:
    before = deployment(2, active_revision="v1a", conditions=conditions(Ready=9))
    (root,) = operator_spans(before, ready("v1b", Ready=30), Attempt(attempted_at=APPLIED + 25))
    assert seconds((root,)) == {"start": (25, 30)}


def test_a_replica_that_starts_long_after_has_a_trace_of_its_own_with_a_link() -> None:
    began = (APPLIED + 4000) * SECOND
    place = replica_start("u", "v1a", Attempt(attempted_at=APPLIED), began, "r2")
    whole, pull = place.spans([Phase("pull", began, began + SECOND)])
    start = start_context("u", "v1a", 0)
    assert (whole.name, whole.links, whole.parent) == ("replica-start", (start,), None)
    assert whole.context.trace_id != start.trace_id
    assert pull.parent == whole.context


def test_what_is_told_twice_has_the_same_ids() -> None:
    first, second = (operator_spans(deployment(), ready(Ready=9), Attempt(attempted_at=APPLIED + 1)) for _ in range(2))
    assert first == second
    assert len({each.context.span_id for each in first}) == len(first)
