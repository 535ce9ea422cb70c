"""Evidence that requests are not shared as declared: then neither arm's counts are what they are taken for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock_operator.rollout.evidence.arrays import Array, Mask, share
from penstock_operator.rollout.evidence.spread import HARM_PRIOR, Spread
from penstock_operator.rollout.evidence.wealth import Wealth

_TOLERANCE: Final = 1.25
"""Factor of the odds by which shares may be off: weights are whole numbers, and replicas tell at different times."""
_BEYOND: Final = np.array((1.2, 2.0, 8.0))
"""Factors of the odds beyond that which are bet on, in both directions."""


@dataclass(frozen=True, slots=True)
class ShareEvidence:
    """A test of the sample ratio.

    As Lindon and Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022, with a mixture over some odds in place
    of a Dirichlet's, since the declared share changes with each step.
    With s the share at the tolerance's edge and t that of an alternative beyond it, `(t/s)^n_c ((1-t)/(1-s))^n_b` is an e-value for
    each share up to s, since it grows with n_c.
    """

    wealth: Wealth
    spread: Spread

    @classmethod
    def start(cls, rollouts: int) -> ShareEvidence:
        """Nothing was seen yet."""
        return cls(Wealth.start(rollouts, 2 * len(_BEYOND)), Spread.start(rollouts))

    def add(self, candidate: Array, baseline: Array, expected: Array, holds: Mask) -> ShareEvidence:
        """After a block with so many requests in each arm."""
        total = candidate + baseline
        counted = holds & (expected > 0) & (expected < 1) & (total > 0)
        known = np.where(counted, expected, 0.5)
        value = gains(candidate, baseline, known) / self.spread.effect(HARM_PRIOR)[:, None]
        deviation = candidate - known * total
        return ShareEvidence(
            self.wealth.add(value, counted),
            self.spread.add(deviation, known * (1 - known) * total, total, counted),
        )


def gains(candidate: Array, baseline: Array, expected: Array) -> Array:
    """Logs of e-values of a block, (rollouts, alternatives)."""
    odds = share(expected, 1 - expected)[:, None]
    edge = np.concatenate((np.full(len(_BEYOND), _TOLERANCE), np.full(len(_BEYOND), 1 / _TOLERANCE)))
    far = edge * np.concatenate((_BEYOND, 1 / _BEYOND))
    s, t = odds * edge / (1 + odds * edge), odds * far / (1 + odds * far)
    value: Array = candidate[:, None] * np.log(t / s) + baseline[:, None] * (np.log1p(-t) - np.log1p(-s))
    return value
