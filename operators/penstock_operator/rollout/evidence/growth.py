"""Memory is a state, and no average: what was proved of it holds for as long as it stays so."""

from __future__ import annotations

from penstock_operator.rollout.evidence.ledger import AnalysisSettings, EvidenceLedger


def has_outgrown(ledger: EvidenceLedger, settings: AnalysisSettings) -> bool:
    """Whether one replica of the candidate, grown by as much again as since the beginning, has more memory than is allowed."""
    totals = ledger.totals
    now, first = float(totals.candidate_memory[0]), float(totals.first_candidate_memory[0])
    beside = float(totals.baseline_memory[0])
    return beside > 0 and now + max(now - first, 0.0) > (1 + settings.max_memory_increase) * beside
