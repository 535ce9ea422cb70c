"""Evidence on what is measured once a block, such as CPU time and memory: in how many blocks the candidate's was above a limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock_operator.rollout.evidence.arrays import Array, Mask
from penstock_operator.rollout.evidence.spread import HARM_PRIOR, Spread
from penstock_operator.rollout.evidence.wealth import GREATEST_GAIN, Wealth

SHARES_ABOVE: Final = np.array((0.65, 0.8, 0.95))
"""Of blocks above the limit, in the alternatives that are bet on."""


@dataclass(frozen=True, slots=True)
class SignEvidence:
    """A sign test, whatever the measure's distribution is.

    The null hypothesis of harm is that at most every second block is above the limit, and that of the proof is that at least
    every second one is. One block gives the factor q/0.5 or (1-q)/0.5, for each q that is bet on; whether blocks depend on each other, runs of eight
    tell.
    """

    harm: Wealth
    proof: Wealth
    harm_spread: Spread
    proof_spread: Spread

    @classmethod
    def start(cls, rollouts: int) -> SignEvidence:
        """Nothing was seen yet."""
        alternatives = len(SHARES_ABOVE)
        return cls(
            Wealth.start(rollouts, alternatives),
            Wealth.start(rollouts, alternatives),
            Spread.start(rollouts),
            Spread.start(rollouts),
        )

    def add(
        self, bad: Mask, harm_counts: Mask, good: Mask, proof_counts: Mask, most: float = GREATEST_GAIN
    ) -> SignEvidence:
        """After a block.

        Args:
            bad: Where it was above the limit.
            harm_counts: Where that may be held against the candidate.
            good: Where it was below, with all that speaks against it taken for true.
            proof_counts: Where that may be held for it.
            most: Log of the most by which a block multiplies evidence of harm.
        """
        return SignEvidence(
            harm=self.harm.add(sign_gains(bad) / self.harm_spread.effect(HARM_PRIOR)[:, None], harm_counts, most),
            proof=self.proof.add(sign_gains(good) / self.proof_spread.effect(HARM_PRIOR)[:, None], proof_counts),
            harm_spread=_add(self.harm_spread, bad, harm_counts),
            proof_spread=_add(self.proof_spread, good, proof_counts),
        )


def sign_gains(seen: Mask) -> Array:
    """Logs of e-values of one block, by alternative."""
    gains: Array = np.where(seen[:, None], np.log(2 * SHARES_ABOVE), np.log(2 - 2 * SHARES_ABOVE))
    return gains


def _add(spread: Spread, seen: Mask, counted: Mask) -> Spread:
    ones = np.ones(len(seen))
    return spread.add(seen - 0.5 * ones, 0.25 * ones, ones, counted)
