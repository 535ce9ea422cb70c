"""From the measured batch curve to what a replica is set to: batch size, wait, and requests in flight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from penstock.optimization.measurements import LoadPoint
from penstock.serving.manifest import BatchPoint, Capacity

_NEAR_BEST: Final = 0.95
"""A smaller batch is taken where it has at least this share of the best rate: it keeps the latency low."""
_RUNS_IN_LATENCY: Final = 2
"""A request that comes just after a batch has started waits for that one to end, and then for its own."""
_WAITING_PAYS: Final = 1.5
"""Waiting for a fuller batch is worth it from this gain in rows a second on. CPUs gain 1.3 at most, GPUs many times."""
_REQUEST_MILLISECONDS: Final = 0.2
"""Roughly what a replica and its gateway spend on a small request beside the model. It counts for tiny models only."""
_MAX_DELAY_MILLISECONDS: Final = 10_000


def capacity(curve: Sequence[BatchPoint], bound_milliseconds: float | None, load: LoadPoint | None) -> Capacity:
    """What one replica carries.

    Args:
        curve: the measured points, in any order.
        bound_milliseconds: p99 that requests were promised; None: latency is free, and the rate alone decides.
        load: the load test in the server scenario, whose rate goes before the curve's.

    Returns:
        The batch size at the knee: the smallest within 5 % of the best rate of those whose two runs in a row fit the
        bound (1 where none does); a wait only where the gain pays and the bound leaves room; and as target two full
        batches in flight: one runs while the next gathers.

    Raises:
        ValueError: the curve has no points.
    """
    if not curve:
        raise ValueError("a batch curve needs at least one point")
    points = tuple(sorted(curve, key=lambda point: point.rows))
    fitting = [point for point in points if _fits(point, bound_milliseconds)]
    knee = _knee(fitting) if fitting else points[0]
    return Capacity(
        curve=points,
        max_batch_size=knee.rows,
        max_delay_milliseconds=_delay(points[0], knee, bound_milliseconds) if fitting else 0,
        requests_per_second=load.requests_per_second if load is not None else knee.rows_per_second,
        target_in_flight_requests=_target(knee, bound_milliseconds) if fitting else 1,
    )


def _target(knee: BatchPoint, bound_milliseconds: float | None) -> int:
    """Two full batches, or as many requests as are answered one after another within the bound, if those are fewer."""
    target = _RUNS_IN_LATENCY * knee.rows
    if bound_milliseconds is None:
        return target
    each = _REQUEST_MILLISECONDS + 1000 / knee.rows_per_second
    return max(1, min(target, math.floor(bound_milliseconds / each)))


def _fits(point: BatchPoint, bound_milliseconds: float | None) -> bool:
    return bound_milliseconds is None or _RUNS_IN_LATENCY * point.p99_milliseconds <= bound_milliseconds


def _knee(points: Sequence[BatchPoint]) -> BatchPoint:
    best = max(point.rows_per_second for point in points)
    return next(point for point in points if point.rows_per_second >= _NEAR_BEST * best)


def _delay(single: BatchPoint, knee: BatchPoint, bound_milliseconds: float | None) -> int:
    """Half of what the bound leaves, and no longer than a run at the knee: more would idle away what the batch gains."""
    if bound_milliseconds is None or knee.rows_per_second < _WAITING_PAYS * single.rows_per_second:
        return 0
    room = (bound_milliseconds - _RUNS_IN_LATENCY * knee.p99_milliseconds) / 2
    return max(0, min(math.floor(min(room, knee.p50_milliseconds)), _MAX_DELAY_MILLISECONDS))
