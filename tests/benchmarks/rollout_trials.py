"""Simulated rollouts from the first sample to a verdict, by the evidence that an operator goes by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

import numpy as np
from tests.benchmarks.rollout_traffic import Traffic, Trial, TrialArrays

from penstock_operator.rollout.evidence.arrays import Array, Mask, share
from penstock_operator.rollout.evidence.block import BLOCK_SECONDS, EvidenceBlock
from penstock_operator.rollout.evidence.growth import has_outgrown
from penstock_operator.rollout.evidence.ledger import METRICS, AnalysisSettings, EvidenceLedger, add_block

STEPS = (0.0, 0.01, 0.05, 0.25, 0.5)
"""The candidate's shares, first while it is only shown samples."""
STEP_BLOCKS = 15
NAMES = (*METRICS, "shares")
T = TypeVar("T")


@dataclass(slots=True)
class Verdicts:
    """What became of each trial; shape (trials,), but for `by_metric` and `proved_at`. NaN: never."""

    reverted_at: Array
    """Seconds until harm was shown."""
    promoted_at: Array
    """Seconds until all was proved, at the last step."""
    requests: Array
    """Of the candidate until the verdict."""
    samples: Array
    """Answers that were compared until the verdict."""
    evidence: Array
    """The greatest log of the e-value of harm."""
    skew: Array
    """The greatest log of that of the shares."""
    proof: Array
    """The greatest logs of proofs, (trials, METRICS)."""
    fixed_sample: Array
    """The greatest z of a fixed-sample test of failures and slow answers, had one looked at it after each block."""


def run_trials(
    trials: Sequence[Trial], settings: AnalysisSettings, *, blocks: int, seed: int, stop: bool = True
) -> Verdicts:
    """Simulate them.

    Args:
        trials: all at once.
        settings: what candidates are held to.
        blocks: after which nothing more is awaited.
        seed: of the chance.
        stop: whether one ends with its verdict; else all go on to the end.
    """
    arrays = TrialArrays.of(trials)
    count = len(trials)
    verdicts = _no_verdicts(count)
    rows = np.arange(count)
    traffic, ledger = Traffic(arrays, seed), EvidenceLedger.start(settings, count)
    naive = FixedSample.start(count)
    step, since = np.zeros(count, int), np.zeros(count, int)
    for number in range(1, blocks + 1):
        block = traffic.next_block(np.array(STEPS)[step], holds=since > 0)
        ledger = add_block(ledger, block, settings)
        naive = naive.add(block)
        since = since + 1
        _note(verdicts, rows, ledger, naive, settings=settings, now=number * BLOCK_SECONDS, step=step)
        on = (
            (since >= STEP_BLOCKS)
            & (step < len(STEPS) - 1)
            & ((step > 0) | (ledger.proved[:, METRICS.index("parity")] > 0))
        )
        step, since = step + on, np.where(on, 0, since)
        ended = ~np.isnan(verdicts.reverted_at[rows]) | ~np.isnan(verdicts.promoted_at[rows])
        if stop and ended.mean() > 0.1:
            keep = ~ended
            rows, step, since = rows[keep], step[keep], since[keep]
            traffic.keep(keep)
            ledger, naive = take(ledger, keep), take(naive, keep)
        if not len(rows):
            break
    return verdicts


@dataclass(frozen=True, slots=True)
class FixedSample:
    """The negative control: the usual test of two shares on all counts so far, which is valid for one look alone."""

    failed: Array
    requests: Array
    slow: Array
    answers: Array

    @classmethod
    def start(cls, count: int) -> FixedSample:
        return cls(*(np.zeros((2, count)) for _ in range(4)))

    def add(self, block: EvidenceBlock) -> FixedSample:
        arms = (block.candidate, block.baseline)
        return FixedSample(
            self.failed + np.stack([arm.failed for arm in arms]),
            self.requests + np.stack([arm.run for arm in arms]),
            self.slow + np.stack([arm.seconds[:, 60:].sum(axis=1) for arm in arms]),
            self.answers + np.stack([arm.seconds.sum(axis=1) for arm in arms]),
        )

    def z(self) -> Array:
        return np.maximum(_two_shares(self.failed, self.requests), _two_shares(self.slow, self.answers))


def take(value: T, rows: Mask) -> T:
    """These rollouts' rows of all arrays in a dataclass."""
    return _take(value, rows)


def _take(value: Any, rows: Mask) -> Any:
    if isinstance(value, FixedSample):
        return FixedSample(*(getattr(value, field.name)[:, rows] for field in fields(value)))
    if isinstance(value, np.ndarray):
        return value[rows]
    if isinstance(value, tuple):
        return tuple(_take(each, rows) for each in value)
    assert is_dataclass(value)
    return type(value)(*(_take(getattr(value, field.name), rows) for field in fields(value)))


def _two_shares(events: Array, trials: Array) -> Array:
    rates, pooled = share(events, trials), share(events.sum(axis=0), trials.sum(axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(pooled * (1 - pooled) * (1 / trials[0] + 1 / trials[1]))
        z = (rates[0] - rates[1]) / error
    return np.where((trials.min(axis=0) >= 30) & (events.sum(axis=0) >= 10) & np.isfinite(z), z, 0.0)


def _no_verdicts(count: int) -> Verdicts:
    never, zero = np.full(count, np.nan), np.zeros(count)
    return Verdicts(
        never.copy(),
        never.copy(),
        zero.copy(),
        zero.copy(),
        zero - 99,
        zero - 99,
        np.full((count, len(METRICS)), -99.0),
        zero.copy(),
    )


def _note(
    verdicts: Verdicts,
    rows: Array,
    ledger: EvidenceLedger,
    naive: FixedSample,
    *,
    settings: AnalysisSettings,
    now: float,
    step: Array,
) -> None:
    undecided = np.isnan(verdicts.reverted_at[rows]) & np.isnan(verdicts.promoted_at[rows])
    verdicts.requests[rows] = np.where(undecided, ledger.live.candidate.requests, verdicts.requests[rows])
    compared = ledger.totals.samples + ledger.totals.made
    verdicts.samples[rows] = np.where(undecided, compared, verdicts.samples[rows])
    harmed = (ledger.harmed > 0) & np.isnan(verdicts.reverted_at[rows])
    holds = ledger.proved.all(axis=1) & ~has_outgrown(ledger, settings)
    proved = holds & (step == len(STEPS) - 1) & undecided & (ledger.harmed == 0)
    verdicts.reverted_at[rows] = np.where(harmed, now, verdicts.reverted_at[rows])
    verdicts.promoted_at[rows] = np.where(proved, now, verdicts.promoted_at[rows])
    verdicts.evidence[rows] = np.maximum(verdicts.evidence[rows], ledger.log_all_harm(settings))
    verdicts.skew[rows] = np.maximum(verdicts.skew[rows], ledger.shares.wealth.log_evidence())
    live, shown = ledger.log_proof(), ledger.log_proof(shown=True)
    counted = np.where(ledger.needs_live, -99.0, np.stack([shown[name] for name in METRICS], axis=1))
    proof = np.maximum(np.stack([live[name] for name in METRICS], axis=1), counted)
    verdicts.proof[rows] = np.maximum(verdicts.proof[rows], proof)
    verdicts.fixed_sample[rows] = np.maximum(verdicts.fixed_sample[rows], naive.z())
