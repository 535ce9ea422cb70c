"""Simulated hours after a revision took over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tests.benchmarks.rollout_traffic import Traffic, Trial, TrialArrays

from penstock_operator.rollout.evidence.block import BLOCK_SECONDS
from penstock_operator.rollout.evidence.ledger import AnalysisSettings
from penstock_operator.rollout.evidence.regression import RegressionLedger, add_watched
from penstock_operator.rollout.evidence.watch import log_bound


@dataclass(frozen=True, slots=True)
class WatchTrial:
    """What is watched, and for how many blocks."""

    name: str
    trial: Trial
    blocks: int


def watch_trials(case: WatchTrial, settings: AnalysisSettings, *, count: int, seed: int = 7) -> dict[str, Any]:
    """Watch as many such."""
    traffic = Traffic(TrialArrays.of([case.trial] * count), seed, watching=True)
    ledger = RegressionLedger.start(count)
    bound = log_bound(settings.alpha, case.blocks * BLOCK_SECONDS)
    found_at = np.full(count, np.nan)
    everything = np.ones(count)
    for block in range(1, case.blocks + 1):
        ledger = add_watched(ledger, traffic.next_block(everything, holds=everything > 0), settings, bound)
        found_at = np.where((ledger.found > 0) & np.isnan(found_at), block * BLOCK_SECONDS, found_at)
    begins = (case.trial.begins or case.blocks) * BLOCK_SECONDS
    early = found_at <= begins
    later = found_at[found_at > begins] - begins
    return {
        "case": case.name,
        "watched": count,
        "blocks": case.blocks,
        "false alarms": int(early.sum()),
        "found": f"{100 * len(later) / count:.0f} %" if case.trial.begins else "-",
        "seconds": float(np.median(later)) if len(later) else "-",
    }
