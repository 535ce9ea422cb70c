"""From the batch curve to batch size, wait and requests in flight."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.telling import telling

from penstock.optimization.measurements import LoadPoint
from penstock.serving.manifest import BatchPoint
from penstock_optimizer.search.capacity import capacity


def curve(*points: tuple[int, float]) -> tuple[BatchPoint, ...]:
    """Points of rows and milliseconds of a run."""
    return tuple(
        BatchPoint(rows=rows, p50_milliseconds=ms, p99_milliseconds=1.2 * ms, rows_per_second=1000 * rows / ms)
        for rows, ms in points
    )


FLAT = curve((1, 10.0), (2, 19.6), (4, 39.0), (8, 78.0))
"""A CPU and a large model: batching gains a few percent."""
SOME = curve((1, 1.0), (2, 1.7), (4, 3.2), (8, 6.2), (16, 12.3))
"""A CPU and a small model: up to 1.3 times."""
STEEP = curve((1, 2.0), (8, 2.4), (64, 6.0), (256, 22.0))
"""A GPU."""


@pytest.mark.parametrize(
    ("points", "bound", "size", "delay", "target"),
    [
        pytest.param(FLAT, None, 1, 0, 2, id="where batching gains less than 5 % there is none"),
        pytest.param(SOME, None, 4, 0, 8, id="the smallest size within 5 % of the best rate"),
        pytest.param(SOME, 5.0, 2, 0, 4, id="two runs in a row must fit the bound"),
        pytest.param(SOME, 1.0, 1, 0, 1, id="where nothing fits the bound, requests run alone"),
        pytest.param(STEEP, None, 256, 0, 512, id="without a bound nobody waits: full batches come by themselves"),
        pytest.param(STEEP, 20.0, 64, 2, 68, id="a GPU gains so much that waiting pays, within half of what is left"),
        pytest.param(STEEP, 100.0, 256, 22, 349, id="but never longer than a run"),
    ],
)
def test_capacities(points: tuple[BatchPoint, ...], bound: float | None, size: int, delay: int, target: int) -> None:
    found = capacity(points, bound, None)
    assert (found.max_batch_size, found.max_delay_milliseconds) == (size, delay)
    assert found.target_in_flight_requests == target
    assert found.requests_per_second == next(point.rows_per_second for point in points if point.rows == size)


def test_a_tiny_models_target_counts_what_a_request_costs_beside_the_model() -> None:
    tiny = curve((1, 0.01), (32, 0.1))
    assert capacity(tiny, None, None).target_in_flight_requests == 64
    assert capacity(tiny, 2.0, None).target_in_flight_requests == 9


def test_the_load_test_tells_the_rate() -> None:
    load = LoadPoint(
        recipe_key="k", requests_per_second=432.0, p50_milliseconds=3, p99_milliseconds=5, cpu_seconds_per_request=0.1
    )
    assert capacity(SOME, 8.0, load).requests_per_second == 432.0


def test_a_curve_without_points_is_refused() -> None:
    with pytest.raises(ValueError, match=telling("one point")):
        capacity((), None, None)


@given(
    st.lists(st.floats(0.01, 500), min_size=1, max_size=8),
    st.one_of(st.none(), st.floats(0.1, 1000)),
)
def test_what_is_set_is_measured_and_keeps_the_bound(times: list[float], bound: float | None) -> None:
    points = curve(*((1 << power, ms) for power, ms in enumerate(times)))
    found = capacity(points[::-1], bound, None)
    assert found.curve == points
    chosen = next(point for point in points if point.rows == found.max_batch_size)
    if bound is not None and found.max_batch_size > 1:
        assert found.max_delay_milliseconds + 2 * chosen.p99_milliseconds <= bound
    assert found.target_in_flight_requests >= 1
