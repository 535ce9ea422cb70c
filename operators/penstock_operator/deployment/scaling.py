"""Why there should be as many replicas as there should: asked of the policy itself, and kept as a history of changes.

Serve does not tell what its policy said, so the policy is asked again with what the gateways' leases report. A change is what
differs from the last one in the status: a restarted operator goes on where it was. What changed several times between two
looks is one change.
"""

from __future__ import annotations

from typing import Final

from penstock.api.meta import AUTO
from penstock.api.v1alpha1 import InferenceDeployment, ScalingBound, ScalingChange
from penstock.api.verdicts import timestamp
from penstock.routing.leases import ReplicaStats
from penstock.scaling.policy import Decision, Demand, ScalingLimits, ScalingRule, ScalingState, decide
from penstock.scaling.schedule import floor_at
from penstock_operator.deployment import defaults as automatic
from penstock_operator.deployment.application import replica_bounds
from penstock_operator.deployment.number import NumberOwner, given_number, owner_of
from penstock_operator.deployment.observed import Observed, ObservedApplication, ObservedGateway, Pool
from penstock_operator.deployment.unschedulable import UNSCHEDULABLE_AFTER_SECONDS, groups_that_fit
from penstock_operator.pool.refusals import is_of_quota

KEPT: Final = 20
"""Changes in a status at most."""
_REASON_LENGTH: Final = 512
_BY_OTHERS: Final = (
    "as spec.replicas was set by scaling from outside; Penstock scales by load again once that is taken out"
)


def explain_given(deployment: InferenceDeployment) -> tuple[ScalingRule, str] | None:
    """Why there is one number only, without it; None where load decides."""
    if owner_of(deployment) is NumberOwner.OTHERS:
        return ScalingRule.OUTSIDE, _BY_OTHERS
    low, high = replica_bounds(deployment)
    return (ScalingRule.FIXED, "fixed by the spec") if given_number(deployment) is not None or low == high else None


def explain(observed: Observed, active: str, app: ObservedApplication) -> str:
    """Why so many are wanted, in a sentence that begins with the number.

    Where Serve wants another number than the policy would from here (a window holds it, or reports differ by a second),
    that number leads and the demand follows.
    """
    demand = _demand(observed, active)
    if demand is None:
        return f"{app.wanted}: decided by the policy in Serve"
    decision = _ask(observed.deployment, demand, app.wanted)
    if decision.replicas >= app.wanted:
        return decision.reason
    window = f"{observed.deployment.spec.scaling.stabilization_window_seconds} s"
    return (
        f"{app.wanted}: {decision.cause}; {decision.replicas} once that has held for {window} and it is no dearer to start "
        "the others anew than to keep them"
    )


def follow_history(
    observed: Observed, active: str | None, app: ObservedApplication | None, now: float
) -> tuple[ScalingChange, ...]:
    """The history with what is seen now: longer by one where another number is wanted than the last change made.

    Args:
        observed: what is there; its status has the history so far.
        active: the revision that gets the requests.
        app: its application; None: it is not known, and nothing is added.
        now: epoch seconds.
    """
    before = observed.deployment.status.scaling_history
    if active is None or app is None:
        return before
    last = before[-1].to_replicas if before else 0
    if app.wanted != last:
        return (*before, _change(observed, active, app, last, now))[-KEPT:]
    if not before or (bound := _find_bound(observed, active, app, now)) is None:
        return before
    if before[-1].bound_by not in {None, ScalingBound.NODES} or bound is before[-1].bound_by:
        return before
    return (*before[:-1], before[-1].model_copy(update={"bound_by": bound}))


def _find_bound(observed: Observed, active: str, app: ObservedApplication, now: float) -> ScalingBound | None:
    """What keeps a number that is not new from being another, or its replicas from running."""
    waits = app.waiting_since is not None and now - app.waiting_since > UNSCHEDULABLE_AFTER_SECONDS
    if waits and app.running < app.wanted:
        return ScalingBound.QUOTA if _are_pods_refused(observed) else ScalingBound.NODES
    return ScalingBound.QUOTA if _wants_beyond_quota(observed, active, app.wanted) else None


def _are_pods_refused(observed: Observed) -> bool:
    """Whether a `ResourceQuota` refuses pods of workers that could hold a replica."""
    pool = observed.pool
    if not isinstance(pool, Pool):
        return False
    fitting = {each.name for each in groups_that_fit(observed.deployment.spec.resources, pool.groups)}
    return any(is_of_quota(each.message) for each in pool.workers if each.name in fitting)


def _wants_beyond_quota(observed: Observed, active: str, wanted: int) -> bool:
    """Whether load asks for more replicas than there are wanted, and the namespace's `TenantQuota` lets no more start."""
    if observed.quota is None or explain_given(observed.deployment) is not None:
        return False
    demand = _demand(observed, active)
    return demand is not None and _ask(observed.deployment, demand, wanted).replicas > wanted


def _change(observed: Observed, active: str, app: ObservedApplication, last: int, now: float) -> ScalingChange:
    demand = _demand(observed, active)
    said = ScalingChange(
        time=timestamp(now),
        from_replicas=last,
        to_replicas=app.wanted,
        rule=ScalingRule.REST,
        reason="nothing is reported yet",
    )
    if (given := explain_given(observed.deployment)) is not None:
        return said.model_copy(update={"rule": given[0], "reason": given[1]})
    if demand is None:
        return said
    # From where it was: what the policy was asked when it changed the number.
    decision = _ask(observed.deployment, demand, last)
    low, high = replica_bounds(observed.deployment)
    bound = (
        ScalingBound.MAXIMUM
        if app.wanted == high and decision.unbounded > high
        else ScalingBound.MINIMUM
        if app.wanted == low and decision.unbounded < low
        else None
    )
    at_least = bound is ScalingBound.MINIMUM or (decision.rule is ScalingRule.REST and app.wanted == low)
    if at_least and _is_scheduled(observed.deployment, now):
        bound = ScalingBound.SCHEDULE
    if observed.quota is not None and decision.replicas > app.wanted:
        bound = ScalingBound.QUOTA
    told = {
        "rule": decision.rule, "reason": decision.cause[:_REASON_LENGTH], "bound_by": bound, "inputs": _inputs(demand)
    }  # fmt: skip
    return said.model_copy(update=told)


def _is_scheduled(deployment: InferenceDeployment, now: float) -> bool:
    """Whether the least number of replicas, as it is to be carried out now, is that of the schedule."""
    scaling = deployment.spec.scaling
    entry = floor_at(scaling.schedule, now).entry
    return entry is not None and entry.min_replicas == scaling.min_replicas


def _demand(observed: Observed, active: str) -> Demand | None:
    """What a gateway's leases report of the active revision; None where no gateway tells."""
    gateway = next((each for each in observed.gateways if isinstance(each, ObservedGateway) and each.route), None)
    if gateway is None or gateway.route is None:
        return None
    stats = [each.stats for each in gateway.route.replicas if each.revision == active]
    return Demand(stats, waking=float(gateway.route.held_requests))


def _ask(deployment: InferenceDeployment, demand: Demand, current: int) -> Decision:
    """The policy, with a state that began long ago and holds no recommendation: the reason is then of the demand alone."""
    scaling, slo = deployment.spec.scaling, deployment.spec.slo
    low, high = replica_bounds(deployment)
    limits = ScalingLimits(
        minimum=low,
        maximum=high,
        target_in_flight=automatic.target_in_flight_requests(deployment),
        is_target_set=scaling.target_in_flight_requests != AUTO,
        stabilization_window_seconds=scaling.stabilization_window_seconds,
        scale_to_zero_after_seconds=scaling.scale_to_zero_after_seconds,
        slo_seconds=slo.latency_p99_milliseconds / 1000 if slo else None,
        miss_weight=scaling.miss_weight,
        forecast=scaling.forecast,
    )
    return decide(demand, current, limits, ScalingState((), -1e9), now=0.0)


def _inputs(demand: Demand) -> dict[str, str]:
    seen: list[ReplicaStats] = list(demand.replicas)
    figures = {
        "inFlight": sum(each.in_flight for each in seen),
        "queued": sum(each.queued for each in seen),
        "requestsPerSecond": sum(each.arrival_rate for each in seen),
        "queueWaitP95Seconds": max((each.queue_wait_p95_seconds for each in seen), default=0.0),
        "capacityPerReplica": sum(each.capacity for each in seen) / max(len(seen), 1),
        "heldAtGateway": demand.waking,
        "reporting": len(seen),
    }
    return {name: f"{value:.4g}" for name, value in figures.items()}
