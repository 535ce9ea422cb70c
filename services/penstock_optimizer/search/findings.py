"""What a search has found so far, in a sentence for whoever waits for it."""

from __future__ import annotations

from penstock.api.optimization import Objective
from penstock.optimization.recipes import Recipe
from penstock_optimizer.search.standing import Standing
from penstock_optimizer.search.verdict import best_so_far


def findings(standing: Standing) -> str:
    """What the ledger tells by now; empty before the first candidate was looked at."""
    best = best_so_far(standing)
    if best is not None:
        return f"{_gain(standing, *best)}; {_accuracy(standing, best[0])}"
    looked_at = [each.key for each in standing.plan.candidates if each.key in standing.gates]
    if not looked_at:
        return ""
    if standing.last_session is not None:
        return f"no candidate of {len(looked_at)} gains as much as the profile asks for"
    kept = sum(standing.gate_failure(key) is None for key in looked_at)
    return f"candidates that keep the accuracy at a first look: {kept} of {len(looked_at)}; none is timed yet"


def _gain(standing: Standing, leader: Recipe, gain: float) -> str:
    plain, objective = standing.plain.label, standing.plan.spec.objective
    if objective is Objective.LATENCY:
        return f"{leader.label} is {gain:.2f} times as fast as {plain}"
    return f"{leader.label} is {gain:.2f} times as good as {plain} in {objective.lower()}"


def _accuracy(standing: Standing, leader: Recipe) -> str:
    test = standing.tests.get(leader.key)
    if test is None or test.result is None:
        return "its accuracy is not tested in full yet"
    result = test.result
    figures = f"{result.metric} {result.candidate:.4f} on {result.samples} test samples, {result.baseline:.4f} before"
    return figures if standing.test_failure(leader.key) is None else f"its accuracy does not hold: {figures}"
