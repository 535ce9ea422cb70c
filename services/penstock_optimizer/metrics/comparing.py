"""One output of a candidate against the baseline's, by one judgement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from penstock.errors import Invalid
from penstock.optimization.measurements import Judgement, MetricName
from penstock_optimizer.accuracy.likeness import plain
from penstock_optimizer.metrics import answers
from penstock_optimizer.metrics.classes import classes_of, compare_f1, hits, is_scores, is_single, predictions_of
from penstock_optimizer.metrics.faults import fault_of
from penstock_optimizer.metrics.figures import (
    CHUNK,
    METRIC_UNSUITED,
    Comparison,
    Outputs,
    Scored,
    compare_errors,
    compare_figures,
    compare_shares,
    flat,
    scale_of,
    spread_of,
)
from penstock_optimizer.metrics.graded import box_overlaps, gains, mask_overlaps, masks_of
from penstock_runtime.engines import Array

_GREATEST_COSINE_LOSS: Final = 2.0
_ROUNDING: Final = 5e-3
"""Of the spread of an output's answers. What is nearer than that is the same answer, rounded otherwise."""


@dataclass(frozen=True)
class _Pair:
    """The two models' answers in one output, and how they are compared."""

    judgement: Judgement
    ours: Array
    theirs: Array
    labels: Array | None
    top_k: int
    confidence: float

    @property
    def needed(self) -> Array:
        """The labels."""
        if self.labels is None:
            raise Invalid(METRIC_UNSUITED, "this metric needs labels and the data has none: add an array 'labels'")
        return self.labels

    @property
    def target(self) -> Array:
        """The labels in the output's shape; without labels the baseline's own answers."""
        if self.labels is None:
            return self.ours
        if self.labels.size != self.ours.size:
            raise Invalid(
                METRIC_UNSUITED, f"labels of shape {self.labels.shape} are not like the output's {self.ours.shape}"
            )
        return self.labels.reshape(self.ours.shape)


def compare(
    judgement: Judgement,
    outputs: tuple[Outputs, Outputs],
    labels: Array | None,
    *,
    top_k: int = 5,
    confidence: float = 0.95,
) -> Comparison:
    """Compare one output by any metric but an import path's, whose figures go to `compare_figures`.

    Args:
        judgement: which output, and by what.
        outputs: the baseline's and the candidate's by name; the first axis counts samples.
        labels: of the same samples.
        top_k: for TopK.
        confidence: of the one-sided bound.

    Raises:
        Invalid: MetricUnsuited, where the metric needs labels that are not there or outputs of another form.
    """
    if judgement.metric is MetricName.IMPORT_PATH:
        raise Invalid(METRIC_UNSUITED, "an import path's figures come from the sandbox: hand them to compare_figures")
    ours, theirs = (each[judgement.output] for each in outputs)
    pair = _Pair(judgement, ours, theirs, labels if judgement.labelled else None, top_k, confidence)
    found = _COMPARISONS[judgement.metric](pair)
    if differs_by_rounding(ours, theirs):
        # The same answers but for rounding: that classes, which are a coarse look, are the same is no luck of few samples.
        found = replace(found, loss_bound=max(found.loss, 0.0))
    return replace(found, fault=fault_of(judgement, ours, theirs))


def differs_by_rounding(ours: Array, theirs: Array) -> bool:
    """Whether two outputs are the same but for rounding, measured by how far the answers of different samples are apart."""
    if ours.shape != theirs.shape:
        return False
    if ours.dtype.kind != "f":
        rows = range(0, len(ours), CHUNK)
        return all(bool((plain(ours[i : i + CHUNK]) == plain(theirs[i : i + CHUNK])).all()) for i in rows)
    scale = np.minimum(scale_of(ours), spread_of(ours))
    return all(
        bool((np.abs(flat(ours[row : row + CHUNK]) - flat(theirs[row : row + CHUNK])) <= _ROUNDING * scale).all())
        for row in range(0, len(ours), CHUNK)
    )


def _accuracy(pair: _Pair) -> Comparison:
    threshold, labels = pair.judgement.threshold, pair.needed
    if is_scores(pair.ours) and labels.shape == pair.ours.shape and threshold is not None:
        # Several flags a sample, each of which is right or wrong.
        right = [((each > threshold) == (labels > 0)).mean(axis=1) for each in (pair.ours, pair.theirs)]
        return compare_figures(Scored(right[0], right[1]), pair.confidence, worst=1.0)
    wanted = classes_of(labels)
    top = pair.top_k if pair.judgement.metric is MetricName.TOP_K else 1
    return compare_shares(
        Scored(*(hits(each, wanted, top, threshold) for each in (pair.ours, pair.theirs))), pair.confidence
    )


def _f1(pair: _Pair) -> Comparison:
    ours, theirs = (predictions_of(each, pair.judgement.threshold) for each in (pair.ours, pair.theirs))
    return compare_f1(ours, theirs, classes_of(pair.needed), pair.confidence)


def _agreement(pair: _Pair) -> Comparison:
    if is_scores(pair.ours) or (is_single(pair.ours) and pair.ours.dtype.kind == "f"):
        ours, theirs = (predictions_of(each, pair.judgement.threshold) for each in (pair.ours, pair.theirs))
        return compare_shares(Scored(np.ones(len(ours)), (ours == theirs).astype(np.float64)), pair.confidence)
    scored = answers.equal_shares(pair.ours, pair.theirs)
    whole = bool(np.isin(scored.candidate, (0.0, 1.0)).all())
    return compare_shares(scored, pair.confidence) if whole else compare_figures(scored, pair.confidence, worst=1.0)


def _cosine(pair: _Pair) -> Comparison:
    figures = answers.cosines(pair.ours, pair.theirs)
    return compare_figures(Scored(np.ones_like(figures), figures), pair.confidence, worst=_GREATEST_COSINE_LOSS)


def _mean_squared_error(pair: _Pair) -> Comparison:
    found = compare_errors(answers.squared_errors(pair.ours, pair.theirs, pair.target), pair.confidence)
    return replace(found, baseline=-found.baseline, candidate=-found.candidate)


def _overlap(pair: _Pair) -> Comparison:
    labels = pair.needed
    masks = [masks_of(each, labels, pair.judgement.threshold) for each in (pair.ours, pair.theirs)]
    if labels.dtype.kind in "iub" and masks[0] is not None and masks[1] is not None:
        scored = Scored(mask_overlaps(masks[0], labels), mask_overlaps(masks[1], labels))
    else:
        scored = Scored(box_overlaps(pair.ours, labels), box_overlaps(pair.theirs, labels))
    return compare_figures(scored, pair.confidence, worst=1.0)


def _ranking(pair: _Pair) -> Comparison:
    scored = Scored(gains(pair.ours, pair.needed), gains(pair.theirs, pair.needed))
    return compare_figures(scored, pair.confidence, worst=1.0)


_COMPARISONS: Final[Mapping[MetricName, Callable[[_Pair], Comparison]]] = {
    MetricName.ACCURACY: _accuracy,
    MetricName.TOP_K: _accuracy,
    MetricName.F1: _f1,
    MetricName.AGREEMENT: _agreement,
    MetricName.RANK_AGREEMENT: lambda pair: compare_shares(answers.agreement(pair.ours, pair.theirs), pair.confidence),
    MetricName.COSINE: _cosine,
    MetricName.NEIGHBOURS: lambda pair: compare_figures(
        answers.neighbours(pair.ours, pair.theirs), pair.confidence, worst=_GREATEST_COSINE_LOSS
    ),
    MetricName.R2: lambda pair: compare_errors(
        answers.determination(pair.ours, pair.theirs, pair.target), pair.confidence
    ),
    MetricName.RELATIVE_ERROR: lambda pair: compare_errors(
        answers.relative_errors(pair.ours, pair.theirs, pair.target), pair.confidence
    ),
    MetricName.MEAN_SQUARED_ERROR: _mean_squared_error,
    MetricName.OVERLAP: _overlap,
    MetricName.RANKING: _ranking,
}
