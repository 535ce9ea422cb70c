"""What guards and phases go on from after a restart: who was there at the last look, and what had been counted.

It stands in `status.rollout.notes`, bounded in replicas. What is not noted of a replica is no evidence of anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Final

from pydantic import Field, ValidationError

from penstock.models import Frozen
from penstock_operator.rollout.sight import ArmReplica, ArmSight, RolloutSight

MOST_REPLICAS: Final = 96
"""Of each arm that are kept in mind."""
_ASLEEP_SECONDS: Final = 60.0
"""For at least so long nobody asked a model that has no replica."""
_LONGEST_ID: Final = 16
_SHORT: Final = Field(max_length=64)


class ArmNotes(Frozen):
    """Of one arm."""

    made_of: Annotated[str, _SHORT] = ""
    ever: Annotated[tuple[Annotated[str, _SHORT], ...], Field(max_length=MOST_REPLICAS)] = ()
    """Ids of replicas that were ever listed."""
    most: int = 0
    """Replicas that there were to be at most."""
    ended: Annotated[dict[Annotated[str, _SHORT], int], Field(max_length=MOST_REPLICAS)] = Field(default={})
    """By id, requests that had ended at the last look, well or not."""
    grown: int = 0
    """Requests that ended since this arm is looked at."""

    @property
    def deaths(self) -> int:
        """Replicas that another one came in the place of, though nobody asked for it. 0 where there are too many to tell."""
        return max(0, len(self.ever) - self.most) if len(self.ever) < MOST_REPLICAS else 0


class RolloutNotes(Frozen):
    """Of all arms."""

    candidate: ArmNotes = ArmNotes()
    stable: ArmNotes = ArmNotes()
    baseline: ArmNotes = ArmNotes()
    busy_at: float = 0.0
    """When the last request was seen, in epoch seconds."""
    at_step: int = 0
    """The candidate's requests when this step began."""
    stuck_since: float | None = None
    """Since when the candidate has requests and answers none."""
    others_then: int = 0
    """Requests of the other arms by then."""
    baseline_at: float | None = None
    """When the baseline was declared."""
    turning_since: float | None = None
    """Since when all requests are to go back."""
    size: int = 0
    """Replicas of the stable revision when it began to be replaced in place."""
    harm: Annotated[str, Field(max_length=512)] = ""
    """What was found to be worse; from then on the candidate's share never grows by itself."""

    @property
    def others(self) -> int:
        """Requests of the stable revision's replicas since they are looked at."""
        return self.stable.grown + self.baseline.grown

    @property
    def live(self) -> int:
        """Requests of clients since they are looked at."""
        return self.others + self.candidate.grown


def read_notes(text: str) -> RolloutNotes:
    """From a status; none where there are none, or only another release can read them."""
    try:
        return RolloutNotes.model_validate_json(text) if text else RolloutNotes()
    except ValidationError:
        return RolloutNotes()


def write_notes(notes: RolloutNotes) -> str:
    """As the status has them."""
    return notes.model_dump_json(exclude_defaults=True)


def take_notes(before: RolloutNotes, sight: RolloutSight, weight: int) -> RolloutNotes:
    """The notes after another look.

    Args:
        before: those of the last one.
        sight: this look.
        weight: percent of the requests that the candidate gets.
    """
    before = _forget_future(before, sight.now)
    arms = {
        "candidate": _look_at(before.candidate, sight.arm(sight.candidate)),
        "stable": _look_at(before.stable, sight.arm(sight.stable)),
        "baseline": _look_at(before.baseline, sight.arm(sight.baseline)),
    }
    notes = before.model_copy(update=arms)
    return notes.model_copy(update={"busy_at": _busy_at(before, notes, sight), **_stuck(before, notes, sight, weight)})


def _forget_future(notes: RolloutNotes, now: float) -> RolloutNotes:
    """With nothing noted of the future: a clock that was set back would else be waited for."""
    times = {"busy_at": notes.busy_at, "stuck_since": notes.stuck_since}
    times |= {"baseline_at": notes.baseline_at, "turning_since": notes.turning_since}
    return notes.model_copy(update={name: min(at, now) for name, at in times.items() if at is not None})


def _look_at(before: ArmNotes, arm: ArmSight) -> ArmNotes:
    if arm.made_of and before.made_of and arm.made_of != before.made_of:
        before = ArmNotes(grown=before.grown)
    listed = {_shorten(name): arm.replicas[name].outcomes for name in sorted(arm.replicas)}
    ever = (*before.ever, *(each for each in listed if each not in before.ever))[:MOST_REPLICAS]
    ended = {name: each.answered + each.failed for name, each in listed.items() if each is not None}
    came = sum(max(0, count - before.ended[each]) for each, count in ended.items() if each in before.ended)
    # Of one that no gateway lists now, the count is kept: it may have missed a lease and come again.
    missed = {each: count for each, count in before.ended.items() if each not in ended}
    kept = dict([*ended.items(), *missed.items()][:MOST_REPLICAS])
    return ArmNotes(
        made_of=arm.made_of or before.made_of,
        ever=ever,
        most=max(before.most, arm.declared, arm.wanted),
        ended=kept,
        grown=before.grown + came,
    )


def _shorten(name: str) -> str:
    """Ray's ids are short; whoever may register could choose a longer one, and many do not fit a status."""
    return name if len(name) <= _LONGEST_ID else hashlib.sha256(name.encode()).hexdigest()[:_LONGEST_ID]


def _busy_at(before: RolloutNotes, notes: RolloutNotes, sight: RolloutSight) -> float:
    """When a client last asked. Where replicas count what they answer, by that: what is shown to them is no client's."""
    if not before.busy_at:
        return _last_request(sight)
    if notes.live > before.live:
        return sight.now
    if any(
        each.outcomes is not None for arm in (sight.stable, sight.baseline) for each in sight.arm(arm).replicas.values()
    ):
        return before.busy_at
    return max(before.busy_at, _last_request(sight))


def _last_request(sight: RolloutSight) -> float:
    idle = [0.0 if each.in_flight > 0 else each.idle_seconds for each in sight.arm(sight.stable).replicas.values()]
    return sight.now - min(idle, default=_ASLEEP_SECONDS)


def _stuck(before: RolloutNotes, notes: RolloutNotes, sight: RolloutSight, weight: int) -> Mapping[str, object]:
    if not weight or notes.candidate.grown > before.candidate.grown or not _is_pending(sight.arm(sight.candidate)):
        return {"stuck_since": None, "others_then": notes.others}
    if before.stuck_since is None:
        return {"stuck_since": sight.now, "others_then": notes.others}
    return {}


def _is_pending(arm: ArmSight) -> bool:
    """Whether requests wait for an answer for longer than any took, or there is no replica that could give one."""
    return not arm.listed or any(_late(each) for each in arm.replicas.values())


def _late(replica: ArmReplica) -> bool:
    return replica.outcomes.late > 0 if replica.outcomes is not None else replica.in_flight >= 1


def slowest_seconds(replicas: Mapping[str, ArmReplica], edges: tuple[float, ...]) -> float:
    """Within how many seconds all of these have answered; 0 where they have told of none."""
    return max((edges[min(bucket, len(edges) - 1)] for bucket in _buckets(replicas)), default=0.0)


def _buckets(replicas: Mapping[str, ArmReplica]) -> Iterator[int]:
    for each in replicas.values():
        if each.outcomes is not None:
            yield from each.outcomes.seconds
