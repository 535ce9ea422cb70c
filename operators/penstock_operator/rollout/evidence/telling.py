"""Evidence in words and figures, for a status."""

from __future__ import annotations

import math

from penstock.api.quantity import readable_bytes
from penstock.api.rollout import MetricEvidence, ProofSource
from penstock.routing.outcomes import LATENCY_SECONDS
from penstock_operator.rollout.evidence import ledger as known
from penstock_operator.rollout.evidence.arrays import Array
from penstock_operator.rollout.evidence.compared import QUANTILES, ComparedArms
from penstock_operator.rollout.evidence.ledger import AnalysisSettings, EvidenceLedger


def metric_evidence(ledger: EvidenceLedger, settings: AnalysisSettings) -> tuple[MetricEvidence, ...]:
    """Each metric by which a candidate is judged, and last the shares of requests."""
    harm, live, shown = ledger.log_harm(), ledger.log_proof(), ledger.log_proof(shown=True)
    told = []
    for name in settings.metrics:
        at = known.METRICS.index(name)
        needs_live = bool(ledger.needs_live[0, at])
        by_shown = not needs_live and bool(ledger.proved_shown[0, at])
        proof = live[name] if needs_live else max(live[name], shown[name], key=_one)
        candidate, baseline = _figures(name, ledger, _telling(name, ledger))
        told.append(
            MetricEvidence(
                name=name,
                candidate=candidate,
                baseline=baseline,
                samples=_samples(name, ledger),
                harm=decimal_log(harm[name]),
                proof=decimal_log(proof),
                proved=bool(ledger.proved[0, at]),
                proved_by=_proved_by(name, live=bool(ledger.proved_live[0, at]), shown=by_shown),
            )
        )
    shares = MetricEvidence(
        name=known.SHARES,
        candidate=f"{_one(ledger.live.candidate.requests):.0f} requests",
        baseline=f"{_one(ledger.live.baseline.requests):.0f} requests",
        samples=int(_one(ledger.live.candidate.requests)),
        harm=decimal_log(ledger.shares.wealth.log_evidence()),
    )
    return (*told, shares)


def _proved_by(name: str, *, live: bool, shown: bool) -> ProofSource | None:
    if name == known.MEMORY:
        return None
    if live:
        return ProofSource.LIVE
    if not shown:
        return None
    return ProofSource.MADE if name == known.PARITY else ProofSource.SHOWN


def _telling(name: str, ledger: EvidenceLedger) -> ComparedArms:
    """Whose figures are told: of clients' requests, unless these are none, or what was shown speaks more against it."""
    live, shown = ledger.live, ledger.shown
    if not _one(live.candidate.requests):
        return shown
    if name == known.ERRORS:
        worse = _speaks_more(shown.errors.harm.log_evidence(), live.errors.harm.log_evidence())
    elif name == known.LATENCY:
        worse = _speaks_more(shown.log_slow_harm(), live.log_slow_harm())
    else:
        worse = _speaks_more(shown.cpu.harm.log_evidence(), live.cpu.harm.log_evidence())
    return shown if worse else live


def _speaks_more(one: Array, other: Array) -> bool:
    """Whether the one is more evidence of harm than the other, and some at all."""
    return _one(one) > max(_one(other), _SOME)


def tell_harm(ledger: EvidenceLedger, settings: AnalysisSettings) -> str:
    """What speaks most against it."""
    harm = ledger.log_harm()
    worst = max(settings.metrics, key=lambda name: _one(harm[name]))
    arms = _telling(worst, ledger)
    candidate, baseline = _figures(worst, ledger, arms)
    compared = worst in (known.ERRORS, known.LATENCY, known.CPU)
    where = " of what both were shown," if compared and arms is ledger.shown else ""
    if worst == known.PARITY and _is_of_made(ledger):
        where = " of those to inputs that no client sent,"
    return (
        f"{SUBJECTS[worst]}:{where} {candidate} with the new revision and {baseline} with the present one; "
        f"evidence 10^{decimal_log(ledger.log_all_harm(settings))} is beyond 10^{-math.log10(settings.alpha):.1f}"
    )


def tell_skew(ledger: EvidenceLedger) -> str:
    """How requests were shared."""
    candidate, baseline = _one(ledger.live.candidate.requests), _one(ledger.live.baseline.requests)
    return (
        f"requests are not shared as the weights say: {candidate:.0f} for the new revision beside {baseline:.0f}, "
        f"evidence 10^{decimal_log(ledger.shares.wealth.log_evidence())}"
    )


def decimal_log(value: Array) -> str:
    """A natural logarithm to base 10, as text."""
    return f"{_one(value) / math.log(10):.2f}"


_SOME = 1.0
"""Natural logarithm of an e-value that speaks of anything."""
SUBJECTS = {
    known.ERRORS: "failed requests",
    known.LATENCY: "slow answers",
    known.PARITY: "answers that differ",
    known.CPU: "CPU time of an answer",
    known.MEMORY: "memory of a replica",
}


def _figures(name: str, ledger: EvidenceLedger, arms: ComparedArms) -> tuple[str, str]:
    """Of both arms; what depends on requests, of these."""
    totals, candidate, baseline = ledger.totals, arms.candidate, arms.baseline
    if name == known.ERRORS:
        return (
            tell_percent(_one(candidate.failed), _one(candidate.requests)),
            tell_percent(_one(baseline.failed), _one(baseline.requests)),
        )
    if name == known.LATENCY:
        return _late_shares(arms)
    if name == known.PARITY:
        return _losses(ledger)
    if name == known.CPU:
        return (
            tell_milliseconds(_one(candidate.cpu), _one(candidate.cpu_of)),
            tell_milliseconds(_one(baseline.cpu), _one(baseline.cpu_of)),
        )
    return tell_bytes(_one(totals.candidate_memory)), tell_bytes(_one(totals.baseline_memory))


def _late_shares(arms: ComparedArms) -> tuple[str, str]:
    candidate, baseline = arms.candidate, arms.baseline
    if arms.is_late_by_deadlines:
        limit = " beyond their deadline"
        told = (tell_percent(_one(each.expired), _one(each.requests)) for each in (candidate, baseline))
    else:
        at = int(arms.times.threshold(QUANTILES[-1])[0])
        if at < 0:
            return "", ""
        limit = f" above {LATENCY_SECONDS[min(at, len(LATENCY_SECONDS) - 1)] * 1000:.3g} ms"
        told = (tell_percent(_one(each.slow), _one(each.slow_of)) for each in (candidate, baseline))
    slow, beside = (f"{each}{limit}" if each else "" for each in told)
    return slow, beside


def _losses(ledger: EvidenceLedger) -> tuple[str, str]:
    totals = ledger.totals
    if _is_of_made(ledger):
        samples, candidate, twin = totals.made, totals.made_candidate_loss, totals.made_twin_loss
    else:
        samples, candidate, twin = totals.samples, totals.candidate_loss, totals.twin_loss
    return tell_mean(_one(candidate), _one(samples)), tell_mean(_one(twin), _one(samples))


def _is_of_made(ledger: EvidenceLedger) -> bool:
    """Whether figures of answers are told of made inputs: there are no others, or these speak more against it."""
    made, sent = (each.harm.log_evidence() for each in (ledger.made_parity, ledger.parity))
    return not _one(ledger.totals.samples) or _speaks_more(made, sent)


def _samples(name: str, ledger: EvidenceLedger) -> int:
    if name == known.PARITY:
        return int(_one(ledger.totals.made if _is_of_made(ledger) else ledger.totals.samples))
    if name == known.MEMORY:
        return int(_one(ledger.memory.proof.blocks))
    candidate = _telling(name, ledger).candidate
    return int(_one(candidate.slow_of if name == known.LATENCY else candidate.requests))


def tell_percent(part: float, whole: float) -> str:
    """A share."""
    return f"{100 * part / whole:.3g} %" if whole else ""


def tell_mean(losses: float, samples: float) -> str:
    """A mean loss."""
    return f"mean loss {losses / samples:.3g}" if samples else ""


def tell_milliseconds(seconds: float, answers: float) -> str:
    """Time by answer."""
    return f"{1000 * seconds / answers:.3g} ms" if answers else ""


def tell_median(seconds: float) -> str:
    """The time in the middle of answers to what both revisions are shown."""
    return f"median {1000 * seconds:.3g} ms" if math.isfinite(seconds) else ""


def tell_bytes(size: float) -> str:
    """Memory."""
    return readable_bytes(int(size)) if size else ""


def _one(value: Array) -> float:
    return float(value[0])
