"""Speed-ups, losses, controls: what measurements allow to be said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.telling import telling

from penstock.errors import Invalid
from penstock.optimization.measurements import Energy, EnergyMethod, Ratio, Role, Timing
from penstock_optimizer.search import statistics
from penstock_optimizer.search.statistics import loss_bound_binary, loss_bound_mean, ratio

SECONDS = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=20)


def timing(role: Role, cpu: Sequence[float], wall: Sequence[float] = (), *, accelerated: bool = False) -> Timing:
    return Timing(
        role=role, recipe_key="k", batch_size=1, rounds=len(cpu), runs=len(cpu), cpu_seconds_per_run=tuple(cpu),
        wall_seconds_per_run=tuple(wall or cpu), accelerated=accelerated, wall_milliseconds_p50=1.0,
        wall_milliseconds_p99=1.0, peak_memory_bytes=1, load_seconds=1.0,
        energy=Energy(method=EnergyMethod.ESTIMATED, cpu_seconds_per_sample=1.0),
    )  # fmt: skip


def test_a_ratio_is_paired_by_round_so_that_a_slow_round_slows_both() -> None:
    found = ratio([1.0, 5.0, 1.0, 9.0, 1.0], [0.5, 2.5, 0.5, 4.5, 0.5])
    assert (found.value, found.low, found.high) == (2.0, 2.0, 2.0)


@given(SECONDS)
def test_the_interval_holds_the_value_and_the_same_seed_gives_the_same(seconds: list[float]) -> None:
    found = ratio(seconds, seconds[::-1])
    assert found.low <= found.value <= found.high
    assert found == ratio(seconds, seconds[::-1])


@pytest.mark.parametrize(
    ("reference", "variant"),
    [
        pytest.param([1.0], [1.0, 2.0], id="rounds that do not pair are refused"),
        pytest.param([], [], id="no rounds are refused"),
        pytest.param([1.0], [0.0], id="a run in no time is refused"),
    ],
)
def test_ratios_that_cannot_be(reference: list[float], variant: list[float]) -> None:
    with pytest.raises(ValueError, match=r"paired|no time"):
        ratio(reference, variant)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        noise = generator.lognormal(0, 0.1, (2, 15))
        found = ratio(list(2 * noise[0]), list(noise[1]), seed)
        held += found.low <= 2.0 <= found.high
    assert held >= 180


def test_where_a_gpu_works_wall_time_counts_and_else_cpu_time() -> None:
    slow, fast = timing(Role.BASELINE, [1.0], [8.0]), timing(Role.CANDIDATE, [0.5], [1.0])
    assert statistics.speedup(slow, fast).value == 2.0
    assert statistics.speedup(slow, fast.model_copy(update={"accelerated": True})).value == 8.0


@pytest.mark.parametrize(
    ("again", "zeroed", "passed"),
    [
        pytest.param(1.0, 1.0, (True, True), id="a quiet machine passes both"),
        pytest.param(1 / 0.89, 1.0, (False, True), id="an A/A copy that reads 0.89 fails"),
        pytest.param(1 / 1.11, 1.0, (False, True), id="an A/A copy that reads 1.11 fails"),
        pytest.param(1.0, 1 / 1.11, (True, False), id="half the weights zeroed cannot be 1.11 times as fast"),
        pytest.param(1.0, 1 / 0.5, (True, True), id="a slow negative control proves nothing wrong"),
    ],
)
def test_controls_decide(again: float, zeroed: float, passed: tuple[bool, bool]) -> None:
    found = statistics.controls(
        [
            timing(Role.BASELINE, [1.0] * 7),
            timing(Role.SAME_AGAIN, [again] * 7),
            timing(Role.NEGATIVE_CONTROL, [zeroed] * 7),
        ]
    )
    assert tuple(control.passed for control in found) == passed
    assert statistics.controls_hold(found) is all(passed)


def test_the_negative_control_is_read_against_the_second_baseline() -> None:
    found = statistics.controls(
        [
            timing(Role.BASELINE, [3.0] * 7),
            timing(Role.SECOND_BASELINE, [1.0] * 7),
            timing(Role.NEGATIVE_CONTROL, [1.0] * 7),
        ]
    )
    assert [(control.name, control.ratio.value) for control in found] == [("NegativeControl", 1.0)]
    assert not statistics.controls_hold(found), "without an A/A control nothing is decided"


def test_the_edges_of_the_controls_are_inside() -> None:
    assert statistics.same_again_holds(Ratio(value=0.90, low=0, high=2))
    assert statistics.same_again_holds(Ratio(value=1.10, low=0, high=2))
    assert statistics.negative_control_holds(Ratio(value=1.10, low=0, high=2))


# Losses of right and wrong.


@pytest.mark.parametrize(
    ("lost", "won", "samples", "bound"),
    [
        pytest.param(0, 0, 300, 3.64 / 300, id="no difference in 300 samples certifies 1.2 points and not 1"),
        pytest.param(0, 0, 540, 3.64 / 540, id="no difference in 540 samples certifies 1 point"),
        pytest.param(4, 3, 540, 0.0128, id="540 samples and seven differences do not certify 1 point"),
        pytest.param(40, 30, 5400, 0.0045, id="ten times as many do"),
    ],
)
def test_bounds_of_paired_losses(lost: int, won: int, samples: int, bound: float) -> None:
    assert loss_bound_binary(lost, won, samples, 0.95) == pytest.approx(bound, rel=0.03)


@given(st.integers(1, 5000), st.data(), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_bounds_are_above_the_loss_and_grow_with_confidence_and_with_what_was_lost(
    samples: int, data: st.DataObject, confidence: float
) -> None:
    lost = data.draw(st.integers(0, samples))
    won = data.draw(st.integers(0, samples - lost))
    bound = loss_bound_binary(lost, won, samples, confidence)
    assert (lost - won) / samples <= bound <= 1
    assert bound <= loss_bound_binary(lost, won, samples, confidence + 0.009) + 1e-9
    if lost + won < samples:
        assert bound <= loss_bound_binary(lost + 1, won, samples, confidence) + 1e-9


@pytest.mark.parametrize("counts", [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_counts_that_cannot_be_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        loss_bound_binary(*counts, 0.95)


@pytest.mark.parametrize("share_lost", [0.005, 0.02, 0.05, 0.2])
@pytest.mark.parametrize("share_won", [0.0, 0.005, 0.03, 0.1])
def test_the_bound_holds_at_least_as_often_as_it_says(share_lost: float, share_won: float) -> None:
    for samples in (40, 150):
        assert _coverage(samples, share_lost, share_won) >= 0.95


def _coverage(samples: int, share_lost: float, share_won: float) -> float:
    """Exactly: the probability of all pairs of counts for which the bound is at least the true loss."""
    covered = 0.0
    for lost in range(samples + 1):
        probability = _binomial(lost, samples, share_lost)
        if probability < 1e-7:
            continue
        for won in range(samples - lost + 1):
            both = probability * _binomial(won, samples - lost, share_won / (1 - share_lost))
            if both > 1e-8 and _bound(lost, won, samples) >= share_lost - share_won - 1e-12:
                covered += both
    return covered


@cache
def _bound(lost: int, won: int, samples: int) -> float:
    return loss_bound_binary(lost, won, samples, 0.95)


def _binomial(count: int, of: int, share: float) -> float:
    return math.comb(of, count) * share**count * (1 - share) ** (of - count)


# Losses of other figures.


@pytest.mark.parametrize(
    ("name", "samples"),
    [
        pytest.param("normal", 30, id="normal figures, 30 samples"),
        pytest.param("normal", 200, id="normal figures, 200 samples"),
        pytest.param("exponential", 100, id="figures skewed to the right, 100 samples"),
        pytest.param("exponential", 400, id="figures skewed to the right, 400 samples"),
    ],
)
def test_the_bound_of_a_mean_holds_about_as_often_as_it_says(name: str, samples: int) -> None:
    generator = np.random.default_rng(1)
    held = 0
    for seed in range(300):
        values = generator.exponential(1.0, samples) if name == "exponential" else generator.normal(1.0, 1.0, samples)
        held += loss_bound_mean(values, 0.95, seed=seed) >= 1.0
    assert held / 300 >= 0.92


def test_few_samples_give_the_worst_or_say_that_they_are_too_few() -> None:
    assert loss_bound_mean([0.0] * 19, 0.95, worst=2.0) == 2.0
    with pytest.raises(Invalid, match=telling("19 samples")):
        loss_bound_mean([0.0] * 19, 0.95)


@given(st.lists(st.floats(-10, 10), min_size=20, max_size=60))
def test_the_bound_of_a_mean_is_not_below_the_mean(values: list[float]) -> None:
    assert loss_bound_mean(values, 0.95) >= float(np.mean(values)) - 1e-9


# Percentiles and histograms.


@pytest.mark.parametrize(
    ("values", "share", "wanted"),
    [
        pytest.param([3.0, 1.0, 2.0], 0.5, 2.0, id="the median of three"),
        pytest.param([1.0, 2.0], 0.5, 1.0, id="of two the lower: half do not exceed it"),
        pytest.param([float(n) for n in range(1, 101)], 0.99, 99.0, id="99 of 100"),
        pytest.param([7.0], 0.99, 7.0, id="a lone value is every percentile"),
    ],
)
def test_percentiles(values: list[float], share: float, wanted: float) -> None:
    assert statistics.percentile(values, share) == wanted


@given(st.lists(st.floats(1e-4, 1e4), min_size=1))
def test_a_histogram_counts_every_value_once_below_its_bound(values: list[float]) -> None:
    buckets = statistics.histogram(values)
    assert sum(count for _, count in buckets) == len(values)
    assert list(buckets) == sorted(buckets)
    assert buckets[-1][0] >= max(values) * (1 - 1e-9)


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="percentile of 0 values"):
        statistics.percentile([], 0.5)
