from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from penstock_serving.replica.shadow.sampling import CPU_SHARE, MOST_PER_SECOND, OWN_RUN_SHARE, SampleBudget, Sampler


def drawn(sampler: Sampler, groups: int, size: int, apart: float) -> list[tuple[int, int]]:
    """Group and place of each sample."""
    found: list[tuple[int, int]] = []
    for group in range(groups):
        if not sampler.passes(size):
            found += [(group, place) for place in sampler.draw(size, group * apart)]
    return found


def sampler(share: float, seed: int = 1) -> Sampler:
    made = Sampler(SampleBudget(), random.Random(seed))
    made.set_share(share)
    return made


@pytest.mark.parametrize("size", [1, 7])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_share_that_is_asked_for_is_drawn(share: float, size: int) -> None:
    requests = 20_000
    found = drawn(sampler(share), requests // size, size, 100.0)
    # Tokens bound a group at 5, which shares of a group of 7 seldom reach.
    expected = share * requests
    assert abs(len(found) - expected) < 5 * math.sqrt(expected) + 0.02 * expected
    assert len(set(found)) == len(found)


def test_all_are_drawn_where_there_is_room() -> None:
    assert drawn(sampler(1.0), 10, 3, 1.0) == drawn(sampler(1.0), 10, 3, 1.0)
    assert len(drawn(sampler(1.0), 10, 3, 1.0)) == 30


@pytest.mark.parametrize("share", [0.0, 1e-300])
def test_none_is_drawn_where_none_is_asked_for(share: float) -> None:
    assert drawn(sampler(share), 1000, 10, 1.0) == []


def test_none_is_drawn_before_a_share_is_set() -> None:
    assert drawn(Sampler(SampleBudget(), random.Random(1)), 1000, 10, 1.0) == []


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_whatever_the_share_there_are_so_many_a_second(share: float) -> None:
    found = drawn(sampler(share), 100_000, 16, 1e-3)
    seconds = 100
    assert 0.95 * MOST_PER_SECOND * seconds <= len(found) <= MOST_PER_SECOND * seconds + 6


def test_each_place_of_a_batch_is_drawn_alike() -> None:
    places = Counter(place for _, place in drawn(sampler(1.0), 100_000, 4, 1e-3))
    assert all(abs(count - 500) < 5 * math.sqrt(500) for count in places.values())


def test_a_share_that_is_taken_back_ends_it() -> None:
    made = sampler(1.0)
    assert drawn(made, 1, 1, 0.0)
    made.set_share(0.0)
    assert drawn(made, 1000, 1, 1.0) == []


@pytest.mark.parametrize(
    ("cpu", "own", "expected"),
    [
        pytest.param(1e-4, 0.0, MOST_PER_SECOND, id="what costs little is bounded by number"),
        pytest.param(0.1, 0.0, CPU_SHARE / 0.1, id="what costs much by its CPU time"),
        pytest.param(1e-4, 0.5, OWN_RUN_SHARE / 0.5, id="a replica that asks itself by its own time"),
        pytest.param(0.0, 0.0, MOST_PER_SECOND, id="what costs nothing that can be measured"),
    ],
)
def test_the_rate_follows_what_samples_cost(cpu: float, own: float, expected: float) -> None:
    budget = SampleBudget()
    for _ in range(100):
        budget.observe(cpu, own)
    assert budget.per_second == pytest.approx(expected, rel=0.01)


def test_one_sample_that_cost_much_does_not_decide() -> None:
    budget = SampleBudget()
    budget.observe(0.02)
    once = budget.per_second
    for _ in range(40):
        budget.observe(1e-4)
    assert once < MOST_PER_SECOND
    assert budget.per_second == MOST_PER_SECOND
