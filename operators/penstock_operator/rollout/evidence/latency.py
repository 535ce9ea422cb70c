"""Times of answers: above which thresholds answers are counted, and how many are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock.routing.outcomes import LATENCY_SECONDS
from penstock_operator.rollout.evidence.arrays import Array
from penstock_operator.rollout.evidence.block import LATENCY_BUCKETS, ArmCounts
from penstock_operator.rollout.evidence.halfplane import PairCounts

_MEMORY: Final = 0.98
"""Of times that thresholds are read off, after another block."""
_LEAST_ANSWERS: Final = 30.0
"""Of the baseline, before thresholds are read off its times."""
SLOWER: Final = 1
"""Buckets, each of a tenth, by which the candidate may be slower before that is harm: two processes with the same model are never
equally fast."""


@dataclass(frozen=True, slots=True)
class AnswerTimes:
    """Of both arms lately, by bucket; shape (rollouts, LATENCY_BUCKETS). Older blocks count less."""

    candidate: Array
    baseline: Array

    @classmethod
    def start(cls, rollouts: int) -> AnswerTimes:
        """Nothing was seen yet."""
        return cls(np.zeros((rollouts, LATENCY_BUCKETS)), np.zeros((rollouts, LATENCY_BUCKETS)))

    def add(self, candidate: ArmCounts, baseline: ArmCounts) -> AnswerTimes:
        """After a block."""
        return AnswerTimes(self.candidate * _MEMORY + candidate.seconds, self.baseline * _MEMORY + baseline.seconds)

    def threshold(self, quantile: float) -> Array:
        """The first bucket of the baseline's such that it and those below hold that share of answers; -1 where too few are known."""
        total = self.baseline.sum(axis=1)
        below = np.cumsum(self.baseline, axis=1)
        at = np.argmax(below >= quantile * total[:, None] - 1e-9, axis=1)
        return np.where(total >= _LEAST_ANSWERS, at, -1.0)

    def speedup(self) -> Array:
        """The baseline's median time by the candidate's; NaN where too few are known."""
        candidate, baseline = median_seconds(self.candidate), median_seconds(self.baseline)
        return baseline / candidate


def median_seconds(times: Array) -> Array:
    """Of answers by bucket, with the place within the bucket taken from the counts; NaN below thirty answers."""
    total = times.sum(axis=1)
    below = np.cumsum(times, axis=1)
    at = np.argmax(below >= 0.5 * total[:, None], axis=1)
    rows = np.arange(len(times))
    inside = np.maximum(times[rows, at], 1e-12)
    part = np.clip((0.5 * total - (below[rows, at] - inside)) / inside, 0.0, 1.0)
    edges = np.array((LATENCY_SECONDS[0] / 1.1, *LATENCY_SECONDS, LATENCY_SECONDS[-1] * 1.1))
    value = edges[at] * (edges[at + 1] / edges[at]) ** part
    return np.where(total >= _LEAST_ANSWERS, value, np.nan)


def counts_above(
    candidate: ArmCounts, baseline: ArmCounts, threshold: Array, *, allowance: int, late: bool
) -> PairCounts:
    """Answers above the threshold's bucket, where it is known; nothing else.

    Args:
        candidate: Of the block.
        baseline: Of the block.
        threshold: Bucket by rollout, or -1.
        allowance: Buckets, each of a tenth, by which the candidate may be slower.
        late: Whether what it has in flight for longer than any answer counts as an answer above it.
    """
    known = threshold >= 0
    waiting = candidate.late if late else np.zeros_like(candidate.late)
    above = _count_above(candidate.seconds, threshold + allowance) + waiting
    everything = candidate.seconds.sum(axis=1) + waiting
    return PairCounts(
        candidate_events=np.where(known, above, 0.0),
        candidate=np.where(known, everything, 0.0),
        baseline_events=np.where(known, _count_above(baseline.seconds, threshold), 0.0),
        baseline=np.where(known, baseline.seconds.sum(axis=1), 0.0),
    )


def _count_above(seconds: Array, bucket: Array) -> Array:
    count: Array = np.where(np.arange(LATENCY_BUCKETS) > bucket[:, None], seconds, 0.0).sum(axis=1)
    return count
