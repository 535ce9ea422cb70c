"""Conditions as pure functions: set one, derive `Ready` from the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from penstock.api.conditions import DeploymentCondition, Reason
from penstock.api.v1alpha1 import Condition, ConditionStatus

Conditions = tuple[Condition, ...]

DEPLOYMENT_DEPENDENTS = (
    DeploymentCondition.MODEL_RESOLVED,
    DeploymentCondition.POOL_READY,
    DeploymentCondition.SERVING,
)
"""What `Ready` of an `InferenceDeployment` is derived from: the first that fails is the one to mend first."""


def timestamp(now: datetime) -> str:
    """`metav1.Time`: RFC 3339 in UTC, whole seconds."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def find_condition(conditions: Iterable[Condition], kind: str) -> Condition | None:
    """The condition of that type, if it was ever set."""
    return next((condition for condition in conditions if condition.type == kind), None)


def set_condition(
    conditions: Sequence[Condition],
    kind: str,
    status: ConditionStatus,
    reason: Reason,
    message: str,
    *,
    generation: int,
    now: datetime,
) -> Conditions:
    """The conditions with one set, in its old place or at the end.

    `lastTransitionTime` is `now` only where the status changed, so that setting the same again changes nothing.
    """
    before = find_condition(conditions, kind)
    unchanged = before is not None and before.status is status and before.last_transition_time
    after = Condition(
        type=str(kind),
        status=status,
        reason=str(reason),
        message=message,
        last_transition_time=before.last_transition_time if before is not None and unchanged else timestamp(now),
        observed_generation=generation,
    )
    if before is None:
        return (*conditions, after)
    return tuple(after if condition.type == kind else condition for condition in conditions)


def derive_ready(
    conditions: Sequence[Condition], dependents: Sequence[str], *, generation: int, now: datetime
) -> Conditions:
    """The conditions with `Ready` set from the rest, as Knative does it.

    False with the reason of the first dependent that is False; else Unknown with that of the first that is Unknown,
    not set, or said of an older generation; else True with the message of the last dependent.

    Args:
        conditions: what is known.
        dependents: types that must all be True, the one to mend first coming first.
        generation: the `metadata.generation` that was observed.
        now: for `lastTransitionTime`.
    """
    found = [(kind, find_condition(conditions, kind)) for kind in dependents]
    status, reason, message = ConditionStatus.TRUE, Reason.READY, ""
    failed = next((c for _, c in found if c is not None and c.status is ConditionStatus.FALSE), None)
    pending = next(((kind, c) for kind, c in found if not _holds(c, generation)), None)
    if failed is not None:
        status, reason, message = ConditionStatus.FALSE, Reason(failed.reason), failed.message
    elif pending is not None:
        kind, known = pending
        status, reason, message = ConditionStatus.UNKNOWN, Reason.PENDING, f"{kind} is not known yet"
        if known is not None and known.status is ConditionStatus.UNKNOWN:
            reason, message = Reason(known.reason), known.message
    elif found and found[-1][1] is not None:
        message = found[-1][1].message
    return set_condition(conditions, DeploymentCondition.READY, status, reason, message, generation=generation, now=now)


def _holds(condition: Condition | None, generation: int) -> bool:
    return (
        condition is not None
        and condition.status is ConditionStatus.TRUE
        and condition.observed_generation >= generation
    )
