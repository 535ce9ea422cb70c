"""Conditions: made from verdicts, with the time of the last transition kept where nothing changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from penstock.api.conditions import DeploymentCondition, Reason
from penstock.api.meta import Condition, ConditionStatus
from penstock.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Verdict:
    """What holds for one condition, and why."""

    status: ConditionStatus
    reason: Reason
    message: str = ""


def true(reason: Reason, message: str = "") -> Verdict:
    """The condition holds."""
    return Verdict(ConditionStatus.TRUE, reason, message)


def false(reason: Reason, message: str) -> Verdict:
    """The condition does not hold."""
    return Verdict(ConditionStatus.FALSE, reason, message)


def unknown(reason: Reason, message: str) -> Verdict:
    """It cannot be told."""
    return Verdict(ConditionStatus.UNKNOWN, reason, message)


def reason_of(error: Unavailable) -> Reason:
    """The reason that a condition has. Those of Kubernetes' API (`Forbidden`, `TooManyRequests`, …) become one."""
    return Reason(error.reason) if error.reason in set(Reason) else Reason.API_REFUSED


def timestamp(now: float) -> str:
    """Epoch seconds as Kubernetes writes a time."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def epoch(text: str) -> float:
    """A Kubernetes time as epoch seconds."""
    return datetime.fromisoformat(text).timestamp()


def condition(kind: str, verdict: Verdict, previous: Iterable[Condition], generation: int, now: float) -> Condition:
    """The condition for a verdict. Its transition time is kept where the status is what it was."""
    before = next((each for each in previous if each.type == kind), None)
    same = before is not None and before.status == verdict.status and before.last_transition_time
    return Condition(
        type=kind,
        status=verdict.status,
        reason=verdict.reason,
        message=verdict.message,
        last_transition_time=before.last_transition_time if before and same else timestamp(now),
        observed_generation=generation,
    )


def recorded_verdict(kind: str, previous: Iterable[Condition]) -> Verdict | None:
    """What a condition said; None where there is none, or its reason is one that only a newer release knows."""
    before = next((each for each in previous if each.type == kind), None)
    if before is None or before.reason not in set(Reason):
        return None
    return Verdict(before.status, Reason(before.reason), before.message)


def derive_ready(
    verdicts: dict[DeploymentCondition, Verdict], *, present: bool = False, ahead: bool = False
) -> Verdict:
    """`Ready` from the rest: the first of them that is against it, in the order in which things depend on each other.

    `Progressing` is against it while it holds (not yet there) and where it failed, unless what serves is of the present
    spec already (`present`), as it is while an optimized model takes over from the model itself. Then `ModelResolved` may be of a
    revision that gets no request yet (`ahead`), and is not against it: what serves, serves.
    """
    asked = (DeploymentCondition.POOL_READY, *(() if present and ahead else (DeploymentCondition.MODEL_RESOLVED,)))
    for kind in asked:
        if verdicts[kind].status is ConditionStatus.FALSE:
            return false(verdicts[kind].reason, verdicts[kind].message)
    progressing = verdicts[DeploymentCondition.PROGRESSING]
    unreachable = progressing.reason is Reason.GATEWAY_UNREACHABLE
    if progressing.reason is not Reason.ROLLED_OUT and (unreachable or not present):
        return false(progressing.reason, progressing.message)
    serving = verdicts[DeploymentCondition.SERVING]
    if serving.status is not ConditionStatus.TRUE:
        return false(serving.reason, serving.message)
    return true(Reason.READY, serving.message)


def transitions(previous: Iterable[Condition], present: Iterable[Condition]) -> tuple[Condition, ...]:
    """Conditions whose status or reason is not what it was."""
    before = {each.type: (each.status, each.reason) for each in previous}
    return tuple(each for each in present if before.get(each.type) != (each.status, each.reason))


def merge_alike(conditions: Iterable[Condition]) -> tuple[tuple[Condition, str], ...]:
    """What conditions say, once where several say the same: the first of them, and `Type, Type: message` of all."""
    alike: dict[tuple[ConditionStatus, str, str], list[Condition]] = {}
    for each in conditions:
        alike.setdefault((each.status, each.reason, each.message), []).append(each)
    return tuple((same[0], f"{', '.join(each.type for each in same)}: {same[0].message}") for same in alike.values())
