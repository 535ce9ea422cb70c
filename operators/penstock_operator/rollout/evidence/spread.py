"""How much more counts vary between blocks than requests that know nothing of each other would."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np

from penstock_operator.rollout.evidence.arrays import Array, Mask, clip, share
from penstock_operator.rollout.evidence.halfplane import PairCounts

HARM_PRIOR: Final = 1.5
SAMPLES_PRIOR: Final = 2.0
"""Of samples, which are drawn from requests one by one: of a caller's run, few are."""
PROOF_PRIOR: Final = 4.0
"""Design effects that hold until blocks say otherwise. Of what is rare, they never do: where no request failed yet, none tells
whether failures come alone, and a proof by their absence must not take them to. Harm has its own guard, `GREATEST_GAIN`."""
_PRIOR_BLOCKS: Final = 8.0
_LONG: Final = 8
"""Blocks in a long one."""
_PRIOR_LONG: Final = 4.0
_MEMORY: Final = 0.98
"""Of what was seen, after another block: a day's noise is not the night's."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A design effect, estimated from earlier blocks alone.

    Requests come in clusters (a caller's, a second's), and e-values that take them for independent grow too fast by the factor by
    which variances are underestimated. Let u be a block's deviation (such as the difference of two arms' shares), less its running
    mean so that a lasting effect is none, and v the variance that it had if requests were independent. The mean of u^2/v over
    blocks estimates that factor; over sums of eight blocks it sees what lasts longer than one, too. The greater of both, D >= 1,
    divides the log of the block's e-value, and E^(1/D) is an e-value whenever E is, by Jensen's inequality, as D is known before
    the block is. Where the requests of a cluster of D are as one, it is the e-value of one of them.
    """

    deviations: Array
    sizes: Array
    short_sum: Array
    short_weight: Array
    long_sum: Array
    long_weight: Array
    open_deviation: Array
    open_variance: Array
    open_blocks: Array

    @classmethod
    def start(cls, rollouts: int) -> Spread:
        """Nothing was seen yet."""
        return cls(*(np.zeros(rollouts) for _ in fields(cls)))

    def effect(self, prior: float) -> Array:
        """D, by rollout."""
        short = (prior * _PRIOR_BLOCKS + self.short_sum) / (_PRIOR_BLOCKS + self.short_weight)
        long = (prior * _PRIOR_LONG + self.long_sum) / (_PRIOR_LONG + self.long_weight)
        return np.maximum(np.maximum(short, long), 1.0)

    def add_pair(self, counts: PairCounts, usual: Array | float) -> Spread:
        """After a block in which events of two arms were counted, of which a share of some `usual` was known before it."""
        both, either = counts.candidate * counts.baseline, counts.candidate + counts.baseline
        size = share(both, either)
        apart = share(counts.candidate_events, counts.candidate) - share(counts.baseline_events, counts.baseline)
        rate = clip((share(counts.candidate_events + counts.baseline_events, either) + usual) / 2, 0.0, 1.0)
        return self.add(size * apart, rate * (1 - rate) * size, size, both > 0)

    def add(self, deviation: Array, variance: Array, size: Array, counted: Mask) -> Spread:
        """After a block in which `deviation` was seen, expected to be an effect times `size`, with `variance` if independent."""
        told = counted & (variance > 0)
        rest = np.where(told, deviation - share(self.deviations, self.sizes) * size, 0.0)
        expected = np.where(told, variance, 0.0)
        weight = np.minimum(expected, 1.0)
        open_deviation, open_variance = self.open_deviation + rest, self.open_variance + expected
        open_blocks = self.open_blocks + told
        full = open_blocks >= _LONG
        long_weight = np.where(full, np.minimum(open_variance, 1.0), 0.0)
        fade = np.where(told, _MEMORY, 1.0)
        fade_long = np.where(full, _MEMORY**_LONG, 1.0)
        return Spread(
            deviations=self.deviations * fade + np.where(told, deviation, 0.0),
            sizes=self.sizes * fade + np.where(told, size, 0.0),
            short_sum=self.short_sum * fade + weight * share(rest**2, expected),
            short_weight=self.short_weight * fade + weight,
            long_sum=self.long_sum * fade_long + long_weight * share(open_deviation**2, open_variance),
            long_weight=self.long_weight * fade_long + long_weight,
            open_deviation=np.where(full, 0.0, open_deviation),
            open_variance=np.where(full, 0.0, open_variance),
            open_blocks=np.where(full, 0.0, open_blocks),
        )
