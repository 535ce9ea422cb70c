"""E-values have a mean of at most 1 where their null hypothesis holds: by enumeration of all that small blocks can be."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.routing.outcomes import LOSS_EDGES
from penstock_operator.rollout.evidence import parity, shares
from penstock_operator.rollout.evidence.arrays import Array
from penstock_operator.rollout.evidence.block import LOSS_BUCKETS
from penstock_operator.rollout.evidence.halfplane import PairCounts, log_evidence, nearest_pair
from penstock_operator.rollout.evidence.parity import BETS
from penstock_operator.rollout.evidence.regression import bound_gains
from penstock_operator.rollout.evidence.signs import SHARES_ABOVE, sign_gains
from penstock_operator.rollout.evidence.wealth import ChangeDetector, Wealth

SHARE = st.floats(0.0, 1.0)


def one(value: float) -> Array:
    return np.array([float(value)])


def chance(events: int, trials: int, p: float) -> float:
    return math.comb(trials, events) * p**events * (1 - p) ** (trials - events)


def mean_of_pairs(
    n_c: int, n_b: int, shares_true: tuple[float, float], alternative: tuple[float, float], margin: float, *, harm: bool
) -> float:
    total = 0.0
    for x_c, x_b in itertools.product(range(n_c + 1), range(n_b + 1)):
        counts = PairCounts(one(x_c), one(n_c), one(x_b), one(n_b))
        value = log_evidence(counts, one(alternative[0])[None], one(alternative[1])[None], margin, harm=harm)[0, 0]
        total += chance(x_c, n_c, shares_true[0]) * chance(x_b, n_b, shares_true[1]) * math.exp(value)
    return total


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    true=st.tuples(SHARE, SHARE),
    alternative=st.tuples(SHARE, SHARE),
    margin=st.sampled_from([0.0, 1e-4, 0.01, 0.05, 0.5]),
    harm=st.booleans(),
)
def test_two_shares_give_an_e_value_wherever_the_null_hypothesis_holds(
    *, sizes: tuple[int, int], true: tuple[float, float], alternative: tuple[float, float], margin: float, harm: bool
) -> None:
    p_c, p_b = true
    if harm:
        p_c = min(p_c, p_b + margin)
    else:
        p_b = max(0.0, min(p_b, p_c - margin))
        p_c = max(p_c, p_b + margin)
    assert mean_of_pairs(*sizes, (p_c, p_b), alternative, margin, harm=harm) <= 1 + 1e-9


def test_the_enumeration_finds_what_is_no_e_value() -> None:
    """The negative control: where the null hypothesis does not hold, the mean is above 1."""
    assert mean_of_pairs(4, 4, (0.5, 0.1), (0.5, 0.1), 0.0, harm=True) > 2
    assert mean_of_pairs(4, 4, (0.1, 0.3), (0.1, 0.1), 0.05, harm=False) > 1.1


@settings(max_examples=200, deadline=None)
@given(SHARE, SHARE, st.integers(1, 1000), st.integers(1, 1000), st.sampled_from([0.001, 0.01, 0.05, 0.3]))
def test_the_nearest_pair_of_the_null_hypothesis_is_nearer_than_those_beside_it(
    t_c: float, t_b: float, n_c: int, n_b: int, margin: float
) -> None:
    t_c, t_b = np.clip(t_c, 1e-6, 1 - 1e-6), np.clip(t_b, 1e-6, 1 - 1e-6)
    q_c, q_b = (each[0, 0] for each in nearest_pair(*(one(each)[None] for each in (t_c, t_b, n_c, n_b)), margin))
    assert q_c == pytest.approx(q_b + margin)

    def distance(c: float) -> float:
        b = c - margin
        return float(
            n_c * (t_c * math.log(t_c / c) + (1 - t_c) * math.log((1 - t_c) / (1 - c)))
            + n_b * (t_b * math.log(t_b / b) + (1 - t_b) * math.log((1 - t_b) / (1 - b)))
        )

    for beside in (q_c - 1e-3, q_c + 1e-3):
        if margin < beside < 1:
            assert distance(q_c) <= distance(beside) * (1 + 1e-6) + 1e-6


def test_without_a_failure_a_request_is_worth_what_the_margin_says() -> None:
    counts = PairCounts(one(0), one(298), one(0), one(298))
    value = log_evidence(counts, one(1e-6)[None], one(1e-6)[None], 0.01, harm=False)[0, 0]
    assert value == pytest.approx(-298 * math.log(0.99), rel=0.02)


@pytest.mark.parametrize("share", [0.45, 0.5, 0.55])
@pytest.mark.parametrize("count", [1, 3])
def test_shares_within_the_tolerance_give_an_e_value(share: float, count: int) -> None:
    assert (mean_of_shares(share, count) <= 1 + 1e-12).all()


def test_shares_beyond_the_tolerance_do_not() -> None:
    assert mean_of_shares(0.7, 3).max() > 1.1
    assert mean_of_shares(0.3, 3).max() > 1.1


def mean_of_shares(share: float, count: int) -> Array:
    means: Array = sum(
        chance(events, count, share) * np.exp(shares.gains(one(events), one(count - events), one(0.5))[0])
        for events in range(count + 1)
    )
    return means


@given(SHARE, st.floats(0.001, 0.9), st.integers(1, 4))
def test_a_share_up_to_its_bound_gives_an_e_value(share: float, bound: float, count: int) -> None:
    true = share * bound
    means = sum(
        chance(events, count, true) * np.exp(bound_gains(one(events), one(count), one(bound), (0.01, 0.5))[0])
        for events in range(count + 1)
    )
    assert (means <= 1 + 1e-9).all()


def test_a_fair_coin_gives_signs_of_mean_one() -> None:
    both = np.exp(sign_gains(np.array([True, False])))
    assert both.mean(axis=0) == pytest.approx(np.ones(len(SHARES_ABOVE)))


LOSSES = st.lists(st.floats(-1, 1), min_size=1, max_size=30)


def bucketed(excess: list[float]) -> tuple[Array, Array]:
    counts = np.zeros((1, LOSS_BUCKETS))
    for each in excess:
        counts[0, np.searchsorted(LOSS_EDGES, each)] += 1
    return counts, one(sum(excess))


@given(LOSSES, st.sampled_from([0.001, 0.01, 0.1, 0.5]))
def test_counts_by_bucket_are_never_more_evidence_than_the_losses_themselves(
    excess: list[float], margin: float
) -> None:
    harm, proof = parity.gains(*bucketed(excess), margin)
    exact_harm = [sum(math.log1p(bet / (1 + margin) * (x - margin)) for x in excess) for bet in BETS]
    exact_proof = [sum(math.log1p(bet / (1 - margin) * (margin - x)) for x in excess) for bet in BETS]
    assert (harm[0] <= np.array(exact_harm) + 1e-9).all()
    assert (proof[0] <= np.array(exact_proof) + 1e-9).all()


@pytest.mark.parametrize("excess", [[0.0] * 20, [1.0] * 5 + [0.0] * 50, [-1.0, 1.0, 0.0]])
def test_losses_at_the_edges_of_their_buckets_count_as_what_they_are(excess: list[float]) -> None:
    harm, proof = parity.gains(*bucketed(excess), 0.01)
    assert harm[0] == pytest.approx([sum(math.log1p(bet / 1.01 * (x - 0.01)) for x in excess) for bet in BETS])
    assert proof[0] == pytest.approx([sum(math.log1p(bet / 0.99 * (0.01 - x)) for x in excess) for bet in BETS])


def test_wealth_is_one_on_average_however_long_one_plays() -> None:
    """All 2^10 series of a fair coin, with the stakes that wait for a later beginning."""
    series = np.array(list(itertools.product([True, False], repeat=10)))
    wealth, told = Wealth.start(len(series), len(SHARES_ABOVE)), np.ones(len(series), bool)
    assert np.exp(wealth.log_evidence()) == pytest.approx(1.0)
    for block in range(10):
        wealth = wealth.add(sign_gains(series[:, block]), told)
        assert np.exp(wealth.log_evidence()).mean() == pytest.approx(1.0)


def test_a_detector_grows_by_one_a_block_on_average_where_nothing_changes() -> None:
    series = np.array(list(itertools.product([True, False], repeat=10)))
    detector, told = ChangeDetector.start(len(series), len(SHARES_ABOVE)), np.ones(len(series), bool)
    for block in range(10):
        detector = detector.add(sign_gains(series[:, block]), told)
        assert np.exp(detector.log_evidence()).mean() == pytest.approx(block + 1)


def test_what_begins_late_is_found_all_the_same() -> None:
    """A hundred good blocks before would have lost all that was staked on the beginning."""
    wealth, told = Wealth.start(1, len(SHARES_ABOVE)), np.ones(1, bool)
    for bad in [False] * 100 + [True] * 40:
        wealth = wealth.add(sign_gains(np.array([bad])), told)
    assert wealth.log_evidence()[0] > math.log(1000)
