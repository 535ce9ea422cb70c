"""The highest rate that holds a latency: which rate is tried next is decided from the trials so far alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from penstock_cli.bench.figures import LoadFigures

_GROWTH: Final = 1.6
_MOST_TRIALS: Final = 16
_TOLERANCE: Final = 0.05
"""Of the answer, as a share of it."""


@dataclass(frozen=True, slots=True)
class LatencyObjective:
    """What a rate must hold."""

    p99_milliseconds: float
    most_failed: float = 0.0
    """Share of requests that may fail; a refusal (429) is a failure."""


@dataclass(frozen=True, slots=True)
class RateTrial:
    """A rate that was tried."""

    rate: float
    held: bool


def holds(figures: LoadFigures, objective: LatencyObjective) -> bool:
    """Whether a load met the objective: its 99th percentile, and no more failures than allowed. Silence does not."""
    latency = figures.latency_milliseconds
    if latency is None or figures.failed > objective.most_failed * figures.requests:
        return False
    return latency.p99 <= objective.p99_milliseconds


def next_rate(trials: list[RateTrial], first: float) -> float | None:
    """The rate to try next, or None where the search is over.

    It grows by 1.6 until a rate fails, then halves the ratio between the highest that held and the lowest that failed
    above it, until they are within 5 %; and the rate that is found must hold twice, since one lucky trial among
    several is likely. One that fails when tried again counts as failed.

    Args:
        trials: so far, in order.
        first: the rate to begin with; above 0.
    """
    if len(trials) >= _MOST_TRIALS:
        return None
    if not trials:
        return first
    failed = [trial.rate for trial in trials if not trial.held]
    held = holding_rates(trials)
    if not failed:
        return max(held) * _GROWTH
    ceiling = min(failed)
    if not held:
        return ceiling / _GROWTH**2
    floor = max(held)
    if ceiling / floor > 1 + _TOLERANCE:
        return math.sqrt(floor * ceiling)
    return floor if held.count(floor) == 1 else None


def holding_rates(trials: list[RateTrial]) -> list[float]:
    """The rates that held and lie below every rate that failed."""
    ceiling = min((trial.rate for trial in trials if not trial.held), default=math.inf)
    return [trial.rate for trial in trials if trial.held and trial.rate < ceiling]


def highest_rate(trials: list[RateTrial]) -> float | None:
    """The highest rate that held, or None where none did."""
    return max(holding_rates(trials), default=None)
