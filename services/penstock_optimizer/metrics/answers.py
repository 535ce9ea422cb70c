"""Figures of answers that need no classes: how near one model's are to the labels, or to the other model's."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from penstock.errors import Invalid
from penstock_optimizer.accuracy.likeness import plain
from penstock_optimizer.metrics.figures import CHUNK, METRIC_UNSUITED, Floats, Scored, flat, scale_of, spread_of
from penstock_runtime.engines import Array

_TIE: Final = 1e-6
"""Neighbours that are nearer to each other than this are equally near."""
_PAIR: Final = 2
_MOST_NEIGHBOURS: Final = 2000
_MOST_NEIGHBOUR_BYTES: Final = 128 * 1024 * 1024


def cosines(baseline: Array, candidate: Array) -> Floats:
    """Each sample's cosine similarity between the two models."""
    found = np.empty(len(baseline), dtype=np.float64)
    for start in range(0, len(baseline), CHUNK):
        rows = slice(start, start + CHUNK)
        one, other = (flat(array[rows]) for array in (baseline, candidate))
        norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        dots = np.einsum("ij,ij->i", one, other)
        # Two outputs of zeros are equal; one of zeros resembles no other.
        both_zero = (np.abs(one).sum(axis=1) == 0) & (np.abs(other).sum(axis=1) == 0)
        found[rows] = np.where(both_zero, 1.0, np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0))
    return np.clip(found, -1.0, 1.0)


def agreement(baseline: Array, candidate: Array) -> Scored:
    """1 where a sample's nearest neighbour by cosine is the baseline's, or one that the baseline has as near."""
    one, other = _unit(baseline), _unit(candidate)
    agree = np.empty(len(one), dtype=np.float64)
    for rows, own in _parts(len(one)):
        mine, theirs = one[own] @ one.T, other[own] @ other.T
        mine[rows, own] = theirs[rows, own] = -np.inf
        agree[own] = mine[rows, theirs.argmax(axis=1)] >= mine.max(axis=1) - _TIE
    return Scored(np.ones_like(agree), agree)


def neighbours(baseline: Array, candidate: Array) -> Scored:
    """How near the neighbours are that the candidate finds: 1 as near as the baseline's own, 0 as near as any sample.

    Of the first samples only, where there are very many or very large ones: each is compared with each.
    """
    each = max(int(np.prod(baseline.shape[1:])) * 4, 1)
    count = min(len(baseline), _MOST_NEIGHBOURS, max(_PAIR, _MOST_NEIGHBOUR_BYTES // each))
    one, other = _unit(baseline[:count]), _unit(candidate[:count])
    found = np.empty(len(one), dtype=np.float64)
    for rows, own in _parts(len(one)):
        mine, theirs = one[own] @ one.T, other[own] @ other.T
        mine[rows, own] = theirs[rows, own] = 0.0
        usual = mine.sum(axis=1) / (count - 1)
        mine[rows, own] = theirs[rows, own] = -np.inf
        # Where the candidate has many equally near, it does not know which: the worst of them counts.
        as_near = theirs >= theirs.max(axis=1, keepdims=True) - _TIE
        chosen = np.where(as_near & np.isfinite(mine), mine, np.inf).min(axis=1)
        best = mine.max(axis=1)
        room = best - usual
        alike = room <= _TIE
        found[own] = np.where(alike, 1.0, (chosen - usual) / np.where(alike, 1.0, room))
    return Scored(np.ones_like(found), np.clip(found, -1.0, 1.0))


def _parts(count: int) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Chunks of samples: their places in the chunk, and among all."""
    if count < _PAIR:
        raise Invalid(METRIC_UNSUITED, "neighbours need at least two samples: give more")
    starts = range(0, count, CHUNK)
    return [(np.arange(min(CHUNK, count - start)), np.arange(start, min(start + CHUNK, count))) for start in starts]


def _unit(array: Array) -> npt.NDArray[np.float32]:
    values = np.asarray(array, dtype=np.float32).reshape(len(array), -1)
    unit: npt.NDArray[np.float32] = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return unit


def squared_errors(baseline: Array, candidate: Array, target: Array) -> Scored:
    """Negative squared errors."""
    return Scored(*(_figures(array, target, lambda error, _: -(error**2)) for array in (baseline, candidate)))


def determination(baseline: Array, candidate: Array, target: Array) -> Scored:
    """Of R2: 1 less each sample's squared error over the variance of all."""
    variance = scale_of(target) ** 2
    return Scored(
        *(_figures(array, target, lambda error, _: 1 - error**2 / variance) for array in (baseline, candidate))
    )


def relative_errors(baseline: Array, candidate: Array, target: Array) -> Scored:
    """1 less each sample's error over the target's magnitude and the targets' usual spread."""
    spread = spread_of(target)
    return Scored(
        *(
            _figures(array, target, lambda error, wanted: 1 - np.abs(error) / (np.abs(wanted) + spread))
            for array in (baseline, candidate)
        )
    )


def _figures(array: Array, target: Array, figure: object) -> Floats:
    assert callable(figure)  # noqa: S101 -- one of the functions above
    found = np.empty(len(array), dtype=np.float64)
    for start in range(0, len(array), CHUNK):
        rows = slice(start, start + CHUNK)
        wanted = flat(target[rows])
        found[rows] = figure(flat(array[rows]) - wanted, wanted).mean(axis=1)
    return found


def equal_shares(baseline: Array, candidate: Array) -> Scored:
    """The share of each answer's values that are the baseline's."""
    found = np.empty(len(baseline), dtype=np.float64)
    for start in range(0, len(baseline), CHUNK):
        rows = slice(start, start + CHUNK)
        same = plain(baseline[rows]) == plain(candidate[rows])
        # An answer without values is like any other such answer.
        found[rows] = same.reshape(len(same), -1).mean(axis=1) if same.size else 1.0
    return Scored(np.ones_like(found), found)
