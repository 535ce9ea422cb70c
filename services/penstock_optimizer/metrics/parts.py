"""Parts of an answer that are lost beside much larger ones.

A detector's answer has boxes of hundreds of pixels and scores from 0 to 1 in one tensor. A cosine of the whole, or any figure
with one scale for all, hardly sees the scores; and one scale of int8 for both, as quantizers choose it where they are
concatenated, leaves nothing of them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from penstock.wording import join_some
from penstock_optimizer.metrics.figures import CHUNK, Floats, flat
from penstock_runtime.engines import Array

_FEWEST_SAMPLES: Final = 8
_APART: Final = 16.0
"""So many times as far from each other are the answers in a larger part than in the next smaller one."""
_SEEN: Final = 1e-4
"""Of the largest part's spread: what is smaller is rounding, or dead."""
_TELLS: Final = 1e-2
"""Of its own magnitude: a part that varies less says the same of all samples."""
_SHARE: Final = 1 / 16
"""Of the places along an axis: fewer may be dead by themselves."""
_NAMED: Final = 3
_LEFT: Final = 0.5
"""Of a part's variance. A part of which less is left is lost."""


def lost_part(ours: Array, theirs: Array) -> str | None:
    """Which part of the answers is no longer the baseline's though larger ones are, for people; None where none is.

    Args:
        ours: the baseline's, (samples, ...), with a fraction.
        theirs: the candidate's, of the same shape.
    """
    if ours.shape != theirs.shape or len(ours) < _FEWEST_SAMPLES or ours.size == 0:
        return None
    each = ours.shape[1:]
    variance, error, square = (figure.reshape(each) for figure in _figures(ours, theirs))
    for axis, count in enumerate(each):
        others = tuple(other for other in range(len(each)) if other != axis)
        figures = [figure.mean(axis=others) for figure in (variance, error, square)]
        for places in _parts(np.sqrt(figures[0])):
            varies, off, size = (float(figure[places].sum()) for figure in figures)
            if len(places) < count * _SHARE or varies < _TELLS**2 * size:
                continue
            left = 1 - off / varies
            if left < _LEFT:
                return (
                    f"its numbers {_describe_places(places)} on axis {axis + 1} of {list(ours.shape)}, which are much smaller than the "
                    f"others, are no longer the model's (their R2 is {left:.2g})"
                )
    return None


def _figures(ours: Array, theirs: Array) -> tuple[Floats, Floats, Floats]:
    """By each number of an answer: the variance over the samples, the squared error, and the square."""
    size = int(np.prod(ours.shape[1:]))
    total, square, error = np.zeros(size), np.zeros(size), np.zeros(size)
    for start in range(0, len(ours), CHUNK):
        one, other = (flat(array[start : start + CHUNK]) for array in (ours, theirs))
        total += one.sum(axis=0)
        square += (one * one).sum(axis=0)
        error += ((one - other) ** 2).sum(axis=0)
    count = len(ours)
    mean = total / count
    return np.maximum(square / count - mean * mean, 0.0), error / count, square / count


def _parts(spread: Floats) -> list[npt.NDArray[np.int64]]:
    """Places along an axis by how far their answers are apart, but for the largest; a part ends where the next is far smaller."""
    order = np.argsort(-spread, kind="stable")
    sorted_ = spread[order]
    seen = int((sorted_ > _SEEN * sorted_[0]).sum()) if len(order) else 0
    order, sorted_ = order[:seen], sorted_[:seen]
    cuts = np.flatnonzero(sorted_[:-1] > _APART * sorted_[1:]) + 1
    return list(np.split(order, cuts))[1:]


def _describe_places(places: npt.NDArray[np.int64]) -> str:
    return join_some(sorted(int(place) for place in places), _NAMED)
