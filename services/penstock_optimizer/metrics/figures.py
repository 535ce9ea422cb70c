"""Figures of outputs, one a sample, so that candidate and baseline are compared pair by pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from penstock_optimizer.search.statistics import MIN_SAMPLES_FOR_MEAN, loss_bound_binary, loss_bound_mean
from penstock_runtime.engines import Array

METRIC_UNSUITED: Final = "MetricUnsuited"
CHUNK: Final = 256
FEW_COLUMNS: Final = 16
"""Outputs of fewer numbers a sample are numbers of their own, each with its own scale; those of more are one direction."""

_NINETY_PERCENT: Final = 3.29

Floats = npt.NDArray[np.float64]
Outputs = Mapping[str, Array]


@dataclass(frozen=True)
class Comparison:
    """What a candidate loses on the same samples."""

    baseline: float
    candidate: float
    loss: float
    loss_bound: float
    lost: int | None = None
    won: int | None = None
    fault: str | None = None
    """What is wrong whatever the figures are."""


@dataclass(frozen=True)
class Scored:
    """Both models' figures, one a sample; greater is better."""

    baseline: Floats
    candidate: Floats


def compare_shares(scored: Scored, confidence: float) -> Comparison:
    """Compare figures that are 0 or 1."""
    lost = int(((scored.baseline > 0) & (scored.candidate == 0)).sum())
    won = int(((scored.baseline == 0) & (scored.candidate > 0)).sum())
    count = len(scored.baseline)
    bound = loss_bound_binary(lost, won, count, confidence)
    return Comparison(
        float(scored.baseline.mean()), float(scored.candidate.mean()), (lost - won) / count, bound, lost, won
    )


def compare_figures(scored: Scored, confidence: float, worst: float | None = None) -> Comparison:
    """Compare figures of any distribution; those that are all 0 or 1 as shares.

    Raises:
        Invalid: TooFewSamples, where the greatest loss is not known and there are too few samples to bound its mean.
    """
    if worst is None and all(np.isin(figures, (0.0, 1.0)).all() for figures in (scored.baseline, scored.candidate)):
        return compare_shares(scored, confidence)
    losses = scored.baseline - scored.candidate
    bound = loss_bound_mean(losses, confidence, worst=worst)
    return Comparison(float(scored.baseline.mean()), float(scored.candidate.mean()), float(losses.mean()), bound)


def compare_errors(scored: Scored, confidence: float) -> Comparison:
    """Compare figures that can be any distance below 1. Few samples bound nothing: all may be lost."""
    losses = scored.baseline - scored.candidate
    few = len(losses) < MIN_SAMPLES_FOR_MEAN
    worst = max(1.0, float(losses.mean())) if few else None
    bound = loss_bound_mean(losses, confidence, worst=worst)
    return Comparison(float(scored.baseline.mean()), float(scored.candidate.mean()), float(losses.mean()), bound)


def flat(array: Array) -> Floats:
    """Samples by numbers. Values of flags count as 0 and 1."""
    values: Floats = np.asarray(array, dtype=np.float64).reshape(len(array), -1)
    return values


def spread_of(target: Array) -> Floats:
    """How far usual answers are apart: like `scale_of`, but where an answer has few numbers, some far away do not count."""
    if int(np.prod(target.shape[1:])) >= FEW_COLUMNS:
        return scale_of(target)
    low, middle, high = np.quantile(flat(target), (0.05, 0.5, 0.95), axis=0)
    # So far apart are these in a normal distribution of deviation 1.
    spread = (high - low) / _NINETY_PERCENT
    # Where nearly all are the same answer, the others say how far apart they are.
    spread = np.where(spread > 0, spread, np.abs(flat(target) - middle).mean(axis=0))
    known: Floats = np.where(spread > 0, spread, scale_of(target))
    return known


def scale_of(target: Array) -> Floats:
    """How far the answers of different samples are apart, as a standard deviation.

    Returns:
        One for each number of an answer where there are few; otherwise one for all. Never 0: an answer that is always the
        same counts by its magnitude.
    """
    parts = [flat(target[start : start + CHUNK]) for start in range(0, len(target), CHUNK)]
    count = len(target)
    mean = np.sum([part.sum(axis=0) for part in parts], axis=0) / max(count, 1)
    variance = np.sum([((part - mean) ** 2).sum(axis=0) for part in parts], axis=0) / max(count, 1)
    if mean.size >= FEW_COLUMNS:
        variance, mean = np.atleast_1d(variance.mean()), np.atleast_1d(np.abs(mean).mean())
    deviation = np.sqrt(variance)
    floor = np.maximum(1e-6 * np.abs(mean), 1e-12)
    scale: Floats = np.maximum(deviation, floor)
    return scale
