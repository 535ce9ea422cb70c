"""The steps by which it is decided what is to become of a deployment. Each returns None where it is not its turn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from penstock import names
from penstock.api.conditions import DeploymentCondition, Reason, facts_of
from penstock.api.meta import ConditionStatus
from penstock.api.rollout import RolloutPhase, RolloutStatus
from penstock.api.v1alpha1 import InferenceDeployment
from penstock.api.verdicts import Verdict, false
from penstock.routing.leases import Route
from penstock_operator.deployment.application import ServeApplication, replica_bounds
from penstock_operator.deployment.judged import take_over
from penstock_operator.deployment.judgement import (
    Verdicts,
    failure_of,
    judge,
    judge_pool,
    judge_serving,
    judge_without_pool,
)
from penstock_operator.deployment.observed import ApplicationState, Observed, Pool, PoolProblem
from penstock_operator.deployment.profile import Resolved, is_present_spec
from penstock_operator.deployment.rollout import (
    Rollout,
    closed_route,
    hold_present,
    is_routed,
    next_attempt_at,
    route_without_pool,
    with_candidate,
)
from penstock_operator.deployment.standing import RevisionStanding, with_spec
from penstock_operator.rollout.arms import is_baseline
from penstock_operator.runtime.loop.requeue import Requeue

RESYNC_SECONDS: Final = 30.0
TRANSITION_SECONDS: Final = 1.0
PROBLEM_SECONDS: Final = 5.0
_PROBLEMS: Final = {
    Reason.UNSCHEDULABLE: "a node may come free",
    Reason.GATEWAY_UNREACHABLE: "a gateway does not answer",
}


@dataclass(frozen=True, slots=True)
class Case:
    """What the steps decide on."""

    observed: Observed
    """With the deployment as it is to be carried out: with the model to serve, and what was measured."""
    original: InferenceDeployment
    """As the user wrote it."""
    standing: RevisionStanding
    resolved: Resolved
    now: float
    """Epoch seconds."""


class KeptRollout(Enum):
    """What the status says of a rollout, stays."""

    KEPT = "kept"


KEPT: Final = KeptRollout.KEPT


@dataclass(frozen=True, slots=True)
class StepDecision:
    """What a step decided."""

    verdicts: Verdicts
    """All conditions that do not follow from others."""
    requeue: Requeue
    active: str | None
    """The revision that gets the requests."""
    candidate: str | None = None
    """The one that starts beside it."""
    applications: tuple[ServeApplication, ...] | None = None
    """All that there should be in the pool; None: leave what there is."""
    route: Route | None = None
    """None: leave what the gateways have."""
    present: bool = False
    """Whether what serves is of the present spec, optimized or not, or it is being judged what is to serve."""
    ahead: bool = False
    """Whether `ModelResolved` is of a revision that does not serve yet."""
    judged: RolloutStatus | KeptRollout | None = KEPT
    """What the status is to say of a rollout that is judged, or was."""


def wait_for_pool(case: Case, pool: PoolProblem) -> StepDecision:
    """The pool cannot be used now. What serves goes on serving."""
    observed = case.observed
    verdicts = judge_without_pool(observed, case.standing, false(pool.reason, pool.message))
    if pool.reason is Reason.SUSPENDED and verdicts[DeploymentCondition.SERVING].status is ConditionStatus.FALSE:
        verdicts[DeploymentCondition.SERVING] = false(pool.reason, pool.message)
    return StepDecision(
        verdicts,
        Requeue(PROBLEM_SECONDS if pool.exists else RESYNC_SECONDS, pool.message),
        active=observed.deployment.status.active_revision,
        route=route_without_pool(observed, pool),
    )


def refuse_taken_name(case: Case, pool: Pool) -> StepDecision | None:
    """The pool has an application of the name that the next one is to have, and it is not Penstock's."""
    observed = case.observed
    metadata = observed.deployment.metadata
    name = names.application_name(metadata.namespace, metadata.name, case.standing.wanted)
    if not any(
        each.name == name and each.arguments is None and each.state is not ApplicationState.DELETING
        for each in pool.applications
    ):
        return None
    message = f"The pool has a Serve application {name} that is not Penstock's; delete or rename it."
    why = false(Reason.NAME_CONFLICT, message)
    return StepDecision(
        _judge_held_back(case, why),
        Requeue(RESYNC_SECONDS, message),
        active=observed.deployment.status.active_revision,
        route=None if is_routed(observed) else closed_route(observed, why),
    )


def keep_within_quota(case: Case, pool: Pool) -> StepDecision | None:
    """The namespace's quota has no room: no new replicas. What serves goes on, in its present revision."""
    observed, excess = case.observed, case.observed.quota
    if excess is None:
        return None
    why = false(Reason.QUOTA_EXCEEDED, excess.message)
    verdicts, requeue = _judge_held_back(case, why), Requeue(RESYNC_SECONDS, why.message)
    held = hold_present(observed, case.standing, pool, excess.replicas)
    if held is None:
        verdicts[DeploymentCondition.SERVING] = why
        return StepDecision(verdicts, requeue, active=None, applications=(), route=closed_route(observed, why))
    verdicts[DeploymentCondition.SERVING] = judge_serving(observed, case.standing, held.active)
    return StepDecision(verdicts, requeue, active=held.active, applications=held.applications, route=held.route)


def wait_for_model(case: Case) -> StepDecision | None:
    """The model must be converted before anything can serve it. What served before goes on; else requests are told."""
    observed, why = case.observed, case.resolved.waiting
    if why is None:
        return None
    verdicts, requeue = _judge_held_back(case, why), Requeue(RESYNC_SECONDS, why.message)
    active = observed.deployment.status.active_revision
    if active in case.standing.applications:
        return StepDecision(verdicts, requeue, active=active)
    verdicts[DeploymentCondition.SERVING] = why
    return StepDecision(verdicts, requeue, active=None, applications=(), route=closed_route(observed, why))


def roll_out(case: Case, pool: Pool) -> StepDecision:
    """Nothing is in the way: bring the present spec to serve, beside what serves until it answers."""
    observed, resolved, now = case.observed, case.resolved, case.now
    serves_optimized = resolved.optimized is not None and not (resolved.refused or resolved.rolled_back)
    rollout = take_over(
        observed,
        case.standing,
        pool,
        now,
        model=case.original.spec.model,
        optimized=serves_optimized,
        rolled_back=resolved.rolled_back,
    )
    turned_back = rollout.record is not None and rollout.record.phase is RolloutPhase.ROLLED_BACK
    ahead = rollout.active != rollout.wanted and not turned_back
    candidate = rollout.wanted if ahead else None
    if resolved.refused and resolved.optimized is not None:
        optimized = replace(observed, deployment=resolved.optimized)
        standing = with_spec(case.standing, resolved.optimized)
        rollout = with_candidate(rollout, optimized, standing, now)
        candidate = standing.wanted
    verdicts = judge(observed, case.standing, pool, rollout, now)
    return StepDecision(
        verdicts,
        Requeue(PROBLEM_SECONDS, "the artifact is to be tried again")
        if resolved.refused
        else _next_look(case.standing, rollout, verdicts, now),
        active=rollout.active if replica_bounds(observed.deployment)[1] else None,
        candidate=candidate,
        applications=rollout.applications,
        route=_with_problem(rollout, verdicts),
        present=_is_judged(rollout)
        or is_present_spec(
            resolved, rollout.active, frozenset(each for each in rollout.mine if not is_baseline(each)), case.original
        ),
        ahead=ahead,
        judged=rollout.record,
    )


def _is_settled(rollout: Rollout, progressing: Verdict) -> bool:
    """Whether nothing comes or goes, as far as it was decided."""
    if rollout.record is None or rollout.record.phase is not RolloutPhase.ROLLED_BACK:
        return progressing.reason is Reason.ROLLED_OUT
    return rollout.mine.keys() == {each["args"]["replica"]["revision"] for each in rollout.applications}


def _judge_held_back(case: Case, why: Verdict) -> Verdicts:
    """The conditions where the pool answers and nothing new may start there."""
    verdicts = judge_without_pool(case.observed, case.standing, why)
    verdicts[DeploymentCondition.POOL_READY] = judge_pool(case.observed.pool)
    return verdicts


def _is_judged(rollout: Rollout) -> bool:
    """Whether what serves is what is to serve for now, since another is being judged or was found to be worse."""
    return rollout.record is not None and (rollout.record.phase is not RolloutPhase.PROMOTED or not rollout.switched)


def _with_problem(rollout: Rollout, verdicts: Verdicts) -> Route:
    """The route; where the active revision cannot start, requests are told why instead of being held."""
    serves, progressing = verdicts[DeploymentCondition.SERVING], verdicts[DeploymentCondition.PROGRESSING]
    if serves.status is not ConditionStatus.FALSE or rollout.active != rollout.wanted:
        return rollout.route
    if progressing.status is not ConditionStatus.FALSE or not facts_of(progressing.reason).refuses:
        return rollout.route
    return rollout.route.model_copy(update={"unavailable": f"{progressing.reason}: {progressing.message}"})


def _next_look(standing: RevisionStanding, rollout: Rollout, verdicts: Verdicts, now: float) -> Requeue:
    candidate = rollout.mine.get(rollout.wanted)
    if candidate is not None and failure_of(candidate) is not None and candidate.arguments is not None:
        due = next_attempt_at(candidate.arguments.attempt) - now
        return Requeue(min(max(due, TRANSITION_SECONDS), RESYNC_SECONDS), "the next attempt is due")
    progressing = verdicts[DeploymentCondition.PROGRESSING]
    if rollout.wait_seconds is not None:
        return Requeue(rollout.wait_seconds, "a rollout is being judged")
    if progressing.reason in _PROBLEMS:
        return Requeue(PROBLEM_SECONDS, _PROBLEMS[progressing.reason])
    if _is_settled(rollout, progressing) and verdicts[DeploymentCondition.SERVING].status is ConditionStatus.TRUE:
        active = rollout.active or ""
        app = standing.applications.get(active)
        if app is not None and app.wanted != standing.count_receiving(active):
            return Requeue(PROBLEM_SECONDS, "replicas come or go")
        return Requeue(RESYNC_SECONDS, "replicas may have changed; nobody tells")
    return Requeue(TRANSITION_SECONDS, "replicas are starting or going")
