"""All that is known of a candidate, block by block: pure, and for many rollouts at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from penstock_operator.rollout.evidence.arms import EventEvidence, EventRule
from penstock_operator.rollout.evidence.arrays import Array, Mask, share
from penstock_operator.rollout.evidence.block import EvidenceBlock
from penstock_operator.rollout.evidence.halfplane import PairCounts
from penstock_operator.rollout.evidence.latency import AnswerTimes, counts_above
from penstock_operator.rollout.evidence.parity import ParityEvidence
from penstock_operator.rollout.evidence.shares import ShareEvidence
from penstock_operator.rollout.evidence.signs import SignEvidence

ERRORS: Final = "errors"
LATENCY: Final = "latency"
PARITY: Final = "parity"
CPU: Final = "cpu"
MEMORY: Final = "memory"
SHARES: Final = "shares"
METRICS: Final = (ERRORS, LATENCY, PARITY, CPU, MEMORY)
QUANTILES: Final = (0.5, 0.9, 0.99)
"""Of the baseline's times in earlier blocks, that answers are counted above."""
_WIDEST: Final = 0.99
"""Margin of shares: with one of 1, nothing would be left to be shown."""
_CPU_ANSWERS: Final = 20.0
"""Of each arm, before its CPU time by answer is told."""
_LIKE_LOADED: Final = 0.5
"""Part of the baseline's requests a replica that the candidate's must have: what an idle process burns counts for each answer."""


@dataclass(frozen=True, slots=True)
class AnalysisSettings:
    """What a candidate is held to, `spec.rollout.analysis` as numbers."""

    output_parity: float = 0.99
    """0: answers are not compared."""
    max_error_increase: float = 0.01
    max_slow_increase: float = 0.05
    max_cpu_increase: float = 0.5
    max_memory_increase: float = 0.5
    alpha: float = 0.001
    beta: float = 0.05
    warm_up_seconds: float = 10.0

    @property
    def metrics(self) -> tuple[str, ...]:
        """By which it is judged."""
        return tuple(name for name in METRICS if name != PARITY or self.output_parity > 0)


def error_rule(settings: AnalysisSettings) -> EventRule:
    """Failures: harm is what exceeds a tenth of the allowed increase, as two copies of a model fail alike."""
    return EventRule(
        harm_margin=settings.max_error_increase / 10,
        proof_margin=min(settings.max_error_increase, _WIDEST),
        effects=(0.003, 0.01, 0.05, 0.25, 0.9),
        better=(1.0, 0.3),
        prior=0.001,
        prior_requests=100,
    )


def slow_rules(settings: AnalysisSettings) -> tuple[EventRule, ...]:
    """Answers above each of `QUANTILES`.

    At the highest, harm is what exceeds the allowed increase; in the middle, it is any increase beyond being a tenth slower.
    """
    allowed = settings.max_slow_increase
    margins = (0.0, allowed / 2, min(allowed, _WIDEST))
    return tuple(
        EventRule(
            harm_margin=margin,
            proof_margin=min(allowed, _WIDEST),
            effects=(0.03, 0.08, 0.2, 0.45),
            better=(1.0, 0.6),
            prior=1 - quantile,
            prior_requests=30,
        )
        for quantile, margin in zip(QUANTILES, margins, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums since the beginning, for people; each of shape (rollouts,)."""

    candidate: Array
    candidate_failed: Array
    baseline: Array
    baseline_failed: Array
    slow: Array
    slow_of: Array
    baseline_slow: Array
    baseline_slow_of: Array
    samples: Array
    candidate_loss: Array
    twin_loss: Array
    candidate_cpu: Array
    baseline_cpu: Array
    candidate_memory: Array
    baseline_memory: Array
    first_candidate_memory: Array
    first_baseline_memory: Array


@dataclass(frozen=True, slots=True)
class OpenCpu:
    """CPU time and answers that are not yet enough to be told."""

    candidate: Array
    candidate_requests: Array
    baseline: Array
    baseline_requests: Array


@dataclass(frozen=True, slots=True)
class EvidenceLedger:
    """Evidence on each metric, and what was shown at some time."""

    errors: EventEvidence
    slow: tuple[EventEvidence, ...]
    parity: ParityEvidence
    cpu: SignEvidence
    memory: SignEvidence
    shares: ShareEvidence
    times: AnswerTimes
    open_cpu: OpenCpu
    totals: Totals
    harmed: Array
    """1 where harm was shown."""
    proved: Array
    """1 where a metric was proved, (rollouts, METRICS)."""

    @classmethod
    def start(cls, settings: AnalysisSettings, rollouts: int = 1) -> EvidenceLedger:
        """Nothing was seen yet."""
        return cls(
            errors=EventEvidence.start(rollouts, error_rule(settings)),
            slow=tuple(EventEvidence.start(rollouts, rule) for rule in slow_rules(settings)),
            parity=ParityEvidence.start(rollouts),
            cpu=SignEvidence.start(rollouts),
            memory=SignEvidence.start(rollouts),
            shares=ShareEvidence.start(rollouts),
            times=AnswerTimes.start(rollouts),
            open_cpu=OpenCpu(*(np.zeros(rollouts) for _ in range(4))),
            totals=Totals(*(np.zeros(rollouts) for _ in range(17))),
            harmed=np.zeros(rollouts),
            proved=np.zeros((rollouts, len(METRICS))),
        )

    def log_harm(self) -> dict[str, Array]:
        """Logs of e-values of harm, by metric."""
        slow = [each.harm.log_evidence() for each in self.slow]
        return {
            ERRORS: self.errors.harm.log_evidence(),
            LATENCY: np.logaddexp.reduce(slow, axis=0) - np.log(len(slow)),
            PARITY: self.parity.harm.log_evidence(),
            CPU: self.cpu.harm.log_evidence(),
            MEMORY: self.memory.harm.log_evidence(),
        }

    def log_proof(self) -> dict[str, Array]:
        """Logs of e-values against being worse by more than allowed, by metric: of several thresholds, the least."""
        return {
            ERRORS: self.errors.proof.log_evidence(),
            LATENCY: np.min([self.slow[0].proof.log_evidence(), self.slow[-1].proof.log_evidence()], axis=0),
            PARITY: self.parity.proof.log_evidence(),
            CPU: self.cpu.proof.log_evidence(),
            MEMORY: self.memory.proof.log_evidence(),
        }

    def log_all_harm(self, settings: AnalysisSettings) -> Array:
        """Log of the mean of the metrics' e-values, which is one, however they depend on each other."""
        by_metric = self.log_harm()
        used = settings.metrics
        total: Array = np.logaddexp.reduce([by_metric[name] for name in used], axis=0) - np.log(len(used))
        return total


def add_block(ledger: EvidenceLedger, block: EvidenceBlock, settings: AnalysisSettings) -> EvidenceLedger:
    """What is known after a block."""
    candidate, baseline = block.candidate, block.baseline
    failures = PairCounts(candidate.failed, candidate.requests, baseline.failed, baseline.requests)
    slow, tail = _add_times(ledger, block, settings)
    cpu, open_cpu = _add_cpu(ledger, block, settings)
    known = replace(
        ledger,
        errors=ledger.errors.add(error_rule(settings), failures, failures),
        slow=slow,
        parity=ledger.parity.add(block.excess, block.candidate_loss - block.twin_loss, 1 - settings.output_parity)
        if settings.output_parity > 0
        else ledger.parity,
        cpu=cpu,
        open_cpu=open_cpu,
        memory=_add_memory(ledger, block, settings),
        shares=ledger.shares.add(candidate.requests, baseline.requests, block.expected_share, block.share_holds),
        times=ledger.times.add(candidate, baseline),
        totals=_add_totals(ledger.totals, block, tail),
    )
    harmed = known.log_all_harm(settings) >= -np.log(settings.alpha)
    by_metric = known.log_proof()
    proved = np.stack([by_metric[name] >= -np.log(settings.beta) for name in METRICS], axis=1)
    return replace(known, harmed=np.maximum(ledger.harmed, harmed), proved=np.maximum(ledger.proved, proved))


def _add_times(
    ledger: EvidenceLedger, block: EvidenceBlock, settings: AnalysisSettings
) -> tuple[tuple[EventEvidence, ...], PairCounts]:
    slow = []
    for number, (quantile, rule) in enumerate(zip(QUANTILES, slow_rules(settings), strict=True)):
        threshold = ledger.times.threshold(quantile)
        highest = quantile == QUANTILES[-1]
        harm = counts_above(block.candidate, block.baseline, threshold, allowance=True, late=False)
        proof = counts_above(block.candidate, block.baseline, threshold, allowance=not highest, late=True)
        slow.append(ledger.slow[number].add(rule, harm, proof))
    return tuple(slow), proof


def _add_cpu(ledger: EvidenceLedger, block: EvidenceBlock, settings: AnalysisSettings) -> tuple[SignEvidence, OpenCpu]:
    """A sign by as many blocks as it takes until both arms have answered enough."""
    candidate, baseline, former = block.candidate, block.baseline, ledger.open_cpu
    told = (candidate.requests > 0) & (baseline.requests > 0)
    opened = OpenCpu(
        former.candidate + np.where(told, candidate.cpu_seconds, 0.0),
        former.candidate_requests + np.where(told, candidate.requests + block.samples, 0.0),
        former.baseline + np.where(told, baseline.cpu_seconds, 0.0),
        former.baseline_requests + np.where(told, baseline.requests + block.twin_samples, 0.0),
    )
    full = (
        (opened.candidate_requests >= _CPU_ANSWERS) & (opened.baseline_requests >= _CPU_ANSWERS) & (opened.baseline > 0)
    )
    dearer = share(opened.candidate, opened.candidate_requests) > (1 + settings.max_cpu_increase) * share(
        opened.baseline, opened.baseline_requests
    )
    loads = share(candidate.requests, candidate.replicas) >= _LIKE_LOADED * share(baseline.requests, baseline.replicas)
    evidence = ledger.cpu.add(dearer, full & loads, ~dearer, full)
    rest = (
        np.where(full, 0.0, each)
        for each in (opened.candidate, opened.candidate_requests, opened.baseline, opened.baseline_requests)
    )
    return evidence, OpenCpu(*rest)


def _add_memory(ledger: EvidenceLedger, block: EvidenceBlock, settings: AnalysisSettings) -> SignEvidence:
    """For harm, its memory now; for proof, what that is once it has grown by as much again as it has since the beginning."""
    now, beside = block.candidate.memory_bytes, block.baseline.memory_bytes
    told: Mask = (now > 0) & (beside > 0)
    first = np.where(ledger.totals.first_candidate_memory > 0, ledger.totals.first_candidate_memory, now)
    allowed = (1 + settings.max_memory_increase) * beside
    return ledger.memory.add(now > allowed, told, now + np.maximum(now - first, 0.0) <= allowed, told)


def _add_totals(totals: Totals, block: EvidenceBlock, tail: PairCounts) -> Totals:
    candidate, baseline = block.candidate, block.baseline
    memory = np.where(candidate.memory_bytes > 0, candidate.memory_bytes, totals.candidate_memory)
    beside = np.where(baseline.memory_bytes > 0, baseline.memory_bytes, totals.baseline_memory)
    return Totals(
        candidate=totals.candidate + candidate.requests,
        candidate_failed=totals.candidate_failed + candidate.failed,
        baseline=totals.baseline + baseline.requests,
        baseline_failed=totals.baseline_failed + baseline.failed,
        slow=totals.slow + tail.candidate_events,
        slow_of=totals.slow_of + tail.candidate,
        baseline_slow=totals.baseline_slow + tail.baseline_events,
        baseline_slow_of=totals.baseline_slow_of + tail.baseline,
        samples=totals.samples + block.samples,
        candidate_loss=totals.candidate_loss + block.candidate_loss,
        twin_loss=totals.twin_loss + block.twin_loss,
        candidate_cpu=totals.candidate_cpu + candidate.cpu_seconds,
        baseline_cpu=totals.baseline_cpu + baseline.cpu_seconds,
        candidate_memory=memory,
        baseline_memory=beside,
        first_candidate_memory=np.where(totals.first_candidate_memory > 0, totals.first_candidate_memory, memory),
        first_baseline_memory=np.where(totals.first_baseline_memory > 0, totals.first_baseline_memory, beside),
    )
