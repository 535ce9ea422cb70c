"""Simulated hours after a revision took over."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
from tests.benchmarks.rollout_traffic import Traffic, Trial, TrialArrays

from penstock_operator.rollout.evidence.block import BLOCK_SECONDS, EvidenceBlock
from penstock_operator.rollout.evidence.ledger import AnalysisSettings
from penstock_operator.rollout.evidence.regression import RegressionLedger, add_watched
from penstock_operator.rollout.evidence.watch import is_doubtful, log_bound
from penstock_operator.rollout.machine import WATCHING_SECONDS

LOOKS = (2, 3)
"""Blocks of two seconds from one look to the next, in turn: every five seconds in the middle, as an operator looks."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WatchTrial:
    """What is watched, and for how many blocks of two seconds."""

    name: str
    trial: Trial
    blocks: int


def watch_trials(case: WatchTrial, settings: AnalysisSettings, *, count: int, seed: int = 7) -> dict[str, Any]:
    """Watch as many such."""
    assert sum(LOOKS) / len(LOOKS) * BLOCK_SECONDS == WATCHING_SECONDS
    traffic = Traffic(TrialArrays.of([case.trial] * count), seed, watching=True)
    ledger = RegressionLedger.start(count)
    bound = log_bound(settings.alpha, case.blocks * BLOCK_SECONDS)
    found_at, doubted = np.full(count, np.nan), np.zeros(count, bool)
    everything = np.ones(count)
    looks = itertools.cycle(LOOKS)
    while traffic.block < case.blocks:
        seen = [traffic.next_block(everything, holds=everything > 0) for _ in range(next(looks))]
        ledger = add_watched(ledger, _join(seen), settings, bound)
        traffic.doubtful = is_doubtful(ledger, settings, bound)
        doubted |= traffic.doubtful
        found_at = np.where((ledger.found > 0) & np.isnan(found_at), traffic.block * BLOCK_SECONDS, found_at)
    begins = (case.trial.begins or case.blocks) * BLOCK_SECONDS
    early = found_at <= begins
    later = found_at[found_at > begins] - begins
    return {
        "case": case.name,
        "watched": count,
        "seconds": case.blocks * BLOCK_SECONDS,
        "false alarms": int(early.sum()),
        "in doubt": int(doubted.sum()),
        "reverted": len(later) if case.trial.begins else "-",
        "after, s": float(np.median(later)) if len(later) else "-",
    }


def _join(blocks: Sequence[EvidenceBlock]) -> EvidenceBlock:
    """One look's block: all that was counted, and what there is now."""
    last = blocks[-1]
    joined = _sum(blocks)
    return replace(
        joined,
        candidate=replace(joined.candidate, memory_bytes=last.candidate.memory_bytes, replicas=last.candidate.replicas),
        baseline=replace(joined.baseline, memory_bytes=last.baseline.memory_bytes, replicas=last.baseline.replicas),
        expected_share=last.expected_share,
        share_holds=last.share_holds,
    )


def _sum(values: Sequence[T]) -> T:
    first: Any = values[0]
    if not is_dataclass(first):
        return sum(values[1:], first)
    return type(first)(**{each.name: _sum([getattr(value, each.name) for value in values]) for each in fields(first)})
