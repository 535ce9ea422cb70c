"""The condition that says whether requests are joined: what the active replicas tell."""

from __future__ import annotations

import pytest
from tests.telling import Telling
from tests.unit.deployment.world import NEW, NOW, World, deployment, gateway, serve_app

from penstock.api.conditions import DeploymentCondition, Reason
from penstock.api.meta import Condition, ConditionStatus
from penstock.api.v1alpha1 import InferenceDeploymentStatus
from penstock.routing.leases import RequestsJoined
from penstock_operator.deployment.plan import plan

KIND = DeploymentCondition.REQUESTS_JOINED
BEFORE = Condition(
    type=KIND, status=ConditionStatus.TRUE, reason=Reason.BATCH_PROVED, message="as before", last_transition_time="",
    observed_generation=3,
)  # fmt: skip
KNOWN = InferenceDeploymentStatus(active_revision=NEW, conditions=(BEFORE,))
CASES: dict[str, tuple[RequestsJoined | None, InferenceDeploymentStatus | None, tuple[str, str, str | Telling] | None]] = {
    "proved": (
        RequestsJoined(joined=True, reason="x[0] → y[0]"), None, ("True", "BatchProved", Telling("x[0] → y[0]")),
    ),
    "not proved": (
        RequestsJoined(joined=False, reason="rows differ"), None, ("False", "BatchNotProved", Telling("rows differ")),
    ),
    "replicas of a former release tell nothing": (None, None, None),
    "none told now, one did before": (None, KNOWN, ("True", "BatchProved", "as before")),
}  # fmt: skip


@pytest.mark.parametrize(("told", "before", "expected"), CASES.values(), ids=CASES)
def test_a_deployment_says_whether_its_requests_are_joined(
    told: RequestsJoined | None,
    before: InferenceDeploymentStatus | None,
    expected: tuple[str, str, str | Telling] | None,
) -> None:
    of = deployment(status=before)
    world = World(of, (serve_app(of),), (gateway({NEW: 100}, {NEW: 1}, joining=told),))
    conditions = {each.type: each for each in plan(world.observed(), NOW).status.conditions}
    found = conditions.get(KIND)
    assert (None if found is None else (found.status, found.reason, found.message)) == expected
    assert conditions["Ready"].status is ConditionStatus.TRUE, "it has no say in Ready"
