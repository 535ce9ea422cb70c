"""Evidence on how a candidate's answers differ from the present revision's, beyond what two copies of that one differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock.routing.outcomes import LOSS_EDGES
from penstock_operator.rollout.evidence.arrays import Array, share
from penstock_operator.rollout.evidence.spread import Spread
from penstock_operator.rollout.evidence.wealth import Wealth

_BETS: Final = np.array((0.05, 0.2, 0.5, 0.9))
"""Parts of the capital that would be lost by the worst that can be."""
_UPPER: Final = np.array((*LOSS_EDGES, 1.0))
_LOWER: Final = np.array((-1.0, *LOSS_EDGES))
"""Of what is in a bucket. The last bucket, above all edges, is always empty as losses are in [0, 1]."""


@dataclass(frozen=True, slots=True)
class ParityEvidence:
    """Bets on the mean of bounded numbers.

    As Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86 (2024).
    A sample's excess x, in [-1, 1], is the candidate's loss less its twin's. Against the null `E x >= m`, the factor
    `1 + b (m - x)` with 0 <= b < 1/(1 - m) is an e-value, and against `E x <= m`, `1 + b (x - m)` with 0 <= b < 1/(1 + m).
    Of a bucket's samples, all count as its upper edge for proof, and as its lower edge for harm.
    """

    harm: Wealth
    proof: Wealth
    spread: Spread

    @classmethod
    def start(cls, rollouts: int) -> ParityEvidence:
        """Nothing was seen yet."""
        return cls(
            Wealth.start(rollouts, len(_BETS)),
            Wealth.start(rollouts, len(_BETS)),
            Spread.start(rollouts),
        )

    def add(self, excess: Array, margin: float) -> ParityEvidence:
        """After a block with samples by bucket of their excess, (rollouts, buckets); `margin` is m, in [0, 1)."""
        samples = excess.sum(axis=1)
        counted, effect = samples > 0, self.spread.effect()[:, None]
        lost, won = gains(excess, margin)
        total = excess @ _UPPER
        mean = share(total, samples)
        squares = excess @ _UPPER**2
        variance = np.maximum(squares - total * mean, 0.0)
        return ParityEvidence(
            harm=self.harm.add(lost / effect, counted),
            proof=self.proof.add(won / effect, counted),
            spread=self.spread.add(total, variance, samples, counted),
        )


def gains(excess: Array, margin: float) -> tuple[Array, Array]:
    """Logs of e-values of a block, of harm and of proof, by bet; each of shape (rollouts, bets)."""
    harm_bets, proof_bets = _BETS / (1 + margin), _BETS / (1 - margin)
    harm = np.log1p(harm_bets[:, None] * (_LOWER - margin))
    proof = np.log1p(proof_bets[:, None] * (margin - _UPPER))
    return excess @ harm.T, excess @ proof.T
