"""What requests get while a deployment's pool cannot be used."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.deployment.world import NOW, deployment, gateway

from penstock.api.access import APIKey, Authentication
from penstock.api.conditions import Reason
from penstock.routing.leases import Route
from penstock_operator.deployment.observed import Observed, ObservedGateway, PoolProblem
from penstock_operator.deployment.plan import plan

STARTING = PoolProblem(Reason.STARTING_POOL, "the head starts")
UNSCHEDULABLE = PoolProblem(Reason.UNSCHEDULABLE, "no node has 64 cpu")
SUSPENDED = PoolProblem(Reason.SUSPENDED, "set spec.suspend to false")
UNREACHABLE = PoolProblem(Reason.POOL_UNREACHABLE, "no answer")

NOTHING = gateway(None)
SERVING = gateway({"r1": 100}, {"r1": 1})


def closed(why: str) -> ObservedGateway:
    """A gateway that was told why there is nothing."""
    found = gateway({})
    assert found.route is not None
    assert found.route.declared is not None
    declared = found.route.declared.model_copy(update={"unavailable": why})
    return replace(found, route=found.route.model_copy(update={"declared": declared}))


def route(problem: PoolProblem, *gateways: ObservedGateway, keys: tuple[APIKey, ...] = ()) -> Route | None:
    required = Authentication.REQUIRED
    return plan(Observed(deployment(), problem, gateways, keys=keys, default_authentication=required), NOW).route


@pytest.mark.parametrize(
    ("problem", "seen"),
    [
        pytest.param(STARTING, NOTHING, id="the pool starts with its first deployment"),
        pytest.param(STARTING, closed("Suspended: x"), id="a suspended pool is resumed"),
        pytest.param(STARTING, closed("Unschedulable: x"), id="a pool found its nodes"),
    ],
)
def test_requests_wait_while(problem: PoolProblem, seen: ObservedGateway) -> None:
    found = route(problem, seen)
    assert found is not None
    assert (found.unavailable, found.revisions) == (None, {})
    assert found.max_held_requests > 0


@pytest.mark.parametrize(
    ("problem", "seen"),
    [
        pytest.param(UNSCHEDULABLE, NOTHING, id="its pool has no node"),
        pytest.param(UNSCHEDULABLE, gateway({}), id="they waited for a pool that then found no node"),
        pytest.param(UNREACHABLE, NOTHING, id="its pool does not answer, and nothing ever served"),
        pytest.param(SUSPENDED, SERVING, id="its pool is suspended"),
    ],
)
def test_requests_are_told_at_once_that(problem: PoolProblem, seen: ObservedGateway) -> None:
    found = route(problem, seen)
    assert found is not None
    assert found.unavailable == f"{problem.reason}: {problem.message}"


@pytest.mark.parametrize("problem", [STARTING, UNREACHABLE, UNSCHEDULABLE], ids=lambda each: str(each.reason))
def test_what_serves_goes_on_while_its_pool_is(problem: PoolProblem) -> None:
    found = route(problem, SERVING, NOTHING)
    assert found is not None, "a gateway that knows nothing yet is told what the others know"
    assert (found.unavailable, found.revisions) == (None, {"r1": 100})


def test_a_namespaces_keys_open_a_model_before_its_pool_is_there() -> None:
    key = APIKey.model_validate({"metadata": {"name": "caller", "namespace": "vision"}, "spec": {"sha256": "a" * 64}})
    found = route(STARTING, NOTHING, keys=(key,))
    assert found is not None
    assert found.access is not None
    assert (found.access.required, found.access.shared) == (True, True)
