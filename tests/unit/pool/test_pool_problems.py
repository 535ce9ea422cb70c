"""What a deployment does while its pool is suspended, starting, or known to run nothing."""

from __future__ import annotations

import pytest
from tests.telling import Telling
from tests.unit.deployment.world import NEW, NOW, World, deployment, gateway

from penstock.api.conditions import DeploymentCondition, Reason
from penstock.api.meta import ConditionStatus
from penstock.api.v1alpha1 import InferenceDeploymentStatus
from penstock.api.verdicts import timestamp
from penstock_operator.deployment.observed import PoolProblem
from penstock_operator.deployment.plan import Plan, plan

SUSPENDED = PoolProblem(Reason.SUSPENDED, "The pool is suspended.", empty=True)
STARTING = PoolProblem(Reason.STARTING_POOL, "The head is starting.")
UNREACHABLE = PoolProblem(Reason.POOL_UNREACHABLE, "It does not answer.")
SERVED = deployment(status=InferenceDeploymentStatus(active_revision=NEW))


def said(made: Plan, kind: DeploymentCondition) -> tuple[ConditionStatus, str]:
    assert made.status is not None
    found = next(each for each in made.status.conditions if each.type == kind)
    return found.status, found.reason


def test_while_the_pool_is_suspended_requests_are_told_so_at_once() -> None:
    made = plan(World(SERVED, gateways=(gateway({NEW: 100}),), problem=SUSPENDED).observed(), NOW)
    assert made.route is not None
    assert made.route.unavailable == Telling(Reason.SUSPENDED, SUSPENDED.message)
    assert not made.route.revisions
    for kind in (DeploymentCondition.POOL_READY, DeploymentCondition.SERVING, DeploymentCondition.READY):
        assert said(made, kind) == (ConditionStatus.FALSE, Reason.SUSPENDED)


@pytest.mark.parametrize("problem", [STARTING, UNREACHABLE], ids=["starting", "unreachable"])
def test_while_the_pool_may_come_back_requests_wait(problem: PoolProblem) -> None:
    made = plan(World(SERVED, gateways=(gateway({NEW: 100}, {NEW: 1}),), problem=problem).observed(), NOW)
    assert made.route is None, "what is declared stays"
    assert said(made, DeploymentCondition.SERVING)[0] is ConditionStatus.TRUE


LEAVING = [
    ("of a pool that runs nothing", SUSPENDED, True),
    ("of a pool that is gone", PoolProblem(Reason.POOL_NOT_FOUND, "none", exists=False), True),
    ("of a pool that may still run it", UNREACHABLE, False),
]


@pytest.mark.parametrize(("problem", "release"), [row[1:] for row in LEAVING], ids=[row[0] for row in LEAVING])
def test_a_deletion_waits_only_where_there_may_be_something_to_take_down(
    problem: PoolProblem, *, release: bool
) -> None:
    made = plan(World(deployment(deleted_at=timestamp(NOW - 1)), problem=problem).observed(), NOW)
    assert made.release is release
    assert made.delete_route
