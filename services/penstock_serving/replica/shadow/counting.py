"""Counts of one candidate's samples. Pure, and safe to be told from one thread and asked from another."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from penstock.routing.outcomes import LOSS_EDGES, ShadowOutcomes, ShadowSample
from penstock_serving.replica.shadow.comparing import Difference

_MOST_WORST: Final = 5
_MOST_TOLD: Final = 500


@dataclass(frozen=True, slots=True)
class JudgedSample:
    """What came of one sample that both the candidate and the twin have answered."""

    at: float
    """Epoch seconds."""
    candidate: Difference
    twin: Difference
    failed: bool = False
    """Whether the candidate's answer was none."""
    replayed: bool = False
    """Whether no client asked for it."""

    @property
    def excess(self) -> float:
        """The candidate's loss beyond what two replicas of one revision differ."""
        return self.candidate.loss - self.twin.loss


@dataclass(slots=True)
class _Sums:
    samples: int = 0
    failed: int = 0
    dropped: int = 0
    replayed: int = 0
    candidate_loss: Counter[int] = field(default_factory=Counter)
    twin_loss: Counter[int] = field(default_factory=Counter)
    excess: Counter[int] = field(default_factory=Counter)
    candidate_loss_sum: float = 0.0
    twin_loss_sum: float = 0.0
    worst: tuple[ShadowSample, ...] = ()


class ShadowCounts:
    """All samples that were shown to one candidate.

    Args:
        revision: the candidate.
    """

    def __init__(self, revision: str) -> None:
        self.revision = revision
        self._lock = threading.Lock()
        self._sums = _Sums()

    def drop(self) -> None:
        """A sample was given up: it tells nothing."""
        with self._lock:
            self._sums.dropped += 1

    def count(self, sample: JudgedSample, *, keep_payloads: bool = False) -> None:
        """A sample was judged.

        Args:
            sample: what came of it.
            keep_payloads: whether numbers of answers may be told.
        """
        candidate, twin = sample.candidate.loss, sample.twin.loss
        with self._lock:
            sums = self._sums
            sums.samples += 1
            sums.failed += sample.failed
            sums.replayed += sample.replayed
            sums.candidate_loss[bucket_of(candidate)] += 1
            sums.twin_loss[bucket_of(twin)] += 1
            sums.excess[bucket_of(sample.excess)] += 1
            sums.candidate_loss_sum += candidate
            sums.twin_loss_sum += twin
            if sample.excess > 0:
                told = (*sums.worst, _describe(sample, keep_payloads=keep_payloads))
                ordered = sorted(told, key=lambda each: each.twin_loss - each.loss)
                sums.worst = tuple(ordered[:_MOST_WORST])

    def outcomes(self) -> ShadowOutcomes:
        """All counts, as they stand at one moment."""
        with self._lock:
            sums = self._sums
            return ShadowOutcomes(
                revision=self.revision,
                samples=sums.samples,
                candidate_loss=dict(sums.candidate_loss),
                twin_loss=dict(sums.twin_loss),
                excess=dict(sums.excess),
                candidate_loss_sum=sums.candidate_loss_sum,
                twin_loss_sum=sums.twin_loss_sum,
                failed=sums.failed,
                dropped=sums.dropped,
                replayed=sums.replayed,
                worst=sums.worst,
            )


def bucket_of(loss: float) -> int:
    """The bucket of a loss, or of a difference of two: the first whose upper bound is not below it."""
    return bisect_left(LOSS_EDGES, loss)


def _describe(sample: JudgedSample, *, keep_payloads: bool) -> ShadowSample:
    candidate = sample.candidate
    numbers = f": {candidate.numbers}" if keep_payloads and candidate.numbers else ""
    return ShadowSample(
        at=sample.at,
        loss=candidate.loss,
        twin_loss=sample.twin.loss,
        output=candidate.output[:253],
        told=f"{candidate.told}{numbers}"[:_MOST_TOLD],
    )
