"""What is known of a rollout at one look: what was seen, what was noted before, and what the evidence says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock.api.conditions import Reason
from penstock.api.rollout import BaselineKind, ProofSource, RolloutPhase, RolloutStatus, RolloutType
from penstock.api.rollout_commands import RolloutCommand, RolloutVerb, makes_sense
from penstock.api.verdicts import epoch
from penstock_operator.rollout.arms import FULL, LARGE_SHARE, full_size, size_for
from penstock_operator.rollout.evidence.findings import Findings
from penstock_operator.rollout.evidence.ledger import CPU, LATENCY, PARITY
from penstock_operator.rollout.evidence.watch import LONGEST_WATCH
from penstock_operator.rollout.guards import is_idle
from penstock_operator.rollout.notes import RolloutNotes
from penstock_operator.rollout.settings import RolloutSettings
from penstock_operator.rollout.sight import ArmSight, RolloutSight

PATIENCE_SECONDS: Final = 30.0
"""A surge goes on with fewer replicas where the rest found no node for this long."""
FEW_REQUESTS: Final = 500
"""Where no more came since a rollout began, and none comes now, clients' requests are too few to judge by."""
_COUNTED: Final = (Reason.ROLLOUT_INCONCLUSIVE, Reason.ROLLOUT_FAILED)
"""Held for these, its time goes on."""
_BY_LOAD: Final = frozenset({LATENCY, CPU})
"""Metrics that nothing tells where neither clients' requests are shared nor anything is idle that could be compared."""


@dataclass(frozen=True, slots=True)
class RolloutCase:
    """What the next phase is decided on."""

    sight: RolloutSight
    record: RolloutStatus
    notes: RolloutNotes
    """With this look."""
    findings: Findings | None
    """None: there is nothing to judge by now."""
    baseline: BaselineKind | None
    """With what the candidate is compared from now on. None: that is not decided."""

    @property
    def settings(self) -> RolloutSettings:
        """What the spec asks for."""
        return self.sight.settings

    @property
    def candidate(self) -> ArmSight:
        """The candidate's application."""
        return self.sight.arm(self.sight.candidate)

    @property
    def stable(self) -> ArmSight:
        """The application of what serves."""
        return self.sight.arm(self.sight.stable)

    @property
    def takes_all_first(self) -> bool:
        """Whether it gets all requests before it is proved, and the other stays in full meanwhile."""
        return self.settings.type is RolloutType.BLUE_GREEN and self.record.phase is not RolloutPhase.WATCHING

    @property
    def deadline_at(self) -> float | None:
        """By when it is to be proved, in epoch seconds; time for which something else held it is not counted."""
        if not self.record.deadline or not (self.judges_forward or self.takes_all_first):
            return None
        held = self.record.phase is RolloutPhase.HELD and self.record.reason not in _COUNTED
        return epoch(self.record.deadline) + (self.seconds_in_phase if held else 0.0)

    @property
    def seconds_in_phase(self) -> float:
        """Since when it is in this phase and step."""
        return self.sight.now - epoch(self.record.phase_at)

    @property
    def told(self) -> RolloutCommand | None:
        """What people say that was not carried out yet, and makes sense."""
        command = self.sight.command
        if command is None or command.revision != self.sight.candidate or str(command) == self.record.obeyed:
            return None
        return command if makes_sense(command.verb, self.record.phase) else None

    def is_told(self, *verbs: RolloutVerb) -> bool:
        """Whether people say one of these now."""
        return self.told is not None and self.told.verb in verbs

    @property
    def paused(self) -> bool:
        """Whether it is to go no further, by the spec or by a command."""
        said = self.told.verb if self.told is not None else self.record.obeyed.partition(" ")[0]
        return self.settings.paused or said == RolloutVerb.PAUSE

    @property
    def idle(self) -> bool:
        """Whether no client asks."""
        return is_idle(self.notes, self.sight.now)

    @property
    def without_traffic(self) -> bool:
        """Whether there are too few requests to judge by, so that inputs that are shown must do."""
        return self.idle and self.notes.live < FEW_REQUESTS

    @property
    def requests_in_step(self) -> int:
        """The candidate's, of clients."""
        return self.notes.candidate.grown - self.notes.at_step

    @property
    def full_size(self) -> int:
        """Replicas that the candidate must have before it gets all requests."""
        return full_size(self.stable.running, self.sight.low, self.sight.high)

    @property
    def parity_proved(self) -> bool:
        """Whether its answers were proved to agree, or need not."""
        if not self.settings.asks_parity:
            return True
        return self.findings is not None and PARITY not in self.findings.missing

    @property
    def missing(self) -> tuple[str, ...] | None:
        """The metrics in which it was not proved to be no worse, of those that can be compared; None: nothing was compared yet."""
        if self.findings is None:
            return None
        unknown = _BY_LOAD if self.baseline is BaselineKind.FLEET and not self.is_canary else frozenset[str]()
        return tuple(each for each in self.findings.missing if each not in unknown)

    @property
    def proved(self) -> bool:
        """Whether it was proved to be no worse in all that can be compared. What has all requests was proved before."""
        return self.record.weight == FULL or self.missing == ()

    @property
    def by_shown_alone(self) -> bool:
        """Whether it takes over by what both were shown, since no client gets its answers before, or none asks."""
        if self.settings.type is RolloutType.BLUE_GREEN:
            return False
        return self.settings.type is RolloutType.SHADOW or self.without_traffic

    @property
    def proved_by_shown(self) -> bool:
        """Whether all is proved, and something only by what both were shown: clients' requests are too few to prove it."""
        found = self.findings
        return (
            self.proved
            and found is not None
            and any(each.proved_by in (ProofSource.SHOWN, ProofSource.MADE) for each in found.metrics)
        )

    @property
    def has_last_share(self) -> bool:
        """Whether nothing but all requests comes after the share that it has; of `BlueGreen`, whether it has all."""
        if self.settings.type is RolloutType.BLUE_GREEN:
            return self.record.weight == FULL
        return self.record.weight > 0 and self.next_weight == FULL

    @property
    def shares_in_vain(self) -> bool:
        """Whether it has a part of the requests although its type shares none: the spec named another when it got it."""
        return not self.is_canary and 0 < self.record.weight < FULL

    @property
    def next_weight(self) -> int:
        """Percent of the step after this one; the first one's before any, and all after the last. Steps may have changed."""
        return min((each for each in self.settings.steps if each > self.record.weight), default=FULL)

    def size_at(self, weight: int) -> int:
        """Replicas of the candidate at a share. At a small one those that it has, since it is not scaled while it is judged."""
        declared = self.candidate.declared
        if weight == self.record.weight and weight < LARGE_SHARE and declared:
            return declared
        if weight >= FULL:
            return max(declared, self.full_size)
        return max(declared, min(size_for(weight, max(self.stable.wanted, self.stable.running)), self.full_size))

    def has_size(self, size: int) -> bool:
        """Whether so many replicas of the candidate are there to answer."""
        return self.candidate.running >= size and self.candidate.listed >= size

    @property
    def watched_enough(self) -> bool:
        """Whether one that has taken over need not be watched any more: where it is in doubt, later."""
        doubtful = self.findings is not None and self.findings.doubt is not None
        return self.seconds_in_phase >= self.settings.keep_seconds * (LONGEST_WATCH if doubtful else 1.0)

    @property
    def judges_forward(self) -> bool:
        """Whether the candidate is compared with what serves, rather than what has taken over with what served before."""
        return self.record.weight < FULL

    @property
    def is_canary(self) -> bool:
        """Whether it gets shares, one after another."""
        return self.settings.shares_requests

    @property
    def started(self) -> bool:
        """Whether its replicas were there once."""
        return self.record.phase is not RolloutPhase.STARTING
