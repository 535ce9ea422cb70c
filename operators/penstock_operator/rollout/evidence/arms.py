"""Evidence on how often something happens in two arms: failures, and answers above a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock_operator.rollout.evidence.arrays import Array
from penstock_operator.rollout.evidence.halfplane import PairCounts, log_evidence
from penstock_operator.rollout.evidence.spread import HARM_PRIOR, Spread
from penstock_operator.rollout.evidence.wealth import GREATEST_GAIN, Wealth

_MEMORY: Final = 0.98
"""Of rates that bets are placed by, after another block."""


@dataclass(frozen=True, slots=True)
class EventRule:
    """What is asked of a kind of event."""

    harm_margin: float
    """By how much the candidate's share may be greater before that is harm."""
    proof_margin: float
    """By how much it must be proved not to be greater."""
    effects: tuple[float, ...]
    """By how much it is greater than `harm_margin` in the alternatives that harm is bet on."""
    better: tuple[float, ...]
    """The candidate's share in the alternatives that proof is bet on, as multiples of the baseline's."""
    prior: float
    """The baseline's share before anything was seen."""
    prior_requests: float
    proof_prior: float
    """The design effect of proof until blocks say otherwise."""
    greatest_gain: float = GREATEST_GAIN
    """Log of the most by which one block multiplies evidence of harm."""


@dataclass(frozen=True, slots=True)
class EventEvidence:
    """Of one kind of event. Events may be told differently for harm and for proof, each in the way that is worse for it."""

    harm: Wealth
    proof: Wealth
    spread: Spread
    events: Array
    """Of the baseline lately, by rollout."""
    requests: Array

    @classmethod
    def start(cls, rollouts: int, rule: EventRule) -> EventEvidence:
        """Nothing was seen yet."""
        return cls(
            Wealth.start(rollouts, len(rule.effects)),
            Wealth.start(rollouts, len(rule.better)),
            Spread.start(rollouts),
            np.zeros(rollouts),
            np.zeros(rollouts),
        )

    def add(self, rule: EventRule, harm: PairCounts, proof: PairCounts) -> EventEvidence:
        """After a block. All that bets depend on was known before it."""
        baseline = ((self.events + rule.prior * rule.prior_requests) / (self.requests + rule.prior_requests))[:, None]
        worse = baseline + rule.harm_margin + np.array(rule.effects)
        better = baseline * np.array(rule.better)
        lost = log_evidence(harm, worse, np.broadcast_to(baseline, worse.shape), rule.harm_margin, harm=True)
        won = log_evidence(proof, better, np.broadcast_to(baseline, better.shape), rule.proof_margin, harm=False)
        told = harm.candidate * harm.baseline > 0
        return EventEvidence(
            harm=self.harm.add(lost / self.spread.effect(HARM_PRIOR)[:, None], told, rule.greatest_gain),
            proof=self.proof.add(won / self.spread.effect(rule.proof_prior)[:, None], proof.candidate > 0),
            spread=self.spread.add_pair(harm, baseline[:, 0]),
            events=self.events * _MEMORY + harm.baseline_events,
            requests=self.requests * _MEMORY + harm.baseline,
        )
