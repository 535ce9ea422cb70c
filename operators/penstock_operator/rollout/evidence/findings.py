"""What a look tells of a candidate, and what is kept for the next."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import numpy as np

from penstock.api.rollout import MetricEvidence
from penstock.routing.outcomes import ReplicaOutcomes
from penstock_operator.rollout.evidence.block import BLOCK_SECONDS, ArmCounts, EvidenceBlock
from penstock_operator.rollout.evidence.keeping import KeptEvidence, flatten, read_kept, unfold, write_kept
from penstock_operator.rollout.evidence.ledger import METRICS, AnalysisSettings, EvidenceLedger, add_block
from penstock_operator.rollout.evidence.seen import (
    MOST_REPLICAS,
    ShadowDifference,
    arm_difference,
    keep_replicas,
    keep_shadows,
    shadow_difference,
)
from penstock_operator.rollout.evidence.telling import metric_evidence, tell_harm, tell_skew

__all__ = ["AnalysisSettings", "EvidenceLook", "Findings", "Look", "learn"]

_FORM: Final = "1"
_LONGEST_BLOCK: Final = 10.0
"""Seconds after which a block ends though one arm told nothing new."""
_CLOCK_FELL: Final = 300.0
"""Seconds by which a look is earlier than one before it, from which on the other clock is taken to have been wrong."""


@dataclass(frozen=True, slots=True)
class EvidenceLook:
    """What gateways tell at one moment: cumulative counts by replica id."""

    at: float
    """Epoch seconds."""
    candidate: Mapping[str, ReplicaOutcomes]
    baseline: Mapping[str, ReplicaOutcomes]
    """The young baseline's, or the fleet's where there was no room for one."""
    shadowing: Mapping[str, ReplicaOutcomes]
    """The present revision's, of which `shadow` counts."""
    expected_share: float
    """The candidate's share of what candidate and baseline get, by the route's weights. 0: it gets none."""


Look: TypeAlias = EvidenceLook


@dataclass(frozen=True, slots=True)
class Findings:
    """What is known by now."""

    state: str
    """For `status.rollout.evidence`, and for the next look."""
    metrics: tuple[MetricEvidence, ...]
    harm: str | None
    """A sentence with the figures, once harm is shown; from then on it stays."""
    skewed: str | None
    """A sentence while the shares of requests are shown not to be as declared."""
    missing: tuple[str, ...]
    """Metrics that were not proved yet."""
    requests: int
    """Of the candidate since the beginning, warm-up left out."""
    replayed: bool
    """Whether answers were compared on inputs that no client sent."""
    speedup: float | None
    """The median time of the baseline's answers by that of the candidate's, on live traffic."""


def learn(state: str, look: EvidenceLook, settings: AnalysisSettings) -> Findings:
    """What is known after a look; `state` is what the last one gave, empty at the beginning.

    Counts since the last look are one block once that is `BLOCK_SECONDS` ago and both arms, or samples, have told something new;
    until then nothing changes. A replica's first look, and one whose counts fell since it began anew, is what the next
    is held against. Of an arm with more than `MOST_REPLICAS`, that many count. A state of another form, of other settings or a
    broken one begins anew.
    """
    kept = read_kept(state, _form(settings)) if state else None
    ledger = _ledger(kept, settings)
    if kept is None or ledger is None or kept.at - look.at > _CLOCK_FELL:
        ledger = ledger or EvidenceLedger.start(settings)
        return _findings(_keep(look, kept, ledger, settings), ledger, settings)
    if look.at - kept.at < BLOCK_SECONDS:
        return _findings(kept, ledger, settings, state)
    candidate = arm_difference(look.candidate, kept.candidate, settings.warm_up_seconds)
    baseline = arm_difference(look.baseline, kept.baseline, settings.warm_up_seconds)
    shown = shadow_difference(look.shadowing, kept.shadowing)
    news = min(candidate.requests[0], baseline.requests[0]) > 0 or (shown.samples > 0 and look.expected_share == 0)
    if not news and look.at - kept.at < _LONGEST_BLOCK:
        return _findings(kept, ledger, settings, state)
    ledger = add_block(ledger, _block(look, kept, candidate, baseline, shown), settings)
    kept = _keep(look, replace(kept, replayed=kept.replayed or shown.replayed > 0), ledger, settings)
    return _findings(kept, ledger, settings)


def _block(
    look: EvidenceLook, kept: KeptEvidence, candidate: ArmCounts, baseline: ArmCounts, shown: ShadowDifference
) -> EvidenceBlock:
    few = max(len(look.candidate), len(look.baseline)) <= MOST_REPLICAS
    return EvidenceBlock(
        candidate=candidate,
        baseline=baseline,
        samples=np.array([float(shown.samples)]),
        excess=np.array([shown.excess]),
        candidate_loss=np.array([shown.candidate_loss]),
        twin_loss=np.array([shown.twin_loss]),
        expected_share=np.array([look.expected_share]),
        share_holds=np.array([few and kept.steady and kept.expected_share == look.expected_share]),
    )


def _keep(
    look: EvidenceLook, former: KeptEvidence | None, ledger: EvidenceLedger, settings: AnalysisSettings
) -> KeptEvidence:
    return KeptEvidence(
        form=_form(settings),
        at=look.at,
        expected_share=look.expected_share,
        steady=former is not None and former.expected_share == look.expected_share,
        replayed=former is not None and former.replayed,
        candidate=keep_replicas(look.candidate, former.candidate if former else {}),
        baseline=keep_replicas(look.baseline, former.baseline if former else {}),
        shadowing=keep_shadows(look.shadowing, former.shadowing if former else {}),
        numbers=flatten(ledger),
    )


def _ledger(kept: KeptEvidence | None, settings: AnalysisSettings) -> EvidenceLedger | None:
    if kept is None:
        return None
    try:
        return unfold(EvidenceLedger.start(settings), kept.numbers)
    except ValueError:
        return None


def _findings(kept: KeptEvidence, ledger: EvidenceLedger, settings: AnalysisSettings, state: str = "") -> Findings:
    speedup = float(ledger.times.speedup()[0])
    skewed = float(ledger.shares.wealth.log_evidence()[0]) >= -math.log(settings.alpha)
    return Findings(
        state=state or write_kept(kept),
        metrics=metric_evidence(ledger, settings),
        harm=tell_harm(ledger, settings) if ledger.harmed[0] else None,
        skewed=tell_skew(ledger) if skewed else None,
        missing=tuple(name for at, name in enumerate(METRICS) if name in settings.metrics and not ledger.proved[0, at]),
        requests=int(ledger.totals.candidate[0]),
        replayed=kept.replayed,
        speedup=speedup if math.isfinite(speedup) else None,
    )


def _form(settings: AnalysisSettings) -> str:
    """Alpha and beta are what evidence is held against, and are no part of it."""
    margins = (
        settings.output_parity,
        settings.max_error_increase,
        settings.max_slow_increase,
        settings.max_cpu_increase,
        settings.max_memory_increase,
    )
    return " ".join((_FORM, *(f"{margin:g}" for margin in margins)))
