"""How a rollout came where it is: a bounded number of points that span all of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from penstock.api.rollout import MetricEvidence, RolloutPoint

MOST_POINTS: Final = 48
_FIRST_SECONDS: Final = 5
"""The least distance of two points where nothing but evidence changed; it doubles as points are thinned."""
_SHARES: Final = "shares"


def mean_harm(metrics: Iterable[MetricEvidence]) -> str:
    """Evidence of all metrics together: the logarithm to base 10 of their e-values' mean, which is an e-value, too."""
    told = [float(each.harm) for each in metrics if each.name != _SHARES]
    if not told:
        return "0"
    top = max(told)
    return f"{top + math.log10(sum(10 ** (each - top) for each in told) / len(told)):.2f}"


def add_point(history: tuple[RolloutPoint, ...], point: RolloutPoint) -> tuple[RolloutPoint, ...]:
    """The same with another point, unless that tells nothing new. Of too many, every other one of a phase and share goes."""
    last = history[-1] if history else None
    if last is not None and _alike(last, point) and point.after - last.after < _distance(history):
        return history
    longer = (*history, point)
    while len(longer) > MOST_POINTS:
        thinned = _thin(longer)
        longer = thinned if len(thinned) < len(longer) else longer[-MOST_POINTS:]
    return longer


def _distance(history: tuple[RolloutPoint, ...]) -> int:
    """About as far apart as those of the whole way are."""
    return max(_FIRST_SECONDS, (history[-1].after - history[0].after) // (MOST_POINTS // 2))


def _thin(history: tuple[RolloutPoint, ...]) -> tuple[RolloutPoint, ...]:
    return tuple(
        point
        for place, point in enumerate(history)
        if place in (0, len(history) - 1) or place % 2 == 0 or not _alike(history[place - 1], point)
    )


def _alike(one: RolloutPoint, other: RolloutPoint) -> bool:
    return (one.phase, one.weight) == (other.phase, other.weight)
