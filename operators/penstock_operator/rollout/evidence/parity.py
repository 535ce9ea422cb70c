"""Evidence on how a candidate's answers differ from the present revision's, beyond what two copies of that one differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock.routing.outcomes import LOSS_EDGES
from penstock_operator.rollout.evidence.arrays import Array, share
from penstock_operator.rollout.evidence.spread import HARM_PRIOR, SAMPLES_PRIOR, Spread
from penstock_operator.rollout.evidence.wealth import Wealth

BETS: Final = np.array((0.05, 0.2, 0.5, 0.9))
"""Parts of the capital that would be lost by the worst that can be."""
_ENDS: Final = np.array((-1.0, *LOSS_EDGES, 1.0))
_LOWER, _UPPER = _ENDS[:-1], _ENDS[1:]
"""Edges of buckets. The last bucket, above all edges, is always empty, as losses are in [0, 1]."""
_SQUARES: Final = np.maximum(_LOWER**2, _UPPER**2)


@dataclass(frozen=True, slots=True)
class ParityEvidence:
    """Bets on the mean of bounded numbers.

    As Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86 (2024).
    A sample's excess x, in [-1, 1], is the candidate's loss less its twin's. Against the null `E x >= m`, the factor
    `1 + b (m - x)` with 0 <= b < 1/(1 - m) is an e-value, and against `E x <= m`, `1 + b (x - m)` with 0 <= b < 1/(1 + m).
    What is told of a block is how many samples are in each bucket, and their sum: of all samples that these can be, those count
    whose product of factors is least.
    """

    harm: Wealth
    proof: Wealth
    spread: Spread

    @classmethod
    def start(cls, rollouts: int) -> ParityEvidence:
        """Nothing was seen yet."""
        return cls(
            Wealth.start(rollouts, len(BETS)),
            Wealth.start(rollouts, len(BETS)),
            Spread.start(rollouts),
        )

    def add(self, excess: Array, total: Array, margin: float) -> ParityEvidence:
        """After a block.

        Args:
            excess: Samples by bucket of their excess, (rollouts, buckets).
            total: Sum of their excess.
            margin: m, in [0, 1).
        """
        counted = excess.sum(axis=1) > 0
        lost, won = gains(excess, total, margin)
        return ParityEvidence(
            harm=self.harm.add(lost / self.spread.effect(HARM_PRIOR)[:, None], counted),
            proof=self.proof.add(won / self.spread.effect(SAMPLES_PRIOR)[:, None], counted),
            spread=self.spread.add(*moments(excess, total), counted),
        )


def gains(excess: Array, total: Array, margin: float) -> tuple[Array, Array]:
    """Logs of e-values of a block, of harm and of proof, by bet; each of shape (rollouts, bets).

    Within a bucket, a concave function is at least its chord, so the least sum of logarithms is found by raising samples from
    their buckets' lower edges to the upper ones until their sum is `total`, where that gains least or costs most: at the top
    first, as the logarithms are concave.
    """
    width = _UPPER - _LOWER
    room = excess * width
    above = np.cumsum(room[:, ::-1], axis=1)[:, ::-1] - room
    raised = np.clip((total - excess @ _LOWER)[:, None] - above, 0.0, room)
    harm_bets, proof_bets = BETS / (1 + margin), BETS / (1 - margin)
    return (
        _least_sum(np.log1p(harm_bets[:, None] * (_ENDS - margin)), excess, raised),
        _least_sum(np.log1p(proof_bets[:, None] * (margin - _ENDS)), excess, raised),
    )


def moments(excess: Array, total: Array) -> tuple[Array, Array, Array]:
    """The excess of a block's samples in all, about its variance within the block, and how many they are."""
    samples = excess.sum(axis=1)
    return total, np.maximum(excess @ _SQUARES - total * share(total, samples), 0.0), samples


def _least_sum(logs: Array, excess: Array, raised: Array) -> Array:
    """Of logarithms at `_ENDS`, (bets, buckets + 1), over samples of which some are raised within their buckets."""
    width = _UPPER - _LOWER
    slope = np.divide(np.diff(logs, axis=1), width, out=np.zeros((len(logs), len(width))), where=width > 0)
    value: Array = excess @ logs[:, :-1].T + raised @ slope.T
    return value
