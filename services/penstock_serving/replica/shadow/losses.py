"""How far a row of numbers is from another: 0 for equal ones, up to 1. Rows are FP64 arrays `[rows, numbers]`; so many losses come back.

The first of each pair is the replica's own answer. Equal rows have a loss of exactly 0, with NaN equal to NaN. A row that has NaN
at other places has a loss of 1; so has one with an infinity at another place, where sizes count.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from penstock.protocol.datatypes import Array

_FREE: Final = 0.1
"""Relative difference of scores that tells nothing beyond what their order tells. Weights of 8 bits move them by some hundredths; a
missing softmax, another scale or another model's head by more than this."""
_MOST_RANKED: Final = 256
"""Numbers of a row whose order is compared, of longer ones as many at equal distances: pairs grow by the square."""
_MOST_RANKED_ROWS: Final = 64


def argmax_losses(own: Array, other: Array, rounding: float) -> Array:
    """Of the other's greatest numbers, the share that is not among the own's greatest; of one greatest number, 0 or 1.

    Numbers that differ from the greatest by less than rounding are as great, so that the loss is what is to be expected where one
    of the equal is drawn. Where a row has one greatest number, this is the error of classification, and symmetric. Of an own
    answer with several, each is right; of another with all of `n` alike, none but one is: `1 - 1 / n`.

    Args:
        own: rows of scores; an infinity is one, NaN is none.
        other: the same.
        rounding: of the size of the greatest number.
    """
    ours, theirs = _greatest(own, rounding), _greatest(other, rounding)
    shared = np.count_nonzero(ours & theirs, axis=1)
    return np.where(_nan_apart(own, other), 1.0, 1.0 - shared / np.count_nonzero(theirs, axis=1))


def scores_losses(own: Array, other: Array, rounding: float) -> Array:
    """Of scores by class: that of `argmax_losses`, or what of the relative difference is beyond a tenth if that is more.

    The greatest number alone is blind to all else: to a softmax that is missing, or to certainty where there is none.
    """
    beyond = (relative_losses(own, other) - _FREE) / (1.0 - _FREE)
    return np.maximum(argmax_losses(own, other, rounding), np.maximum(beyond, 0.0))


def relative_losses(own: Array, other: Array) -> Array:
    """`|a - b| / (|a| + |b|)` with Euclid's norm: at most 1, by the triangle inequality; 0 where both are 0. Symmetric."""
    ours, theirs, apart = _finite(own, other)
    size = np.maximum(_largest(ours), _largest(theirs))
    ours, theirs = ours / size, theirs / size  # squares of large numbers would overflow
    norms = _norms(ours) + _norms(theirs)
    losses = _norms(ours - theirs) / np.where(norms > 0, norms, 1.0)
    return np.where(apart, 1.0, np.minimum(losses, 1.0))


def cosine_losses(own: Array, other: Array) -> Array:
    """Half of one less the cosine, `(1 - cos) / 2`, which is `|a / |a| - b / |b|| ** 2 / 4`. Symmetric, and blind to lengths.

    A row of zeros has no direction: its cosine with another row is 0, and with one of zeros 1.
    """
    ours, theirs, apart = _finite(own, other)
    ours, theirs = ours / _largest(ours), theirs / _largest(theirs)
    our_norms, their_norms = _norms(ours), _norms(theirs)
    gaps = ours / _positive(our_norms)[:, None] - theirs / _positive(their_norms)[:, None]
    losses = np.minimum((gaps * gaps).sum(axis=1) / 4.0, 1.0)
    losses = np.where((our_norms == 0) != (their_norms == 0), 0.5, losses)
    return np.where(apart, 1.0, losses)


def rank_losses(own: Array, other: Array) -> Array:
    """`(1 - tau) / 2` with Kendall's tau-b, which corrects for ties (Kendall, Biometrika 33, 1945). Symmetric.

    `tau = (C - D) / sqrt((C + D + T) (C + D + U))` over all pairs of a row's numbers: C in the same order in both rows, D in the
    opposite one, T tied in the own row alone, and U in the other alone. A row of equal numbers has no order: its tau with another
    row is 0, and with one of equal numbers 1.

    Of rows with more than 256 numbers, and of more than 64 rows, as many at equal distances are compared.

    Returns:
        A loss for each row that was compared.
    """
    rows = _spread(own.shape[0], _MOST_RANKED_ROWS)
    places = _spread(own.shape[1], _MOST_RANKED)
    own, other = own[np.ix_(rows, places)], other[np.ix_(rows, places)]
    known = ~(np.isnan(own) | np.isnan(other))
    pairs = zip(own, other, known, strict=True)
    losses = np.array([_rank_loss(ours[there], theirs[there]) for ours, theirs, there in pairs])
    return np.where(_nan_apart(own, other), 1.0, losses)


def _rank_loss(own: Array, other: Array) -> float:
    ours, theirs = _orders(own), _orders(other)
    if np.array_equal(ours, theirs):
        return 0.0
    together = int(np.sum(ours * theirs, dtype=np.int64))
    untied = int(np.count_nonzero(ours)) * int(np.count_nonzero(theirs))
    return 0.5 if not untied else min(max((1.0 - together / np.sqrt(untied)) / 2.0, 0.0), 1.0)


def _orders(row: Array) -> Array:
    """1, 0 or -1 for each pair of numbers, each pair twice."""
    return (row[:, None] > row).astype(np.int8) - (row[:, None] < row).astype(np.int8)


def unequal_share(own: Array, other: Array) -> float:
    """Share of elements that are others. Of any type."""
    return float(np.count_nonzero(own != other)) / own.size


def _greatest(rows: Array, rounding: float) -> Array:
    """Where a row's greatest numbers stand."""
    known = np.where(np.isnan(rows), -np.inf, rows)
    best = known.max(axis=1, keepdims=True)
    # Of the greatest alone: one that stands for "never", such as -1e9, says nothing of the others' rounding.
    slack = rounding * np.abs(np.where(np.isfinite(best), best, 0.0))
    with np.errstate(over="ignore"):
        greatest: Array = known >= best - slack
    return greatest


def _nan_apart(own: Array, other: Array) -> Array:
    apart: Array = (np.isnan(own) != np.isnan(other)).any(axis=1)
    return apart


def _finite(own: Array, other: Array) -> tuple[Array, Array, Array]:
    """Both with 0 for what is not finite, and which rows have it at other places."""
    odd = ~(np.isfinite(own) & np.isfinite(other))
    alike = (own == other) | (np.isnan(own) & np.isnan(other))
    return np.where(odd, 0.0, own), np.where(odd, 0.0, other), (odd & ~alike).any(axis=1)


def _largest(rows: Array) -> Array:
    """The largest size in each row, as a column; 1 where all are 0."""
    return _positive(np.abs(rows).max(axis=1, keepdims=True))


def _norms(rows: Array) -> Array:
    norms: Array = np.sqrt((rows * rows).sum(axis=1))
    return norms


def _positive(sizes: Array) -> Array:
    return np.where(sizes > 0, sizes, 1.0)


def _spread(count: int, most: int) -> Array:
    """At most so many places at equal distances."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).astype(np.intp)
