"""Figures of answers that are classes: by the greatest score, by a threshold, or as they are given."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from penstock.errors import Invalid
from penstock_optimizer.accuracy.likeness import plain
from penstock_optimizer.metrics.figures import METRIC_UNSUITED, Comparison, Floats, Scored, compare_shares
from penstock_optimizer.search.statistics import bca_bound
from penstock_runtime.engines import Array

_RESAMPLES: Final = 1000
_BLOCKS: Final = 100
"""Of samples that are left out together, for the acceleration of the F1 bootstrap."""
_MATRIX: Final = 2


def is_scores(array: Array) -> bool:
    """Whether an output has a score for each of several classes: (samples, classes)."""
    return array.ndim == _MATRIX and array.shape[1] > 1 and array.dtype.kind == "f"


def is_single(array: Array) -> bool:
    """Whether an output has one value a sample."""
    return array.ndim > 0 and array.size == len(array)


def predictions_of(array: Array, threshold: float | None = None) -> Array:
    """Each sample's class: a whole number, or the string that is given.

    Args:
        array: scores (samples, classes), one score a sample, or a class a sample.
        threshold: of the one score.

    Raises:
        Invalid: MetricUnsuited: it is none of these.
    """
    if is_scores(array):
        best: Array = array.argmax(axis=1)
        return best
    if is_single(array):
        values = array.reshape(-1)
        if array.dtype.kind == "f":
            return (values > (0.0 if threshold is None else threshold)).astype(np.int64)
        return plain(values) if array.dtype.kind in "OSU" else values.astype(np.int64)
    raise Invalid(
        METRIC_UNSUITED,
        f"an output of {array.dtype} and shape {array.shape} has no score for each class (samples, classes) and no class"
        " (samples): take an import path",
    )


def classes_of(labels: Array) -> Array:
    """Labels as classes, one a sample: whole numbers, or strings; of a row for each class, the one that is set.

    Raises:
        Invalid: MetricUnsuited: they are none.
    """
    values = labels.reshape(-1) if labels.ndim == _MATRIX and labels.shape[1] == 1 else labels
    if values.ndim == 1 and values.dtype.kind in "OSU":
        return plain(values)
    if values.ndim == 1 and (values.dtype.kind in "iub" or is_whole(values)):
        return values.astype(np.int64)
    if is_one_hot(values):
        set_: Array = values.argmax(axis=1)
        return set_
    raise Invalid(
        METRIC_UNSUITED,
        f"this metric needs one whole number a sample as label, but the labels are {labels.dtype} of shape "
        f"{labels.shape}: take R2, RelativeError or MeanSquaredError, or an import path",
    )


def is_whole(array: Array) -> bool:
    """Whether numbers with a fraction have none."""
    return array.dtype.kind == "f" and bool(np.isfinite(array).all()) and bool((array == np.round(array)).all())


def is_one_hot(array: Array) -> bool:
    """Whether each row has a single 1 among zeros."""
    if array.ndim != _MATRIX or array.shape[1] < _MATRIX or array.dtype.kind not in "iubf":
        return False
    return bool(np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all())


def hits(array: Array, wanted: Array, top: int, threshold: float | None = None) -> Floats:
    """1 where the right class is among so many of the greatest scores."""
    if top == 1 or not is_scores(array):
        return np.asarray(predictions_of(array, threshold) == wanted, dtype=np.float64)
    best = np.argsort(-array, axis=1, kind="stable")[:, :top]
    return np.asarray((best == wanted[:, None]).any(axis=1), dtype=np.float64)


def compare_f1(ours: Array, theirs: Array, wanted: Array, confidence: float) -> Comparison:
    """F1 is no mean over samples, so its loss is bounded by a bootstrap over them.

    A bootstrap says nothing where hardly any sample differs; so the bound is at least that of the loss of accuracy.
    """
    names, codes = np.unique(np.concatenate([wanted, ours, theirs]), return_inverse=True)
    wanted, ours, theirs = codes.reshape(3, -1)
    classes = len(names)
    accuracy = compare_shares(
        Scored((ours == wanted).astype(np.float64), (theirs == wanted).astype(np.float64)), confidence
    )
    first, second = f1_macro(wanted, ours, classes), f1_macro(wanted, theirs, classes)

    def loss(rows: npt.NDArray[Any]) -> float:
        return f1_macro(wanted[rows], ours[rows], classes) - f1_macro(wanted[rows], theirs[rows], classes)

    generator = np.random.default_rng(0)
    count = len(wanted)
    resampled = np.array([loss(generator.integers(0, count, count)) for _ in range(_RESAMPLES)])
    blocks = np.array_split(np.arange(count), min(_BLOCKS, count))
    jackknife = np.array([loss(np.setdiff1d(np.arange(count), block)) for block in blocks if len(block) < count])
    bound = bca_bound(first - second, resampled, jackknife, confidence) if len(jackknife) else 1.0
    return Comparison(first, second, first - second, max(bound, accuracy.loss_bound), accuracy.lost, accuracy.won)


def f1_macro(wanted: npt.NDArray[np.int64], given: npt.NDArray[np.int64], classes: int) -> float:
    """The mean over the classes that occur of 2 TP / (2 TP + FP + FN)."""
    true = np.bincount(wanted[wanted == given], minlength=classes)
    total = np.bincount(wanted, minlength=classes) + np.bincount(given, minlength=classes)
    there = total > 0
    return float((2 * true[there] / total[there]).mean())
