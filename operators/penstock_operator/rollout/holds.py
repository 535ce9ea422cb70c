"""What keeps a rollout where it is."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.api.conditions import Reason
from penstock.api.rollout import OnFailure, OnInconclusive
from penstock.api.rollout_commands import RolloutVerb
from penstock.wording import join_some
from penstock_operator.rollout.case import RolloutCase


@dataclass(frozen=True, slots=True)
class RolloutHold:
    """Why it goes no further."""

    reason: Reason
    message: str


def find_hold(case: RolloutCase) -> RolloutHold | None:
    """What holds it now, the weightiest first; None where nothing does."""
    return _hold_harm(case) or _hold_pause(case) or _hold_blind(case) or _hold_skewed(case) or _hold_overdue(case)


def is_inconclusive(case: RolloutCase) -> bool:
    """Whether its time is over and nothing was shown."""
    due = case.deadline_at
    return due is not None and case.sight.now >= due and not case.proved and not case.is_told(RolloutVerb.RESUME)


def why_unproved(case: RolloutCase) -> str:
    """What is not shown yet, for people."""
    missing = case.missing
    if missing is None:
        return "nothing was compared yet"
    return f"not proved yet: {join_some(missing, len(missing))}" if missing else "all is proved"


def _hold_harm(case: RolloutCase) -> RolloutHold | None:
    if not case.notes.harm or case.settings.on_failure is not OnFailure.HOLD:
        return None
    share = f"It keeps its {case.record.weight} % of the requests" if case.record.weight else "It gets no request"
    message = f"Revision {case.sight.candidate} is worse: {case.notes.harm} {share}, since onFailure is Hold: promote or abort it."
    return RolloutHold(Reason.ROLLOUT_FAILED, message)


def _hold_pause(case: RolloutCase) -> RolloutHold | None:
    if not case.paused or not (case.judges_forward or case.takes_all_first):
        return None
    by = "spec.rollout.paused" if case.settings.paused else "a command"
    return RolloutHold(Reason.ROLLOUT_PAUSED, f"Paused by {by} at {case.record.weight} % of the requests.")


def _hold_blind(case: RolloutCase) -> RolloutHold | None:
    if case.sight.comparable or not case.judges_forward:
        return None
    message = (
        "Not every gateway can compare revisions: one is of a former release, or none answers. Upgrade the gateways, promote it "
        "unjudged, or set spec.rollout.type to Immediate."
    )
    return RolloutHold(Reason.ROLLOUT_HELD, message)


def _hold_skewed(case: RolloutCase) -> RolloutHold | None:
    if case.findings is None or not case.findings.skewed or not case.judges_forward:
        return None
    return RolloutHold(Reason.ROLLOUT_HELD, f"Requests are not shared as they were to be: {case.findings.skewed}")


def _hold_overdue(case: RolloutCase) -> RolloutHold | None:
    if not is_inconclusive(case) or case.settings.on_inconclusive is not OnInconclusive.HOLD:
        return None
    message = (
        f"It was not proved to be no worse within {case.settings.deadline_seconds:g} s ({why_unproved(case)}). It keeps its "
        f"{case.record.weight} % of the requests until it is; promote, resume or abort it."
    )
    return RolloutHold(Reason.ROLLOUT_INCONCLUSIVE, message)
