"""The state machine of a judged rollout: where it goes from where it is. At most one step at each look."""

from __future__ import annotations

from dataclasses import dataclass, replace

from penstock.api.conditions import Reason
from penstock.api.rollout import BaselineKind, OnFailure, OnInconclusive, RolloutPhase, RolloutStatus, RolloutType
from penstock.api.rollout_commands import RolloutVerb
from penstock_operator.rollout.arms import FULL, baseline_of, baseline_size, full_size
from penstock_operator.rollout.case import PATIENCE_SECONDS, RolloutCase
from penstock_operator.rollout.evidence.watch import LONGEST_WATCH
from penstock_operator.rollout.holds import find_hold, is_inconclusive, why_unproved
from penstock_operator.rollout.showing import count_shown, tell_shown


def arms_of_rollout(record: RolloutStatus | None) -> frozenset[str]:
    """The revisions that may get requests at once, while one is judged; none where none is."""
    if record is None or record.phase.ended:
        return frozenset()
    return frozenset({record.candidate, record.stable, baseline_of(record.stable)})


def serving_revision(record: RolloutStatus) -> str:
    """The revision that gets all requests, or those that the candidate does not."""
    return record.candidate if record.weight == FULL else record.stable


@dataclass(frozen=True, slots=True)
class RolloutMove:
    """Where it is from now on."""

    phase: RolloutPhase
    step: int
    weight: int
    message: str
    reason: Reason | None = None
    grow: int = 0
    """Replicas of the candidate that a next step waits for; 0: none is due."""
    grow_stable: int = 0
    """Replicas of the former revision that a way back waits for."""


def next_move(case: RolloutCase) -> RolloutMove:
    """What follows from a look."""
    return (
        _turn_back_as_told(case)
        or _answer_harm(case)
        or _take_over(case)
        or _stay_held(case)
        or _give_up(case)
        or _go_on(case)
    )


def _stay(case: RolloutCase, message: str, *, grow: int = 0) -> RolloutMove:
    return RolloutMove(case.record.phase, case.record.step, case.record.weight, message, grow=grow)


def _roll_back(case: RolloutCase, reason: Reason, why: str) -> RolloutMove:
    stable, candidate = case.sight.stable, case.sight.candidate
    size = full_size(case.candidate.running, case.sight.low, case.sight.high)
    if case.record.weight == FULL and case.stable.listed < size and _may_wait_to_turn_back(case):
        message = f"All requests go back to {stable} once {size} replicas of it answer: {case.stable.listed} do. {why}"
        return replace(_stay(case, message), grow_stable=size)
    message = f"Revision {candidate} was rolled back, and {stable} gets all requests: {why}"
    return RolloutMove(RolloutPhase.ROLLED_BACK, case.record.step, 0, message, reason)


def _may_wait_to_turn_back(case: RolloutCase) -> bool:
    """Too few replicas would answer nobody; but not for long, and not where nothing else answers."""
    since = case.notes.turning_since
    return case.candidate.listed > 0 and (since is None or case.sight.now - since < PATIENCE_SECONDS)


def _turn_back_as_told(case: RolloutCase) -> RolloutMove | None:
    if not case.is_told(RolloutVerb.ABORT, RolloutVerb.UNDO):
        return None
    return _roll_back(case, Reason.ROLLOUT_ABORTED, "a command said so.")


def _answer_harm(case: RolloutCase) -> RolloutMove | None:
    if not case.notes.harm or case.settings.on_failure is OnFailure.HOLD:
        return None
    why = f"{case.notes.harm.rstrip('.')}. It is not tried again before the spec changes or `penstock rollout retry` says so."
    return _roll_back(case, Reason.ROLLOUT_FAILED, why)


def _take_over(case: RolloutCase) -> RolloutMove | None:
    """All requests, because it is told so or has earned it, once enough of its replicas are there."""
    told = case.is_told(RolloutVerb.PROMOTE)
    if not told and (case.notes.harm or find_hold(case) is not None or not _has_earned_all(case)):
        return None
    if case.record.phase is RolloutPhase.WATCHING or (case.record.weight == FULL and told):
        return _promote(case)
    size = case.size_at(FULL)
    if not case.has_size(size) and not _does_with_less(case):
        return _stay(case, f"It takes over once {size} replicas of it answer: {case.candidate.listed} do.", grow=size)
    if case.settings.keep_seconds > 0:
        return RolloutMove(RolloutPhase.WATCHING, case.record.step, FULL, _tell_watch(case))
    return _promote(case)


def _promote(case: RolloutCase) -> RolloutMove:
    message = f"Revision {case.sight.candidate} has taken over."
    if case.record.phase is RolloutPhase.WATCHING and case.findings is not None and case.findings.doubt is not None:
        message += f" It is in doubt whether it has become worse since, and nothing takes it back any more: {case.findings.doubt}."
    return RolloutMove(RolloutPhase.PROMOTED, case.record.step, FULL, message)


def _does_with_less(case: RolloutCase) -> bool:
    """Whether the rest found no node for so long that it goes on with what there is."""
    since = case.candidate.waiting_since
    waited = since is not None and case.sight.now - since >= PATIENCE_SECONDS
    return waited and case.has_size(max(1, case.sight.low))


def _has_earned_all(case: RolloutCase) -> bool:
    match case.record.phase:
        case RolloutPhase.STARTING | RolloutPhase.PROMOTED | RolloutPhase.ROLLED_BACK:
            return False
        case RolloutPhase.WATCHING:
            return case.watched_enough
        case _:
            pass
    if case.by_shown_alone:
        return case.proved
    return case.has_last_share and _has_done_step(case) and case.proved


def _has_done_step(case: RolloutCase) -> bool:
    """Whether it had its share for long enough, and got requests in that time, unless it is proved without them.

    Held time counts as any other.
    """
    asked = case.requests_in_step > 0 or case.proved_by_shown or case.record.weight == FULL
    return case.seconds_in_phase >= case.settings.step_seconds and asked


def _stay_held(case: RolloutCase) -> RolloutMove | None:
    """Nothing is held that has not begun, and nothing that has taken over but for harm."""
    hold = find_hold(case)
    if hold is None or not case.started:
        return None
    return RolloutMove(RolloutPhase.HELD, case.record.step, case.record.weight, hold.message, hold.reason)


def _give_up(case: RolloutCase) -> RolloutMove | None:
    if not is_inconclusive(case) or case.settings.on_inconclusive is not OnInconclusive.ROLLBACK:
        return None
    why = f"it was not proved to be no worse within {case.settings.deadline_seconds:g} s ({why_unproved(case)})."
    return _roll_back(case, Reason.ROLLOUT_INCONCLUSIVE, why)


def _go_on(case: RolloutCase) -> RolloutMove:
    match case.record.phase:
        case RolloutPhase.STARTING:
            return _start(case)
        case RolloutPhase.SHADOWING:
            return _shadow(case)
        case RolloutPhase.STEPPING:
            return _step(case)
        case RolloutPhase.HELD:
            return _let_go(case)
        case _:
            return _watch(case)


def _tell_watch(case: RolloutCase) -> str:
    seconds = f"{case.settings.keep_seconds:g} s"
    return f"Revision {case.sight.candidate} gets all requests; {case.sight.stable} stays for {seconds} in case of a regression."


def _watch(case: RolloutCase) -> RolloutMove:
    doubt = case.findings.doubt if case.findings is not None else None
    if case.notes.harm:
        return _stay(case, f"It has become worse, and keeps its share as it is to: {case.notes.harm}")
    if doubt is not None:
        longer = f"{LONGEST_WATCH * case.settings.keep_seconds:g} s"
        message = f"It may have become worse, and {case.sight.stable} is shown more of its requests, for {longer} at most: {doubt}."
        return _stay(case, message)
    return _stay(case, _tell_watch(case))


def _start(case: RolloutCase) -> RolloutMove:
    size = case.size_at(case.next_weight)
    if case.has_size(size):
        hold = find_hold(case)
        if hold is not None:
            return RolloutMove(RolloutPhase.HELD, 0, 0, hold.message, hold.reason)
        return RolloutMove(RolloutPhase.SHADOWING, 0, 0, "It is shown samples of the requests.")
    since = case.candidate.waiting_since
    if since is not None and case.sight.now - since >= PATIENCE_SECONDS:
        return _stay(case, "The pool has no room for it beside what serves: it waits for some.", grow=size)
    return _stay(case, f"{case.candidate.listed} of {size} replicas of it answer.", grow=size)


def _shadow(case: RolloutCase) -> RolloutMove:
    shown = _tell_shown(case)
    if not case.parity_proved:
        return _stay(case, f"No client gets its answers before they are proved to agree: {shown}")
    if not case.is_canary and not case.proved:
        return _stay(case, f"No client gets its answers before all is proved; {why_unproved(case)}: {shown}")
    if case.idle and case.is_canary:
        return _stay(case, f"Nobody sends requests; {why_unproved(case)}: {shown}")
    if not _is_baseline_ready(case):
        return _stay(case, "It waits for replicas of the present revision that are as young.")
    return _raise_share(case)


def _step(case: RolloutCase) -> RolloutMove:
    if case.shares_in_vain:
        return _take_share_away(case)
    if case.is_canary and case.next_weight < FULL and _has_done_step(case):
        return _raise_share(case)
    share = f"It gets {case.record.weight} % of the requests"
    if not case.requests_in_step:
        return _stay(case, f"{share}, and none came to it in this step.")
    return _stay(case, f"{share}; {why_unproved(case)}.")


def _raise_share(case: RolloutCase) -> RolloutMove:
    weight = case.next_weight
    step = case.settings.steps.index(weight) if weight in case.settings.steps else case.record.step
    size = case.size_at(weight)
    if not case.has_size(size) or not _is_baseline_ready(case, size):
        return _stay(case, f"It gets {weight} % of the requests once {size} replicas of it answer.", grow=size)
    return RolloutMove(RolloutPhase.STEPPING, step, weight, f"It gets {weight} % of the requests.")


def _is_baseline_ready(case: RolloutCase, size: int = 1) -> bool:
    if case.baseline is not BaselineKind.YOUNG:
        return case.baseline is BaselineKind.FLEET
    baseline, wanted = case.sight.arm(case.sight.baseline), baseline_size(size, shared=case.is_canary)
    return baseline.running >= wanted and baseline.listed >= wanted


def _take_share_away(case: RolloutCase) -> RolloutMove:
    message = f"It gets no request any more, since {case.settings.type} shares none: it is shown samples of them."
    return RolloutMove(RolloutPhase.SHADOWING, 0, 0, message)


def _let_go(case: RolloutCase) -> RolloutMove:
    """What held it is over."""
    weight = case.record.weight
    if case.shares_in_vain:
        return _take_share_away(case)
    if not weight:
        return RolloutMove(RolloutPhase.SHADOWING, 0, 0, "It goes on: it is shown samples of the requests.")
    if weight < FULL or case.settings.type is RolloutType.BLUE_GREEN:
        return RolloutMove(
            RolloutPhase.STEPPING, case.record.step, weight, f"It goes on with {weight} % of the requests."
        )
    return RolloutMove(RolloutPhase.WATCHING, case.record.step, weight, "It goes on being watched.")


def _tell_shown(case: RolloutCase) -> str:
    return f"{tell_shown(count_shown(case.sight))}."
