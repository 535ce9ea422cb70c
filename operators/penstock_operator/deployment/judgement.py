"""What each condition of an `InferenceDeployment` says, from what is observed and where the rollout stands."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, assert_never

from penstock.api.conditions import DeploymentCondition, Fault, Reason, facts_of
from penstock.api.meta import ConditionStatus
from penstock.api.rollout import RolloutPhase
from penstock.api.v1alpha1 import Resources
from penstock.api.verdicts import Verdict, false, recorded_verdict, timestamp, true, unknown
from penstock.errors import Invalid
from penstock.serving.arguments import FAILURE_MARKER, StartFailure, changed_message
from penstock.wording import end_sentence
from penstock_operator.deployment.application import replica_bounds
from penstock_operator.deployment.failure import start_failure
from penstock_operator.deployment.identity import change_of, declared_digest, takes_digest
from penstock_operator.deployment.number import written_field
from penstock_operator.deployment.observed import (
    ApplicationState,
    GatewayProblem,
    Observed,
    ObservedApplication,
    Pool,
    PoolProblem,
)
from penstock_operator.deployment.rollout import Rollout, next_attempt_at
from penstock_operator.deployment.standing import RevisionStanding
from penstock_operator.deployment.unschedulable import (
    UNSCHEDULABLE_AFTER_SECONDS,
    Obstacle,
    find_obstacle,
    why_unschedulable,
)
from penstock_operator.pool.placement import required_labels
from penstock_operator.rollout.phases import arms_of_rollout

Verdicts = dict[DeploymentCondition, Verdict]

_ANSWERS: Final = true(Reason.POOL_AVAILABLE, "The pool answers.")
_NOT_LOADED: Final = unknown(Reason.PENDING, "No replica has loaded the model yet.")


def failure_of(app: ObservedApplication | None) -> StartFailure | None:
    """Why an application's replicas do not start, as soon as Serve lets it be known."""
    if app is None:
        return None
    if app.running:
        return _failure_beside_running(app)
    match app.state:
        case ApplicationState.DEPLOY_FAILED:
            return start_failure(app.message)
        case ApplicationState.DEPLOYING | ApplicationState.UNHEALTHY | ApplicationState.NOT_STARTED:
            return start_failure(app.message) if FAILURE_MARKER in app.message else None
        case ApplicationState.RUNNING:
            # It was asleep, and what it was woken to does not start.
            return change_of(app)
        case ApplicationState.DELETING:
            return None
        case _:
            assert_never(app.state)


def _failure_beside_running(app: ObservedApplication) -> StartFailure | None:
    """Why more replicas of an application do not start while some run: what is wrong with the model, if it is that."""
    if app.state is ApplicationState.DEPLOY_FAILED:
        return start_failure(app.message)
    if app.state is ApplicationState.DELETING or app.running >= app.wanted or FAILURE_MARKER not in app.message:
        return None
    failure = start_failure(app.message)
    return failure if facts_of(failure.reason).fault is Fault.MODEL else None


def judge_pool(pool: Pool | PoolProblem) -> Verdict:
    """Whether the pool can be used."""
    return _ANSWERS if isinstance(pool, Pool) else false(pool.reason, pool.message)


def judge(observed: Observed, standing: RevisionStanding, pool: Pool, rollout: Rollout, now: float) -> Verdicts:
    """All conditions but `Ready`."""
    over = rollout.record is not None and rollout.record.phase is RolloutPhase.ROLLED_BACK
    about = rollout.active if over else rollout.wanted
    candidate = rollout.mine.get(about)
    failure = failure_of(candidate) or _find_strangers(standing, about)
    model = _judge_model(observed, candidate, failure)
    if replica_bounds(observed.deployment)[1] == 0:
        serves = true(Reason.SCALED_TO_ZERO, f"Scaled to no replica by {written_field(observed.deployment)}.")
        drains = true(Reason.TERMINATING, "The replicas drain.")
        progressing = drains if rollout.mine else true(Reason.ROLLED_OUT, "Nothing is to be rolled out.")
    else:
        serves = judge_serving(observed, standing, rollout.active, arms_of_rollout(rollout.record))
        if candidate is None:
            progressing = true(Reason.PENDING, "The Serve application is being declared.")
        else:
            waits_for = _find_wait(observed.deployment.spec.resources, pool, candidate, now)
            progressing = (
                _find_hindrance(observed, candidate, failure, waits_for)
                or _retry(candidate, model)
                or _judge_rollout(rollout)
                or _judge_progress(standing, rollout, candidate, waits_for.message if waits_for else "")
            )
    return {
        DeploymentCondition.POOL_READY: _ANSWERS,
        DeploymentCondition.MODEL_RESOLVED: model,
        DeploymentCondition.SERVING: serves,
        DeploymentCondition.PROGRESSING: progressing,
    }


def _find_strangers(standing: RevisionStanding, revision: str) -> StartFailure | None:
    """Replicas that serve another model than their revision is, which a gateway hears of."""
    found, model = standing.strangers(revision), standing.models.get(revision)
    if not found or model is None:
        return None
    message = f"{changed_message(found[0], model, revision)} Replicas that loaded it get no request."
    return StartFailure(reason=Reason.MODEL_CHANGED, message=message)


def judge_without_pool(observed: Observed, standing: RevisionStanding, problem: Verdict) -> Verdicts:
    """Conditions while the pool cannot be asked. What serves goes on serving: the gateways tell."""
    model = recorded_verdict(DeploymentCondition.MODEL_RESOLVED, observed.deployment.status.conditions)
    active = observed.deployment.status.active_revision
    return {
        DeploymentCondition.POOL_READY: problem,
        DeploymentCondition.MODEL_RESOLVED: model or _NOT_LOADED,
        DeploymentCondition.SERVING: (
            judge_serving(observed, standing, active) if active else false(problem.reason, "Nothing was served yet.")
        ),
        DeploymentCondition.PROGRESSING: (
            (None if active else _why_hopeless(observed)) or false(problem.reason, problem.message)
        ),
    }


def _why_hopeless(observed: Observed) -> Verdict | None:
    """Why waiting for the pool would not help: none of its workers could ever hold a replica."""
    groups = observed.pool.groups if isinstance(observed.pool, PoolProblem) else ()
    try:
        impossible = why_unschedulable(observed.deployment.spec.resources, groups)
    except Invalid as error:
        # The conditions are where a spec that cannot be carried out is told, so they must not fail for it.
        return false(Reason.INVALID_SPEC, error.message)
    return false(Reason.UNSCHEDULABLE, impossible) if impossible else None


def judge_serving(observed: Observed, standing: RevisionStanding, active: str, others: Collection[str] = ()) -> Verdict:
    """Whether requests to the model are answered now, by the active revision or one of others."""
    count = standing.count_receiving(active, *others)
    if count:
        return true(Reason.REPLICAS_READY, f"{count} {'replica answers' if count == 1 else 'replicas answer'}.")
    problems = [each for each in observed.gateways if isinstance(each, GatewayProblem)]
    if problems and not standing.replicas:
        return unknown(Reason.GATEWAY_UNREACHABLE, problems[0].message)
    return _why_unanswered(observed, standing.applications.get(active))


def _why_unanswered(observed: Observed, app: ObservedApplication | None) -> Verdict:
    """Why no replica answers."""
    failure = failure_of(app)
    if failure is not None:
        return false(Reason(failure.reason), failure.message)
    if app is None:
        return false(Reason.PENDING, "No replica was started yet.")
    at_zero = app.state is ApplicationState.RUNNING and app.wanted == 0
    if at_zero and replica_bounds(observed.deployment)[0] == 0:
        return true(Reason.SCALED_TO_ZERO, "No replica runs; the next request starts one.")
    if app.state is ApplicationState.UNHEALTHY:
        return false(Reason.REPLICA_FAILED, _last_line(app.message))
    if not app.wanted:
        return false(Reason.STARTING_REPLICAS, "Ray Serve is building the application.")
    return false(Reason.STARTING_REPLICAS, f"{app.running} of {app.wanted} replicas run; none answers yet.")


def _judge_model(observed: Observed, candidate: ObservedApplication | None, failure: StartFailure | None) -> Verdict:
    if failure is not None and facts_of(failure.reason).fault is Fault.MODEL:
        return false(Reason(failure.reason), end_sentence(failure.message))
    if candidate is not None and (candidate.running or candidate.state is ApplicationState.RUNNING):
        return true(Reason.MODEL_LOADED, "Replicas loaded the model.")
    previous = recorded_verdict(DeploymentCondition.MODEL_RESOLVED, observed.deployment.status.conditions)
    retrying = candidate is not None and candidate.arguments is not None and candidate.arguments.attempt.number > 0
    if retrying and previous is not None and previous.status is ConditionStatus.FALSE:
        return previous
    return _NOT_LOADED


def _retry(candidate: ObservedApplication, model: Verdict) -> Verdict | None:
    """While what failed is tried again, the reason stays."""
    if model.status is not ConditionStatus.FALSE or candidate.running:
        return None
    return false(model.reason, f"{model.message} It is being tried again.")


def _find_wait(resources: Resources, pool: Pool, candidate: ObservedApplication, now: float) -> Obstacle | None:
    """What a replica has no node for."""
    if not candidate.running or candidate.running < candidate.wanted:
        # What no worker could ever hold need not be waited for.
        impossible = why_unschedulable(resources, pool.groups)
        if impossible is not None:
            return Obstacle(impossible)
    since = candidate.waiting_since
    if candidate.building and candidate.arguments is not None and required_labels(resources):
        since = candidate.arguments.attempt.attempted_at
    if since is None or now - since <= UNSCHEDULABLE_AFTER_SECONDS:
        return None
    return find_obstacle(resources, pool)


def _find_hindrance(
    observed: Observed, candidate: ObservedApplication, failure: StartFailure | None, waits_for: Obstacle | None
) -> Verdict | None:
    """What keeps the wanted revision from being rolled out."""
    if failure is not None:
        return false(Reason(failure.reason), end_sentence(failure.message) + _next_attempt(candidate))
    if waits_for is not None and not waits_for.starting:
        some = f"{candidate.running} of {candidate.wanted} replicas run. " if candidate.running else ""
        return false(Reason.UNSCHEDULABLE, some + waits_for.message)
    if candidate.state is ApplicationState.UNHEALTHY:
        return false(Reason.REPLICA_FAILED, _last_line(candidate.message))
    gateways = [each for each in observed.gateways if isinstance(each, GatewayProblem)]
    return false(Reason.GATEWAY_UNREACHABLE, gateways[0].message) if gateways else None


def _judge_progress(
    standing: RevisionStanding, rollout: Rollout, candidate: ObservedApplication, waiting: str
) -> Verdict:
    """How far the wanted revision has come."""
    count = f"{_count(candidate)}. {waiting}".strip()
    if len(rollout.mine) > 1 or rollout.active != rollout.wanted:
        return true(Reason.ROLLING_OUT, f"From {_former_revisions(rollout)} to {rollout.wanted}: {count}")
    if candidate.state is not ApplicationState.RUNNING or not rollout.switched:
        return true(Reason.STARTING_REPLICAS, count)
    if takes_digest(candidate) and declared_digest(candidate) != standing.models.get(rollout.wanted):
        return true(Reason.STARTING_REPLICAS, f"{count} Those that come later are told which model it is.")
    return true(Reason.ROLLED_OUT, f"Revision {rollout.wanted} gets all requests.")


def _judge_rollout(rollout: Rollout) -> Verdict | None:
    """How far a rollout is that is judged; None where none is, or it has taken over for good."""
    record = rollout.record
    if record is None or record.phase is RolloutPhase.PROMOTED:
        return None
    if record.phase in (RolloutPhase.HELD, RolloutPhase.ROLLED_BACK):
        reason = Reason(record.reason) if record.reason in set(Reason) else Reason.ROLLOUT_HELD
        back = record.phase is RolloutPhase.ROLLED_BACK
        also = f" So {record.candidate}, which the spec asks for, does not serve." if back else ""
        return false(reason, f"{end_sentence(record.message)}{also}")
    if record.phase is RolloutPhase.WATCHING:
        return true(Reason.ROLLED_OUT, record.message) if rollout.switched else true(Reason.ROLLING_OUT, record.message)
    return true(Reason.ROLLING_OUT, f"From {record.stable} to {record.candidate}: {record.message}")


def _former_revisions(rollout: Rollout) -> str:
    return ", ".join(sorted(name for name in rollout.mine if name != rollout.wanted)) or rollout.active


def _count(app: ObservedApplication) -> str:
    return f"{app.running} of {app.wanted} new replicas run" if app.wanted else "Ray Serve is building the application"


def _next_attempt(app: ObservedApplication) -> str:
    if app.state is not ApplicationState.DEPLOY_FAILED or app.arguments is None:
        return ""
    return f" Next attempt at {timestamp(next_attempt_at(app.arguments.attempt))}."


def _last_line(message: str) -> str:
    return start_failure(message).message if message else "Serve says that the application is unhealthy."
