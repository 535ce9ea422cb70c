"""The plan for one `InferenceDeployment`: `plan(observed, now)` reads nothing else.

It is a chain of steps (`penstock_operator.deployment.steps`), of which the first that has something to decide does: is the spec
valid, can its pool be used, is its name free, has its quota room, is there a model to serve; and then the rollout. What was
decided becomes the status here, in one place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from penstock import names
from penstock.api.conditions import DeploymentCondition, Reason
from penstock.api.meta import Manifest
from penstock.api.rollout import RolloutPhase, RolloutStatus
from penstock.api.v1alpha1 import InferenceDeploymentStatus
from penstock.api.verdicts import false
from penstock.routing.leases import Route
from penstock.scaling.schedule import floor_at
from penstock_operator.deployment import steps
from penstock_operator.deployment.access import with_access
from penstock_operator.deployment.application import ServeApplication, replica_bounds
from penstock_operator.deployment.deletion import plan_departure
from penstock_operator.deployment.identity import follow_model
from penstock_operator.deployment.judgement import judge_pool, judge_without_pool
from penstock_operator.deployment.moving import is_under_way, plan_move, with_move
from penstock_operator.deployment.number import NumberWrite, number_to_write
from penstock_operator.deployment.observed import Observed, Pool, PoolProblem
from penstock_operator.deployment.profile import judge_profile, resolve
from penstock_operator.deployment.rollout import closed_route, is_routed
from penstock_operator.deployment.served import remember_served
from penstock_operator.deployment.standing import standing_of, with_spec
from penstock_operator.deployment.status import deployment_status
from penstock_operator.deployment.steps import TRANSITION_SECONDS, Case, KeptRollout, StepDecision
from penstock_operator.runtime.loop.requeue import Requeue


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done."""

    applications: tuple[ServeApplication, ...] | None = None
    """All that this deployment should have in its pool; None: leave what there is."""
    route: Route | None = None
    """To be declared to each gateway that has another; None: leave what there is."""
    delete_route: bool = False
    run: Manifest | None = None
    """An `OptimizationRun` to be created; it may be there already by then."""
    superseded_runs: tuple[str, ...] = ()
    """Names of runs of a former spec, to be deleted."""
    number: NumberWrite | None = None
    """What to write of the number in the spec; None: nothing."""
    status: InferenceDeploymentStatus | None = None
    release: bool = False
    """Whether the deployment may go: nothing outside is left of it."""
    requeue: Requeue | None = None


def plan(observed: Observed, now: float) -> Plan:
    """What is to be done for one deployment.

    Raises:
        Invalid: the spec cannot be carried out as it is written.
    """
    if observed.deployment.metadata.deletion_timestamp is not None:
        return _leave(observed, now)
    observed, schedule_changes_at = _with_floor(replace(observed, deployment=follow_model(observed)), now)
    standing = standing_of(observed)
    resolved = resolve(observed, standing)
    effective = replace(observed, deployment=resolved.deployment)
    case = Case(effective, observed.deployment, with_spec(standing, resolved.deployment), resolved, now)
    decision = _keep_apart(case, _decide(case))
    return Plan(
        applications=decision.applications,
        route=with_access(decision.route, observed, now),
        run=resolved.run if observed.quota is None else None,  # what may not serve need not be measured
        superseded_runs=resolved.superseded,
        number=_number(case, decision),
        status=_status(case, decision),
        requeue=_requeue_by_schedule(decision.requeue, schedule_changes_at, now),
    )


def _with_floor(observed: Observed, now: float) -> tuple[Observed, float | None]:
    """With the least number of replicas of this time of the week, and when that may be another. Raises `Invalid`."""
    deployment = observed.deployment
    scaling, found = deployment.spec.scaling, floor_at(deployment.spec.scaling.schedule, now)
    if found.entry is None or found.entry.min_replicas <= scaling.min_replicas:
        return observed, found.changes_at
    lifted = scaling.model_copy(update={"min_replicas": found.entry.min_replicas})
    spec = deployment.spec.model_copy(update={"scaling": lifted})
    return replace(observed, deployment=deployment.model_copy(update={"spec": spec})), found.changes_at


def _requeue_by_schedule(requeue: Requeue, changes_at: float | None, now: float) -> Requeue:
    """No later than the schedule says another number."""
    if changes_at is None or changes_at - now >= requeue.after_seconds:
        return requeue
    return Requeue(max(changes_at - now, TRANSITION_SECONDS), "the schedule says another number of replicas then")


def _keep_apart(case: Case, decision: StepDecision) -> StepDecision:
    """With one replica on its way elsewhere, where all are in one place and nothing else is under way."""
    pool, applications = case.observed.pool, decision.applications
    if applications is None or not isinstance(pool, Pool):
        return decision
    deployed = {app.name: app for app in case.standing.applications.values()}
    alone = len(applications) == 1 and decision.candidate is None and not _is_judging(decision.judged)
    rolled_out = decision.verdicts[DeploymentCondition.PROGRESSING].reason is Reason.ROLLED_OUT
    told, moves = [], False
    for each in applications:
        app = deployed.get(each["name"])
        settled = app is not None and alone and (rolled_out or is_under_way(app))
        move = plan_move(case.observed.deployment, app, pool, case.now, settled=settled) if app is not None else None
        moves = moves or (move is not None and move.under_way)
        told.append(with_move(each, move))
    requeue = Requeue(TRANSITION_SECONDS, "a replica moves to another node") if moves else decision.requeue
    return replace(decision, applications=tuple(told), requeue=requeue)


def _is_judging(judged: RolloutStatus | KeptRollout | None) -> bool:
    return isinstance(judged, RolloutStatus) and judged.phase is not RolloutPhase.PROMOTED


def _number(case: Case, decision: StepDecision) -> NumberWrite | None:
    """The number as Serve has it; before it has any, the one that it starts with."""
    app = case.standing.applications.get(decision.active or "")
    if app is not None and not app.building:
        return number_to_write(case.original, app.wanted)
    before = case.original.spec.replicas
    return number_to_write(
        case.original, max(1, replica_bounds(case.observed.deployment)[0]) if before is None else before
    )


def _decide(case: Case) -> StepDecision:
    """The chain: the first step that has something to decide does."""
    pool = case.observed.pool
    if isinstance(pool, PoolProblem):
        return steps.wait_for_pool(case, pool)
    return (
        steps.refuse_taken_name(case, pool)
        or steps.keep_within_quota(case, pool)
        or steps.wait_for_model(case)
        or steps.roll_out(case, pool)
    )


def _status(case: Case, decision: StepDecision) -> InferenceDeploymentStatus:
    """What is to be said of what was decided."""
    observed, resolved, active = case.observed, case.resolved, decision.active
    verdicts = dict(decision.verdicts)
    serving, progressing = verdicts[DeploymentCondition.SERVING], verdicts[DeploymentCondition.PROGRESSING]
    judged = observed.deployment.status.rollout if isinstance(decision.judged, KeptRollout) else decision.judged
    profile = judge_profile(resolved, active, serving, progressing, judged)
    if profile is not None:
        verdicts[DeploymentCondition.PROFILE_APPLIED] = profile
    status = deployment_status(
        observed,
        case.standing,
        verdicts,
        case.now,
        active=active,
        candidate=decision.candidate,
        present=decision.present,
        ahead=decision.ahead,
        revisions=(names.revision(case.original), *((judged.stable,) if judged is not None else ())),
    )
    faster = resolved.optimized is not None and active == names.revision(resolved.optimized)
    stable = (judged.stable,) if judged is not None and judged.phase is not RolloutPhase.PROMOTED else ()
    told = {
        "optimization_run": resolved.run_name,
        "speedup": resolved.speedup if faster else None,
        "rollout": judged,
        "served": remember_served(observed.deployment, active, stable),
    }
    return status.model_copy(update=told)


def invalid_status(observed: Observed, message: str, now: float) -> InferenceDeploymentStatus:
    """The status of a spec that cannot be carried out."""
    standing = standing_of(observed)
    verdicts = judge_without_pool(observed, standing, false(Reason.INVALID_SPEC, message))
    verdicts[DeploymentCondition.POOL_READY] = judge_pool(observed.pool)
    return deployment_status(observed, standing, verdicts, now, active=observed.deployment.status.active_revision)


def invalid_route(observed: Observed, message: str, now: float) -> Route | None:
    """What gateways are to be told of a spec that cannot be carried out; None: nothing else than they were.

    What serves goes on; else requests are told why nothing does.
    """
    going = observed.deployment.metadata.deletion_timestamp is not None
    route = None if going or is_routed(observed) else closed_route(observed, false(Reason.INVALID_SPEC, message))
    return with_access(route, observed, now)


def _leave(observed: Observed, now: float) -> Plan:
    """The plan for one that is being deleted."""
    if names.FINALIZER not in observed.deployment.metadata.finalizers:
        return Plan()
    departure = plan_departure(observed, now)
    return Plan(
        applications=departure.applications,
        delete_route=True,
        status=departure.status,
        release=departure.status is None,
        requeue=departure.requeue,
    )
