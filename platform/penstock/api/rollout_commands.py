"""What people tell a rollout, by the annotation `penstock.dev/rollout` or `penstock rollout`, and when each makes sense.

A command names the revision that it is about, so that one that is stale does nothing. It is a level, not an edge: nobody takes the
annotation away, and `status.rollout.obeyed` repeats the one that was carried out. A third word, whatever it is, makes one that was
carried out before another: `retry v1abcdef0123 again`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from penstock.api.rollout import RolloutPhase, RolloutStatus
from penstock.wording import join_with_or

ROLLOUT_ANNOTATION: Final = "penstock.dev/rollout"
_LONGEST: Final = 128
"""Characters of a command, as many as `status.rollout.obeyed` holds."""


class RolloutVerb(StrEnum):
    """What a rollout can be told."""

    PROMOTE = "promote"
    """The candidate takes over now, proved or not; one that has taken over is watched no longer."""
    PAUSE = "pause"
    """It goes no further; evidence goes on being gathered."""
    RESUME = "resume"
    """It goes on where it was held."""
    ABORT = "abort"
    """It gets no request any more, and the stable revision goes on."""
    UNDO = "undo"
    """The former revision takes over again from one that has taken over; of one that has not, `abort`."""
    RETRY = "retry"
    """It was rolled back, and is judged anew, from the beginning."""


_UNDER_WAY: Final = (RolloutPhase.STARTING, RolloutPhase.SHADOWING, RolloutPhase.STEPPING)
_PHASES: Final[Mapping[RolloutVerb, tuple[RolloutPhase, ...]]] = {
    RolloutVerb.PROMOTE: (*_UNDER_WAY, RolloutPhase.HELD, RolloutPhase.WATCHING),
    RolloutVerb.PAUSE: (*_UNDER_WAY, RolloutPhase.HELD),
    RolloutVerb.RESUME: (RolloutPhase.HELD,),
    RolloutVerb.ABORT: (*_UNDER_WAY, RolloutPhase.HELD),
    RolloutVerb.UNDO: (RolloutPhase.WATCHING, RolloutPhase.HELD),
    RolloutVerb.RETRY: (RolloutPhase.ROLLED_BACK,),
}


@dataclass(frozen=True, slots=True)
class RolloutCommand:
    """A verb, and the candidate that it is about."""

    verb: RolloutVerb
    revision: str
    distinction: str = ""
    """What makes it another command than one of the same verb that was carried out before."""

    def __str__(self) -> str:
        """As the annotation and `status.rollout.obeyed` have it."""
        return " ".join(filter(None, (self.verb, self.revision, self.distinction)))


def parse_command(text: str) -> RolloutCommand | None:
    """`VERB REVISION`, with or without a third word; None for anything else."""
    match text[: _LONGEST + 1].split():
        case [verb, revision, *rest] if verb in set(RolloutVerb) and len(rest) <= 1 and len(text) <= _LONGEST:
            return RolloutCommand(RolloutVerb(verb), revision, *rest)
        case _:
            return None


def makes_sense(verb: RolloutVerb, phase: RolloutPhase) -> bool:
    """Whether a rollout in this phase can be told so."""
    return phase in _PHASES[verb]


def sensible_verbs(phase: RolloutPhase) -> tuple[RolloutVerb, ...]:
    """What a rollout in this phase can be told."""
    return tuple(verb for verb in RolloutVerb if makes_sense(verb, phase))


def refusal(verb: RolloutVerb, status: RolloutStatus) -> str | None:
    """Why a rollout cannot be told so now, and what it can be told; None: it can."""
    if makes_sense(verb, status.phase):
        return None
    revision = status.candidate
    match status.phase:
        case RolloutPhase.PROMOTED:
            return f"revision {revision} has taken over for good, and the former one is gone: apply the former spec, which is judged, too"
        case RolloutPhase.ROLLED_BACK:
            where = f"revision {revision} was rolled back and gets no request"
        case RolloutPhase.WATCHING:
            where = f"revision {revision} has taken over and gets all requests"
        case RolloutPhase.HELD:
            where = f"revision {revision} is held"
        case RolloutPhase.STARTING | RolloutPhase.SHADOWING | RolloutPhase.STEPPING:
            where = f"revision {revision} has not taken over yet, and nothing holds it"
    return f"{verb} makes no sense now, since {where}: it can be told to {join_with_or(sensible_verbs(status.phase))}"
