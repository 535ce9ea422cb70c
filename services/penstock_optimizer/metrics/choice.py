"""By what each output is judged: it follows from the outputs, the labels and the constraint, and is said.

Every output is judged, and the worst counts. The one that the labels are for is judged by them, all others by how like
they are to the baseline's own: whatever `constraints.accuracy.metric` asks for where that suits, and otherwise

    flags, whole numbers, strings     the share of equal ones
    probabilities                     the share of equal classes, and R2
    one number, or a few              relative error and R2; R2 alone where they may be scores
    directions, such as embeddings    cosine, and nearest neighbours
    anything larger                   cosine
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

from penstock.errors import Invalid
from penstock.optimization.measurements import METRICS, Judgement, MetricName, Suits
from penstock_optimizer.metrics.classes import classes_of, hits, is_one_hot, is_scores, is_single, is_whole
from penstock_optimizer.metrics.figures import FEW_COLUMNS, METRIC_UNSUITED, Outputs
from penstock_optimizer.metrics.graded import BOX, masks_of
from penstock_runtime.engines import Array

if TYPE_CHECKING:
    from penstock.api.optimization import AccuracyConstraint

_SCORE_NAMES: Final = ("logit", "score", "class", "prob")
"""In the name of an output whose greatest number says the class."""
_SUMS_TO_ONE: Final = 1e-2
_MATRIX: Final = 2
_HALF: Final = 0.5
_SPATIAL: Final = 3


def judgements(
    constraint: AccuracyConstraint, outputs: Outputs, labels: Array | None, *, synthetic: bool = False
) -> tuple[Judgement, ...]:
    """By what the outputs of any candidate are judged.

    Args:
        constraint: whose metric goes first.
        outputs: the baseline's.
        labels: of the same samples.
        synthetic: whether the samples were made up, so that classes of them mean nothing.

    Raises:
        Invalid: MetricUnsuited: what the outputs and the labels are, and what to take instead.
    """
    if constraint.import_path is not None or constraint.metric is MetricName.IMPORT_PATH:
        return (
            Judgement(metric=MetricName.IMPORT_PATH, output="", labelled=labels is not None, reason="it is asked for"),
        )
    full = {name: array for name, array in outputs.items() if array.size}
    ratio_alone = constraint.min_ratio is not None and constraint.max_loss_points is constraint.min_value is None
    if constraint.metric is not None:
        first = _judgements_by_metric(constraint.metric, full, labels, ratio_alone=ratio_alone)
    else:
        first = _judgements_by_labels(full, labels)
    judged = {each.output for each in first}
    rest = (
        each for name in outputs if name not in judged for each in likeness(name, outputs[name], synthetic=synthetic)
    )
    return (*first, *rest)


def likeness(name: str, array: Array, *, synthetic: bool = False) -> Iterator[Judgement]:
    """How an output is compared with the baseline's own."""
    if not array.size:
        yield Judgement(metric=MetricName.AGREEMENT, output=name, reason=f"'{name}' has no elements")
    elif array.dtype.kind != "f":
        kinds = {"b": "flags", "O": "strings", "S": "strings", "U": "strings"}
        what = kinds.get(array.dtype.kind, "whole numbers")
        yield Judgement(metric=MetricName.AGREEMENT, output=name, reason=f"'{name}' has {what}")
    elif is_single(array):
        yield from _single_number_judgements(name, array, synthetic=synthetic)
    elif is_scores(array) and not synthetic and (_is_probabilities(array) or _is_score_name(name)):
        what = "probabilities of classes" if _is_probabilities(array) else "scores of classes"
        yield from _judgement_pair(MetricName.AGREEMENT, MetricName.R2, name, f"'{name}' has {what}")
    elif is_scores(array) and array.shape[1] < FEW_COLUMNS:
        yield Judgement(metric=MetricName.R2, output=name, reason=f"'{name}' has {array.shape[1]} numbers a sample")
    elif is_scores(array):
        what = f"'{name}' has a direction of {array.shape[1]} numbers a sample"
        yield from _judgement_pair(MetricName.COSINE, MetricName.NEIGHBOURS, name, what)
    else:
        yield Judgement(metric=MetricName.COSINE, output=name, reason=f"'{name}' is of shape {array.shape}")


def fallback(judgement: Judgement, array: Array) -> Judgement | None:
    """What can tell where a metric that nobody asked for cannot; None where there is nothing."""
    if array.dtype.kind != "f" or not array.size or (judgement.metric is MetricName.R2 and not judgement.labelled):
        return None
    reason = f"{judgement.reason}, where {judgement.metric} cannot tell right from wrong on this data"
    return Judgement(metric=MetricName.R2, output=judgement.output, reason=reason)


def _single_number_judgements(name: str, array: Array, *, synthetic: bool) -> Iterator[Judgement]:
    above = float(np.mean(array > _HALF)) if len(array) else 0.0
    if is_within_one(array) and 0 < above < 1 and not synthetic:
        reason = f"'{name}' has one number a sample, from 0 to 1"
        yield Judgement(metric=MetricName.AGREEMENT, output=name, threshold=_HALF, reason=reason)
        yield Judgement(metric=MetricName.R2, output=name, reason=reason)
        return
    yield from _judgement_pair(MetricName.RELATIVE_ERROR, MetricName.R2, name, f"'{name}' has one number a sample")


def _judgement_pair(one: MetricName, other: MetricName, name: str, reason: str) -> tuple[Judgement, Judgement]:
    return (
        Judgement(metric=one, output=name, reason=reason),
        Judgement(metric=other, output=name, reason=reason),
    )


def is_within_one(array: Array) -> bool:
    """Whether all numbers are from 0 to 1."""
    return bool(((array >= 0) & (array <= 1)).all())


def _is_probabilities(array: Array) -> bool:
    return is_within_one(array) and bool((np.abs(array.sum(axis=1, dtype=np.float64) - 1) < _SUMS_TO_ONE).all())


def _is_score_name(name: str) -> bool:
    return any(word in name.lower() for word in _SCORE_NAMES)


def _judgements_by_labels(outputs: Outputs, labels: Array | None) -> tuple[Judgement, ...]:
    """Of the output that the labels are for; nothing where there are no labels."""
    if labels is None:
        return ()
    reason = f"labels are {labels.dtype} of shape {labels.shape}"
    found = (
        _mask_judgements(outputs, labels, reason)
        or _box_judgements(outputs, labels, reason)
        or _grade_judgements(outputs, labels, reason)
        or _class_judgements(MetricName.ACCURACY, outputs, labels, reason)
        or _number_judgements((MetricName.RELATIVE_ERROR, MetricName.R2), outputs, labels, reason)
    )
    if found:
        return found
    raise Invalid(
        METRIC_UNSUITED,
        f"{reason}, and no output is like them: {describe(outputs)}; give labels of an output's shape or classes that it has,"
        " leave labels out, or set constraints.accuracy.metric",
    )


def describe(outputs: Outputs) -> str:
    """Outputs for a message."""
    return ", ".join(f"'{name}' is {array.dtype} of shape {array.shape}" for name, array in outputs.items())


def _mask_judgements(outputs: Outputs, labels: Array, reason: str) -> tuple[Judgement, ...]:
    if labels.ndim < _SPATIAL or labels.dtype.kind not in "iub":
        return ()
    for name, array in outputs.items():
        threshold = _HALF if array.dtype.kind == "f" and is_within_one(array) else 0.0
        if masks_of(array, labels, threshold) is not None:
            return (
                Judgement(metric=MetricName.OVERLAP, output=name, labelled=True, threshold=threshold, reason=reason),
            )
    return ()


def _box_judgements(outputs: Outputs, labels: Array, reason: str) -> tuple[Judgement, ...]:
    if labels.ndim < _MATRIX or labels.shape[-1] != BOX or labels.dtype.kind != "f":
        return ()
    name = next(
        (name for name, array in outputs.items() if "box" in name.lower() and array.shape == labels.shape), None
    )
    if name is None:
        return ()
    return (Judgement(metric=MetricName.OVERLAP, output=name, labelled=True, reason=f"{reason}, as '{name}' is"),)


def _grade_judgements(outputs: Outputs, labels: Array, reason: str) -> tuple[Judgement, ...]:
    """A grade for each item of a list; several flags a sample; or one that is set, which is a class."""
    if labels.ndim != _MATRIX or labels.shape[1] < _MATRIX or labels.dtype.kind not in "iub" or is_one_hot(labels):
        return ()
    name = next((name for name, array in outputs.items() if array.shape == labels.shape), None)
    if name is None or outputs[name].dtype.kind != "f" or bool((labels < 0).any()):
        return ()
    if bool((labels <= 1).all()):
        threshold = _HALF if is_within_one(outputs[name]) else 0.0
        return (Judgement(metric=MetricName.ACCURACY, output=name, labelled=True, threshold=threshold, reason=reason),)
    return (Judgement(metric=MetricName.RANKING, output=name, labelled=True, reason=f"{reason}, which are grades"),)


def _class_judgements(metric: MetricName, outputs: Outputs, labels: Array, reason: str) -> tuple[Judgement, ...]:
    """Of the output that has these classes; where several do, of the one that is right most often."""
    try:
        wanted = classes_of(labels)
    except Invalid:
        return ()
    found = []
    for name, array in outputs.items():
        threshold = _suits(array, labels, wanted)
        if threshold is not None:
            judgement = Judgement(
                metric=metric,
                output=name,
                labelled=True,
                threshold=threshold if is_single(array) and array.dtype.kind == "f" else None,
                reason=f"{reason}, classes that '{name}' gives",
            )
            found.append((float(hits(array, wanted, 1, threshold).mean()), judgement))
    return (max(found, key=lambda each: each[0])[1],) if found else ()


def _suits(array: Array, labels: Array, wanted: Array) -> float | None:
    """The threshold, which counts for one score only, where an output has these classes; None where it has others."""
    if wanted.dtype.kind == "S":
        return 0.0 if is_single(array) and array.dtype.kind in "OSU" else None
    if is_scores(array):
        return 0.0 if wanted.min() >= 0 and wanted.max() < array.shape[1] else None
    if not is_single(array) or array.dtype.kind in "OSU":
        return None
    if array.dtype.kind != "f":
        return None if is_whole(labels) else 0.0
    binary = bool(np.isin(wanted, (0, 1)).all())
    if not binary or (is_whole(labels) and not is_within_one(array)):
        return None
    return _HALF if is_within_one(array) else 0.0


def _number_judgements(
    metrics: tuple[MetricName, ...], outputs: Outputs, labels: Array, reason: str
) -> tuple[Judgement, ...]:
    if labels.dtype.kind not in "iuf":
        return ()
    for name, array in outputs.items():
        if array.dtype.kind == "f" and _has_shape_of(array, labels):
            return tuple(Judgement(metric=each, output=name, labelled=True, reason=reason) for each in metrics)
    return ()


def _float_judgements(metric: MetricName, outputs: Outputs, reason: str) -> tuple[Judgement, ...]:
    floats = (name for name, array in outputs.items() if array.dtype.kind == "f")
    return tuple(Judgement(metric=metric, output=name, reason=reason) for name in floats)


def _has_shape_of(array: Array, labels: Array) -> bool:
    one, other = (tuple(axis for axis in each.shape[1:] if axis != 1) for each in (array, labels))
    return one == other


def _judgements_by_metric(
    metric: MetricName, outputs: Outputs, labels: Array | None, *, ratio_alone: bool = False
) -> tuple[Judgement, ...]:
    """Of the outputs that a metric suits, where it was asked for.

    Raises:
        Invalid: MetricUnsuited: it suits none.
    """
    found: tuple[Judgement, ...] = ()
    reason, facts = "it is asked for", METRICS[metric]
    if facts.suits in (Suits.CLASSES, Suits.GRADES):
        if labels is None:
            raise Invalid(
                METRIC_UNSUITED,
                f"{metric} needs labels and the data has none: add an array 'labels', or take Agreement, R2 or Cosine",
            )
        graded = (*_mask_judgements(outputs, labels, reason), *_box_or_grade_judgements(metric, outputs, labels))
        found = graded if facts.suits is Suits.GRADES else _class_judgements(metric, outputs, labels, reason)
        found = tuple(each for each in found if each.metric is metric)[:1]
        if facts.suits is Suits.CLASSES and not found:
            classes_of(labels)  # says what is wrong with labels that are no classes
    elif facts.suits is Suits.NUMBERS:
        found = _number_judgements((metric,), outputs, labels, reason) if labels is not None else ()
        if labels is None and facts.smaller and ratio_alone:
            raise Invalid(
                METRIC_UNSUITED,
                f"without labels the model's own {metric} is 0, and no ratio of that can be kept: give labels, set "
                "constraints.accuracy.minValue to the greatest error, or take R2",
            )
        if not found and (labels is None or not facts.smaller):
            found = _float_judgements(metric, outputs, reason)
    elif facts.suits is Suits.DIRECTIONS:
        found = _float_judgements(metric, outputs, reason)
    else:
        found = tuple(
            Judgement(metric=metric, output=name, threshold=_threshold(array), reason=reason)
            for name, array in outputs.items()
        )
    if found:
        return found
    said = "" if labels is None else f", and labels are {labels.dtype} of shape {labels.shape}"
    raise Invalid(
        METRIC_UNSUITED,
        f"{metric} suits no output: {describe(outputs)}{said}; take another constraints.accuracy.metric, or an import path",
    )


def _threshold(array: Array) -> float | None:
    if array.dtype.kind != "f" or not is_single(array):
        return None
    return _HALF if is_within_one(array) else 0.0


def _box_or_grade_judgements(metric: MetricName, outputs: Outputs, labels: Array) -> tuple[Judgement, ...]:
    """Whatever the outputs are called: it was asked for."""
    same = [name for name, array in outputs.items() if array.shape == labels.shape and array.dtype.kind == "f"]
    if not same or labels.ndim < _MATRIX:
        return ()
    if metric is MetricName.OVERLAP and labels.shape[-1] != BOX:
        return ()
    return (Judgement(metric=metric, output=same[0], labelled=True, reason="it is asked for"),)
