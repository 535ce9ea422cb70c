"""What deployments take of a quota, which of them wait, and what becomes of what runs."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from tests.telling import Telling, assert_tells
from tests.unit.deployment.world import NEW, NOW, OLD, OLD_MODEL, World, deployment, gateway, serve_app

from penstock.api.conditions import DeploymentCondition, QuotaCondition, Reason
from penstock.api.meta import ConditionStatus
from penstock.api.quota import TenantQuota
from penstock.api.v1alpha1 import InferenceDeployment
from penstock_operator.deployment.observed import ApplicationState, ObservedApplication
from penstock_operator.deployment.plan import Plan, plan
from penstock_operator.quota.plan import Excess, QuotaUsage, excess, quota_status, usage

GI = 2**30


def of(
    name: str,
    replicas: int = 1,
    *,
    created: str = "2026-01-01T00:00:00Z",
    count: str | None = None,
    memory: str | None = "1Gi",
) -> InferenceDeployment:
    accelerator = {"type": "nvidia-l4", "count": count} if count else None
    return InferenceDeployment.model_validate(
        {
            "metadata": {"name": name, "namespace": "vision", "uid": name, "creationTimestamp": created},
            "spec": {
                "model": {"storageUri": "file:///models/digits/1", "modelFormat": "onnx"},
                "resources": {"memory": memory, "accelerator": accelerator},
                "scaling": {"maxReplicas": max(1, replicas)} if replicas else {"replicas": 0},
            },
        }
    )  # fmt: skip


def quota(**hard: Any) -> TenantQuota:
    return TenantQuota.model_validate(
        {"metadata": {"name": "team", "namespace": "vision", "generation": 2}, "spec": {"hard": hard}}
    )


@pytest.mark.parametrize(
    ("deployment_", "expected"),
    [
        pytest.param(
            of("a", 3), QuotaUsage(1, 3, Decimal(0), Decimal(3 * GI)), id="counts at the most replicas it may have"
        ),
        pytest.param(
            of("a", 0), QuotaUsage(1, 0, Decimal(0), Decimal(0)), id="scaled to none it counts as a deployment"
        ),
        pytest.param(
            of("a", 3, count="0.5"), QuotaUsage(1, 3, Decimal("1.5"), Decimal(3 * GI)), id="shares are added up"
        ),
        pytest.param(of("a", 2, memory=None), QuotaUsage(1, 2, Decimal(0), Decimal(0)), id="no memory reserves none"),
    ],
)
def test_a_deployment_takes(deployment_: InferenceDeployment, expected: QuotaUsage) -> None:
    assert usage(deployment_) == expected


OLDER, YOUNGER = "2026-01-01T00:00:00Z", "2026-01-01T00:00:09Z"


@pytest.mark.parametrize(
    ("mine", "others", "hard", "room", "facts"),
    [
        pytest.param(of("b", 2), [of("a", 2)], {"replicas": 4}, None, None, id="what just fits is let in"),
        pytest.param(of("b", 3), [of("a", 2)], {"replicas": 4}, 2, "4 replicas 2 3",
                     id="what does not fit waits, with room for some"),
        pytest.param(of("a", 4), [of("b", 2)], {"replicas": 4}, None, None, id="by name where both came in one second"),
        pytest.param(of("a", 4, created=YOUNGER), [of("b", 2, created=OLDER)], {"replicas": 4}, 2, "4 replicas 2",
                     id="the older comes first"),
        pytest.param(of("c", 1), [of("a", 2), of("b", 9)], {"replicas": 4}, 0, "4 replicas 11 1",
                     id="one that waits keeps those after it waiting, as at apply"),
        pytest.param(of("b", 0), [of("a", 9)], {"replicas": 4}, None, None, id="scaling to none is always let in"),
        pytest.param(of("b", 1), [of("a", 1)], {"deployments": 1}, 0, "1 deployments", id="the number of deployments"),
        pytest.param(of("b", 1, count="0.5"), [of("a", 1, count="0.5")], {"accelerators": 1}, None, None,
                     id="two halves are one accelerator"),
        pytest.param(of("b", 2, count="0.5"), [of("a", 1, count="0.5")], {"accelerators": 1}, 1,
                     "1 accelerators 0.5", id="three halves are more than one"),
        pytest.param(of("b", 3, memory="2Gi"), [of("a", 1)], {"memory": "6Gi"}, 2, "6Gi memory 1Gi",
                     id="memory is counted over all replicas"),
        pytest.param(of("b", 1, memory=None), [], {"memory": "6Gi"}, 0, "memory spec.resources.memory",
                     id="where memory is bounded it must be given"),
        pytest.param(of("b", 3), [of("a", 3)], {"replicas": 4, "memory": "5Gi"}, 1, "4 replicas 5Gi memory", id="every bound is told"),
        pytest.param(of("b", 3), [of("a", 9)], {}, None, None, id="what is not bounded is not counted"),
    ],
)  # fmt: skip
def test_a_quota_leaves_room(
    mine: InferenceDeployment,
    others: list[InferenceDeployment],
    hard: dict[str, Any],
    room: int | None,
    facts: str | None,
) -> None:
    found = excess(mine, [mine, *others], [quota(**hard)])
    assert (found and found.replicas) == room
    assert (found and found.message) == (None if facts is None else Telling(facts))


def test_every_quota_of_a_namespace_holds() -> None:
    found = excess(of("a", 4), [], [quota(replicas=9), quota(replicas=3), quota(replicas=2)])
    assert found is not None
    assert found.replicas == 2


def test_the_status_says_what_is_taken_and_who_waits() -> None:
    status = quota_status(quota(replicas=4), [of("a", 3, count="0.5"), of("b", 2), of("c", 1)], NOW)
    assert status.used.model_dump() == {"deployments": 3, "replicas": 6, "accelerators": 2, "memory": "6Gi"}
    assert status.accelerator_shares == "1.5"
    exceeded = next(each for each in status.conditions if each.type == QuotaCondition.EXCEEDED)
    assert (exceeded.status, exceeded.reason) == (ConditionStatus.TRUE, Reason.QUOTA_EXCEEDED)
    assert_tells(exceeded.message, "b c")


def test_an_empty_namespace_takes_nothing() -> None:
    status = quota_status(quota(replicas=4), [], NOW)
    assert status.used.model_dump() == {"deployments": 0, "replicas": 0, "accelerators": 0, "memory": "0"}
    assert status.accelerator_shares == "0"
    assert [each.reason for each in status.conditions] == [Reason.READY, Reason.WITHIN_QUOTA]


def beyond(world: World, room: int = 0) -> Plan:
    return plan(replace(world.observed(), quota=Excess("The TenantQuota team allows 4 replicas.", room)), NOW)


def reasons(made: Plan) -> dict[str, tuple[str, str]]:
    assert made.status is not None
    return {each.type: (each.status, each.reason) for each in made.status.conditions}


def bounds(made: Plan) -> list[tuple[int, int]]:
    scaling = [each["deployments"][0]["autoscaling_config"] for each in made.applications or ()]
    return [(each["min_replicas"], each["max_replicas"]) for each in scaling]


def test_a_new_deployment_beyond_the_quota_starts_nothing_and_says_so() -> None:
    made = beyond(World(deployment()))
    assert made.applications == ()
    assert made.route is not None
    assert (made.route.revisions, made.route.unavailable) == (
        {},
        "QuotaExceeded: The TenantQuota team allows 4 replicas.",
    )
    found = reasons(made)
    for condition in (DeploymentCondition.READY, DeploymentCondition.SERVING, DeploymentCondition.PROGRESSING):
        assert found[condition] == ("False", "QuotaExceeded")
    assert found[DeploymentCondition.POOL_READY] == ("True", "PoolAvailable")


@pytest.mark.parametrize(
    ("app", "room", "expected"),
    [
        pytest.param({"running": 2, "wanted": 2}, 0, (1, 2), id="it keeps the replicas that it has"),
        pytest.param({"running": 2, "wanted": 2}, 3, (1, 3), id="it may have as many as there is room for"),
        pytest.param({"running": 0, "wanted": 1, "state": ApplicationState.UNHEALTHY}, 0, (1, 1), id="a lost replica is replaced"),
    ],
)  # fmt: skip
def test_what_runs_goes_on_and_grows_no_more(app: dict[str, Any], room: int, expected: tuple[int, int]) -> None:
    grown = deployment(scaling={"maxReplicas": 8})
    world = World(grown, (serve_app(grown, **app),), (gateway({NEW: 100}, {NEW: 1}),))
    made = beyond(world, room)
    assert bounds(made) == [expected]
    assert made.route is not None
    assert made.route.revisions == {NEW: 100}
    assert reasons(made)[DeploymentCondition.SERVING] == ("True", "ReplicasReady")
    assert reasons(made)[DeploymentCondition.PROGRESSING] == ("False", "QuotaExceeded")


def test_a_new_revision_beyond_the_quota_is_not_started_beside_the_old() -> None:
    before: ObservedApplication = serve_app(deployment(OLD_MODEL))
    made = beyond(World(deployment(), (before,), (gateway({OLD: 100}, {OLD: 1}),)))
    assert [each["name"] for each in made.applications or ()] == [before.name]
    assert made.route is not None
    assert made.route.revisions == {OLD: 100}


def test_what_was_at_zero_replicas_is_not_woken_beyond_the_quota() -> None:
    idle = deployment(scaling={"minReplicas": 0})
    made = beyond(World(idle, (serve_app(idle, running=0, wanted=0),), (gateway({NEW: 100}),)))
    assert made.applications == ()
    assert made.route is not None
    assert made.route.unavailable is not None
