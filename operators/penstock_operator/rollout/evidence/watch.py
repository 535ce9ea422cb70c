"""What a look tells of a revision that has taken over: whether it has become worse since."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final

from penstock.api.rollout import MetricEvidence
from penstock_operator.rollout.evidence import ledger as known
from penstock_operator.rollout.evidence.arrays import Array, Mask
from penstock_operator.rollout.evidence.block import BLOCK_SECONDS
from penstock_operator.rollout.evidence.findings import Findings, tell_form
from penstock_operator.rollout.evidence.keeping import flatten, read_kept, unfold, write_kept
from penstock_operator.rollout.evidence.latency import median_seconds
from penstock_operator.rollout.evidence.ledger import AnalysisSettings
from penstock_operator.rollout.evidence.looks import EvidenceLook, end_block, is_earlier, keep_look
from penstock_operator.rollout.evidence.regression import RegressionLedger, RegressionReference, add_watched
from penstock_operator.rollout.evidence.telling import (
    SUBJECTS,
    decimal_log,
    tell_bytes,
    tell_mean,
    tell_median,
    tell_milliseconds,
    tell_percent,
)

_FORM: Final = "watch 4"
LONGEST_WATCH: Final = 2.0
"""Times `keepSeconds`: for so long is watched what is in doubt when these are over."""


def watch(
    state: str,
    look: EvidenceLook,
    settings: AnalysisSettings,
    keep_seconds: float,
    proved: Collection[str] = known.METRICS,
) -> Findings:
    """What is known after a look at a revision that has all requests; `state` is what the last one gave, empty at the beginning.

    Its own first two minutes are what it is held against, since nothing else serves the same traffic any more; and the former revision
    in answers and their times, as far as both are shown requests and it was `proved` to be no worse in that. `harm` tells once the mean
    of all metrics' detectors reaches the number of blocks in `keep_seconds` by alpha: the chance that this happens to one
    that stays as it was, in that time, is at most alpha, and it happens not more often than once in so many blocks on average.
    Evidence of harm is the detector's, `missing` is empty, and nothing is proved. As `learn`, it gives the same for the
    same look, outlives replicas that begin anew, and begins anew with a state that is none of its own.
    """
    form = f"{_FORM} {tell_form(settings)}"
    kept = read_kept(state, form) if state else None
    ledger = unfold(RegressionLedger.start(), kept.numbers) if kept is not None else None
    if kept is None or ledger is None or is_earlier(look, kept):
        ledger = ledger or RegressionLedger.start()
        return _findings(write_kept(keep_look(look, kept, form, flatten(ledger))), ledger, settings, keep_seconds)
    block = end_block(look, kept, settings.warm_up_seconds, alone=True)
    if block is None:
        return _findings(state, ledger, settings, keep_seconds)
    ledger = add_watched(ledger, block, settings, log_bound(settings.alpha, keep_seconds), proved)
    return _findings(write_kept(keep_look(look, kept, form, flatten(ledger))), ledger, settings, keep_seconds)


def log_bound(alpha: float, keep_seconds: float) -> float:
    """Natural logarithm of what the detectors' mean must reach: the average run length in blocks.

    While it is in doubt it is watched for up to twice as long, so that blocks are counted for that time.
    """
    return math.log(max(LONGEST_WATCH * keep_seconds / BLOCK_SECONDS, 1.0) / alpha)


def is_doubtful(ledger: RegressionLedger, settings: AnalysisSettings, bound: float) -> Mask:
    """Where half of the digits are there of the evidence of a change that is enough."""
    doubtful: Mask = ledger.log_all_harm(settings) >= bound / 2
    return doubtful


def _findings(state: str, ledger: RegressionLedger, settings: AnalysisSettings, keep_seconds: float) -> Findings:
    found, told = bool(ledger.found[0]), _tell_regression(ledger, settings, keep_seconds)
    doubtful = bool(is_doubtful(ledger, settings, log_bound(settings.alpha, keep_seconds))[0])
    return Findings(
        state=state,
        metrics=_metric_evidence(ledger, settings),
        harm=told if found else None,
        skewed=None,
        missing=(),
        requests=int(ledger.requests[0]),
        replayed=False,
        speedup=None,
        doubt=told if doubtful and not found else None,
    )


def _metric_evidence(ledger: RegressionLedger, settings: AnalysisSettings) -> tuple[MetricEvidence, ...]:
    harm = ledger.log_harm()
    told = []
    for name in settings.metrics:
        now, then = _figures(name, ledger)
        told.append(
            MetricEvidence(
                name=name, candidate=now, baseline=then, samples=int(ledger.requests[0]), harm=decimal_log(harm[name])
            )
        )
    return tuple(told)


def _tell_regression(ledger: RegressionLedger, settings: AnalysisSettings, keep_seconds: float) -> str:
    harm = ledger.log_harm()
    worst = max(settings.metrics, key=lambda name: float(harm[name][0]))
    now, then = _figures(worst, ledger)
    beside = worst == known.PARITY or (worst == known.LATENCY and ledger.is_late_beside)
    when = "with the former revision" if beside else "after it took over"
    before = f", {then} {when}" if then else ""
    enough = log_bound(settings.alpha, keep_seconds) / math.log(10)
    return (
        f"{SUBJECTS[worst]}: {now} of late{before}; evidence of a change is 10^{decimal_log(ledger.log_all_harm(settings))}, "
        f"and 10^{enough:.2f} is enough, which at most {100 * settings.alpha:g} % of revisions that stay as they were ever reach"
    )


def _figures(name: str, ledger: RegressionLedger) -> tuple[str, str]:
    """Of late, and in the reference."""
    then: RegressionReference = ledger.reference
    requests, failed, answers, slow, cpu, memory, samples, losses, timed = (_one(each) for each in ledger.recent.T)
    match name:
        case known.ERRORS:
            return tell_percent(failed, requests), tell_percent(_one(then.failed), _one(then.run))
        case known.LATENCY:
            if ledger.is_late_beside:
                times = ledger.beside.times
                new, former = (tell_median(_one(median_seconds(each))) for each in (times.candidate, times.baseline))
                return new, former
            return (f"{tell_percent(slow, answers)} slow" if answers else "", "1 % slow")
        case known.PARITY:
            return tell_mean(losses, samples), ""
        case known.CPU:
            return (
                tell_milliseconds(cpu, timed),
                tell_milliseconds(_one(then.cpu_seconds), _one(then.cpu_answers)),
            )
        case _:
            return tell_bytes(memory), tell_bytes(_one(then.memory_bytes))


def _one(value: Array) -> float:
    return float(value[0])
