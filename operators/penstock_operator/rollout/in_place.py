"""Where the pool has no room for two revisions side by side: one takes the other's place, replica by replica, unjudged."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.api.conditions import Reason
from penstock.api.rollout import RolloutPhase, RolloutStatus, RolloutType, WithoutRoom
from penstock.api.rollout_commands import RolloutVerb
from penstock.api.verdicts import timestamp
from penstock_operator.rollout.arms import FULL, ReplicaRange, exactly
from penstock_operator.rollout.case import PATIENCE_SECONDS
from penstock_operator.rollout.sight import RolloutSight


@dataclass(frozen=True, slots=True)
class PlaceTaken:
    """How far it is."""

    record: RolloutStatus
    candidate: ReplicaRange
    stable: ReplicaRange


def is_in_place(sight: RolloutSight, record: RolloutStatus) -> bool:
    """Whether the candidate takes the other's place, or is to begin so: it found no node for a while."""
    if record.type is RolloutType.IMMEDIATE:
        return True
    since = sight.arm(sight.candidate).waiting_since
    waited = since is not None and sight.now - since >= PATIENCE_SECONDS
    asked = sight.settings.without_room is WithoutRoom.IN_PLACE
    return asked and waited and record.phase is RolloutPhase.STARTING


def take_place(sight: RolloutSight, record: RolloutStatus, size: int) -> PlaceTaken:
    """One replica of what serves goes for each that starts; the last one only once all requests have gone over.

    Args:
        sight: what was seen.
        record: as the status has it.
        size: replicas that served when it began.
    """
    candidate, stable = sight.arm(sight.candidate), sight.arm(sight.stable)
    said = sight.command
    if said is not None and said.verb is RolloutVerb.ABORT and said.revision == sight.candidate:
        why = f"Revision {sight.candidate} was rolled back, and {sight.stable} gets all requests: a command said so."
        ended = _with_phase(sight, record, RolloutPhase.ROLLED_BACK, 0, why)
        back = ended.model_copy(update={"reason": str(Reason.ROLLOUT_ABORTED), "obeyed": str(said)})
        return PlaceTaken(back, exactly(size), ReplicaRange(sight.low))
    alone = candidate.waiting_since is not None and stable.running <= 1 and candidate.listed >= max(1, sight.low)
    if candidate.listed >= size or alone:
        message = f"Revision {sight.candidate} has taken over in place, unjudged."
        promoted = _with_phase(sight, record, RolloutPhase.PROMOTED, FULL, message)
        return PlaceTaken(promoted, ReplicaRange(sight.low), ReplicaRange(sight.low))
    # Of one that does not start, nothing more is given up for.
    room = 0 if candidate.failure else 1
    there = candidate.listed + stable.listed
    weight = min(FULL - 1, FULL * candidate.listed // there) if there else 0
    message = (
        f"The pool has no room for two revisions: {sight.candidate} takes the place of {sight.stable}, replica by replica and "
        f"unjudged; {candidate.listed} of {size} replicas of it answer."
    )
    phase = RolloutPhase.STEPPING if candidate.listed else record.phase
    going = _with_phase(sight, record, phase, max(weight, record.weight), message)
    return PlaceTaken(going, exactly(size), exactly(max(1, size - room - candidate.running)))


def _with_phase(
    sight: RolloutSight, record: RolloutStatus, phase: RolloutPhase, weight: int, message: str
) -> RolloutStatus:
    changed = (phase, weight) != (record.phase, record.weight)
    return record.model_copy(
        update={
            "type": RolloutType.IMMEDIATE,
            "phase": phase,
            "weight": weight,
            "phase_at": timestamp(sight.now) if changed else record.phase_at,
            "baseline": None,
            "message": message,
        }
    )
