"""Counts of one candidate's samples. Pure, and safe to be told from one thread and asked from another."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from penstock.routing.outcomes import LOSS_EDGES, MadeOutcomes, ShadowOutcomes, ShadowSample
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
    made: bool = False
    """Whether no client ever sent it."""
    supplied: bool = False
    """Of such ones: whether it was named rather than made."""

    @property
    def excess(self) -> float:
        """The candidate's loss beyond what two replicas of one revision differ."""
        return self.candidate.loss - self.twin.loss


@dataclass(slots=True)
class _Sums:
    samples: int = 0
    failed: int = 0
    candidate_loss: Counter[int] = field(default_factory=Counter)
    twin_loss: Counter[int] = field(default_factory=Counter)
    excess: Counter[int] = field(default_factory=Counter)
    candidate_loss_sum: float = 0.0
    twin_loss_sum: float = 0.0

    def add(self, sample: JudgedSample) -> None:
        """One more."""
        candidate, twin = sample.candidate.loss, sample.twin.loss
        self.samples += 1
        self.failed += sample.failed
        self.candidate_loss[bucket_of(candidate)] += 1
        self.twin_loss[bucket_of(twin)] += 1
        self.excess[bucket_of(sample.excess)] += 1
        self.candidate_loss_sum += candidate
        self.twin_loss_sum += twin


class ShadowCounts:
    """All samples that were shown to one candidate.

    Args:
        revision: the candidate.
    """

    def __init__(self, revision: str) -> None:
        self.revision = revision
        self._lock = threading.Lock()
        self._sent, self._made = _Sums(), _Sums()
        """Of clients' inputs, and of made ones."""
        self._dropped = self._replayed = self._supplied = 0
        self._worst: tuple[ShadowSample, ...] = ()

    def drop(self) -> None:
        """A sample was given up: it tells nothing."""
        with self._lock:
            self._dropped += 1

    def count_replayed(self) -> None:
        """What a client sent was shown once more, for its times."""
        with self._lock:
            self._replayed += 1

    def count(self, sample: JudgedSample, *, keep_payloads: bool = False) -> None:
        """A sample was judged.

        Args:
            sample: what came of it.
            keep_payloads: whether numbers of answers may be told.
        """
        with self._lock:
            (self._made if sample.made else self._sent).add(sample)
            self._supplied += sample.supplied
            if sample.excess > 0:
                told = (*self._worst, _describe(sample, keep_payloads=keep_payloads))
                ordered = sorted(told, key=lambda each: each.twin_loss - each.loss)
                self._worst = tuple(ordered[:_MOST_WORST])

    def outcomes(self) -> ShadowOutcomes:
        """All counts, as they stand at one moment."""
        with self._lock:
            sent, made = self._sent, self._made
            return ShadowOutcomes(
                revision=self.revision,
                samples=sent.samples,
                candidate_loss=dict(sent.candidate_loss),
                twin_loss=dict(sent.twin_loss),
                excess=dict(sent.excess),
                candidate_loss_sum=sent.candidate_loss_sum,
                twin_loss_sum=sent.twin_loss_sum,
                failed=sent.failed,
                made=MadeOutcomes(
                    samples=made.samples,
                    excess=dict(made.excess),
                    candidate_loss_sum=made.candidate_loss_sum,
                    twin_loss_sum=made.twin_loss_sum,
                    failed=made.failed,
                    supplied=self._supplied,
                )
                if made.samples
                else None,
                dropped=self._dropped,
                replayed=self._replayed,
                worst=self._worst,
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
