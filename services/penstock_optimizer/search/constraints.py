"""Whether a comparison keeps the accuracy constraint: at the gate, where only clear losses count, and in the full test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock.optimization.measurements import METRICS, AccuracyControl, AccuracyResult, Company, Judgement, MetricName
from penstock_optimizer.search.statistics import loss_bound_binary

if TYPE_CHECKING:
    from penstock.api.optimization import AccuracyConstraint
    from penstock.optimization.report import Outcome

_TINY = 1e-9
"""Room for rounding: a loss of exactly what is allowed is allowed."""


def allowed_loss(constraint: AccuracyConstraint, metric: MetricName, baseline: float) -> float:
    """The greatest loss that keeps every bound of the constraint, in the metric's own unit; infinite without bounds.

    For a metric that is better when smaller, the ratio is the baseline's figure to the candidate's, and
    `minValue` is the greatest error.
    """
    smaller = METRICS[metric].smaller
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
    return next((problem for each in _parts(result) if (problem := _gate_problem(constraint, each))), None)


def _gate_problem(constraint: AccuracyConstraint, result: AccuracyResult) -> str | None:
    if result.fault is not None:
        return result.fault
    allowed = allowed_loss(constraint, result.metric, result.baseline)
    certain = _certain_loss(result)
    if certain <= allowed + _TINY:
        return None
    return (
        f"{result_in_words(result)}; at least {_points(certain)} is lost for certain and {_allowance_in_words(allowed)}"
    )


def full_test_problem(constraint: AccuracyConstraint, result: AccuracyResult) -> tuple[Outcome, str] | None:
    """What is wrong with a full test's result; None where it keeps the constraint by every judgement."""
    from penstock.optimization.report import Outcome  # noqa: PLC0415 -- with the API's types, which no process that measures needs

    parts = _parts(result)
    lost = next((problem for each in parts if (problem := _loss_problem(constraint, each))), None)
    if lost is not None:
        return Outcome.ACCURACY_LOST, lost
    missed = why_untold(constraint, result.controls)
    if missed is not None:
        return Outcome.NOT_CERTIFIED, missed
    uncertain = next((problem for each in parts if (problem := _certainty_problem(constraint, each))), None)
    return (Outcome.NOT_CERTIFIED, uncertain) if uncertain is not None else None


def ruin_shows(constraint: AccuracyConstraint, result: AccuracyResult) -> bool:
    """Whether the constraint refuses this result by what is lost in fact, and not for want of samples."""
    return any(_loss_problem(constraint, each) is not None for each in _parts(result))


def why_untold(constraint: AccuracyConstraint, controls: Sequence[AccuracyControl]) -> str | None:
    """Why a metric can tell nothing: it lets a candidate pass that is known to be ruined. None where it does not.

    Where outputs are ruined one by one, one that is nearly always the same tells nothing by itself, and need not.
    """
    missed = next((each for each in controls if not each.told and not each.output), None)
    if missed is None:
        return None
    if not _is_bounded(constraint):
        return (
            "the accuracy constraint allows any loss, so that even ruined answers would pass: set "
            "constraints.accuracy.maxLossPoints, minRatio or minValue"
        )
    return (
        f"this metric cannot tell right from wrong on this data: {missed.name} would lose {_points(missed.loss)} by "
        f"{missed.metric}, which the constraint allows; give more or other samples, labels, or another "
        "constraints.accuracy.metric"
    )


def _is_bounded(constraint: AccuracyConstraint) -> bool:
    return any(each is not None for each in (constraint.min_ratio, constraint.max_loss_points, constraint.min_value))


def _parts(result: AccuracyResult) -> tuple[AccuracyResult, ...]:
    return (result, *result.others)


def _loss_problem(constraint: AccuracyConstraint, result: AccuracyResult) -> str | None:
    if result.fault is not None:
        return result.fault
    allowed = allowed_loss(constraint, result.metric, result.baseline)
    return None if result.loss <= allowed + _TINY else f"{result_in_words(result)}; {_allowance_in_words(allowed)}"


def _certainty_problem(constraint: AccuracyConstraint, result: AccuracyResult) -> str | None:
    allowed = allowed_loss(constraint, result.metric, result.baseline)
    if not constraint.certify or result.loss_bound <= allowed + _TINY:
        return None
    return (
        f"{result_in_words(result)}, which {_allowance_in_words(allowed)}; but with {result.samples} samples a loss of up to "
        f"{_points(result.loss_bound)} cannot be ruled out with {result.confidence:.0%} confidence: give more samples"
    )


def judgement_in_words(judgement: Judgement) -> str:
    """A judgement in words: `'price' by RelativeError: labels are float32 of shape (180,)`."""
    what = f"'{judgement.output}'" if judgement.output else "all outputs"
    against = "" if judgement.labelled else " against the baseline"
    return f"{what} by {judgement.metric}{against}: {judgement.reason}"


def result_in_words(result: AccuracyResult) -> str:
    """A result in words: `Accuracy .9926 → .9907 on 540 samples of test`."""
    of = f"{result.samples} samples of {result.split}"
    output = f" of '{result.output}'" if result.output and result.others else ""
    words = METRICS[result.metric].words.format(
        name=result.metric,
        output=output,
        baseline=result.baseline,
        candidate=result.candidate,
        before=1 - result.baseline,
        after=1 - result.candidate,
    )
    return f"{words} {of}"


def company_in_words(company: Company | None) -> str:
    """What company does to answers, as the end of a sentence; empty where nobody looked."""
    if company is None:
        return ""
    if company.problem is not None:
        return f"; {company.problem}, so each request is a run of its own"
    return f"; beside others in a batch its answers change by at most {company.change:.2g} of their range"


def _allowance_in_words(allowed: float) -> str:
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
