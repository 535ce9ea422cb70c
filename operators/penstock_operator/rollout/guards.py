"""What needs no statistics to be told as harm: replicas that die, and requests that nobody answers."""

from __future__ import annotations

from typing import Final

from penstock.routing.outcomes import LATENCY_SECONDS
from penstock_operator.rollout.notes import RolloutNotes, slowest_seconds
from penstock_operator.rollout.sight import RolloutSight

STUCK_SECONDS: Final = 30.0
ABSENT_SECONDS: Final = 300.0
"""A candidate that no gateway lists may be on its way to another node. Meanwhile others answer its share."""
_TIMES_SLOWEST: Final = 3.0
"""A stable revision that takes longer gives the candidate as many times its slowest answer."""
IDLE_SECONDS: Final = 15.0
"""Without a request for so long a model has no traffic to judge by."""


def find_harm(notes: RolloutNotes, sight: RolloutSight) -> str:
    """What is wrong with the candidate for certain, in a sentence; empty where nothing is."""
    return _find_deaths(notes) or _find_silence(notes, sight)


def is_idle(notes: RolloutNotes, now: float) -> bool:
    """Whether no client asks."""
    return now - notes.busy_at >= IDLE_SECONDS


def _find_deaths(notes: RolloutNotes) -> str:
    """More replicas died unasked than it has, beyond what died of others: each may die once, with a node that many of them lie on."""
    candidate, others = notes.candidate.deaths, notes.stable.deaths + notes.baseline.deaths
    if candidate - others <= max(notes.candidate.most, 1):
        return ""
    beside = "none" if not others else str(others)
    return f"Replicas of it died {candidate} times, and of the stable revision {beside} did."


def _find_silence(notes: RolloutNotes, sight: RolloutSight) -> str:
    if notes.stuck_since is None or notes.others <= notes.others_then:
        return ""
    stable = {**sight.arm(sight.stable).replicas, **sight.arm(sight.baseline).replicas}
    patience = STUCK_SECONDS if sight.arm(sight.candidate).listed else ABSENT_SECONDS
    limit = max(patience, _TIMES_SLOWEST * slowest_seconds(stable, LATENCY_SECONDS))
    waited = sight.now - notes.stuck_since
    if waited < limit:
        return ""
    meanwhile = notes.others - notes.others_then
    return f"It has answered no request for {waited:.0f} s, in which the stable revision answered {meanwhile}."
