"""How often a judged rollout errs, and how soon it decides: simulated rollouts of good and bad revisions, by kind of traffic.

What decides is the operator's own code (`penstock_operator.rollout.evidence`); what is simulated are the counts that replicas tell.
It fails where more good revisions are rolled back than alpha allows, or more bad ones proved than beta does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from tests.benchmarks.report import progress, publish
from tests.benchmarks.rollout_figures import exact_interval, write_plot
from tests.benchmarks.rollout_traffic import Trial
from tests.benchmarks.rollout_trials import Verdicts, run_trials
from tests.benchmarks.rollout_watch import WatchTrial, watch_trials

from penstock_operator.rollout.evidence.ledger import METRICS, AnalysisSettings

SETTINGS = AnalysisSettings()
RATES = (1.0, 10.0, 100.0, 1000.0)
TRAFFIC = {False: "Poisson", True: "bursty"}
ALIKE = 250
"""A/A rollouts of each rate and traffic: 2,000 in all."""
ALIKE_BLOCKS = 450
AT_MARGIN = 400
AT_MARGIN_BLOCKS = 300
BAD = 40
BAD_BLOCKS = 900
WATCHED = 200
LEVELS = (0.05, 0.01, 0.001)
QUANTILES = {0.05: 1.645, 0.01: 2.326, 0.001: 3.090}
"""Of the normal distribution, of a one-sided test at that level."""

MARGINS = {
    "errors": Trial("errors", 100, bursty=False, failing=SETTINGS.max_error_increase),
    "latency": Trial("latency", 100, bursty=False, tail=SETTINGS.max_slow_increase / 0.99),
    "parity": Trial("parity", 100, bursty=False, differing=1 - SETTINGS.output_parity),
}
"""Candidates that are worse by just as much as is allowed: the hardest of those that must not be proved."""
BAD_KINDS: dict[str, dict[str, tuple[float, ...]]] = {
    "fails": {"failing": (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)},
    "slower everywhere": {"slower": (1.05, 1.1, 1.2, 1.5, 2.0)},
    "slow at p99 only": {"tail": (0.01, 0.05, 0.1, 0.2, 0.5)},
    "wrong answers": {"differing": (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)},
    "wrong for one class": {"class_share": (0.02, 0.05, 0.1, 0.5)},
    "leaks, part of its memory a second": {"leak": (0.002, 0.01, 0.05)},
    "costs more CPU": {"cpu": (1.2, 1.7, 2.0, 3.0)},
}


LITTLE = (0.0, 1.0, 10.0)
"""Requests a second of a deployment that few ask: what both are shown must prove it."""
LITTLE_KINDS: dict[str, dict[str, float]] = {
    "two copies": {},
    "5 % fail": {"failing": 0.05},
    "a fifth slower": {"slower": 1.2},
    "half as slow again": {"slower": 1.5},
    "20 % slow at p99": {"tail": 0.2},
    "5 % wrong": {"differing": 0.05},
    "5 % wrong, but right on made inputs": {"differing": 0.05, "made": 0.0},
    "twice the CPU time": {"cpu": 2.0},
    **{f"{name}, by the margin": {field: effect} for name, field, effect in (
        ("fails", "failing", SETTINGS.max_error_increase),
        ("slow", "tail", SETTINGS.max_slow_increase / 0.99),
        ("wrong", "differing", 1 - SETTINGS.output_parity),
    )},
}  # fmt: skip


def main() -> int:
    """Simulate, print, write; 1 where a promise was broken."""
    began = time.monotonic()
    with ProcessPoolExecutor() as pool:
        alike = [(rate, bursty) for bursty in TRAFFIC for rate in RATES]
        bad = [(bursty, kind) for bursty in TRAFFIC for kind in BAD_KINDS]
        margins = [(bursty, name) for bursty in TRAFFIC for name in MARGINS]
        watched = pool.submit(_watch)
        little = [(rate, bursty, kind) for kind in LITTLE_KINDS for rate in LITTLE for bursty in TRAFFIC]
        few = list(pool.map(_run_little, little))
        told = (
            list(pool.map(_run_alike, alike)),
            list(pool.map(_run_margin, margins)),
            [row for rows in pool.map(_run_bad, bad) for row in rows],
        )
        false_alarms, false_proofs, power = told
        progress(f"{time.monotonic() - began:.0f} s")
        broken = _publish_alike(false_alarms) + _publish_margins(false_proofs)
        publish("rollout-power", f"bad candidates, {BAD} rollouts each, at most {BAD_BLOCKS * 2} s", power)
        broken += _publish_watch(watched.result()) + _publish_little(few)
    write_plot(power, false_alarms)
    for each in broken:
        print(f"broken: {each}")
    return 1 if broken else 0


def _run_alike(case: tuple[float, bool]) -> dict[str, Any]:
    rate, bursty = case
    trials = [Trial("alike", rate, bursty)] * ALIKE
    found = run_trials(trials, SETTINGS, blocks=ALIKE_BLOCKS, seed=_seed(case), stop=False)
    promoted = found.promoted_at[~np.isnan(found.promoted_at)]
    return {
        "traffic": TRAFFIC[bursty],
        "requests/s": rate,
        "rollouts": ALIKE,
        "false reverts": int(_exceed(found.evidence, SETTINGS.alpha).sum()),
        **{f"evidence ≥ {1 / level:.0f}": int(_exceed(found.evidence, level).sum()) for level in LEVELS[:2]},
        "shares": int(_exceed(found.skew, SETTINGS.alpha).sum()),
        **{f"z-test at {level}": int((found.fixed_sample >= QUANTILES[level]).sum()) for level in LEVELS},
        "promoted": f"{100 * len(promoted) / ALIKE:.0f} %",
        "seconds": float(np.median(promoted)) if len(promoted) else "-",
    }


def _publish_alike(rows: list[dict[str, Any]]) -> list[str]:
    reverted, rollouts = sum(row["false reverts"] for row in rows), sum(row["rollouts"] for row in rows)
    low, high = exact_interval(reverted, rollouts)
    worst = [row for row in rows if exact_interval(row["false reverts"], row["rollouts"])[0] > SETTINGS.alpha]
    naive = sum(row["z-test at 0.001"] for row in rows)
    publish(
        "rollout-false-reverts",
        f"two copies of one model, {rollouts} rollouts of {ALIKE_BLOCKS * 2} s, looked at every 2 s and never stopped",
        rows,
        [
            f"false reverts: {reverted} of {rollouts}, 95 % interval {low:.3%} to {high:.3%}; alpha is {SETTINGS.alpha:.1%}",
            f"the negative control, a fixed-sample test at the same level looked at as often: {naive} of {rollouts}",
        ],
    )
    return [f"false reverts with {row['traffic']} traffic at {row['requests/s']}/s" for row in worst]


def _run_margin(case: tuple[bool, str]) -> dict[str, Any]:
    bursty, name = case
    trials = [replace(MARGINS[name], bursty=bursty)] * AT_MARGIN
    found = run_trials(trials, SETTINGS, blocks=AT_MARGIN_BLOCKS, seed=_seed(case), stop=False)
    proved = int((found.proof[:, METRICS.index(name)] >= -np.log(SETTINGS.beta)).sum())
    low, high = exact_interval(proved, AT_MARGIN)
    return {
        "worse in": name,
        "traffic": TRAFFIC[bursty],
        "rollouts": AT_MARGIN,
        "proved": proved,
        "from": low,
        "to": high,
        "promoted": int((~np.isnan(found.promoted_at)).sum()),
        "reverted": int((~np.isnan(found.reverted_at)).sum()),
    }


def _publish_margins(rows: list[dict[str, Any]]) -> list[str]:
    publish(
        "rollout-false-promotions",
        f"candidates worse by exactly what is allowed, 100 requests/s, {AT_MARGIN_BLOCKS * 2} s: proved at any look; beta is 5 %",
        rows,
    )
    return [f"proofs of worse {row['worse in']}, {row['traffic']}" for row in rows if row["from"] > SETTINGS.beta]


def _run_bad(case: tuple[bool, str]) -> list[dict[str, Any]]:
    bursty, kind = case
    ((field, effects),) = BAD_KINDS[kind].items()
    base = Trial(kind, 100, bursty)
    trials = [_worse(base, field, effect) for effect in effects for _ in range(BAD)]
    found = run_trials(trials, SETTINGS, blocks=BAD_BLOCKS, seed=_seed(case))
    return [
        {"kind": kind, "effect": effect, "traffic": TRAFFIC[bursty], **_outcome(found, slice(at * BAD, (at + 1) * BAD))}
        for at, effect in enumerate(effects)
    ]


def _run_little(case: tuple[float, bool, str]) -> dict[str, Any]:
    rate, bursty, kind = case
    trials = [replace(Trial(kind, rate, bursty), **LITTLE_KINDS[kind])] * BAD
    found = run_trials(trials, SETTINGS, blocks=ALIKE_BLOCKS, seed=_seed(case))
    outcome = _outcome(found, slice(0, BAD))
    return {"kind": kind, "requests/s": rate, "traffic": TRAFFIC[bursty], "rollouts": BAD, **outcome}


def _publish_little(rows: list[dict[str, Any]]) -> list[str]:
    publish("rollout-little-traffic", f"few requests or none, {BAD} rollouts each, at most {ALIKE_BLOCKS * 2} s", rows)
    alike = [row for row in rows if row["kind"] == "two copies"]
    reverted = sum(row["reverted"] for row in alike)
    low, _ = exact_interval(reverted, sum(row["rollouts"] for row in alike))
    at_margin = [row for row in rows if row["kind"].endswith("by the margin")]
    proved = [row for row in at_margin if exact_interval(row["promoted"], row["rollouts"])[0] > SETTINGS.beta]
    false = ["false reverts with little traffic"] if low > SETTINGS.alpha else []
    return false + [f"proofs of {row['kind']} at {row['requests/s']:g}/s, {row['traffic']}" for row in proved]


def _worse(base: Trial, field: str, effect: float) -> Trial:
    if field == "class_share":
        return replace(base, class_share=effect, differing=effect)
    return Trial(**{**asdict(base), field: effect})


def _outcome(found: Verdicts, rows: slice) -> dict[str, Any]:
    reverted, promoted = found.reverted_at[rows], found.promoted_at[rows]
    decided = np.fmin(reverted, promoted)
    decided = decided[~np.isnan(decided)]
    return {
        "reverted": int((~np.isnan(reverted)).sum()),
        "promoted": int((~np.isnan(promoted)).sum()),
        "undecided": int((np.isnan(reverted) & np.isnan(promoted)).sum()),
        "requests": float(np.median(found.requests[rows])),
        "seconds": float(np.median(decided)) if len(decided) else "-",
    }


def _watch() -> list[dict[str, Any]]:
    hour = 1800
    cases: Sequence[WatchTrial] = (
        WatchTrial("as it was", Trial("", 100, bursty=False), hour),
        WatchTrial("as it was, bursty", Trial("", 100, bursty=True), hour),
        WatchTrial("2 % fail after an hour", Trial("", 100, bursty=True, failing=0.02, begins=hour), hour + 450),
        WatchTrial("5 % fail after an hour", Trial("", 100, bursty=True, failing=0.05, begins=hour), hour + 450),
        WatchTrial(
            "three times as slow after an hour", Trial("", 100, bursty=True, slower=3.0, begins=hour), hour + 450
        ),
        WatchTrial(
            "10 % of answers drift after an hour", Trial("", 100, bursty=True, differing=0.1, begins=hour), hour + 450
        ),
        WatchTrial("leaks after an hour", Trial("", 100, bursty=True, leak=0.005, begins=hour), hour + 450),
    )
    return [watch_trials(case, SETTINGS, count=WATCHED if "as it" in case.name else 40) for case in cases]


def _publish_watch(rows: list[dict[str, Any]]) -> list[str]:
    publish(
        "rollout-watch",
        "after it took over: alarms within an hour without a change, and seconds until one is found",
        rows,
    )
    return [
        f"false alarms of the watch, {row['case']}"
        for row in rows
        if exact_interval(row["false alarms"], row["watched"])[0] > SETTINGS.alpha
    ]


def _exceed(evidence: Any, level: float) -> Any:
    return evidence >= -np.log(level)


def _seed(case: tuple[Any, ...]) -> int:
    return sum(ord(letter) * (at + 1) for at, letter in enumerate(repr(case)))
