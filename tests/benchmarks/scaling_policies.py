"""Scaling policies on six loads, simulated: Penstock's beside Ray Serve's, Knative's and Kubernetes', at defaults and at their best."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any, Final

from tests.benchmarks import report
from tests.benchmarks.scaling_trials import CASE, HIGH, LOW, SECONDS, TOLD, LoadVerdict, draw, judge

from penstock.routing.leases import ReplicaStats
from penstock.scaling.policy import Demand, ScalingLimits, ScalingState, decide
from penstock_cli.replay.loads import LoadShape, draw_arrivals
from penstock_cli.replay.model import LoadSight
from penstock_cli.replay.options import VIOLATION_SECONDS
from penstock_cli.replay.policies import POLICIES, PenstockRule
from penstock_cli.replay.results import ReplayDocument, figures_of, rates_of, render, setting_text
from penstock_cli.replay.search import PolicySearch, ReplayTrial, price_by

STEADY_RATES: Final = (7.0, 15.0, 22.0, 26.0, 30.5, 47.0)
"""Requests/s that stay: some far from what a whole number of replicas can answer, some just at it."""
STEADY_AFTER: Final = 300.0
STEADY_CHANGES: Final = 2
"""Changes of the number at such a rate after so many seconds: up and down once, by chance, in a quarter of an hour."""
_LOADS: Final = (
    LoadShape.BURSTY,
    *(shape for shape in LoadShape if shape not in (LoadShape.BURSTY, LoadShape.CONSTANT)),
)
"""Those of the bar, the longest first."""


class _BlindRule(PenstockRule):
    """The control: Penstock's policy, told half of the arrivals and none of what waits."""

    def decide(self, sight: LoadSight) -> tuple[int, str]:
        half = [ReplicaStats(arrival_rate=each.arrival_rate / 2, capacity=each.capacity) for each in sight.replicas]
        return super().decide(replace(sight, replicas=half))


_CONTROL: Final = replace(POLICIES["penstock"], title="Control", make=_BlindRule)


def main() -> int:
    """Compare, publish `scaling-policies` and a page for each load; 1 where a rival is ahead, or a constant load swings."""
    began = time.monotonic()
    deciding = cost_of_deciding()
    with ProcessPoolExecutor(2) as pool:
        waiting = [pool.submit(judge, shape, POLICIES["penstock"]) for shape in _LOADS]
        control = pool.submit(judge, LoadShape.STEP, _CONTROL)
        steady = list(pool.map(_changes, STEADY_RATES))
        verdicts = [each.result() for each in waiting]
        blind = control.result()
    for verdict in verdicts:
        _write_page(verdict)
    swings = [f"{rate:g}/s: {changes}" for rate, changes in zip(STEADY_RATES, steady, strict=True)]
    held = all(each.holds for each in verdicts) and max(steady) <= STEADY_CHANGES and not blind.holds
    report.publish(
        "scaling-policies",
        f"Scaling policies, simulated: {LOW:g} to {HIGH:g} requests/s for {SECONDS // 60} min, a replica of "
        f"{CASE.service.capacity:g}/s that starts in {CASE.start_seconds:g} s, objective {CASE.bound_seconds:g} s",
        [row for verdict in verdicts for row in _rows(verdict)],
        [
            "means of draws on which nothing was searched; settings were found on others",
            f"best: the least of replica-seconds + {VIOLATION_SECONDS:g} for each violation (refused, or later than the objective)",
            "ours: at the setting found to have the fewest violations at no more replica-seconds than that rival",
            *(verdict.text() for verdict in verdicts),
            f"constant loads, changes after {STEADY_AFTER:g} s at the default ({STEADY_CHANGES} at most): {', '.join(swings)}",
            f"control, told half of the arrivals ({'passes: THE JUDGE IS BLIND' if blind.holds else 'is found out'}): {blind.text()}",
            f"a hundred applications, ten decisions a second for each: {deciding:.3f} of a core",
            f"{time.monotonic() - began:.0f} s",
        ],
    )
    return int(not held)


def _changes(rate: float) -> int:
    """Of the number at a constant rate, at the defaults, once it has had time to be found: the most of four draws."""
    loads = [draw_arrivals([rate] * SECONDS, seed) for seed in range(101, 105)]
    results = PolicySearch(CASE, loads, SECONDS, POLICIES["penstock"]).default().results
    return max(sum(move.at > STEADY_AFTER for move in each.moves) for each in results)


def cost_of_deciding(applications: int = 100, looks: int = 100) -> float:
    """CPU seconds that decisions for so many applications take in a second: with a quarter of an hour of bursts remembered, three
    replicas each, ten looks a second, as Serve's controller does.
    """
    burst = ([4.0] * 20 + [48.0] * 9) * 6
    state = ScalingState(
        levels=(20.0, 20.0), since=0.0, rates=tuple(burst), remembered_at=0.0, capacity=8.0, start_seconds=20.0
    )
    limits = ScalingLimits(minimum=1, maximum=12, slo_seconds=3.0)
    demand = Demand([ReplicaStats(arrival_rate=20 / 3, capacity=8.0, in_flight=4.0)] * 3)
    states = [state] * applications
    began = time.process_time()
    for look in range(looks):
        states = [decide(demand, 3, limits, each, look / 10).state for each in states]
    return (time.process_time() - began) / (looks / 10)


def _rows(verdict: LoadVerdict) -> list[dict[str, Any]]:
    rows = [_row(verdict, "default", verdict.default), _row(verdict, "best", verdict.best)]
    for each in verdict.rivalries:
        ours = {
            "ours": each.ours.violations / verdict.draws,
            "ours h": each.ours.replica_seconds / verdict.draws / 3600,
        }
        rows.append(_row(verdict, each.at, each.theirs) | {name: round(value, 3) for name, value in ours.items()})
    return rows


def _row(verdict: LoadVerdict, at: str, trial: ReplayTrial) -> dict[str, Any]:
    draws = verdict.draws
    return {
        "load": str(verdict.shape),
        "policy": trial.family.title,
        "at": at,
        "setting": setting_text(trial.setting),
        "violations": round(trial.violations / draws, 1),
        "replica-hours": round(trial.replica_seconds / draws / 3600, 3),
        "price": round(price_by(VIOLATION_SECONDS)(trial) / draws),
        "turns": round(sum(each.turns for each in trial.results) / draws, 1),
        "ours": "",
        "ours h": "",
    }


def _write_page(verdict: LoadVerdict) -> None:
    trials = [
        ("default", verdict.default),
        ("best", verdict.best),
        *((each.at, each.theirs) for each in verdict.rivalries),
    ]
    document = ReplayDocument(
        load=f"Load: {verdict.shape}, {LOW:g} to {HIGH:g} requests/s",
        replica=f"A replica answers {CASE.service.capacity:g} requests/s and starts in {CASE.start_seconds:g} s",
        seconds=SECONDS,
        capacity=CASE.service.capacity,
        slo_seconds=CASE.bound_seconds,
        rates=rates_of(draw(verdict.shape, TOLD[:1])[0], SECONDS),
        policies=tuple(figures_of(trial, SECONDS, searched=at != "default") for at, trial in trials),
    )
    report.OUT.mkdir(parents=True, exist_ok=True)
    (report.OUT / f"scaling-policies-{verdict.shape}.html").write_text(render(document), encoding="utf-8")
    report.progress(f"{verdict.shape}: done")


if __name__ == "__main__":
    sys.exit(main())
