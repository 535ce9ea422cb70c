"""Scaling policies on six loads, simulated: Penstock's beside Ray Serve's, Knative's and Kubernetes', at defaults and at their best."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from tests.benchmarks import report

from penstock_cli.replay.loads import LoadShape, draw_arrivals, shape_rates
from penstock_cli.replay.model import ReplayCase, ServiceTimes
from penstock_cli.replay.policies import POLICIES
from penstock_cli.replay.results import ReplayDocument, figures_of, rates_of, render, setting_text
from penstock_cli.replay.search import VIOLATION_SECONDS, PolicySearch, ReplayTrial, price_by, price_within

CASE = ReplayCase(
    ServiceTimes(((1, 0.24), (2, 0.34), (4, 0.56), (8, 1.0)), 8),
    slo_seconds=3.0,
    start_seconds=20.0,
    minimum=1,
    maximum=12,
)
"""A transformer of middling size on a core: 8 requests/s in full batches."""
LOW, HIGH, SECONDS, SEED = 4.0, 48.0, 1200, 5
STEADY_TURNS = 1
"""Changes of direction on a constant load, once its first number was found."""


def main() -> int:
    """Compare, publish `scaling-policies` and a page for each load; 1 where Penstock falls behind the best of the others."""
    began = time.monotonic()
    with ProcessPoolExecutor(2) as pool:
        compared = list(pool.map(_compare, LoadShape))
    lines = [row for rows, _ in compared for row in rows]
    verdicts = [verdict for _, verdict in compared]
    report.publish(
        "scaling-policies",
        f"Scaling policies, simulated: {LOW:g} to {HIGH:g} requests/s for {SECONDS // 60} min, a replica of "
        f"{CASE.service.capacity:g}/s that starts in {CASE.start_seconds:g} s, objective {CASE.bound_seconds:g} s",
        lines,
        [
            f"best: the least of replica-seconds + {VIOLATION_SECONDS:g} for each violation (refused, or later than the objective)",
            "matched: Penstock's fewest violations at no more replica-hours than the best of the others",
            *verdicts,
            f"{time.monotonic() - began:.0f} s",
        ],
    )
    return int(any(verdict.startswith("BEHIND") for verdict in verdicts))


def _compare(shape: LoadShape) -> tuple[list[dict[str, Any]], str]:
    """The rows of one load, and how Penstock's policy stands."""
    arrivals = draw_arrivals(shape_rates(shape, LOW, HIGH, SECONDS, SEED), SEED)
    price = price_by(VIOLATION_SECONDS)
    found: list[tuple[str, ReplayTrial]] = []
    searches = {name: PolicySearch(CASE, arrivals, SECONDS, family) for name, family in POLICIES.items()}
    for search in searches.values():
        found += [("default", search.default()), ("best", search.best(price))]
    others = [trial for kind, trial in found if kind == "best" and trial.family is not POLICIES["penstock"]]
    best = min(others, key=lambda each: price(each.result))
    matched = searches["penstock"].best(price_within(best.result.replica_seconds))
    found.insert(2, ("matched", matched))
    report.progress(f"{shape}: done")
    figures = [figures_of(trial, SECONDS, searched=kind != "default") for kind, trial in found]
    document = ReplayDocument(
        load=f"Load: {shape}, {LOW:g} to {HIGH:g} requests/s",
        replica=f"A replica answers {CASE.service.capacity:g} requests/s and starts in {CASE.start_seconds:g} s",
        seconds=SECONDS,
        capacity=CASE.service.capacity,
        slo_seconds=CASE.bound_seconds,
        rates=rates_of(arrivals, SECONDS),
        policies=tuple(figures),
    )
    report.OUT.mkdir(parents=True, exist_ok=True)
    (report.OUT / f"scaling-policies-{shape}.html").write_text(render(document), encoding="utf-8")
    return [_row(shape, kind, trial) for kind, trial in found], _judge(shape, matched, best, found[0][1])


def _judge(shape: LoadShape, matched: ReplayTrial, best: ReplayTrial, default: ReplayTrial) -> str:
    """The bar: fewer violations at no more replica-hours than the best of the others; and no oscillation on a constant load."""
    ours, theirs = matched.result, best.result
    within = ours.replica_seconds <= theirs.replica_seconds and ours.violations <= theirs.violations
    steady = shape is not LoadShape.CONSTANT or default.result.turns <= STEADY_TURNS
    return (
        f"{'holds' if within and steady else 'BEHIND'} on {shape}: {ours.violations} violations in {ours.replica_hours:.2f} "
        f"replica-hours; the best of the others ({best.family.title}) {theirs.violations} in {theirs.replica_hours:.2f}"
        + ("" if steady else f"; {default.result.turns} turns on a constant load")
    )


def _row(shape: LoadShape, kind: str, trial: ReplayTrial) -> dict[str, Any]:
    result = trial.result
    return {
        "load": str(shape),
        "policy": trial.family.title,
        "at": kind,
        "setting": setting_text(trial.setting),
        "requests": result.requests,
        "violations": result.violations,
        "%": round(100 * result.violations / max(result.requests, 1), 2),
        "replica-hours": round(result.replica_hours, 3),
        "price": round(price_by(VIOLATION_SECONDS)(result)),
        "p99 s": round(result.latency(0.99), 2),
        "changes": len(result.moves),
        "turns": result.turns,
    }


if __name__ == "__main__":
    sys.exit(main())
