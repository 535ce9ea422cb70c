"""How often a judged rollout errs, and how soon it decides: simulated rollouts of good and bad revisions, by kind of traffic.

What decides is the operator's own code (`penstock_operator.rollout.evidence`); what is simulated are the counts that replicas tell.
It fails where more good revisions are rolled back than alpha allows, or more bad ones proved than beta does. What was simulated is kept
under build/bench/rollout-cases for as long as the code is the same, so that a run that was ended goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from signal import SIG_DFL, SIGTERM
from typing import Any, TypeAlias

import numpy as np
from tests.benchmarks.report import OUT, progress, publish
from tests.benchmarks.rollout_figures import exact_interval, write_plot
from tests.benchmarks.rollout_guards import (
    GuardTrial,
    blame_each_death,
    have_no_patience,
    run_guards,
)
from tests.benchmarks.rollout_traffic import Trial
from tests.benchmarks.rollout_trials import Verdicts, run_trials
from tests.benchmarks.rollout_watch import WatchTrial, watch_trials

from penstock_operator.rollout import evidence
from penstock_operator.rollout.evidence.block import BLOCK_SECONDS
from penstock_operator.rollout.evidence.ledger import METRICS, AnalysisSettings
from penstock_operator.rollout.guards import find_harm

SETTINGS = AnalysisSettings()
RATES = (1.0, 10.0, 100.0, 1000.0)
TRAFFIC = {False: "Poisson", True: "bursty"}
ALIKE = 250
"""A/A rollouts of each rate and traffic: 2,000 in all."""
ALIKE_BLOCKS = 450
AT_MARGIN = 1000
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
    "slower everywhere": {"slower": (1.01, 1.05, 1.1, 1.2, 1.5, 2.0)},
    "slow at p99 only": {"tail": (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)},
    "wrong answers": {"differing": (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)},
    "wrong for one class": {"class_share": (0.02, 0.05, 0.1, 0.5)},
    "leaks, part of its memory a second": {"leak": (0.002, 0.01, 0.05)},
    "costs more CPU": {"cpu": (1.2, 1.7, 2.0, 3.0)},
}


LITTLE = (0.0, 1.0, 10.0)
"""Requests a second of a deployment that few ask: what both are shown must prove it."""
LITTLE_KINDS: dict[str, dict[str, Any]] = {
    "two copies": {},
    "two copies, one held back for 20 s": {"slower": 2.4, "cpu": 2.4, "begins": 8, "ends": 18},
    "two copies, one held back for 40 s": {"slower": 2.4, "cpu": 2.4, "begins": 8, "ends": 28},
    "5 % fail": {"failing": 0.05},
    "a fifth slower": {"slower": 1.2},
    "half as slow again": {"slower": 1.5},
    "20 % slow at p99": {"tail": 0.2},
    "5 % wrong": {"differing": 0.05},
    "5 % wrong, but right on made inputs": {"differing": 0.05, "made": 0.0},
    "the same, 200 samples supplied": {"differing": 0.05, "made": 0.0, "supplied": 200},
    "the same, 1,000 samples supplied": {"differing": 0.05, "made": 0.0, "supplied": 1000},
    "the same by 1 %, 1,000 samples supplied": {"differing": 0.01, "made": 0.0, "supplied": 1000},
    "two copies, 1,000 samples supplied": {"supplied": 1000},
    "twice the CPU time": {"cpu": 2.0},
    **{f"{name}, by the margin": {field: effect} for name, field, effect in (
        ("fails", "failing", SETTINGS.max_error_increase),
        ("slow", "tail", SETTINGS.max_slow_increase / 0.99),
        ("wrong", "differing", 1 - SETTINGS.output_parity),
    )},
}  # fmt: skip

CAUSE_KINDS: dict[str, dict[str, float]] = {
    **{
        f"two copies, {100 * share:g} % of one's deadlines are over for {seconds} s": {
            "expiring": share, "begins": 80, "ends": 80 + seconds // 2,
        }
        for share, seconds in ((0.05, 20), (0.3, 20), (0.3, 40), (0.3, 60))
    },
    "two copies, 10 % of both's deadlines are over": {"base_expiring": 0.1},
    "two copies, a client of one sends 5 % wrong inputs": {"unfit": 0.05},
    "two copies, 10 % of both's inputs are wrong": {"base_unfit": 0.1},
    **{f"{100 * share:g} % of deadlines are over": {"expiring": share} for share in (0.02, 0.05, 0.3)},
    "30 % of deadlines of 5 ms are over": {"expiring": 0.3, "deadline": 0.005},
    "the model fails at 5 %": {"failing": 0.05},
    "its signature does not take 5 % of what the other's does": {"narrow": 0.05},
    "deadlines, by the margin": {"expiring": SETTINGS.max_error_increase},
}  # fmt: skip
"""Why requests end without an answer, and by whose doing."""

HOUR_BLOCKS = 1800
AFTER_BLOCKS = 450
WATCH_KINDS: dict[str, dict[str, float]] = {
    "as it was, Poisson": {},
    "as it was, bursty": {},
    "2 % fail": {"failing": 0.02},
    "5 % fail": {"failing": 0.05},
    "three times as slow": {"slower": 3.0},
    "twice as slow": {"slower": 2.0},
    "twice as slow, Poisson": {"slower": 2.0},
    "half as slow again": {"slower": 1.5},
    "10 % of answers drift": {"differing": 0.1},
    "leaks": {"leak": 0.005},
    "30 % of deadlines of 100 ms are over": {"expiring": 0.3},
    "30 % of deadlines of 5 ms are over": {"expiring": 0.3, "deadline": 0.005},
    "30 % of inputs are wrong": {"unfit": 0.3},
}
"""What becomes worse after an hour, on bursty traffic where nothing else is said."""
SPELL_BLOCKS = 150
SPELL_EVERY = 300
SPELLED = 20
WATCH_SPELLS: dict[str, dict[str, float]] = {
    **{
        f"{factor:g} times as slow for {seconds} s, {traffic}": {"slower": factor, "cpu": factor, "seconds": seconds}
        for factor, seconds, traffic in (
            (1.5, 60, "bursty"),
            *((2.4, seconds, "bursty") for seconds in (20, 40, 60, 90)),
            *((5.0, seconds, "bursty") for seconds in (20, 40, 60, 90)),
            (2.4, 60, "Poisson"),
            (5.0, 60, "Poisson"),
        )
    },
    **{
        f"{100 * share:g} % fail for {seconds} s": {"failing": share, "seconds": seconds}
        for share in (0.05, 0.3)
        for seconds in (20, 60)
    },
    **{
        f"30 % {what} for {seconds} s": {field: 0.3, "seconds": seconds}
        for what, field in (("miss their deadline", "expiring"), ("send wrong inputs", "unfit"))
        for seconds in (20, 60)
    },
}
"""What is worse for a while after five minutes, and again every ten, in an hour."""
MOST_IN_STORMS = 0.05
"""Of rollouts in which each node fails once an hour, those that guards may revert."""
GUARDED: dict[str, tuple[GuardTrial, int]] = {
    "as good, 1 replica": (GuardTrial(1), 100),
    "as good, 3 replicas": (GuardTrial(3), 100),
    "as good, 8 replicas": (GuardTrial(8), 100),
    "as good, 1 replica, a request in five seconds": (GuardTrial(1, rate=0.2), 100),
    "1 replica dies after 60 s in the middle": (GuardTrial(1, dies=87), 40),
    "3 replicas, each after 180 s": (GuardTrial(3, dies=260), 40),
    "1 replica answers nothing from 300 s on": (GuardTrial(1, hangs=300), 40),
    "the same, a request in five seconds": (GuardTrial(1, hangs=300, rate=0.2), 40),
}
"""What is guarded without statistics, and how often it is simulated."""
GUARDS = {
    "guard": find_harm,
    "each death counts": blame_each_death,
    "no patience with the absent": have_no_patience,
}
Case: TypeAlias = tuple[Any, ...]


def parser() -> argparse.ArgumentParser:
    """What may be said."""
    found = argparse.ArgumentParser(prog="rollout", description=__doc__)
    found.add_argument("--only", choices=PARTS, action="append", help="this part; more often, more of them")
    found.add_argument("--processes", type=int, help="at once; left out, one for each core")
    return found


def main(given: Sequence[str] = ()) -> int:
    """Simulate, print, write; 1 where a promise was broken."""
    asked = parser().parse_args(given)
    broken: list[str] = []
    # One that is told to end ends, or the others would be waited for in vain.
    with ProcessPoolExecutor(asked.processes, initializer=partial(signal.signal, SIGTERM, SIG_DFL)) as pool:
        for name in asked.only or PARTS:
            began, part = time.monotonic(), PARTS[name]
            found = list(pool.map(partial(_simulate, name), part.cases))
            broken += part.publish([row for rows in found for row in rows])
            progress(f"{name}: {time.monotonic() - began:.0f} s")
    if not asked.only:
        write_plot(*(json.loads((OUT / f"{name}.json").read_text())["rows"] for name in PLOTTED))
    for each in broken:
        print(f"broken: {each}")
    return 1 if broken else 0


def _simulate(part: str, case: Case) -> list[dict[str, Any]]:
    """The rows of a case, from what was simulated before or anew."""
    key = hashlib.sha256(f"{part} {case!r} {_code()}".encode()).hexdigest()[:16]
    kept = OUT / "rollout-cases" / f"{key}.json"
    if kept.is_file():
        return list(json.loads(kept.read_text()))
    rows = PARTS[part].run(case)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.with_suffix(".part").write_text(json.dumps(rows))
    kept.with_suffix(".part").rename(kept)
    return rows


@cache
def _code() -> str:
    """A hash of all that decides what a simulation gives."""
    files = (*Path(evidence.__path__[0]).glob("*.py"), *Path(__file__).parent.glob("rollout*.py"))
    return hashlib.sha256(b"".join(each.read_bytes() for each in sorted(files))).hexdigest()


def _run_alike(case: Case) -> list[dict[str, Any]]:
    rate, bursty = case
    trials = [Trial("alike", rate, bursty)] * ALIKE
    found = run_trials(trials, SETTINGS, blocks=ALIKE_BLOCKS, seed=_seed(case), stop=False)
    promoted = found.promoted_at[~np.isnan(found.promoted_at)]
    row = {
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
    return [row]


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


def _run_margin(case: Case) -> list[dict[str, Any]]:
    bursty, name = case
    trials = [replace(MARGINS[name], bursty=bursty)] * AT_MARGIN
    found = run_trials(trials, SETTINGS, blocks=AT_MARGIN_BLOCKS, seed=_seed(case), stop=False)
    proved = int((found.proof[:, METRICS.index(name)] >= -np.log(SETTINGS.beta)).sum())
    low, high = exact_interval(proved, AT_MARGIN)
    row = {
        "worse in": name,
        "traffic": TRAFFIC[bursty],
        "rollouts": AT_MARGIN,
        "proved": proved,
        "from": low,
        "to": high,
        "promoted": int((~np.isnan(found.promoted_at)).sum()),
        "reverted": int((~np.isnan(found.reverted_at)).sum()),
    }
    return [row]


def _publish_margins(rows: list[dict[str, Any]]) -> list[str]:
    publish(
        "rollout-false-promotions",
        f"candidates worse by exactly what is allowed, 100 requests/s, {AT_MARGIN_BLOCKS * 2} s: proved at any look; beta is 5 %",
        rows,
    )
    return [f"proofs of worse {row['worse in']}, {row['traffic']}" for row in rows if row["from"] > SETTINGS.beta]


def _run_bad(case: Case) -> list[dict[str, Any]]:
    bursty, kind = case
    ((field, effects),) = BAD_KINDS[kind].items()
    base = Trial(kind, 100, bursty)
    trials = [_worse(base, field, effect) for effect in effects for _ in range(BAD)]
    found = run_trials(trials, SETTINGS, blocks=BAD_BLOCKS, seed=_seed(case))
    return [
        {"kind": kind, "effect": effect, "traffic": TRAFFIC[bursty], **_outcome(found, slice(at * BAD, (at + 1) * BAD))}
        for at, effect in enumerate(effects)
    ]


def _publish_bad(rows: list[dict[str, Any]]) -> list[str]:
    publish("rollout-power", f"bad candidates, {BAD} rollouts each, at most {BAD_BLOCKS * 2} s", rows)
    return []


def _run_little(case: Case) -> list[dict[str, Any]]:
    rate, bursty, kind = case
    trials = [replace(Trial(kind, rate, bursty), **LITTLE_KINDS[kind])] * BAD
    found = run_trials(trials, SETTINGS, blocks=ALIKE_BLOCKS, seed=_seed(case))
    outcome = _outcome(found, slice(0, BAD))
    return [{"kind": kind, "requests/s": rate, "traffic": TRAFFIC[bursty], "rollouts": BAD, **outcome}]


def _publish_little(rows: list[dict[str, Any]]) -> list[str]:
    publish("rollout-little-traffic", f"few requests or none, {BAD} rollouts each, at most {ALIKE_BLOCKS * 2} s", rows)
    alike = [row for row in rows if row["kind"].startswith("two copies")]
    reverted = sum(row["reverted"] for row in alike)
    low, _ = exact_interval(reverted, sum(row["rollouts"] for row in alike))
    at_margin = [row for row in rows if row["kind"].endswith("by the margin")]
    proved = [row for row in at_margin if exact_interval(row["promoted"], row["rollouts"])[0] > SETTINGS.beta]
    false = ["false reverts with little traffic"] if low > SETTINGS.alpha else []
    return false + [f"proofs of {row['kind']} at {row['requests/s']:g}/s, {row['traffic']}" for row in proved]


def _run_causes(case: Case) -> list[dict[str, Any]]:
    bursty, kind, apart = case
    trials = [replace(Trial(kind, 100, bursty, apart=apart), **CAUSE_KINDS[kind])] * BAD
    found = run_trials(trials, SETTINGS, blocks=ALIKE_BLOCKS, seed=_seed((bursty, kind)))
    outcome = _outcome(found, slice(0, BAD))
    return [{"kind": kind, "traffic": TRAFFIC[bursty], "told apart": bool(apart), "rollouts": BAD, **outcome}]


def _publish_causes(rows: list[dict[str, Any]]) -> list[str]:
    publish(
        "rollout-causes",
        f"requests without an answer, by whose doing, and as replicas of a former release count them; {BAD} rollouts each",
        rows,
    )
    apart = [row for row in rows if row["told apart"]]
    alike = [row for row in apart if row["kind"].startswith("two copies")]
    low, _ = exact_interval(sum(row["reverted"] for row in alike), sum(row["rollouts"] for row in alike))
    proved = [row for row in apart if row["kind"].endswith("by the margin")]
    return [
        *(["false reverts for what is nobody's failure"] if low > SETTINGS.alpha else []),
        *(
            f"proofs of {row['kind']}, {row['traffic']}"
            for row in proved
            if exact_interval(row["promoted"], row["rollouts"])[0] > SETTINGS.beta
        ),
    ]


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
        "samples": float(np.median(found.samples[rows])),
        "seconds": float(np.median(decided)) if len(decided) else "-",
    }


def _run_watch(case: Case) -> list[dict[str, Any]]:
    name, changed = case
    trial = replace(Trial("", 100, bursty=not name.endswith("Poisson")), **WATCH_KINDS[name])
    blocks = HOUR_BLOCKS + (AFTER_BLOCKS if changed else 0)
    if changed:
        trial = replace(trial, begins=HOUR_BLOCKS)
    return [watch_trials(WatchTrial(name, trial, blocks), SETTINGS, count=BAD if changed else WATCHED)]


def _run_spells(case: Case) -> list[dict[str, Any]]:
    (name,) = case
    bursty = not name.endswith(TRAFFIC[False])
    worse = dict(WATCH_SPELLS[name])
    ends = SPELL_BLOCKS + round(worse.pop("seconds") / BLOCK_SECONDS)
    trial = replace(Trial("", 100, bursty), begins=SPELL_BLOCKS, ends=ends, every=SPELL_EVERY, **worse)
    return [watch_trials(WatchTrial(name, trial, HOUR_BLOCKS), SETTINGS, count=SPELLED)]


def _publish_spells(rows: list[dict[str, Any]]) -> list[str]:
    publish(
        "rollout-spells",
        "after it took over: what is worse for a while, after 5 minutes and again every 10, in an hour",
        rows,
    )
    return []


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


def _run_guards(case: Case) -> list[dict[str, Any]]:
    (name,) = case
    trial, count = GUARDED[name]
    runs = run_guards(trial, GUARDS, count=count, seed=3)
    at = runs["guard"]
    found = {told: len(each) for told, each in runs.items()}
    return [{"case": name, "rollouts": count, **found, "after, s": float(np.median(at)) if at else "-"}]


def _publish_guards(rows: list[dict[str, Any]]) -> list[str]:
    publish("rollout-guards", "reverted without statistics, and with each guard changed or taken out", rows)
    alike = [row for row in rows if row["case"].startswith("as ")]
    low, _ = exact_interval(sum(row["guard"] for row in alike), sum(row["rollouts"] for row in alike))
    return ["false reverts by guards"] if low > MOST_IN_STORMS else []


def _exceed(evidence: Any, level: float) -> Any:
    return evidence >= -np.log(level)


def _seed(case: tuple[Any, ...]) -> int:
    return sum(ord(letter) * (at + 1) for at, letter in enumerate(repr(case)))


@dataclass(frozen=True, slots=True)
class Part:
    """What is simulated together, and told in one table."""

    cases: Sequence[Case]
    run: Callable[[Case], list[dict[str, Any]]]
    publish: Callable[[list[dict[str, Any]]], list[str]]
    """Gives the promises that were broken."""


PARTS: Mapping[str, Part] = {
    "alike": Part([(rate, bursty) for bursty in TRAFFIC for rate in RATES], _run_alike, _publish_alike),
    "margins": Part([(bursty, name) for bursty in TRAFFIC for name in MARGINS], _run_margin, _publish_margins),
    "bad": Part([(bursty, kind) for bursty in TRAFFIC for kind in BAD_KINDS], _run_bad, _publish_bad),
    "little": Part(
        [(rate, bursty, kind) for kind in LITTLE_KINDS for rate in LITTLE for bursty in TRAFFIC],
        _run_little,
        _publish_little,
    ),
    "causes": Part(
        [(bursty, kind, apart) for bursty in TRAFFIC for kind in CAUSE_KINDS for apart in (1.0, 0.0)],
        _run_causes,
        _publish_causes,
    ),
    "watch": Part([(name, bool(changes)) for name, changes in WATCH_KINDS.items()], _run_watch, _publish_watch),
    "guards": Part([(name,) for name in GUARDED], _run_guards, _publish_guards),
    "spells": Part([(name,) for name in WATCH_SPELLS], _run_spells, _publish_spells),
}
PLOTTED = ("rollout-power", "rollout-false-reverts")
