"""Memory is a state, and no average: what was proved of it holds for as long as it stays so."""

from __future__ import annotations

import numpy as np

from penstock_operator.rollout.evidence.arrays import Mask
from penstock_operator.rollout.evidence.ledger import AnalysisSettings, EvidenceLedger


def has_outgrown(ledger: EvidenceLedger, settings: AnalysisSettings) -> Mask:
    """Where one replica of the candidate, grown by as much again as since the beginning, has more memory than is allowed; (rollouts,)."""
    totals = ledger.totals
    now, first, beside = totals.candidate_memory, totals.first_candidate_memory, totals.baseline_memory
    outgrown: Mask = (beside > 0) & (now + np.maximum(now - first, 0.0) > (1 + settings.max_memory_increase) * beside)
    return outgrown
