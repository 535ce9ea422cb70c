"""The trace of a start."""

from __future__ import annotations

import pytest

from penstock.api.meta import Condition, ConditionStatus, ObjectMeta
from penstock.api.optimization import OptimizationRun
from penstock.api.v1alpha1 import InferenceDeployment, InferenceDeploymentStatus, ProfileReference
from penstock.serving.arguments import Attempt, BuildArguments, Owner, ReplicaArguments
from penstock.serving.manifest import ModelFormat
from penstock.telemetry.spans import SpanRecord
from penstock.telemetry.startup import Phase, operator_spans, replica_start, start_context

SECOND = 1_000_000_000
APPLIED = 1_790_000_000
AT = "2026-09-21T14:13:20Z"
"""`APPLIED`, as Kubernetes writes it."""
DIGEST = f"sha256:{'0' * 64}"


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


def served(attempted: int, uri: str = "file:///m") -> BuildArguments:
    """What a revision was declared with, so many seconds after the apply."""
    return BuildArguments(
        owner=Owner(namespace="default", name="digits", uid="u"),
        attempt=Attempt(attempted_at=APPLIED + attempted),
        replica=ReplicaArguments(version="1", revision="v1a", storage_uri=uri, model_format=ModelFormat.ONNX),
    )


def run(ended: int, **status: object) -> OptimizationRun:
    return OptimizationRun.model_validate(
        {
            "metadata": {"name": "digits-1", "creationTimestamp": at(1)},
            "spec": {
                "model": {"storageUri": "file:///m", "modelFormat": "onnx"},
                "profileRef": {"kind": "ClusterOptimizationProfile", "name": "balanced"},
            },
            "status": status | {"conditions": [each.model_dump(mode="json") for each in conditions(Complete=ended)]},
        }
    )


ARTIFACT = {"artifact": {"storageUri": "s3://models/made", "digest": DIGEST, "modelFormat": "onnx"}}


def seconds(spans: tuple[SpanRecord, ...]) -> dict[str, tuple[float, float]]:
    return {each.name: (each.start_ns / SECOND - APPLIED, each.end_ns / SECOND - APPLIED) for each in spans}


def test_operator_and_replica_add_to_one_trace_without_being_told() -> None:
    declared = served(3)
    (root, *_) = operator_spans(deployment(), ready(Ready=9), declared)
    place = replica_start("u", "v1a", declared.attempt, (APPLIED + 5) * SECOND, "r1")
    spans = place.spans([Phase("pull", (APPLIED + 5) * SECOND, (APPLIED + 6) * SECOND)])
    assert {each.context.trace_id for each in spans} == {root.context.trace_id}
    assert {each.parent for each in spans} == {root.context}
    assert seconds(spans) == {"schedule": (3, 5), "pull": (5, 6)}


@pytest.mark.parametrize(
    ("status", "declared", "runs", "expected"),
    [
        pytest.param(
            ready(Ready=9),
            served(1),
            [],
            {"start": (0, 9), "validate": (0, 1), "resolve": (1, 1)},
            id="a pool that was there takes no time",
        ),
        pytest.param(
            ready(Ready=9),
            served(0),
            [],
            {"start": (0, 9), "validate": (0, 0), "resolve": (0, 0)},
            id="what took less than a second is told all the same",
        ),
        pytest.param(
            ready(Ready=9),
            served(-1),
            [],
            {"start": (0, 9), "validate": (0, 0), "resolve": (0, 0)},
            id="a clock that is behind the API server's gives no time before the apply",
        ),
        pytest.param(
            ready(Ready=30, PoolReady=20),
            served(21),
            [],
            {"start": (0, 30), "pool": (0, 20), "validate": (20, 21), "resolve": (21, 21)},
            id="a pool that had to be made is the time until it was ready",
        ),
        pytest.param(
            ready(Ready=30),
            served(12),
            [run(11)],
            {"start": (0, 30), "validate": (0, 12), "resolve": (12, 12), "optimize": (1, 11)},
            id="a search that ended before the start did is part of it",
        ),
        pytest.param(
            ready(Ready=5),
            served(1),
            [run(11)],
            {"start": (0, 5), "validate": (0, 1), "resolve": (1, 1)},
            id="a search that ended later is not",
        ),
        pytest.param(
            ready(Ready=30),
            served(12, "s3://models/made"),
            [run(11, **ARTIFACT)],
            {"start": (0, 30), "validate": (0, 1), "resolve": (1, 12), "optimize": (1, 11)},
            id="a model that a search had to make first was resolved once that was over",
        ),
        pytest.param(
            ready(Ready=30, PoolReady=8),
            served(12, "s3://models/made"),
            [run(11, **ARTIFACT)],
            {"start": (0, 30), "pool": (0, 8), "validate": (8, 8), "resolve": (8, 12), "optimize": (1, 11)},
            id="a search that began while the pool was made",
        ),
    ],
)
def test_the_operators_phases(
    status: InferenceDeploymentStatus,
    declared: BuildArguments,
    runs: list[OptimizationRun],
    expected: dict[str, object],
) -> None:
    assert seconds(operator_spans(deployment(), status, declared, runs)) == expected


@pytest.mark.parametrize(
    ("profile", "status", "declared", "expected"),
    [
        pytest.param(None, {}, served(1), {"penstock.model.format": "onnx"}, id="its own, of which no digest is known"),
        pytest.param(
            None,
            {"digest": DIGEST},
            served(1),
            {"penstock.model.format": "onnx", "penstock.model.digest": DIGEST},
            id="its own, as replicas loaded it",
        ),
        pytest.param(
            "balanced",
            {},
            served(1),
            {"penstock.model.format": "onnx", "penstock.profile": "ClusterOptimizationProfile/balanced"},
            id="its own, while a profile is named",
        ),
        pytest.param(
            "balanced",
            {},
            served(1, "s3://models/made"),
            {
                "penstock.model.format": "onnx",
                "penstock.profile": "ClusterOptimizationProfile/balanced",
                "penstock.optimization.run": "digits-1",
            },
            id="what a search made of it",
        ),
    ],
)
def test_what_the_model_became(
    profile: str | None, status: dict[str, str], declared: BuildArguments, expected: dict[str, str]
) -> None:
    before = deployment()
    if profile is not None:
        reference = ProfileReference(name=profile)
        before = before.model_copy(
            update={"spec": before.spec.model_copy(update={"optimization_profile_ref": reference})}
        )
    now = ready(Ready=9).model_copy(update=status)
    spans = {each.name: each for each in operator_spans(before, now, declared, [run(11, **ARTIFACT)])}
    assert spans["resolve"].attributes == expected
    assert spans["validate"].attributes == {}


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
    assert bool(operator_spans(before, status, served(0))) is told


def test_a_later_revision_starts_when_it_was_declared() -> None:
    before = deployment(2, active_revision="v1a", conditions=conditions(Ready=9))
    spans = operator_spans(before, ready("v1b", Ready=30), served(25))
    assert seconds(spans) == {"start": (25, 30), "resolve": (25, 25)}


def waiting(since: int) -> tuple[Condition, ...]:
    return (Condition(type="Ready", status=ConditionStatus.FALSE, reason="R", last_transition_time=at(since)),)


def test_a_first_revision_starts_with_the_apply_though_the_number_of_replicas_made_a_generation() -> None:
    before = deployment(2, active_revision="v1a", conditions=waiting(3))
    assert seconds(operator_spans(before, ready(Ready=9), served(3)))["start"] == (0, 9)


def test_a_revision_that_was_lost_and_comes_back_does_not_start_with_the_apply() -> None:
    before = deployment(2, active_revision="v1a", conditions=waiting(20))
    assert seconds(operator_spans(before, ready(Ready=30), served(3)))["start"] == (3, 30)


def test_a_replica_that_starts_long_after_has_a_trace_of_its_own_with_a_link() -> None:
    began = (APPLIED + 4000) * SECOND
    place = replica_start("u", "v1a", Attempt(attempted_at=APPLIED), began, "r2")
    whole, pull = place.spans([Phase("pull", began, began + SECOND)])
    start = start_context("u", "v1a", 0)
    assert (whole.name, whole.links, whole.parent) == ("replica-start", (start,), None)
    assert whole.context.trace_id != start.trace_id
    assert pull.parent == whole.context


def test_what_is_told_twice_has_the_same_ids() -> None:
    first, second = (operator_spans(deployment(), ready(Ready=9), served(1)) for _ in range(2))
    assert first == second
    assert len({each.context.span_id for each in first}) == len(first)
