"""The simulator: nothing is lost or made up, queues wait as their formulas say, and the same seed gives the same."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_cli.replay.loads import LoadShape, draw_arrivals, shape_rates
from penstock_cli.replay.model import LoadSight, ReplayCase, ServiceTimes
from penstock_cli.replay.policies import POLICIES
from penstock_cli.replay.simulation import ReplayResult, simulate

CURVE = ServiceTimes(((1, 0.12), (2, 0.17), (4, 0.28), (8, 0.5)), 8)


class FixedNumber:
    """Wants always the same."""

    interval = 1.0
    reads_replicas = False

    def __init__(self, number: int) -> None:
        self.number = number

    def decide(self, sight: LoadSight) -> tuple[int, str]:
        del sight
        return self.number, "fixed"


class Script:
    """Wants what it is told, second by second."""

    interval = 1.0
    reads_replicas = True

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers

    def decide(self, sight: LoadSight) -> tuple[int, str]:
        return self.numbers[int(sight.now) % len(self.numbers)], "scripted"


def play_queue(servers: int, rate: float, service: float, *, exponential: bool, count: int = 80_000) -> ReplayResult:
    """Poisson arrivals at replicas that run one request at a time and refuse none."""
    case = ReplayCase(
        ServiceTimes(((1, service),), 1, is_exponential=exponential),
        slo_seconds=1e6,
        minimum=servers,
        maximum=servers,
        admits_all=True,
    )
    seconds = int(count / rate)
    return simulate(case, draw_arrivals([rate] * seconds, 0), seconds, FixedNumber(servers), seed=100)


def mean_wait(result: ReplayResult) -> float:
    return sum(result.waits) / len(result.waits)


def erlang_c_wait(servers: int, rate: float, service: float) -> float:
    """Mean wait of M/M/c (Erlang 1917): C(c, a)·s / (c - a), with a = rate·s."""
    load = rate * service
    terms = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(terms) + last) * service / (servers - load)


def pollaczek_khinchine_wait(rate: float, service: float, variation: float) -> float:
    """Mean wait of M/G/1: a·s·(1 + variation²) / (2·(1 - a)), with a = rate·s."""
    load = rate * service
    return load * service * (1 + variation**2) / (2 * (1 - load))


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
@pytest.mark.parametrize(("exponential", "variation"), [(True, 1.0), (False, 0.0)], ids=["M/M/1", "M/D/1"])
def test_one_replica_waits_as_the_formula_says(load: float, *, exponential: bool, variation: float) -> None:
    found = mean_wait(play_queue(1, load / 0.1, 0.1, exponential=exponential))
    assert found == pytest.approx(pollaczek_khinchine_wait(load / 0.1, 0.1, variation), rel=0.08)


@pytest.mark.parametrize("load", [0.6, 0.9])
def test_several_replicas_wait_longer_than_behind_one_queue_and_less_than_when_split_at_random(load: float) -> None:
    rate = 4 * load / 0.1
    found = mean_wait(play_queue(4, rate, 0.1, exponential=True))
    assert erlang_c_wait(4, rate, 0.1) * 0.95 < found < pollaczek_khinchine_wait(rate / 4, 0.1, 1.0) * 0.7


def test_a_formula_of_another_queue_does_not_fit() -> None:
    """The control: what the tests above compare would show a wrong service distribution."""
    found = mean_wait(play_queue(1, 8.0, 0.1, exponential=True))
    assert found != pytest.approx(pollaczek_khinchine_wait(8.0, 0.1, 0.0), rel=0.3)


def test_requests_in_flight_are_the_rate_times_the_time_that_each_takes() -> None:
    """Little's law holds of what policies are shown."""
    seen: list[float] = []

    class Watching(FixedNumber):
        def decide(self, sight: LoadSight) -> tuple[int, str]:
            if sight.now == 900:
                seen.append(sight.mean_in_flight(800))
            return super().decide(sight)

    case = ReplayCase(CURVE, slo_seconds=1.5, minimum=2, maximum=2)
    arrivals = draw_arrivals([18.0] * 1000, 1)
    result = simulate(case, arrivals, 1000, Watching(2))
    assert seen[0] == pytest.approx(18.0 * sum(result.latencies) / result.answered, rel=0.05)


@given(
    numbers=st.lists(st.integers(0, 6), min_size=1, max_size=12),
    rates=st.lists(st.floats(0, 60), min_size=1, max_size=40),
    start=st.floats(0, 10),
    least=st.integers(0, 2),
)
@settings(max_examples=60, deadline=None)
def test_every_request_is_answered_or_refused_or_lost_once(
    numbers: list[int], rates: list[float], start: float, least: int
) -> None:
    case = ReplayCase(CURVE, slo_seconds=1.5, start_seconds=start, minimum=least, maximum=6, hold_seconds=5.0)
    arrivals = draw_arrivals(rates, 1)
    result = simulate(case, arrivals, len(rates), Script(numbers))
    assert result.answered + result.refused + result.lost == len(arrivals)
    assert len(result.latencies) == len(result.waits) == result.answered
    assert sum(result.violations_by_second) == result.violations
    assert 0 <= result.replica_seconds <= 6 * 2 * len(rates)
    assert all(wait >= -1e-9 for wait in result.waits)


@pytest.mark.parametrize("name", POLICIES)
def test_the_same_load_gives_the_same(name: str) -> None:
    def run() -> ReplayResult:
        family, case = POLICIES[name], ReplayCase(CURVE, slo_seconds=1.5)
        arrivals = draw_arrivals(shape_rates(LoadShape.BURSTY, 10, 90, 120, 4), 4)
        return simulate(case, arrivals, 120, family.make(case, family.defaults))

    assert run() == run()


def test_another_seed_gives_another_load_of_the_same_rate() -> None:
    one, other = (draw_arrivals([20.0] * 1000, seed) for seed in (1, 2))
    assert one != other
    assert all(abs(len(each) - 20_000) < 5 * math.sqrt(20_000) for each in (one, other))


def test_what_a_replica_cannot_answer_in_time_is_refused_and_the_rest_is_in_time() -> None:
    case = ReplayCase(CURVE, slo_seconds=1.5, maximum=1)
    result = simulate(case, draw_arrivals([48.0] * 60, 1), 60, FixedNumber(1))
    assert result.late == result.lost == 0
    assert result.refused == pytest.approx(2 / 3 * result.requests, rel=0.1)


def test_a_request_without_a_replica_waits_for_the_first_one() -> None:
    case = ReplayCase(CURVE, slo_seconds=1.5, start_seconds=7.0, minimum=0)
    result = simulate(case, [0.5], 30, Script([1]))
    assert result.latencies == [pytest.approx(1 + 7 + 0.12 - 0.5)]
    assert result.late == 1


def test_a_request_that_no_replica_came_for_is_lost() -> None:
    case = ReplayCase(CURVE, slo_seconds=1.5, minimum=0, hold_seconds=5.0)
    assert simulate(case, [0.5, 28.0], 30, FixedNumber(0)).lost == 2


def test_what_goes_answers_what_it_has_and_costs_until_then() -> None:
    case = ReplayCase(ServiceTimes(((1, 4.0),), 1), slo_seconds=60.0, minimum=0, start_seconds=0.0)
    result = simulate(case, [1.5], 10, Script([0, 1, 0, 0, 0, 0, 0, 0, 0, 0]))
    assert result.answered == 1
    assert result.replica_seconds == pytest.approx(4.5)


def test_shapes_stay_between_low_and_high() -> None:
    for shape in LoadShape:
        rates = shape_rates(shape, 5, 50, 900, 1)
        assert len(rates) == 900
        assert 5 <= min(rates) <= max(rates) <= 50, shape


@given(st.lists(st.floats(0, 200), max_size=30))
def test_arrivals_are_in_order_and_in_their_seconds(rates: list[float]) -> None:
    times = draw_arrivals(rates, 0)
    assert all(a <= b for a, b in pairwise(times))
    assert all(0 <= each <= len(rates) and rates[min(int(each), len(rates) - 1)] > 0 for each in times)
