"""The plan for one `InferenceDeployment`: `plan(observed, now)` reads nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from penstock import names
from penstock.api.conditions import DeploymentCondition, Reason, facts_of
from penstock.api.meta import ConditionStatus, Manifest
from penstock.api.v1alpha1 import InferenceDeploymentStatus
from penstock.api.verdicts import Verdict, epoch, false, true
from penstock.routing.leases import Route
from penstock_operator.deployment import access
from penstock_operator.deployment.application import ServeApplication, replica_bounds
from penstock_operator.deployment.identity import followed
from penstock_operator.deployment.judgement import Verdicts, failure_of, judge, judge_without_pool, serving
from penstock_operator.deployment.observed import (
    ApplicationState,
    GatewayProblem,
    Observed,
    Pool,
    PoolProblem,
    own,
)
from penstock_operator.deployment.profile import Resolved, applied, is_present_spec, resolve
from penstock_operator.deployment.rollout import (
    Rollout,
    beside,
    closed_route,
    hold,
    is_routed,
    next_attempt_at,
    roll,
    route_without_pool,
)  # fmt: skip
from penstock_operator.deployment.status import deployment_status
from penstock_operator.quota.plan import Excess
from penstock_operator.runtime.requeue import Requeue

RESYNC_SECONDS: Final = 30.0
TRANSITION_SECONDS: Final = 1.0
PROBLEM_SECONDS: Final = 5.0
RELEASE_AFTER_SECONDS: Final = 600.0
"""A deletion waits this long at most for a pool or gateway that does not answer. Then the object goes, and what it had
there is dropped when the pool next answers, since its owner is gone."""
_ANSWERS: Final = true(Reason.POOL_AVAILABLE, "The pool answers.")


class Finalizer(StrEnum):
    """What to do with our finalizer."""

    KEEP = "Keep"
    ADD = "Add"
    REMOVE = "Remove"


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
    status: InferenceDeploymentStatus | None = None
    finalizer: Finalizer = Finalizer.KEEP
    requeue: Requeue | None = None


def plan(observed: Observed, now: float) -> Plan:
    """What is to be done for one deployment.

    Raises:
        Invalid: the spec cannot be carried out as it is written.
    """
    metadata = observed.deployment.metadata
    if metadata.deletion_timestamp is not None:
        return _delete(observed, now)
    observed = replace(observed, deployment=followed(observed))
    missing = names.FINALIZER not in metadata.finalizers
    finalizer = Finalizer.ADD if missing else Finalizer.KEEP
    resolved = resolve(observed)
    if observed.quota is not None:
        resolved = replace(resolved, run=None)  # what may not serve need not be measured
    result = replace(
        _serve(observed, resolved, now), finalizer=finalizer, run=resolved.run, superseded_runs=resolved.superseded
    )
    result = replace(result, route=access.guarded(result.route, observed, now))
    if result.status is None:
        return result
    told = {"optimization_run": resolved.run_name}
    return replace(result, status=result.status.model_copy(update=told))


def _serve(observed: Observed, resolved: Resolved, now: float) -> Plan:
    """What is to serve, once it is known which model."""
    pool, before = observed.pool, observed.deployment.status
    if isinstance(pool, PoolProblem):
        verdicts = judge_without_pool(observed, false(pool.reason, pool.message))
        if pool.reason is Reason.SUSPENDED and verdicts[DeploymentCondition.SERVING].status is ConditionStatus.FALSE:
            verdicts[DeploymentCondition.SERVING] = false(pool.reason, pool.message)
        _add_profile(verdicts, resolved, before.active_revision)
        status = deployment_status(observed, verdicts, now, active=before.active_revision)
        wait = PROBLEM_SECONDS if pool.exists else RESYNC_SECONDS
        return Plan(
            route=route_without_pool(observed, pool),
            status=status.model_copy(update={"speedup": before.speedup}),
            requeue=Requeue(wait, pool.message),
        )
    original, observed = observed.deployment, replace(observed, deployment=resolved.deployment)
    conflict = _conflict(observed, pool)
    if conflict is not None:
        route = None if is_routed(observed) else closed_route(observed, f"{Reason.NAME_CONFLICT}: {conflict}")
        status = conflict_status(observed, conflict, now)
        return Plan(route=route, status=status, requeue=Requeue(RESYNC_SECONDS, conflict))
    if observed.quota is not None:
        return _beyond_quota(observed, pool, resolved, observed.quota, now)
    if resolved.waiting is not None:
        return _wait(observed, pool, resolved, resolved.waiting, now)
    rollout = roll(observed, pool, now)
    candidate = rollout.wanted if rollout.active != rollout.wanted else None
    if resolved.refused and resolved.optimized is not None:
        rollout = beside(rollout, replace(observed, deployment=resolved.optimized), now)
        candidate = names.revision(resolved.optimized)
    verdicts = judge(observed, pool, rollout, now)
    active = rollout.active if replica_bounds(observed.deployment)[1] else None
    _add_profile(verdicts, resolved, active)
    present = is_present_spec(resolved, rollout.active, frozenset(rollout.mine), original)
    serving_app = rollout.mine.get(rollout.active)
    status = deployment_status(
        observed,
        verdicts,
        now,
        active=active,
        candidate=candidate,
        app=serving_app,
        present=present,
        revisions=(names.revision(original),),
    )
    faster = resolved.optimized is not None and active == names.revision(resolved.optimized)
    return Plan(
        applications=rollout.applications,
        route=_with_problem(rollout, verdicts),
        status=status.model_copy(update={"speedup": resolved.speedup if faster else None}),
        requeue=Requeue(PROBLEM_SECONDS, "the artifact is to be tried again")
        if resolved.refused
        else _requeue(rollout, verdicts, now),
    )


def _add_profile(verdicts: Verdicts, resolved: Resolved, active: str | None) -> None:
    serving, progressing = verdicts[DeploymentCondition.SERVING], verdicts[DeploymentCondition.PROGRESSING]
    verdict = applied(resolved, active, serving, progressing)
    if verdict is not None:
        verdicts[DeploymentCondition.PROFILE_APPLIED] = verdict


def _wait(observed: Observed, pool: Pool, resolved: Resolved, why: Verdict, now: float) -> Plan:
    """The model must be converted before anything can serve it. What served before goes on; else requests are told."""
    active = observed.deployment.status.active_revision
    mine = own(observed.deployment, pool)
    verdicts = judge_without_pool(observed, why)
    verdicts[DeploymentCondition.POOL_READY] = _ANSWERS
    if active not in mine:
        active = None
        verdicts[DeploymentCondition.SERVING] = why
    _add_profile(verdicts, resolved, active)
    status = deployment_status(observed, verdicts, now, active=active, app=mine.get(active) if active else None)
    requeue = Requeue(RESYNC_SECONDS, why.message)
    if active is not None:
        return Plan(status=status, requeue=requeue)
    route = closed_route(observed, f"{why.reason}: {why.message}")
    return Plan(applications=(), route=route, status=status, requeue=requeue)


def _beyond_quota(observed: Observed, pool: Pool, resolved: Resolved, excess: Excess, now: float) -> Plan:
    """No new replicas. What serves goes on, in its present revision."""
    why = false(Reason.QUOTA_EXCEEDED, excess.message)
    held = hold(observed, pool, excess.replicas)
    active = held.active if held else None
    verdicts = judge_without_pool(observed, why)
    verdicts[DeploymentCondition.POOL_READY] = _ANSWERS
    verdicts[DeploymentCondition.SERVING] = serving(observed, held.mine, held.active) if held else why
    _add_profile(verdicts, resolved, active)
    app = held.mine[held.active] if held else None
    return Plan(
        applications=held.applications if held else (),
        route=held.route if held else closed_route(observed, f"{why.reason}: {why.message}"),
        status=deployment_status(observed, verdicts, now, active=active, app=app),
        requeue=Requeue(RESYNC_SECONDS, why.message),
    )


def _with_problem(rollout: Rollout, verdicts: Verdicts) -> Route:
    """The route; where the active revision cannot start, requests are told why instead of being held."""
    serving, progressing = verdicts[DeploymentCondition.SERVING], verdicts[DeploymentCondition.PROGRESSING]
    if serving.status is not ConditionStatus.FALSE or rollout.active != rollout.wanted:
        return rollout.route
    if progressing.status is not ConditionStatus.FALSE or not facts_of(progressing.reason).refuses:
        return rollout.route
    return rollout.route.model_copy(update={"unavailable": f"{progressing.reason}: {progressing.message}"})


def invalid_status(observed: Observed, message: str, now: float) -> InferenceDeploymentStatus:
    """The status of a spec that cannot be carried out."""
    return _stopped(observed, false(Reason.INVALID_SPEC, message), now)


def conflict_status(observed: Observed, message: str, now: float) -> InferenceDeploymentStatus:
    """The status where the name of our application is taken."""
    return _stopped(observed, false(Reason.NAME_CONFLICT, message), now)


def _stopped(observed: Observed, problem: Verdict, now: float) -> InferenceDeploymentStatus:
    verdicts = judge_without_pool(observed, problem)
    verdicts[DeploymentCondition.POOL_READY] = _pool_ready(observed)
    return deployment_status(observed, verdicts, now, active=observed.deployment.status.active_revision)


def _pool_ready(observed: Observed) -> Verdict:
    pool = observed.pool
    return false(pool.reason, pool.message) if isinstance(pool, PoolProblem) else _ANSWERS


def _conflict(observed: Observed, pool: Pool) -> str | None:
    metadata = observed.deployment.metadata
    name = names.application(metadata.namespace, metadata.name, names.revision(observed.deployment))
    for each in pool.applications:
        if each.name == name and each.arguments is None and each.state is not ApplicationState.DELETING:
            return f"The pool has a Serve application {name} that is not Penstock's; delete or rename it."
    return None


def _requeue(rollout: Rollout, verdicts: Verdicts, now: float) -> Requeue:
    candidate = rollout.mine.get(rollout.wanted)
    if candidate is not None and failure_of(candidate) is not None and candidate.arguments is not None:
        due = next_attempt_at(candidate.arguments.attempt) - now
        return Requeue(min(max(due, TRANSITION_SECONDS), RESYNC_SECONDS), "the next attempt is due")
    progressing = verdicts[DeploymentCondition.PROGRESSING]
    if progressing.reason is Reason.UNSCHEDULABLE:
        return Requeue(PROBLEM_SECONDS, "a node may come free")
    settled = progressing.reason is Reason.ROLLED_OUT
    if settled and verdicts[DeploymentCondition.SERVING].status is ConditionStatus.TRUE:
        return Requeue(RESYNC_SECONDS, "replicas may have changed; nobody tells")
    if progressing.reason is Reason.GATEWAY_UNREACHABLE:
        return Requeue(PROBLEM_SECONDS, "a gateway does not answer")
    return Requeue(TRANSITION_SECONDS, "replicas are starting or going")


def _delete(observed: Observed, now: float) -> Plan:
    deployment = observed.deployment
    if names.FINALIZER not in deployment.metadata.finalizers:
        return Plan()
    overdue = now - epoch(deployment.metadata.deletion_timestamp or "") > RELEASE_AFTER_SECONDS
    if isinstance(observed.pool, PoolProblem):
        if overdue or observed.pool.empty or not observed.pool.exists:
            return Plan(delete_route=True, finalizer=Finalizer.REMOVE)
        message = f"Waiting for the pool, at most {RELEASE_AFTER_SECONDS:g} s: {observed.pool.message}"
        return _leaving(observed, None, message, now)
    key = (deployment.metadata.namespace, deployment.metadata.name)
    left = [
        each
        for each in observed.pool.applications
        if each.arguments is not None and (each.arguments.owner.namespace, each.arguments.owner.name) == key
    ]
    going = _going(observed, observed.pool)
    routed = [
        each
        for each in (*observed.gateways, *observed.joining)
        if isinstance(each, GatewayProblem) or (each.route is not None and each.route.declared is not None)
    ]
    if overdue or not (left or going or routed):
        return Plan(applications=(), delete_route=True, finalizer=Finalizer.REMOVE)
    return _leaving(observed, (), "The Serve application is being taken down.", now)


def _going(observed: Observed, pool: Pool) -> list[str]:
    """Applications with our names that Serve is still deleting; it no longer echoes whose they are."""
    metadata = observed.deployment.metadata
    prefix = names.application(metadata.namespace, metadata.name, "")
    revisions = {
        names.revision(observed.deployment),
        observed.deployment.status.active_revision,
        observed.deployment.status.candidate_revision,
    }
    return [
        each.name
        for each in pool.applications
        if each.state is ApplicationState.DELETING and each.name.removeprefix(prefix) in revisions
    ]


def _leaving(observed: Observed, applications: tuple[ServeApplication, ...] | None, message: str, now: float) -> Plan:
    verdicts = judge_without_pool(observed, _pool_ready(observed))
    verdicts[DeploymentCondition.SERVING] = false(Reason.TERMINATING, message)
    verdicts[DeploymentCondition.PROGRESSING] = true(Reason.TERMINATING, message)
    status = deployment_status(observed, verdicts, now, active=observed.deployment.status.active_revision)
    return Plan(
        applications=applications,
        delete_route=True,
        status=status,
        requeue=Requeue(TRANSITION_SECONDS if applications is not None else PROBLEM_SECONDS, message),
    )
