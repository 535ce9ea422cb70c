"""All that is known of a candidate, block by block: pure, and for many rollouts at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from penstock_operator.rollout.evidence.arrays import Array, Mask, share
from penstock_operator.rollout.evidence.block import ArmCounts, EvidenceBlock, SampleCounts
from penstock_operator.rollout.evidence.compared import ArmRules, ComparedArms, error_rule, expired_rule, slow_rules
from penstock_operator.rollout.evidence.parity import ParityEvidence
from penstock_operator.rollout.evidence.shares import ShareEvidence
from penstock_operator.rollout.evidence.signs import SignEvidence
from penstock_operator.rollout.evidence.spread import PROOF_PRIOR, SAMPLES_PRIOR

ERRORS: Final = "errors"
LATENCY: Final = "latency"
PARITY: Final = "parity"
CPU: Final = "cpu"
MEMORY: Final = "memory"
SHARES: Final = "shares"
METRICS: Final = (ERRORS, LATENCY, PARITY, CPU, MEMORY)
LIVE_SAMPLES: Final = 700.0
"""Answers to clients' inputs that were compared, from which on those must prove that answers agree; of an equal one some 900 do.
Where there are fewer, answers to made inputs may, and those to clients' need only show no harm."""
LIVE_REQUESTS: Final = 2000.0
"""Of clients to the candidate, from which on what clients' requests show must prove it: an equal one is proved by some 2,400.
Where there are fewer, what it was shown may do so, and clients' requests need only show no harm."""
_SHOWN_ENOUGH: Final = 300.0
"""Requests that the candidate was shown, from which on those tell whether its signature takes what the present revision's does, and
clients answer for what it does not take. Until then nothing else might tell."""
_LAPSED_ENOUGH: Final = 3.0
"""Deadlines of clients that were over with the candidate, beyond those with the baseline, from above which on clients' requests must prove its
times, however few they are: what is shown has no deadline, and never waits behind others."""
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


def arm_rules(settings: AnalysisSettings, *, shown: bool) -> ArmRules:
    """What a candidate is held to beside its baseline, on clients' requests or on what is shown to both, one at a time."""
    prior = SAMPLES_PRIOR if shown else PROOF_PRIOR
    return ArmRules(
        error_rule(settings.max_error_increase, prior),
        slow_rules(settings.max_slow_increase, prior),
        expired_rule(settings.max_error_increase, prior),
        settings.max_cpu_increase,
    )


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums since the beginning, for people; each of shape (rollouts,)."""

    samples: Array
    """Of clients' inputs."""
    candidate_loss: Array
    twin_loss: Array
    made: Array
    """Of made ones."""
    made_candidate_loss: Array
    made_twin_loss: Array
    candidate_memory: Array
    baseline_memory: Array
    first_candidate_memory: Array
    first_baseline_memory: Array


@dataclass(frozen=True, slots=True)
class EvidenceLedger:
    """Evidence on each metric, and what was shown at some time."""

    live: ComparedArms
    """Of clients' requests."""
    shown: ComparedArms
    """Of requests that replicas of the present revision showed to both arms."""
    parity: ParityEvidence
    """Of answers to clients' inputs."""
    made_parity: ParityEvidence
    """Of answers to made ones."""
    memory: SignEvidence
    shares: ShareEvidence
    totals: Totals
    harmed: Array
    """1 where harm was shown."""
    proved_live: Array
    """1 where a metric was proved by clients' requests, or by what does not depend on them, (rollouts, METRICS)."""
    proved_shown: Array
    """The same by what was shown to both arms."""

    @classmethod
    def start(cls, settings: AnalysisSettings, rollouts: int = 1) -> EvidenceLedger:
        """Nothing was seen yet."""
        return cls(
            live=ComparedArms.start(rollouts, arm_rules(settings, shown=False)),
            shown=ComparedArms.start(rollouts, arm_rules(settings, shown=True)),
            parity=ParityEvidence.start(rollouts),
            made_parity=ParityEvidence.start(rollouts),
            memory=SignEvidence.start(rollouts),
            shares=ShareEvidence.start(rollouts),
            totals=Totals(*(np.zeros(rollouts) for _ in range(10))),
            harmed=np.zeros(rollouts),
            proved_live=np.zeros((rollouts, len(METRICS))),
            proved_shown=np.zeros((rollouts, len(METRICS))),
        )

    @property
    def needs_live(self) -> Mask:
        """Where clients' requests must prove a metric: they are enough, or deadlines speak against it, (rollouts, METRICS)."""
        candidate, baseline = self.live.candidate, self.live.baseline
        requests = candidate.requests >= LIVE_REQUESTS
        lapsed = candidate.expired - baseline.expired * share(candidate.requests, baseline.requests)
        needed = {PARITY: self.totals.samples >= LIVE_SAMPLES, LATENCY: requests | (lapsed > _LAPSED_ENOUGH)}
        needs: Mask = np.stack([needed.get(name, requests) for name in METRICS], axis=1)
        return needs

    @property
    def proved(self) -> Array:
        """1 where a metric was proved, (rollouts, METRICS)."""
        return np.maximum(self.proved_live, np.where(self.needs_live, 0.0, self.proved_shown))

    def log_harm(self) -> dict[str, Array]:
        """Logs of e-values of harm, by metric: of both kinds of requests, the mean."""
        live, shown = self.live, self.shown
        return {
            ERRORS: _log_mean(live.errors.harm.log_evidence(), shown.errors.harm.log_evidence()),
            LATENCY: _log_mean(live.log_slow_harm(), shown.log_slow_harm()),
            PARITY: _log_mean(self.parity.harm.log_evidence(), self.made_parity.harm.log_evidence()),
            CPU: _log_mean(live.cpu.harm.log_evidence(), shown.cpu.harm.log_evidence()),
            MEMORY: self.memory.harm.log_evidence(),
        }

    def log_proof(self, *, shown: bool = False) -> dict[str, Array]:
        """Logs of e-values against being worse by more than allowed, by metric.

        Of clients' requests and answers to their inputs; or of what both arms were shown, and answers to made inputs.
        """
        arms, parity = (self.shown, self.made_parity) if shown else (self.live, self.parity)
        return {
            ERRORS: arms.errors.proof.log_evidence(),
            LATENCY: arms.log_slow_proof(),
            PARITY: parity.proof.log_evidence(),
            CPU: arms.cpu.proof.log_evidence(),
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
    always = np.ones(len(block.seconds), bool)
    known = replace(
        ledger,
        live=ledger.live.add(
            arm_rules(settings, shown=False),
            candidate,
            baseline,
            dearer_counts=_like_loaded(candidate, baseline),
            unfit_fails=ledger.shown.candidate.requests < _SHOWN_ENOUGH,
        ),
        shown=ledger.shown.add(
            arm_rules(settings, shown=True),
            block.shown_candidate,
            block.shown_baseline,
            dearer_counts=always,
            unfit_fails=always,
        ),
        parity=_add_parity(ledger.parity, block.sent, settings),
        made_parity=_add_parity(ledger.made_parity, block.made, settings),
        memory=_add_memory(ledger, block, settings),
        shares=ledger.shares.add(candidate.requests, baseline.requests, block.expected_share, block.share_holds),
        totals=_add_totals(ledger.totals, block),
    )
    harmed = known.log_all_harm(settings) >= -np.log(settings.alpha)
    return replace(
        known,
        harmed=np.maximum(ledger.harmed, harmed),
        proved_live=np.maximum(ledger.proved_live, _find_proved(known.log_proof(), settings)),
        proved_shown=np.maximum(ledger.proved_shown, _find_proved(known.log_proof(shown=True), settings)),
    )


def _find_proved(by_metric: dict[str, Array], settings: AnalysisSettings) -> Mask:
    return np.stack([by_metric[name] >= -np.log(settings.beta) for name in METRICS], axis=1)


def _add_parity(known: ParityEvidence, counts: SampleCounts, settings: AnalysisSettings) -> ParityEvidence:
    if settings.output_parity <= 0:
        return known
    return known.add(counts.excess, counts.candidate_loss - counts.twin_loss, 1 - settings.output_parity)


def _log_mean(*logs: Array) -> Array:
    """Of numbers whose logarithms these are. The mean of e-values is one, however they depend on each other."""
    mean: Array = np.logaddexp.reduce(logs, axis=0) - np.log(len(logs))
    return mean


def _like_loaded(candidate: ArmCounts, baseline: ArmCounts) -> Mask:
    loaded: Mask = share(candidate.requests, candidate.replicas) >= _LIKE_LOADED * share(
        baseline.requests, baseline.replicas
    )
    return loaded


def _add_memory(ledger: EvidenceLedger, block: EvidenceBlock, settings: AnalysisSettings) -> SignEvidence:
    """For harm, its memory now; for proof, what that is once it has grown by as much again as it has since the beginning."""
    now, beside = block.candidate.memory_bytes, block.baseline.memory_bytes
    told: Mask = (now > 0) & (beside > 0)
    first = np.where(ledger.totals.first_candidate_memory > 0, ledger.totals.first_candidate_memory, now)
    allowed = (1 + settings.max_memory_increase) * beside
    return ledger.memory.add(now > allowed, told, now + np.maximum(now - first, 0.0) <= allowed, told)


def _add_totals(totals: Totals, block: EvidenceBlock) -> Totals:
    candidate, baseline = block.candidate, block.baseline
    memory = np.where(candidate.memory_bytes > 0, candidate.memory_bytes, totals.candidate_memory)
    beside = np.where(baseline.memory_bytes > 0, baseline.memory_bytes, totals.baseline_memory)
    return Totals(
        samples=totals.samples + block.sent.samples,
        candidate_loss=totals.candidate_loss + block.sent.candidate_loss,
        twin_loss=totals.twin_loss + block.sent.twin_loss,
        made=totals.made + block.made.samples,
        made_candidate_loss=totals.made_candidate_loss + block.made.candidate_loss,
        made_twin_loss=totals.made_twin_loss + block.made.twin_loss,
        candidate_memory=memory,
        baseline_memory=beside,
        first_candidate_memory=np.where(totals.first_candidate_memory > 0, totals.first_candidate_memory, memory),
        first_baseline_memory=np.where(totals.first_baseline_memory > 0, totals.first_baseline_memory, beside),
    )
