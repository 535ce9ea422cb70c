"""Evidence on two arms that answer requests under the same conditions: failures, times, CPU time. Pure, for many rollouts at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock_operator.rollout.evidence.arms import EventEvidence, EventRule
from penstock_operator.rollout.evidence.arrays import Array, Mask, share
from penstock_operator.rollout.evidence.block import ArmCounts
from penstock_operator.rollout.evidence.halfplane import PairCounts
from penstock_operator.rollout.evidence.latency import SLOWER, AnswerTimes, counts_above
from penstock_operator.rollout.evidence.signs import SignEvidence
from penstock_operator.rollout.evidence.wealth import GREATEST_GAIN_OF_TIMES

QUANTILES: Final = (0.5, 0.9, 0.99)
"""Of the baseline's times in earlier blocks, that answers are counted above."""
_WIDEST: Final = 0.99
"""Margin of shares: with one of 1, nothing would be left to be shown."""
_CPU_ANSWERS: Final = 20.0
"""Of each arm, before its CPU time by answer is told."""


@dataclass(frozen=True, slots=True)
class ArmRules:
    """What a candidate is held to beside its baseline."""

    errors: EventRule
    slow: tuple[EventRule, ...]
    """For each of `QUANTILES`."""
    expired: EventRule
    max_cpu_increase: float


def error_rule(allowed: float, proof_prior: float) -> EventRule:
    """Failures: harm is what exceeds a tenth of the allowed increase, as two copies of a model fail alike."""
    return EventRule(
        harm_margin=allowed / 10,
        proof_margin=min(allowed, _WIDEST),
        effects=(0.003, 0.01, 0.05, 0.25, 0.9),
        better=(1.0, 0.3),
        prior=0.001,
        prior_requests=100,
        proof_prior=proof_prior,
    )


def expired_rule(allowed: float, proof_prior: float) -> EventRule:
    """Deadlines that were over before a run: more of them than failures are allowed. They come of waiting, so what is said of times holds."""
    margin = min(allowed, _WIDEST)
    return EventRule(
        harm_margin=margin,
        proof_margin=margin,
        effects=(0.01, 0.05, 0.25, 0.9),
        better=(1.0, 0.3),
        prior=0.001,
        prior_requests=100,
        proof_prior=proof_prior,
        greatest_gain=GREATEST_GAIN_OF_TIMES,
    )


def slow_rules(allowed: float, proof_prior: float) -> tuple[EventRule, ...]:
    """Answers above each of `QUANTILES`.

    At the highest, harm is what exceeds the allowed increase; in the middle, it is any increase beyond being a tenth slower.
    """
    margins = (0.0, allowed / 2, min(allowed, _WIDEST))
    return tuple(
        EventRule(
            harm_margin=margin,
            proof_margin=min(allowed, _WIDEST),
            effects=(0.03, 0.08, 0.2, 0.45),
            better=(1.0, 0.6),
            prior=1 - quantile,
            prior_requests=30,
            proof_prior=proof_prior,
            greatest_gain=GREATEST_GAIN_OF_TIMES,
        )
        for quantile, margin in zip(QUANTILES, margins, strict=True)
    )


@dataclass(frozen=True, slots=True)
class ArmTotals:
    """Sums of one arm since the beginning, for people; each of shape (rollouts,)."""

    requests: Array
    failed: Array
    slow: Array
    slow_of: Array
    cpu: Array
    cpu_of: Array
    expired: Array

    @classmethod
    def start(cls, rollouts: int) -> ArmTotals:
        """Nothing was seen yet."""
        return cls(*(np.zeros(rollouts) for _ in range(7)))

    def add(self, arm: ArmCounts, failed: Array, slow: Array, slow_of: Array) -> ArmTotals:
        """After a block."""
        return ArmTotals(
            self.requests + arm.requests,
            self.failed + failed,
            self.slow + slow,
            self.slow_of + slow_of,
            self.cpu + arm.cpu_seconds,
            self.cpu_of + arm.cpu_answers,
            self.expired + arm.lapsed,
        )


@dataclass(frozen=True, slots=True)
class OpenCpu:
    """CPU time and answers that are not yet enough to be told."""

    candidate: Array
    candidate_answers: Array
    baseline: Array
    baseline_answers: Array


@dataclass(frozen=True, slots=True)
class ComparedArms:
    """Evidence on one kind of requests: clients', or those that were shown to both arms."""

    errors: EventEvidence
    slow: tuple[EventEvidence, ...]
    expired: EventEvidence
    cpu: SignEvidence
    times: AnswerTimes
    open_cpu: OpenCpu
    candidate: ArmTotals
    baseline: ArmTotals

    @classmethod
    def start(cls, rollouts: int, rules: ArmRules) -> ComparedArms:
        """Nothing was seen yet."""
        return cls(
            errors=EventEvidence.start(rollouts, rules.errors),
            slow=tuple(EventEvidence.start(rollouts, rule) for rule in rules.slow),
            expired=EventEvidence.start(rollouts, rules.expired),
            cpu=SignEvidence.start(rollouts),
            times=AnswerTimes.start(rollouts),
            open_cpu=OpenCpu(*(np.zeros(rollouts) for _ in range(4))),
            candidate=ArmTotals.start(rollouts),
            baseline=ArmTotals.start(rollouts),
        )

    def log_slow_harm(self) -> Array:
        """Of answers above several thresholds, and of deadlines that were over: the mean of their e-values."""
        slow = [each.harm.log_evidence() for each in (*self.slow, self.expired)]
        mean: Array = np.logaddexp.reduce(slow, axis=0) - np.log(len(slow))
        return mean

    def log_slow_proof(self) -> Array:
        """Of the median, the highest threshold and deadlines, the least."""
        least: Array = np.min(
            [each.proof.log_evidence() for each in (self.slow[0], self.slow[-1], self.expired)], axis=0
        )
        return least

    @property
    def is_late_by_deadlines(self) -> bool:
        """Of the first rollout: whether deadlines that were over speak more against the candidate than late answers do."""
        slow = max(float(each.harm.log_evidence()[0]) for each in self.slow)
        return float(self.expired.harm.log_evidence()[0]) > slow

    def add(
        self, rules: ArmRules, candidate: ArmCounts, baseline: ArmCounts, *, dearer_counts: Mask, unfit_fails: Mask
    ) -> ComparedArms:
        """After a block.

        Args:
            rules: what the candidate is held to.
            candidate: its counts.
            baseline: what they are held against.
            dearer_counts: where a higher CPU time may be held against the candidate.
            unfit_fails: where requests that a signature does not take count as failures.
        """
        failures = _failures(candidate, baseline, unfit_fails)
        lapsed = PairCounts(
            candidate.lapsed, candidate.run + candidate.lapsed, baseline.lapsed, baseline.run + baseline.lapsed
        )
        slow, tail = self._add_times(rules, candidate, baseline)
        cpu, open_cpu = self._add_cpu(rules, candidate, baseline, dearer_counts)
        return ComparedArms(
            errors=self.errors.add(rules.errors, failures, failures),
            slow=slow,
            expired=self.expired.add(rules.expired, lapsed, lapsed),
            cpu=cpu,
            times=self.times.add(candidate, baseline),
            open_cpu=open_cpu,
            candidate=self.candidate.add(candidate, failures.candidate_events, tail.candidate_events, tail.candidate),
            baseline=self.baseline.add(baseline, failures.baseline_events, tail.baseline_events, tail.baseline),
        )

    def _add_times(
        self, rules: ArmRules, candidate: ArmCounts, baseline: ArmCounts
    ) -> tuple[tuple[EventEvidence, ...], PairCounts]:
        slow = []
        for number, (quantile, rule) in enumerate(zip(QUANTILES, rules.slow, strict=True)):
            threshold = self.times.threshold(quantile)
            allowance = 0 if quantile == QUANTILES[-1] else SLOWER
            harm = counts_above(candidate, baseline, threshold, allowance=SLOWER, late=False)
            proof = counts_above(candidate, baseline, threshold, allowance=allowance, late=True)
            slow.append(self.slow[number].add(rule, harm, proof))
        return tuple(slow), proof

    def _add_cpu(
        self, rules: ArmRules, candidate: ArmCounts, baseline: ArmCounts, dearer_counts: Mask
    ) -> tuple[SignEvidence, OpenCpu]:
        """A sign by as many blocks as it takes until both arms have answered enough."""
        told = (candidate.cpu_answers > 0) & (baseline.cpu_answers > 0)
        former = self.open_cpu
        opened = OpenCpu(
            former.candidate + np.where(told, candidate.cpu_seconds, 0.0),
            former.candidate_answers + np.where(told, candidate.cpu_answers, 0.0),
            former.baseline + np.where(told, baseline.cpu_seconds, 0.0),
            former.baseline_answers + np.where(told, baseline.cpu_answers, 0.0),
        )
        full = (
            (opened.candidate_answers >= _CPU_ANSWERS)
            & (opened.baseline_answers >= _CPU_ANSWERS)
            & (opened.baseline > 0)
        )
        dearer = share(opened.candidate, opened.candidate_answers) > (1 + rules.max_cpu_increase) * share(
            opened.baseline, opened.baseline_answers
        )
        evidence = self.cpu.add(dearer, full & dearer_counts, ~dearer, full, GREATEST_GAIN_OF_TIMES)
        rest = (
            np.where(full, 0.0, each)
            for each in (opened.candidate, opened.candidate_answers, opened.baseline, opened.baseline_answers)
        )
        return evidence, OpenCpu(*rest)


def _failures(candidate: ArmCounts, baseline: ArmCounts, unfit_fails: Mask) -> PairCounts:
    new, present = (np.where(unfit_fails, arm.unfit, 0.0) for arm in (candidate, baseline))
    return PairCounts(candidate.failed + new, candidate.run + new, baseline.failed + present, baseline.run + present)
