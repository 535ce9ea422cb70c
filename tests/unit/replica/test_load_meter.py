"""What a replica reports about its load, on a clock that the test moves."""

from __future__ import annotations

import random
from collections import deque

import pytest

from penstock.telemetry.names import SECONDS_BUCKETS
from penstock_serving.replica.telemetry.load import Histogram, LoadMeter, quantile


def test_requests_in_flight_are_a_mean_over_time() -> None:
    meter = LoadMeter(5.0, 100.0)
    meter.arrive(100.0)
    meter.arrive(101.0)
    meter.leave(103.0)
    meter.leave(104.0)
    stats = meter.stats(105.0, queued=0)
    # One from 100 to 101, two to 103, one to 104: six request-seconds in five seconds.
    assert stats.in_flight == pytest.approx(6 / 5)
    assert stats.arrival_rate == pytest.approx(2 / 5)
    assert stats.interval_seconds == pytest.approx(5.0)
    assert stats.idle_seconds == pytest.approx(1.0)


def test_what_is_older_than_the_window_is_forgotten() -> None:
    meter = LoadMeter(5.0, 0.0)
    for second in range(1, 10):
        meter.arrive(second - 0.5)
        meter.leave(second - 0.5)
        meter.waits.observe(10.0)
        meter.tick(float(second))
    for second in range(10, 20):
        meter.tick(float(second))
    stats = meter.stats(20.0, queued=0)
    assert stats.in_flight == 0
    assert stats.arrival_rate == 0
    assert stats.queue_wait_p95_seconds == 0
    assert stats.idle_seconds == pytest.approx(11.5)


def test_idle_is_zero_while_a_request_is_in_flight() -> None:
    meter = LoadMeter(5.0, 0.0)
    meter.arrive(1.0)
    stats = meter.stats(4.0, queued=1)
    assert (stats.idle_seconds, stats.queued) == (0.0, 1.0)


def test_a_quantile_is_the_bound_of_its_bucket() -> None:
    histogram = Histogram(SECONDS_BUCKETS)
    for _ in range(90):
        histogram.observe(0.0004)
    for _ in range(10):
        histogram.observe(0.2)
    assert quantile(SECONDS_BUCKETS, histogram.counts, 0.5) == 0.0005
    assert quantile(SECONDS_BUCKETS, histogram.counts, 0.95) == 0.25
    assert quantile(SECONDS_BUCKETS, [0] * 17, 0.95) == 0.0
    histogram.observe(99.0)
    assert quantile(SECONDS_BUCKETS, histogram.counts, 1.0) == 10.0


@pytest.mark.parametrize("rate", [15.0, 40.0, 120.0])
def test_what_gateways_refuse_for_want_of_room_is_the_share_of_the_time_without_any(rate: float) -> None:
    meter, source = LoadMeter(5.0, 0.0), random.Random(3)
    meter.limit = 8
    now, arrival, ends = 0.0, 0.0, deque[float]()
    rates = []
    while now < 60.0:
        arrival += source.expovariate(rate)
        while ends and ends[0] <= arrival:
            meter.leave(ends.popleft())
        if meter.in_flight < meter.limit:
            meter.arrive(arrival)
            ends.append(max(ends[-1] if ends else arrival, arrival) + 0.05)  # 20 requests a second at the most
        if int(arrival) > int(now):
            meter.tick(arrival)
            stats = meter.stats(arrival, 0)
            rates.append(stats.arrival_rate / (1 - stats.full_share))
        now = arrival
    assert sum(rates[5:]) / len(rates[5:]) == pytest.approx(rate, rel=0.15)


def test_without_a_limit_it_is_never_full() -> None:
    meter = LoadMeter(5.0, 0.0)
    for second in range(5):
        meter.arrive(float(second))
    assert (meter.stats(5.0, 0).arrival_rate, meter.stats(5.0, 0).full_share) == (1.0, 0.0)
