"""Losses of rows, against scipy and scikit-learn where they have the same, and what must hold of every one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from penstock.protocol.datatypes import Array
from penstock_serving.replica.shadow.losses import (
    argmax_losses,
    cosine_losses,
    rank_losses,
    relative_losses,
    scores_losses,
)

ROUNDING = 1e-4


def argmax(own: Array, other: Array) -> Array:
    return argmax_losses(own, other, ROUNDING)


def scores(own: Array, other: Array) -> Array:
    return scores_losses(own, other, ROUNDING)


RULES: list[Callable[[Array, Array], Array]] = [argmax, scores, cosine_losses, rank_losses, relative_losses]
SYMMETRIC = [cosine_losses, rank_losses, relative_losses]
NUMBERS = st.floats(width=64) | st.sampled_from([0.0, -0.0, 1.0, 1.0 + 1e-9, np.nan, np.inf, -np.inf, 1e308, 5e-324])


@st.composite
def pairs(draw: Any, elements: Any = NUMBERS) -> tuple[Array, Array]:
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 8)))
    return draw(arrays.arrays(np.float64, shape, elements=elements)), draw(
        arrays.arrays(np.float64, shape, elements=elements)
    )


def row(*numbers: float) -> Array:
    return np.array([numbers], np.float64)


@pytest.mark.parametrize("rule", RULES)
@settings(deadline=None, max_examples=100)
@given(pair=pairs())
@example(pair=(row(1e308, 1e308), row(-1e308, 1e308)))
@example(pair=(row(5e-324, 0.0), row(0.0, 5e-324)))
def test_a_loss_is_from_0_to_1_and_exactly_0_for_equal_rows(
    rule: Callable[[Array, Array], Array], pair: tuple[Array, Array]
) -> None:
    own, other = pair
    with np.errstate(all="raise", under="ignore"):
        losses = rule(own, other)
        same = [rule(each, each.copy()) for each in pair]
    assert np.all((losses >= 0) & (losses <= 1))
    assert all(np.all(each == 0) for each in same)


@pytest.mark.parametrize("rule", SYMMETRIC)
@settings(deadline=None, max_examples=50)
@given(pair=pairs())
def test_these_losses_are_the_same_the_other_way_round(
    rule: Callable[[Array, Array], Array], pair: tuple[Array, Array]
) -> None:
    np.testing.assert_allclose(rule(*pair), rule(*reversed(pair)), rtol=1e-12, atol=1e-15)


@settings(deadline=None, max_examples=100)
@given(pair=pairs(st.integers(-4, 4).map(float)))
def test_ranks_are_compared_as_scipy_does(pair: tuple[Array, Array]) -> None:
    from scipy.stats import kendalltau  # noqa: PLC0415 -- takes most of a second, of each worker that collects this file

    for own, other, loss in zip(*pair, rank_losses(*pair), strict=True):
        if len(set(own)) == 1 or len(set(other)) == 1:
            tau = float(len(set(own)) == len(set(other)))
        else:
            tau = kendalltau(own, other).statistic
        assert loss == pytest.approx((1 - tau) / 2, abs=1e-12)


@settings(deadline=None, max_examples=100)
@given(pair=pairs(st.floats(-100, 100).filter(lambda number: number == 0 or abs(number) > 1e-3)))
def test_directions_are_compared_as_scipy_does(pair: tuple[Array, Array]) -> None:
    from scipy.spatial.distance import cosine  # noqa: PLC0415 -- as above

    for own, other, loss in zip(*pair, cosine_losses(*pair), strict=True):
        if own.any() and other.any():
            assert loss == pytest.approx(cosine(own, other) / 2, abs=1e-9)


def test_greatest_numbers_without_ties_are_compared_as_by_accuracy() -> None:
    from sklearn.metrics import accuracy_score  # noqa: PLC0415 -- as above

    chance = np.random.default_rng(1)
    own, other = chance.normal(size=(2, 500, 7))
    expected = 1 - accuracy_score(own.argmax(axis=1), other.argmax(axis=1))
    assert argmax(own, other).mean() == pytest.approx(expected)
    assert argmax(own, other).mean() == argmax(other, own).mean()


@settings(deadline=None, max_examples=50)
@given(pair=pairs(st.floats(-1e3, 1e3).filter(lambda number: number == 0 or abs(number) > 1e-9)))
def test_sizes_are_compared_by_the_formula(pair: tuple[Array, Array]) -> None:
    for own, other, loss in zip(*pair, relative_losses(*pair), strict=True):
        sum_of_norms = np.linalg.norm(own) + np.linalg.norm(other)
        expected = np.linalg.norm(own - other) / sum_of_norms if sum_of_norms > 0 else 0.0
        assert loss == pytest.approx(expected, abs=1e-9)


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("rule", "own", "other", "loss"),
    [
        pytest.param(argmax, (1, 5, 2), (9, 1, 2), 1.0, id="another class"),
        pytest.param(argmax, (1, 5, 2), (1, 4, 3), 0.0, id="the same class with other scores"),
        pytest.param(argmax, (1, 5, 5 - 1e-5), (1, 4, 5), 0.0, id="one of two that are as great within rounding"),
        pytest.param(argmax, (1, 4, 5), (1, 5, 5 - 1e-5), 0.5, id="a class that is tied with a wrong one"),
        pytest.param(argmax, (1, 5, 4), (0, 0, 0), 2 / 3, id="all classes alike"),
        pytest.param(argmax, (0, 0, 0), (1, 5, 4), 0.0, id="any class, where the own answer has none"),
        pytest.param(argmax, (NAN, 1, 2), (NAN, 2, 1), 1.0, id="another class beside NaN"),
        pytest.param(argmax, (NAN, 1, 2), (NAN, 1, 3), 0.0, id="the same class beside NaN"),
        pytest.param(argmax, (1, 2, 3), (NAN, 2, 3), 1.0, id="a class among NaN"),
        pytest.param(argmax, (-INF, 1, 2), (-1e9, 1, 2), 0.0, id="a class that is masked otherwise"),
        pytest.param(scores, (0.9, 0.1), (0.88, 0.12), 0.0, id="scores as weights of 8 bits move them"),
        pytest.param(scores, (0.1, 0.9), (1.0, 9.0), (9 / 11 - 0.1) / 0.9, id="the same class on another scale"),
        pytest.param(scores, (0.9, 0.1), (0.1, 0.9), 1.0, id="another class"),
        pytest.param(relative_losses, (0, 0), (0, 0), 0.0, id="zeros"),
        pytest.param(relative_losses, (1, 1), (-1, -1), 1.0, id="the opposite"),
        pytest.param(relative_losses, (3, 4), (0, 0), 1.0, id="nothing in place of something"),
        pytest.param(relative_losses, (1, INF), (1, INF), 0.0, id="the same infinity"),
        pytest.param(relative_losses, (1, INF), (1, -INF), 1.0, id="the other infinity"),
        pytest.param(relative_losses, (1, 1e300), (1, INF), 1.0, id="an infinity in place of a number"),
        pytest.param(relative_losses, (NAN, 3), (NAN, 1), 0.5, id="what stands beside NaN"),
        pytest.param(cosine_losses, (1, 0), (0, 2), 0.5, id="at right angles"),
        pytest.param(cosine_losses, (1, 2), (10, 20), 0.0, id="another length"),
        pytest.param(cosine_losses, (1, 2), (-1, -2), 1.0, id="the opposite direction"),
        pytest.param(cosine_losses, (1, 2), (0, 0), 0.5, id="no direction"),
        pytest.param(rank_losses, (1, 2, 3), (3, 2, 1), 1.0, id="the opposite order"),
        pytest.param(rank_losses, (1, 2, 3), (10, 20, 30), 0.0, id="the same order"),
        pytest.param(rank_losses, (1, 2, 3), (5, 5, 5), 0.5, id="no order"),
        pytest.param(rank_losses, (1, INF, NAN), (1, -INF, NAN), 1.0, id="infinities have an order"),
        pytest.param(rank_losses, (1, 2, NAN), (1, 2, 3), 1.0, id="NaN in place of a number"),
    ],
)
def test_the_loss_of(
    rule: Callable[[Array, Array], Array], own: tuple[float, ...], other: tuple[float, ...], loss: float
) -> None:
    assert rule(row(*own), row(*other)) == pytest.approx(np.array([loss]), abs=1e-9)


def test_of_many_long_rows_some_are_ranked() -> None:
    own = np.tile(np.arange(10_000.0), (1000, 1))
    assert rank_losses(own, own[:, ::-1]).tolist() == [1.0] * 64
    assert rank_losses(own, own.copy()).tolist() == [0.0] * 64
