"""Evidence in words and figures, for a status."""

from __future__ import annotations

import math

from penstock.api.quantity import readable_bytes
from penstock.api.rollout import MetricEvidence
from penstock.routing.outcomes import LATENCY_SECONDS
from penstock_operator.rollout.evidence import ledger as known
from penstock_operator.rollout.evidence.arrays import Array
from penstock_operator.rollout.evidence.ledger import AnalysisSettings, EvidenceLedger


def metric_evidence(ledger: EvidenceLedger, settings: AnalysisSettings) -> tuple[MetricEvidence, ...]:
    """Each metric by which a candidate is judged, and last the shares of requests."""
    harm, proof = ledger.log_harm(), ledger.log_proof()
    told = tuple(
        MetricEvidence(
            name=name,
            candidate=_figures(name, ledger)[0],
            baseline=_figures(name, ledger)[1],
            samples=_samples(name, ledger),
            harm=decimal_log(harm[name]),
            proof=decimal_log(proof[name]),
            proved=bool(ledger.proved[0, known.METRICS.index(name)]),
        )
        for name in settings.metrics
    )
    shares = MetricEvidence(
        name=known.SHARES,
        candidate=f"{_one(ledger.totals.candidate):.0f} requests",
        baseline=f"{_one(ledger.totals.baseline):.0f} requests",
        samples=int(_one(ledger.totals.candidate)),
        harm=decimal_log(ledger.shares.wealth.log_evidence()),
    )
    return (*told, shares)


def tell_harm(ledger: EvidenceLedger, settings: AnalysisSettings) -> str:
    """What speaks most against it."""
    harm = ledger.log_harm()
    worst = max(settings.metrics, key=lambda name: _one(harm[name]))
    candidate, baseline = _figures(worst, ledger)
    return (
        f"{SUBJECTS[worst]}: {candidate} with the new revision and {baseline} with the present one; "
        f"evidence 10^{decimal_log(ledger.log_all_harm(settings))} is beyond 10^{-math.log10(settings.alpha):.1f}"
    )


def tell_skew(ledger: EvidenceLedger) -> str:
    """How requests were shared."""
    candidate, baseline = _one(ledger.totals.candidate), _one(ledger.totals.baseline)
    return (
        f"requests are not shared as the weights say: {candidate:.0f} for the new revision beside {baseline:.0f}, "
        f"evidence 10^{decimal_log(ledger.shares.wealth.log_evidence())}"
    )


def decimal_log(value: Array) -> str:
    """A natural logarithm to base 10, as text."""
    return f"{_one(value) / math.log(10):.2f}"


SUBJECTS = {
    known.ERRORS: "failed requests",
    known.LATENCY: "slow answers",
    known.PARITY: "answers that differ",
    known.CPU: "CPU time of an answer",
    known.MEMORY: "memory of a replica",
}


def _figures(name: str, ledger: EvidenceLedger) -> tuple[str, str]:
    totals = ledger.totals
    if name == known.ERRORS:
        return (
            tell_percent(_one(totals.candidate_failed), _one(totals.candidate)),
            tell_percent(_one(totals.baseline_failed), _one(totals.baseline)),
        )
    if name == known.LATENCY:
        at = int(ledger.times.threshold(known.QUANTILES[-1])[0])
        if at < 0:
            return "", ""
        limit = f" above {LATENCY_SECONDS[min(at, len(LATENCY_SECONDS) - 1)] * 1000:.3g} ms"
        return (
            tell_percent(_one(totals.slow), _one(totals.slow_of)) + limit,
            tell_percent(_one(totals.baseline_slow), _one(totals.baseline_slow_of)) + limit,
        )
    if name == known.PARITY:
        samples = _one(totals.samples)
        return (
            tell_mean(_one(totals.candidate_loss), samples),
            tell_mean(_one(totals.twin_loss), samples),
        )
    if name == known.CPU:
        return (
            tell_milliseconds(_one(totals.candidate_cpu), _one(totals.candidate) + _one(totals.samples)),
            tell_milliseconds(_one(totals.baseline_cpu), _one(totals.baseline)),
        )
    return tell_bytes(_one(totals.candidate_memory)), tell_bytes(_one(totals.baseline_memory))


def _samples(name: str, ledger: EvidenceLedger) -> int:
    if name == known.PARITY:
        return int(_one(ledger.totals.samples))
    if name == known.LATENCY:
        return int(_one(ledger.totals.slow_of))
    if name == known.MEMORY:
        return int(_one(ledger.memory.proof.blocks))
    return int(_one(ledger.totals.candidate))


def tell_percent(part: float, whole: float) -> str:
    """A share."""
    return f"{100 * part / whole:.3g} %" if whole else ""


def tell_mean(losses: float, samples: float) -> str:
    """A mean loss."""
    return f"mean loss {losses / samples:.3g}" if samples else ""


def tell_milliseconds(seconds: float, answers: float) -> str:
    """Time by answer."""
    return f"{1000 * seconds / answers:.3g} ms" if answers else ""


def tell_bytes(size: float) -> str:
    """Memory."""
    return readable_bytes(int(size)) if size else ""


def _one(value: Array) -> float:
    return float(value[0])
