"""The plan for one `InferenceDeployment`: `plan(observed, now)` reads nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from penstock.api.conditions import DeploymentCondition, Reason
from penstock.api.v1alpha1 import Condition, ConditionStatus, InferenceDeploymentStatus, Manifest, ReplicaCounts
from penstock.planning import automatic, names
from penstock.planning.application import ServeApplication, replica_bounds
from penstock.planning.conditions import Verdict, condition, epoch, false, ready, true
from penstock.planning.observed import (
    Application,
    ApplicationState,
    Gateway,
    GatewayProblem,
    Observed,
    Pool,
    PoolProblem,
)
from penstock.planning.requeue import Requeue
from penstock.planning.rollout import Rollout, next_attempt_at, receiving, roll
from penstock.planning.verdicts import Verdicts, failure_of, judge, judge_without_pool
from penstock.routing.leases import Route
from penstock.scaling.policy import Demand, Limits, State, decide

RESYNC_SECONDS: Final = 30.0
TRANSITION_SECONDS: Final = 1.0
PROBLEM_SECONDS: Final = 5.0
RELEASE_AFTER_SECONDS: Final = 600.0
"""A deletion waits this long at most for a pool or gateway that does not answer. Then the object goes, and what it had
there is dropped when the pool next answers, since its owner is gone."""


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
    missing = names.FINALIZER not in metadata.finalizers
    finalizer = Finalizer.ADD if missing else Finalizer.KEEP
    if isinstance(observed.pool, PoolProblem):
        verdicts = judge_without_pool(observed, false(observed.pool.reason, observed.pool.message))
        status = _status(observed, verdicts, now, active=observed.deployment.status.active_revision)
        wait = PROBLEM_SECONDS if observed.pool.exists else RESYNC_SECONDS
        return Plan(status=status, finalizer=finalizer, requeue=Requeue(wait, observed.pool.message))
    conflict = _conflict(observed, observed.pool)
    if conflict is not None:
        return Plan(status=conflict_status(observed, conflict, now), requeue=Requeue(RESYNC_SECONDS, conflict))
    rollout = roll(observed, observed.pool, now)
    verdicts = judge(observed, observed.pool, rollout, now)
    candidate = rollout.wanted if rollout.active != rollout.wanted else None
    active = rollout.active if replica_bounds(observed.deployment)[1] else None
    serving_app = rollout.mine.get(rollout.active)
    return Plan(
        applications=rollout.applications,
        route=_with_problem(rollout, verdicts),
        status=_status(observed, verdicts, now, active=active, candidate=candidate, app=serving_app),
        finalizer=finalizer,
        requeue=_requeue(rollout, verdicts, now),
    )


_CANNOT_START: Final = {
    Reason.MODEL_NOT_FOUND, Reason.DIGEST_MISMATCH, Reason.MODEL_INVALID, Reason.UNSUPPORTED_STORAGE,
    Reason.STORAGE_DENIED, Reason.STORAGE_UNREACHABLE, Reason.SIGNATURE_MISSING, Reason.SIGNATURE_INVALID,
    Reason.KEY_NOT_TRUSTED, Reason.HARDWARE_MISMATCH, Reason.ENGINE_UNAVAILABLE,
    Reason.DEPLOY_FAILED, Reason.UNSCHEDULABLE,
}  # fmt: skip


def _with_problem(rollout: Rollout, verdicts: Verdicts) -> Route:
    """The route; where the active revision cannot start, requests are told why instead of being held."""
    serving, progressing = verdicts[DeploymentCondition.SERVING], verdicts[DeploymentCondition.PROGRESSING]
    if serving.status is not ConditionStatus.FALSE or rollout.active != rollout.wanted:
        return rollout.route
    if progressing.status is not ConditionStatus.FALSE or progressing.reason not in _CANNOT_START:
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
    verdicts[DeploymentCondition.POOL_READY] = true(Reason.POOL_AVAILABLE, "The pool answers.")
    return _status(observed, verdicts, now, active=observed.deployment.status.active_revision)


def _conflict(observed: Observed, pool: Pool) -> str | None:
    metadata = observed.deployment.metadata
    name = names.application(metadata.namespace, metadata.name, names.revision(observed.deployment))
    for each in pool.applications:
        if each.name == name and each.arguments is None and each.state is not ApplicationState.DELETING:
            return f"The pool has a Serve application {name} that is not Penstock's; delete or rename it."
    return None


def _status(
    observed: Observed,
    verdicts: Verdicts,
    now: float,
    *,
    active: str | None,
    candidate: str | None = None,
    app: Application | None = None,
) -> InferenceDeploymentStatus:
    deployment = observed.deployment
    metadata, before = deployment.metadata, deployment.status
    everything = {**verdicts, DeploymentCondition.READY: ready(verdicts)}
    conditions: tuple[Condition, ...] = tuple(
        condition(kind, everything[kind], before.conditions, metadata.generation, now)
        for kind in DeploymentCondition
        if kind in everything
    )
    gateway = next((each for each in observed.gateways if isinstance(each, Gateway)), None)
    return InferenceDeploymentStatus(
        observed_generation=metadata.generation,
        conditions=conditions,
        url=names.model_url(gateway.url, metadata.namespace, metadata.name) if gateway else before.url,
        replicas=_replicas(observed, active, app),
        selector=names.selector(metadata.name),
        active_revision=active,
        candidate_revision=candidate,
        digest=_digest(observed, active) or (before.digest if active == before.active_revision else None),
    )


def _digest(observed: Observed, active: str | None) -> str | None:
    """The digest of the model that the active replicas say they loaded."""
    found = {
        replica.digest
        for each in observed.gateways
        if isinstance(each, Gateway) and each.route
        for replica in each.route.replicas
        if replica.revision == active and replica.digest
    }
    return min(found, default=None)


def _replicas(observed: Observed, active: str | None, app: Application | None) -> ReplicaCounts:
    spec = observed.deployment.spec
    low, high = replica_bounds(observed.deployment)
    count = receiving(observed, active) if active and observed.gateways else (app.running if app else 0)
    desired = app.wanted if app else (observed.deployment.status.replicas.desired if active else 0)
    if spec.scaling.replicas is not None or low == high:
        return ReplicaCounts(desired=desired, ready=count, reason=f"{high}: fixed by the spec")
    if app is None or active is None:
        return ReplicaCounts(desired=desired, ready=count, reason=observed.deployment.status.replicas.reason)
    return ReplicaCounts(desired=desired, ready=count, reason=_explain(observed, active, app))


def _explain(observed: Observed, active: str, app: Application) -> str:
    """The policy's own reason, asked with what the gateways' leases report: Serve does not tell what its policy said.

    Where Serve wants another number than the policy would from here (a window holds it, or reports differ by a second),
    that number leads and the demand follows.
    """
    scaling, slo = observed.deployment.spec.scaling, observed.deployment.spec.slo
    low, high = replica_bounds(observed.deployment)
    gateway = next((each for each in observed.gateways if isinstance(each, Gateway) and each.route), None)
    if gateway is None or gateway.route is None:
        return f"{app.wanted}: decided by the policy in Serve"
    stats = [each.stats for each in gateway.route.replicas if each.revision == active]
    limits = Limits(
        minimum=low,
        maximum=high,
        target_in_flight=automatic.target_in_flight_requests(observed.deployment),
        stabilization_window_seconds=scaling.stabilization_window_seconds,
        scale_to_zero_after_seconds=scaling.scale_to_zero_after_seconds,
        slo_seconds=slo.latency_p99_milliseconds / 1000 if slo else None,
    )
    # A state that began long ago and holds no recommendation: the reason is then of the demand alone.
    decision = decide(
        Demand(stats, waking=float(gateway.route.held_requests)), app.wanted, limits, State((), -1e9), now=0.0
    )
    if decision.replicas >= app.wanted:
        return decision.reason
    cause = decision.reason.partition(": ")[2]
    window = f"{scaling.stabilization_window_seconds} s"
    return f"{app.wanted}: {cause}; {decision.replicas} once that has held for {window}"


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
        if overdue or not observed.pool.exists:
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
        for each in observed.gateways
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
    verdicts = judge_without_pool(observed, true(Reason.POOL_AVAILABLE, "The pool answers."))
    if isinstance(observed.pool, PoolProblem):
        verdicts[DeploymentCondition.POOL_READY] = false(observed.pool.reason, observed.pool.message)
    verdicts[DeploymentCondition.SERVING] = false(Reason.TERMINATING, message)
    verdicts[DeploymentCondition.PROGRESSING] = true(Reason.TERMINATING, message)
    status = _status(observed, verdicts, now, active=observed.deployment.status.active_revision)
    return Plan(
        applications=applications,
        delete_route=True,
        status=status,
        requeue=Requeue(TRANSITION_SECONDS if applications is not None else PROBLEM_SECONDS, message),
    )
