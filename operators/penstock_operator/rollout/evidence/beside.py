"""Whether a revision that has taken over answers later than the former one does what both are shown: pure, for many at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock_operator.rollout.evidence.arrays import Array
from penstock_operator.rollout.evidence.block import EvidenceBlock
from penstock_operator.rollout.evidence.halfplane import PairCounts, log_evidence
from penstock_operator.rollout.evidence.latency import AnswerTimes, counts_above
from penstock_operator.rollout.evidence.spread import HARM_PRIOR, Spread
from penstock_operator.rollout.evidence.wealth import GREATEST_GAIN_OF_TIMES, ChangeDetector, most_within

_QUANTILES: Final = (0.5, 0.9)
"""Of the former revision's times. It is shown one request in a hundred, so that higher ones are seen too seldom."""
_SLOWER: Final = 2
"""Buckets, each of a tenth, by which answers may come later than the former revision's: 1.21 times. One has clients, the other none, so
that they are less alike than a candidate and its baseline; the one with clients was seen to be as fast, or faster by a tenth."""
_EFFECTS: Final = (0.05, 0.15, 0.4)
_GROWTH: Final = 1.003
"""By which the design effect may grow from one block to the next, so that it doubles in 230. How requests depend on each other changes
with those who send them; what begins to be late looks as if it did, and would hide behind that."""


@dataclass(frozen=True, slots=True)
class SlowBeside:
    """Detectors of answers that come late beside the former revision's to the same requests, each alone in its replica.

    What slows both at once, such as other traffic, is no evidence.
    """

    times: AnswerTimes
    detectors: tuple[ChangeDetector, ...]
    spreads: tuple[Spread, ...]
    effects: tuple[Array, ...]
    """Design effects that hold, by quantile."""

    @classmethod
    def start(cls, rollouts: int) -> SlowBeside:
        """Nothing was seen yet."""
        return cls(
            times=AnswerTimes.start(rollouts),
            detectors=tuple(ChangeDetector.start(rollouts, len(_EFFECTS)) for _ in _QUANTILES),
            spreads=tuple(Spread.start(rollouts) for _ in _QUANTILES),
            effects=tuple(np.full(rollouts, HARM_PRIOR) for _ in _QUANTILES),
        )

    def add(self, block: EvidenceBlock, allowed: float) -> SlowBeside:
        """After a block.

        Args:
            block: `shown_baseline` is the former revision's.
            allowed: by how much the share of slow answers may be greater; half of that above the 90th percentile, and by nothing
                above the median, since a fifth later is let pass already.
        """
        new, former = block.shown_candidate, block.shown_baseline
        most = most_within(block.seconds, GREATEST_GAIN_OF_TIMES)
        detectors, spreads, effects = [], [], []
        margins = (0.0, allowed / 2)
        for at, (quantile, margin) in enumerate(zip(_QUANTILES, margins, strict=True)):
            threshold = self.times.threshold(quantile)
            counts = counts_above(new, former, threshold, allowance=_SLOWER, late=False)
            usual, effect = 1 - quantile, self.effects[at]
            gained = _gains(counts, usual, margin) / effect[:, None]
            detectors.append(self.detectors[at].add(gained, counts.candidate * counts.baseline > 0, most))
            spreads.append(self.spreads[at].add_pair(counts, usual))
            effects.append(np.minimum(spreads[at].effect(HARM_PRIOR), _GROWTH * effect))
        return SlowBeside(self.times.add(new, former), tuple(detectors), tuple(spreads), tuple(effects))


def _gains(counts: PairCounts, usual: float, margin: float) -> Array:
    """Logs of e-values of a block, with `usual` for the share above the threshold that bets take for the former revision's."""
    rollouts = len(counts.candidate)
    worse = np.broadcast_to(usual + margin + np.array(_EFFECTS), (rollouts, len(_EFFECTS)))
    return log_evidence(counts, worse, np.full_like(worse, usual), margin, harm=True)
