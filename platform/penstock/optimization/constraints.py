"""Whether a comparison keeps the accuracy constraint: at the gate, where only clear losses count, and in the full test."""

from __future__ import annotations

import math

from penstock.api.optimization import AccuracyConstraint
from penstock.optimization.measurements import AccuracyResult, MetricName
from penstock.optimization.report import Outcome
from penstock.optimization.statistics import loss_bound_binary

_TINY = 1e-9
"""Room for rounding: a loss of exactly what is allowed is allowed."""


def allowed_loss(constraint: AccuracyConstraint, metric: MetricName, baseline: float) -> float:
    """The greatest loss that keeps every bound of the constraint, in the metric's own unit; infinite without bounds.

    For MeanSquaredError, which is better when smaller, the ratio is the baseline's figure to the candidate's, and
    `minValue` is the greatest error.
    """
    smaller = metric is MetricName.MEAN_SQUARED_ERROR
    bounds = [math.inf]
    if constraint.min_ratio is not None:
        share = float(constraint.min_ratio)
        if not smaller:
            bounds.append((1 - share) * baseline)
        elif share > 0:
            bounds.append(baseline * (1 / share - 1))
    if constraint.max_loss_points is not None:
        bounds.append(float(constraint.max_loss_points) / 100)
    if constraint.min_value is not None:
        value = float(constraint.min_value)
        bounds.append(value - baseline if smaller else baseline - value)
    return min(bounds)


def gate_problem(constraint: AccuracyConstraint, result: AccuracyResult) -> str | None:
    """Why a candidate cannot keep the constraint, on few samples: the loss that it has for certain is too great.

    What may only be chance passes, for the full test to decide.
    """
    allowed = allowed_loss(constraint, result.metric, result.baseline)
    certain = _certain_loss(result)
    if certain <= allowed + _TINY:
        return None
    return f"{said(result)}; at least {_points(certain)} is lost for certain and {_allowed(allowed)}"


def full_test_problem(constraint: AccuracyConstraint, result: AccuracyResult) -> tuple[Outcome, str] | None:
    """What is wrong with a full test's result; None where it keeps the constraint."""
    allowed = allowed_loss(constraint, result.metric, result.baseline)
    if result.loss > allowed + _TINY:
        return Outcome.ACCURACY_LOST, f"{said(result)}; {_allowed(allowed)}"
    if constraint.certify and result.loss_bound > allowed + _TINY:
        reason = (
            f"{said(result)}, which {_allowed(allowed)}; but with {result.samples} samples a loss of up to "
            f"{_points(result.loss_bound)} cannot be ruled out with {result.confidence:.0%} confidence: give more samples"
        )
        return Outcome.NOT_CERTIFIED, reason
    return None


def said(result: AccuracyResult) -> str:
    """A result in words: `Accuracy .9926 → .9907 on 540 samples of test`."""
    of = f"{result.samples} samples of {result.split}"
    if result.metric is MetricName.COSINE:
        return f"mean cosine {result.candidate:.4f} to the baseline on {of}"
    if result.metric is MetricName.RANK_AGREEMENT:
        return f"nearest neighbours agree for {result.candidate:.1%} of {of}"
    return f"{result.metric} {result.baseline:.4f} → {result.candidate:.4f} on {of}"


def _allowed(allowed: float) -> str:
    return (
        f"a loss of at most {_points(allowed)} is allowed"
        if allowed >= 0
        else "the baseline itself is below what is asked"
    )


def _points(loss: float) -> str:
    return f"{loss * 100:.3g} points"


def _certain_loss(result: AccuracyResult) -> float:
    """The lower confidence bound of the loss."""
    lost, won = result.baseline_right_candidate_wrong, result.candidate_right_baseline_wrong
    if lost is not None and won is not None:
        return -loss_bound_binary(won, lost, result.samples, result.confidence)
    # The bound is as far below a mean as above it.
    return 2 * result.loss - result.loss_bound
