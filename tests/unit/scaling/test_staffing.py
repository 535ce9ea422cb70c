"""How many replicas a rate needs, and which floor the past would have paid for: by formula, by brute force and by simulation."""

from __future__ import annotations

import itertools

import pytest

from penstock.scaling.hindsight import Floor, Staffing, cheapest_floor
from penstock.scaling.staffing import count_for, missed_rate
from penstock_cli.replay.loads import draw_arrivals
from penstock_cli.replay.model import LoadSight, ReplayCase, ServiceTimes
from penstock_cli.replay.simulation import simulate


class Standing:
    """Wants always one."""

    interval = 1.0
    reads_replicas = False

    def decide(self, sight: LoadSight) -> tuple[int, str]:
        del sight
        return 1, ""


@pytest.mark.parametrize(
    ("name", "rate", "capacity", "slack", "expected"),
    [
        ("nothing comes", 0.0, 8.0, 1.0, 0.0),
        ("nobody is there", 5.0, 0.0, 1.0, 5.0),
        ("all that one can answer comes, and none may wait", 8.0, 8.0, 0.0, 4.0),
        ("all that can be answered comes", 8.0, 8.0, 1.5, 8.0 / 24),
        ("far less comes", 4.0, 80.0, 1.0, 0.0),
        ("far more comes", 800.0, 8.0, 1.0, 792.0),
    ],
)
def test_what_is_missed_where(name: str, rate: float, capacity: float, slack: float, expected: float) -> None:
    assert missed_rate(rate, capacity, slack) == pytest.approx(expected, rel=1e-6), name


@pytest.mark.parametrize("rate", [45.0, 48.0, 50.0, 55.0, 80.0])
def test_what_is_missed_is_what_a_simulated_replica_refuses(rate: float) -> None:
    """One request at a time, 20 ms each; answers are due within 0.5 s, so 0.48 s may be waited."""
    case = ReplayCase(ServiceTimes(((1, 0.02),), 1), slo_seconds=0.5, maximum=1)
    seconds = 1500
    refused = simulate(case, draw_arrivals([rate] * seconds, 3), seconds, Standing()).refused / seconds
    assert refused == pytest.approx(missed_rate(rate, 50.0, 0.48), rel=0.1, abs=0.03)
    assert refused != pytest.approx(missed_rate(rate, 60.0, 0.48), rel=0.1, abs=0.03), "the control"


CASES = list(itertools.product([0.3, 7.9, 8.1, 40.0, 333.0], [0.5, 8.0, 100.0], [0.05, 1.5], [2.0, 16.0, 1000.0]))


@pytest.mark.parametrize(("rate", "capacity", "slack", "weight"), CASES)
def test_no_number_costs_less(rate: float, capacity: float, slack: float, weight: float) -> None:
    def cost(number: int) -> float:
        return number + weight / capacity * missed_rate(rate, number * capacity, slack)

    found = count_for(rate, capacity, slack, weight)
    least = min(cost(number) for number in range(found + 40))
    assert cost(found) <= 1.02 * least, "where next to none may wait, the cost is not quite convex"


def test_a_miss_that_weighs_no_more_than_an_answer_is_worth_no_replica() -> None:
    assert count_for(100.0, 8.0, 1.5, 1.0) == 0


STAFFING = Staffing(8.0, 1.5, 16.0, start_seconds=20.0)
HIGH, LOW = [48.0] * 9, [4.0] * 20


@pytest.mark.parametrize(
    ("name", "rates", "staffing", "expected"),
    [
        ("nothing is remembered", [], STAFFING, 1),
        ("it was always the same", [4.0] * 100, STAFFING, 1),
        ("a burst came back each two minutes", (LOW + HIGH) * 4, STAFFING, 6),
        ("a burst came once", [4.0] * 80 + HIGH + LOW, STAFFING, 1),
        ("a start takes no time", (LOW + HIGH) * 4, Staffing(8.0, 1.5, 16.0, 0.0), 1),
        ("a miss weighs little", (LOW + HIGH) * 4, Staffing(8.0, 1.5, 2.0, 20.0), 1),
    ],
)
def test_the_floor_where(name: str, rates: list[float], staffing: Staffing, expected: int) -> None:
    assert cheapest_floor(rates, staffing, 1, 12).replicas == expected, name


def test_a_floor_tells_what_it_spares_and_costs() -> None:
    floor = cheapest_floor((LOW + HIGH) * 4, STAFFING, 1, 12)
    assert floor.spared > 4 * 20 * 8
    assert 0 < floor.replica_seconds < 16 / 8 * floor.spared


def test_a_floor_keeps_the_bounds() -> None:
    rates = (LOW + HIGH) * 4
    assert cheapest_floor(rates, STAFFING, 1, 3).replicas == 3
    assert cheapest_floor(rates, STAFFING, 8, 12) == Floor(8)
