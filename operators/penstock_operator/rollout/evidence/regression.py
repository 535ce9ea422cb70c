"""Whether a revision that has taken over becomes worse than it was, block by block: pure, and for many at once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from penstock_operator.rollout.evidence.arrays import Array, Mask, share
from penstock_operator.rollout.evidence.beside import SlowBeside
from penstock_operator.rollout.evidence.block import LATENCY_BUCKETS, EvidenceBlock
from penstock_operator.rollout.evidence.halfplane import LEAST
from penstock_operator.rollout.evidence.ledger import CPU, ERRORS, LATENCY, MEMORY, METRICS, PARITY, AnalysisSettings
from penstock_operator.rollout.evidence.parity import BETS, gains, moments
from penstock_operator.rollout.evidence.signs import SHARES_ABOVE, sign_gains
from penstock_operator.rollout.evidence.spread import HARM_PRIOR, Spread
from penstock_operator.rollout.evidence.wealth import (
    GREATEST_GAIN,
    GREATEST_GAIN_OF_TIMES,
    GREATEST_GAIN_OF_WATCHED_FAILURES,
    ChangeDetector,
    most_within,
)

REFERENCE_SECONDS: Final = 120.0
"""For which it is observed, after warm-up, before anything is held against it."""
_REFERENCE_ANSWERS: Final = 100.0
_QUANTILES: Final = (0.5, 0.99)
_BY_BUCKET: Final = ("seconds", "expired")
_SLOWER: Final = 5
"""Buckets, each of a tenth, by which answers may come later than in the reference: 1.6 times. Traffic is not what it was then, and
there is nothing beside it to tell."""
_MORE_LOADED: Final = 1.5
"""Requests a replica and second, by those in the reference, from which on slow answers are the load's."""
_LESS_LOADED: Final = 0.5
_EFFECTS: Final = (0.01, 0.05, 0.2, 0.5)
"""Shares of events beyond what is allowed, in the alternatives that are bet on."""
_MEMORY: Final = 0.95
"""Of what is told of late, after another block."""


@dataclass(frozen=True, slots=True)
class RegressionReference:
    """What it was like after it took over."""

    watched: Array
    """Seconds of blocks with requests."""
    seconds: Array
    """Answers by bucket of their time, (rollouts, LATENCY_BUCKETS)."""
    requests: Array
    run: Array
    failed: Array
    cpu_seconds: Array
    cpu_answers: Array
    memory_bytes: Array
    replica_seconds: Array
    expired: Array
    """Requests whose deadline was over, by bucket of how long they had waited; of the shape of `seconds`."""

    @classmethod
    def start(cls, rollouts: int) -> RegressionReference:
        """Nothing was seen yet."""
        shapes = ((rollouts, LATENCY_BUCKETS) if name in _BY_BUCKET else (rollouts,) for name in cls.__match_args__)
        return cls(*map(np.zeros, shapes))

    @property
    def complete(self) -> Mask:
        """Whether enough is known."""
        complete: Mask = (self.watched >= REFERENCE_SECONDS) & (self.seconds.sum(axis=1) >= _REFERENCE_ANSWERS)
        return complete

    def add(self, block: EvidenceBlock) -> RegressionReference:
        """With a block, where it is not complete."""
        arm, wanted = block.candidate, ~self.complete & (block.candidate.requests > 0)
        return RegressionReference(
            watched=self.watched + np.where(wanted, block.seconds, 0.0),
            seconds=self.seconds + np.where(wanted[:, None], arm.seconds, 0.0),
            requests=self.requests + np.where(wanted, arm.requests, 0.0),
            run=self.run + np.where(wanted, arm.run, 0.0),
            failed=self.failed + np.where(wanted, arm.failed, 0.0),
            cpu_seconds=self.cpu_seconds + np.where(wanted, arm.cpu_seconds, 0.0),
            cpu_answers=self.cpu_answers + np.where(wanted, arm.cpu_answers, 0.0),
            memory_bytes=np.where(wanted, np.maximum(self.memory_bytes, arm.memory_bytes), self.memory_bytes),
            replica_seconds=self.replica_seconds + np.where(wanted, block.seconds * arm.replicas, 0.0),
            expired=self.expired + np.where(wanted[:, None], arm.expired, 0.0),
        )


@dataclass(frozen=True, slots=True)
class DetectedChange:
    """A detector and the design effect of what it sees."""

    detector: ChangeDetector
    spread: Spread

    @classmethod
    def start(cls, rollouts: int, alternatives: int) -> DetectedChange:
        """Nothing was seen yet."""
        return cls(ChangeDetector.start(rollouts, alternatives), Spread.start(rollouts))

    def add(
        self,
        gained: Array,
        counted: Mask,
        moments: tuple[Array, Array, Array],
        most: Array | float = GREATEST_GAIN,
    ) -> DetectedChange:
        """With a block whose e-values' logs are `gained` if requests were independent, and its deviation, variance and size.

        Each counts up to `most`.
        """
        return DetectedChange(
            self.detector.add(gained / self.spread.effect(HARM_PRIOR)[:, None], counted, most),
            self.spread.add(*moments, counted),
        )


@dataclass(frozen=True, slots=True)
class RegressionLedger:
    """Evidence of a change for the worse, by what is watched."""

    reference: RegressionReference
    errors: DetectedChange
    slow: tuple[DetectedChange, ...]
    """Of answers to clients, against the reference."""
    beside: SlowBeside
    """Of answers to what the former revision is shown, too."""
    parity: DetectedChange
    cpu: DetectedChange
    memory: DetectedChange
    blocks: Array
    requests: Array
    recent: Array
    """Requests that were run, failed ones, answers whose times count, slow ones, CPU seconds, memory now, samples and their losses, requests that took
    the CPU time, all of late, (rollouts, 9)."""
    found: Array
    """1 once a change was."""

    @classmethod
    def start(cls, rollouts: int = 1) -> RegressionLedger:
        """Nothing was seen yet."""
        return cls(
            reference=RegressionReference.start(rollouts),
            errors=DetectedChange.start(rollouts, len(_EFFECTS)),
            slow=tuple(DetectedChange.start(rollouts, len(_EFFECTS)) for _ in _QUANTILES),
            beside=SlowBeside.start(rollouts),
            parity=DetectedChange.start(rollouts, len(BETS)),
            cpu=DetectedChange.start(rollouts, len(SHARES_ABOVE)),
            memory=DetectedChange.start(rollouts, len(SHARES_ABOVE)),
            blocks=np.zeros(rollouts),
            requests=np.zeros(rollouts),
            recent=np.zeros((rollouts, 9)),
            found=np.zeros(rollouts),
        )

    @property
    def is_late_beside(self) -> bool:
        """Of the first rollout: whether late answers show more beside the former revision's than against the reference."""
        own = max(float(each.detector.log_evidence()[0]) for each in self.slow)
        return max(float(each.log_evidence()[0]) for each in self.beside.detectors) > own

    def log_harm(self) -> dict[str, Array]:
        """Logs of the detectors, by metric."""
        slow = [each.log_evidence() for each in (*(each.detector for each in self.slow), *self.beside.detectors)]
        return {
            ERRORS: self.errors.detector.log_evidence(),
            LATENCY: np.logaddexp.reduce(slow, axis=0) - np.log(len(slow)),
            PARITY: self.parity.detector.log_evidence(),
            CPU: self.cpu.detector.log_evidence(),
            MEMORY: self.memory.detector.log_evidence(),
        }

    def log_all_harm(self, settings: AnalysisSettings) -> Array:
        """Log of the mean of the metrics' detectors, which is one."""
        by_metric, used = self.log_harm(), settings.metrics
        total: Array = np.logaddexp.reduce([by_metric[name] for name in used], axis=0) - np.log(len(used))
        return total


def add_watched(
    ledger: RegressionLedger,
    block: EvidenceBlock,
    settings: AnalysisSettings,
    log_bound: float,
    proved: Collection[str] = METRICS,
) -> RegressionLedger:
    """What is known after a block; nothing but what both are shown is told before the reference is complete.

    Args:
        ledger: What was known.
        block: Of the candidate, and of what it and the former revision are shown.
        settings: What it is held to.
        log_bound: Of the detectors' mean, from which on a change counts as found.
        proved: Metrics in which it was proved to be no worse when it took over: in others it is not held against the former
            revision, since whoever let it take over has seen that.
    """
    arm, reference = block.candidate, ledger.reference
    told = reference.complete & (arm.requests > 0)
    load = share(
        share(arm.requests, block.seconds * arm.replicas), share(reference.requests, reference.replica_seconds)
    )
    failing = (reference.failed + 1) / (reference.run + 1) + settings.max_error_increase
    known = replace(
        ledger,
        reference=reference.add(block),
        errors=_add_events(
            ledger.errors,
            arm.failed,
            arm.run,
            failing,
            told,
            most=most_within(block.seconds, GREATEST_GAIN_OF_WATCHED_FAILURES),
        ),
        slow=_add_slow(ledger, block, settings, told & (load <= _MORE_LOADED)),
        beside=ledger.beside.add(block, settings.max_slow_increase) if LATENCY in proved else ledger.beside,
        parity=_add_parity(ledger.parity, block, settings) if PARITY in proved else ledger.parity,
        cpu=_add_sign(
            ledger.cpu,
            _is_dearer(ledger, block, settings),
            told & (load >= _LESS_LOADED),
            most_within(block.seconds, GREATEST_GAIN_OF_TIMES),
        ),
        memory=_add_sign(
            ledger.memory, arm.memory_bytes > (1 + settings.max_memory_increase) * reference.memory_bytes, told
        ),
        blocks=ledger.blocks + 1,
        requests=ledger.requests + arm.requests,
        recent=_add_recent(ledger, block),
    )
    return replace(known, found=np.maximum(ledger.found, known.log_all_harm(settings) >= log_bound))


def reference_threshold(reference: RegressionReference, quantile: float) -> Array:
    """The bucket that answers must not exceed, of each rollout."""
    below = np.cumsum(reference.seconds, axis=1)
    threshold: Array = np.argmax(below >= quantile * below[:, -1:] - 1e-9, axis=1) + float(_SLOWER)
    return threshold


def bound_gains(events: Array, trials: Array, bound: Array, effects: tuple[float, ...]) -> Array:
    """Logs of e-values against a share of at most `bound`, by alternative.

    The likelihood ratio of `bound + effect` to `bound`: it grows with the events, so that its mean is at most 1 for all shares
    up to the bound, too.
    """
    limit = np.clip(bound, LEAST, 1 - 2 * LEAST)[:, None]
    worse = np.clip(limit + np.array(effects), None, 1 - LEAST)
    value: Array = events[:, None] * np.log(worse / limit) + (trials - events)[:, None] * (
        np.log1p(-worse) - np.log1p(-limit)
    )
    return value


def _add_events(
    change: DetectedChange,
    events: Array,
    trials: Array,
    bound: Array,
    counted: Mask,
    *,
    most: Array | float = GREATEST_GAIN,
) -> DetectedChange:
    gained = bound_gains(events, trials, bound, _EFFECTS)
    rate = np.clip((share(events, trials) + bound) / 2, 0.0, 1.0)
    return change.add(gained, counted & (trials > 0), (events, rate * (1 - rate) * trials, trials), most)


def _add_slow(
    ledger: RegressionLedger, block: EvidenceBlock, settings: AnalysisSettings, counted: Mask
) -> tuple[DetectedChange, ...]:
    # A deadline that was over later than answers may come is as such an answer. A shorter one is its client's choice, and tells nothing.
    arm, reference = block.candidate, ledger.reference
    most = most_within(block.seconds, GREATEST_GAIN_OF_TIMES)
    changes = []
    for change, quantile in zip(ledger.slow, _QUANTILES, strict=True):
        above = np.arange(LATENCY_BUCKETS) > reference_threshold(reference, quantile)[:, None]
        slow, lapsed, before = (_count(each, above) for each in (arm.seconds, arm.expired, reference.expired))
        bound = 1 - quantile + settings.max_slow_increase + share(before, before + reference.seconds.sum(axis=1))
        changes.append(_add_events(change, slow + lapsed, arm.seconds.sum(axis=1) + lapsed, bound, counted, most=most))
    return tuple(changes)


def _count(by_bucket: Array, wanted: Mask) -> Array:
    count: Array = np.where(wanted, by_bucket, 0.0).sum(axis=1)
    return count


def _add_parity(change: DetectedChange, block: EvidenceBlock, settings: AnalysisSettings) -> DetectedChange:
    if settings.output_parity <= 0:
        return change
    # They were shown to the former revision: what that one fails at is not this one's doing.
    sent = block.sent.drop_failed()
    total = sent.candidate_loss - sent.twin_loss
    gained = gains(sent.excess, total, 1 - settings.output_parity)[0]
    return change.add(gained, sent.samples > 0, moments(sent.excess, total))


def _add_sign(change: DetectedChange, bad: Mask, counted: Mask, most: Array | float = GREATEST_GAIN) -> DetectedChange:
    ones = np.ones(len(bad))
    return change.add(sign_gains(bad), counted, (bad - 0.5 * ones, 0.25 * ones, ones), most)


def _is_dearer(ledger: RegressionLedger, block: EvidenceBlock, settings: AnalysisSettings) -> Mask:
    now = share(block.candidate.cpu_seconds, block.candidate.cpu_answers)
    then = share(ledger.reference.cpu_seconds, ledger.reference.cpu_answers)
    return (then > 0) & (now > (1 + settings.max_cpu_increase) * then)


def _add_recent(ledger: RegressionLedger, block: EvidenceBlock) -> Array:
    arm, sent = block.candidate, block.sent.drop_failed()
    above = np.arange(LATENCY_BUCKETS) > reference_threshold(ledger.reference, _QUANTILES[-1])[:, None]
    slow, lapsed = _count(arm.seconds, above), _count(arm.expired, above)
    sums = (
        arm.run,
        arm.failed,
        arm.seconds.sum(axis=1) + lapsed,
        slow + lapsed,
        arm.cpu_seconds,
        0 * slow,
        sent.samples,
        sent.candidate_loss,
        arm.cpu_answers,
    )
    recent: Array = ledger.recent * _MEMORY + np.stack(sums, axis=1)
    recent[:, 5] = np.where(arm.memory_bytes > 0, arm.memory_bytes, ledger.recent[:, 5])
    return recent
