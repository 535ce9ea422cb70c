"""What a look tells of a candidate, and what is kept for the next."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from penstock.api.rollout import MetricEvidence
from penstock_operator.rollout.evidence.growth import has_outgrown
from penstock_operator.rollout.evidence.keeping import flatten, read_kept, unfold, write_kept
from penstock_operator.rollout.evidence.ledger import MEMORY, METRICS, AnalysisSettings, EvidenceLedger, add_block
from penstock_operator.rollout.evidence.looks import EvidenceLook, end_block, is_earlier, keep_look
from penstock_operator.rollout.evidence.telling import metric_evidence, tell_harm, tell_skew

__all__ = ["AnalysisSettings", "EvidenceLook", "Findings", "learn"]

_FORM: Final = "3"


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
    speedup_shown: float | None = None
    """The same of what both were shown, one request at a time."""
    doubt: str | None = None
    """Of one that has taken over: a sentence with the figures while half of the evidence is there that it has become worse."""


def learn(state: str, look: EvidenceLook, settings: AnalysisSettings) -> Findings:
    """What is known after a look; `state` is what the last one gave, empty at the beginning.

    Counts since the last look are one block once that is `BLOCK_SECONDS` ago and both arms, or samples, have told something new;
    until then nothing changes. A replica's first look, and one whose counts fell since it began anew, is what the next
    is held against. Of an arm with more than `MOST_REPLICAS`, that many count. A state of another form, of other settings or a
    broken one begins anew.
    """
    form = tell_form(settings)
    kept = read_kept(state, form) if state else None
    ledger = unfold(EvidenceLedger.start(settings), kept.numbers) if kept is not None else None
    if kept is None or ledger is None or is_earlier(look, kept):
        ledger = ledger or EvidenceLedger.start(settings)
        begun = keep_look(look, kept, form, flatten(ledger))
        return _findings(write_kept(begun), ledger, settings, replayed=begun.replayed)
    block = end_block(look, kept, settings.warm_up_seconds, alone=False)
    if block is None:
        return _findings(state, ledger, settings, replayed=kept.replayed)
    ledger = add_block(ledger, block, settings)
    kept = keep_look(look, kept, form, flatten(ledger), replayed=bool(block.made.samples[0] > 0))
    return _findings(write_kept(kept), ledger, settings, replayed=kept.replayed)


def _findings(state: str, ledger: EvidenceLedger, settings: AnalysisSettings, *, replayed: bool) -> Findings:
    live, shown = (float(each.times.speedup()[0]) for each in (ledger.live, ledger.shown))
    unproved = {name for at, name in enumerate(METRICS) if not ledger.proved[0, at]}
    outgrown = bool(has_outgrown(ledger, settings)[0])
    skewed = float(ledger.shares.wealth.log_evidence()[0]) >= -math.log(settings.alpha)
    return Findings(
        state=state,
        metrics=metric_evidence(ledger, settings),
        harm=tell_harm(ledger, settings) if ledger.harmed[0] else None,
        skewed=tell_skew(ledger) if skewed else None,
        missing=tuple(each for each in settings.metrics if each in unproved or (each == MEMORY and outgrown)),
        requests=int(ledger.live.candidate.requests[0]),
        replayed=replayed,
        speedup=live if math.isfinite(live) else None,
        speedup_shown=shown if math.isfinite(shown) else None,
    )


def tell_form(settings: AnalysisSettings) -> str:
    """Of what is kept: under other margins it is other evidence. Alpha and beta are only what it is held against."""
    margins = (
        settings.output_parity,
        settings.max_error_increase,
        settings.max_slow_increase,
        settings.max_cpu_increase,
        settings.max_memory_increase,
    )
    return " ".join((_FORM, *(f"{margin:g}" for margin in margins)))
