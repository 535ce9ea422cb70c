"""The end of a deployment: what it has in its pool and at the gateways goes, and then the object may."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock import names
from penstock.api.conditions import DeploymentCondition, Reason
from penstock.api.v1alpha1 import InferenceDeploymentStatus
from penstock.api.verdicts import epoch, false, true
from penstock_operator.deployment.application import ServeApplication
from penstock_operator.deployment.judgement import judge_pool, judge_without_pool
from penstock_operator.deployment.observed import ApplicationState, GatewayProblem, Observed, Pool, PoolProblem
from penstock_operator.deployment.standing import standing_of
from penstock_operator.deployment.status import deployment_status
from penstock_operator.deployment.steps import PROBLEM_SECONDS, TRANSITION_SECONDS
from penstock_operator.rollout.arms import baseline_of
from penstock_operator.runtime.loop.requeue import Requeue

RELEASE_AFTER_SECONDS: Final = 600.0
"""A deletion waits this long at most for a pool or gateway that does not answer. Then the object goes, and what it had
there is dropped when the pool next answers, since its owner is gone."""


@dataclass(frozen=True, slots=True)
class Departure:
    """What is to be done for a deployment that is being deleted. Its routes are to be deleted in any case."""

    applications: tuple[ServeApplication, ...] | None = None
    """None: leave what there is."""
    status: InferenceDeploymentStatus | None = None
    """None: the object may go now."""
    requeue: Requeue | None = None


def plan_departure(observed: Observed, now: float) -> Departure:
    """What is still to be waited for, or that nothing is."""
    pool = observed.pool
    overdue = now - epoch(observed.deployment.metadata.deletion_timestamp or "") > RELEASE_AFTER_SECONDS
    if isinstance(pool, PoolProblem):
        if overdue or pool.empty or not pool.exists:
            return Departure()
        message = f"Waiting for the pool, at most {RELEASE_AFTER_SECONDS:g} s: {pool.message}"
        return Departure(status=_status(observed, message, now), requeue=Requeue(PROBLEM_SECONDS, message))
    if overdue or not (_has_applications(observed, pool) or _is_declared(observed)):
        return Departure(applications=())
    message = "The Serve application is being taken down."
    return Departure((), _status(observed, message, now), Requeue(TRANSITION_SECONDS, message))


def _has_applications(observed: Observed, pool: Pool) -> bool:
    """Whether the pool has any of its applications.

    Of those that Serve is still deleting it no longer echoes whose they are; they are known by our names.
    """
    metadata, status = observed.deployment.metadata, observed.deployment.status
    prefix = names.application_name(metadata.namespace, metadata.name, "")
    revisions = {names.revision(observed.deployment), status.active_revision, status.candidate_revision}
    if status.rollout is not None:
        stable = status.rollout.stable
        revisions |= {status.rollout.candidate, stable, baseline_of(stable)}
    return any(
        (each.arguments.owner.namespace, each.arguments.owner.name) == (metadata.namespace, metadata.name)
        if each.arguments is not None
        else each.state is ApplicationState.DELETING and each.name.removeprefix(prefix) in revisions
        for each in pool.applications
    )


def _is_declared(observed: Observed) -> bool:
    """Whether a gateway has its route, or may have it."""
    return any(
        isinstance(each, GatewayProblem) or (each.route is not None and each.route.declared is not None)
        for each in (*observed.gateways, *observed.joining)
    )


def _status(observed: Observed, message: str, now: float) -> InferenceDeploymentStatus:
    standing = standing_of(observed)
    verdicts = judge_without_pool(observed, standing, judge_pool(observed.pool))
    verdicts[DeploymentCondition.SERVING] = false(Reason.TERMINATING, message)
    verdicts[DeploymentCondition.PROGRESSING] = true(Reason.TERMINATING, message)
    return deployment_status(observed, standing, verdicts, now, active=observed.deployment.status.active_revision)
