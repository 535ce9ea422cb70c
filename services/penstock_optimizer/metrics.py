"""How good outputs are: a figure for each sample, so that candidate and baseline are compared pair by pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from penstock.api.optimization import AccuracyConstraint
from penstock.errors import Invalid
from penstock.optimization.measurements import MetricName
from penstock.optimization.statistics import accelerated_bound, loss_bound_binary, loss_bound_mean
from penstock_runtime.engines import Array

METRIC_UNSUITED: Final = "MetricUnsuited"

Floats = npt.NDArray[np.float64]
Outputs = Mapping[str, Array]

_CHUNK: Final = 256
_RESAMPLES: Final = 1000
_BLOCKS: Final = 100
"""Of samples that are left out together, for the acceleration of the F1 bootstrap."""
_GREATEST_COSINE_LOSS: Final = 2.0
_TIE: Final = 1e-6
"""Neighbours that are nearer to each other than this are equally near."""


@dataclass(frozen=True)
class Comparison:
    """What a candidate loses on the same samples."""

    baseline: float
    candidate: float
    loss: float
    loss_bound: float
    lost: int | None = None
    won: int | None = None


@dataclass(frozen=True)
class Scored:
    """Both models' figures, one a sample; greater is better."""

    baseline: Floats
    candidate: Floats


def chosen_metric(constraint: AccuracyConstraint, *, labelled: bool) -> MetricName:
    """The constraint's metric, or the default for data with or without labels."""
    if constraint.metric is not None:
        return constraint.metric
    if constraint.import_path is not None:
        return MetricName.IMPORT_PATH
    return MetricName.ACCURACY if labelled else MetricName.COSINE


def compare(
    metric: MetricName, baseline: Outputs, candidate: Outputs, labels: Array | None, *, top_k: int, confidence: float
) -> Comparison:
    """Compare by any metric but an import path's, whose figures go to `compared_figures`.

    Args:
        metric: by which.
        baseline: outputs by name; the first axis counts samples.
        candidate: outputs of the same names.
        labels: one a sample, or whatever shape the outputs have for MeanSquaredError.
        top_k: for TopK.
        confidence: of the one-sided bound.

    Raises:
        Invalid: MetricUnsuited, where the metric needs labels that are not there or outputs of another form.
    """
    match metric:
        case MetricName.ACCURACY:
            return compared_shares(_right(baseline, candidate, labels, 1), confidence)
        case MetricName.TOP_K:
            return compared_shares(_right(baseline, candidate, labels, top_k), confidence)
        case MetricName.RANK_AGREEMENT:
            return compared_shares(_agreement(baseline, candidate), confidence)
        case MetricName.F1:
            return _compared_f1(baseline, candidate, labels, confidence)
        case MetricName.COSINE:
            figures = cosines(baseline, candidate)
            return compared_figures(Scored(np.ones_like(figures), figures), confidence, worst=_GREATEST_COSINE_LOSS)
        case MetricName.MEAN_SQUARED_ERROR:
            found = compared_figures(_errors(baseline, candidate, labels), confidence)
            return Comparison(-found.baseline, -found.candidate, found.loss, found.loss_bound)
        case MetricName.IMPORT_PATH:
            raise Invalid(
                METRIC_UNSUITED, "an import path's figures come from the sandbox: hand them to compared_figures"
            )


def compared_shares(scored: Scored, confidence: float) -> Comparison:
    """Compare figures that are 0 or 1."""
    lost = int(((scored.baseline > 0) & (scored.candidate == 0)).sum())
    won = int(((scored.baseline == 0) & (scored.candidate > 0)).sum())
    count = len(scored.baseline)
    bound = loss_bound_binary(lost, won, count, confidence)
    return Comparison(
        float(scored.baseline.mean()), float(scored.candidate.mean()), (lost - won) / count, bound, lost, won
    )


def compared_figures(scored: Scored, confidence: float, worst: float | None = None) -> Comparison:
    """Compare figures of any distribution; those that are all 0 or 1 as shares.

    Raises:
        Invalid: TooFewSamples, where the greatest loss is not known and there are too few samples to bound its mean.
    """
    if worst is None and all(np.isin(figures, (0.0, 1.0)).all() for figures in (scored.baseline, scored.candidate)):
        return compared_shares(scored, confidence)
    losses = scored.baseline - scored.candidate
    bound = loss_bound_mean(losses, confidence, worst=worst)
    return Comparison(float(scored.baseline.mean()), float(scored.candidate.mean()), float(losses.mean()), bound)


def cosines(baseline: Outputs, candidate: Outputs) -> Floats:
    """Each sample's cosine similarity between the two models; the least over the outputs of floats.

    Raises:
        Invalid: MetricUnsuited, where no output has floats.
    """
    names = [name for name, array in baseline.items() if array.dtype.kind == "f"]
    if not names:
        raise Invalid(METRIC_UNSUITED, "Cosine needs an output of floats: take Accuracy with labels, or an import path")
    least: Floats = np.minimum.reduce([_cosine(baseline[name], candidate[name]) for name in names])
    return least


def _cosine(first: Array, second: Array) -> Floats:
    found = np.empty(len(first), dtype=np.float64)
    for start in range(0, len(first), _CHUNK):
        rows = slice(start, start + _CHUNK)
        one, other = (_flat(array[rows]) for array in (first, second))
        norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        dots = np.einsum("ij,ij->i", one, other)
        # Two outputs of zeros are equal; one of zeros resembles no other.
        both_zero = (np.abs(one).sum(axis=1) == 0) & (np.abs(other).sum(axis=1) == 0)
        found[rows] = np.where(both_zero, 1.0, np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0))
    return np.clip(found, -1.0, 1.0)


def _flat(array: Array) -> Floats:
    flat: Floats = np.asarray(array, dtype=np.float64).reshape(len(array), -1)
    return flat


def _agreement(baseline: Outputs, candidate: Outputs) -> Scored:
    """1 where a sample's nearest neighbour by cosine is the baseline's, or one that the baseline has as near."""
    name = next((name for name, array in baseline.items() if array.dtype.kind == "f"), None)
    if name is None or len(baseline[name]) < 2:  # noqa: PLR2004 -- a neighbour is another sample
        raise Invalid(METRIC_UNSUITED, "RankAgreement needs an output of floats and at least two samples")
    one, other = (_unit(array[name]) for array in (baseline, candidate))
    agree = np.empty(len(one), dtype=np.float64)
    for start in range(0, len(one), _CHUNK):
        stop = min(start + _CHUNK, len(one))
        rows, own = np.arange(stop - start), np.arange(start, stop)
        mine, theirs = one[start:stop] @ one.T, other[start:stop] @ other.T
        mine[rows, own] = theirs[rows, own] = -np.inf
        agree[start:stop] = mine[rows, theirs.argmax(axis=1)] >= mine.max(axis=1) - _TIE
    return Scored(np.ones_like(agree), agree)


def _unit(array: Array) -> npt.NDArray[np.float32]:
    flat = np.asarray(array, dtype=np.float32).reshape(len(array), -1)
    unit: npt.NDArray[np.float32] = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    return unit


def _right(baseline: Outputs, candidate: Outputs, labels: Array | None, top: int) -> Scored:
    wanted = _classes(labels)
    return Scored(_hits(baseline, wanted, top), _hits(candidate, wanted, top))


def _classes(labels: Array | None) -> npt.NDArray[np.int64]:
    if labels is None:
        raise Invalid(
            METRIC_UNSUITED, "this metric needs labels and the data has none: add an array 'labels', or take Cosine"
        )
    flat = labels.reshape(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels  # noqa: PLR2004 -- a column
    if flat.ndim != 1 or flat.dtype.kind not in "iub":
        raise Invalid(
            METRIC_UNSUITED,
            f"this metric needs one whole number a sample as label, but the labels are {labels.dtype} of shape "
            f"{labels.shape}: take MeanSquaredError, or an import path",
        )
    return flat.astype(np.int64)


def _scores(outputs: Outputs) -> tuple[Array, bool]:
    """The output that says the class: scores of shape (samples, classes), or whole numbers of shape (samples,)."""
    for array in outputs.values():
        if array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind == "f":  # noqa: PLR2004 -- samples by classes
            return array, True
    for array in outputs.values():
        if array.dtype.kind in "iu" and array.size == len(array):
            return array.reshape(-1), False
    shapes = ", ".join(f"'{name}' {array.dtype} {array.shape}" for name, array in outputs.items())
    raise Invalid(
        METRIC_UNSUITED,
        f"no output has a score for each class (samples, classes) or a class (samples): there are {shapes}; take an import path",
    )


def _hits(outputs: Outputs, wanted: npt.NDArray[np.int64], top: int) -> Floats:
    scores, ranked = _scores(outputs)
    if not ranked:
        return np.asarray(scores == wanted, dtype=np.float64)
    if top == 1:
        return np.asarray(scores.argmax(axis=1) == wanted, dtype=np.float64)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return np.asarray((best == wanted[:, None]).any(axis=1), dtype=np.float64)


def predicted(outputs: Outputs) -> npt.NDArray[np.int64]:
    """Each sample's class."""
    scores, ranked = _scores(outputs)
    return (scores.argmax(axis=1) if ranked else scores).astype(np.int64)


def _errors(baseline: Outputs, candidate: Outputs, labels: Array | None) -> Scored:
    """Negative squared errors against the labels, or against the baseline where there are none."""
    name = next((name for name, array in baseline.items() if array.dtype.kind == "f"), None)
    if name is None:
        raise Invalid(METRIC_UNSUITED, "MeanSquaredError needs an output of floats")
    target = baseline[name] if labels is None else labels
    if target.size != baseline[name].size:
        raise Invalid(
            METRIC_UNSUITED,
            f"MeanSquaredError needs labels like the output '{name}' of shape {baseline[name].shape}, not {target.shape}",
        )
    return Scored(*(_negative_error(outputs[name], target) for outputs in (baseline, candidate)))


def _negative_error(output: Array, target: Array) -> Floats:
    found = np.empty(len(output), dtype=np.float64)
    for start in range(0, len(output), _CHUNK):
        rows = slice(start, start + _CHUNK)
        found[rows] = -((_flat(output[rows]) - _flat(target[rows])) ** 2).mean(axis=1)
    return found


def _compared_f1(baseline: Outputs, candidate: Outputs, labels: Array | None, confidence: float) -> Comparison:
    """F1 is no mean over samples, so its loss is bounded by a bootstrap over them.

    A bootstrap says nothing where hardly any sample differs; so the bound is at least that of the loss of accuracy.
    """
    wanted = _classes(labels)
    ours, theirs = predicted(baseline), predicted(candidate)
    names, codes = np.unique(np.concatenate([wanted, ours, theirs]), return_inverse=True)
    wanted, ours, theirs = codes.reshape(3, -1)
    classes = len(names)
    accuracy = compared_shares(
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
    bound = accelerated_bound(first - second, resampled, jackknife, confidence) if len(jackknife) else 1.0
    return Comparison(first, second, first - second, max(bound, accuracy.loss_bound), accuracy.lost, accuracy.won)


def f1_macro(wanted: npt.NDArray[np.int64], given: npt.NDArray[np.int64], classes: int) -> float:
    """The mean over the classes that occur of 2 TP / (2 TP + FP + FN)."""
    true = np.bincount(wanted[wanted == given], minlength=classes)
    total = np.bincount(wanted, minlength=classes) + np.bincount(given, minlength=classes)
    there = total > 0
    return float((2 * true[there] / total[there]).mean())
