"""What measurements allow to be said: speed-ups with an interval, losses with a bound, and whether controls hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from penstock.errors import Invalid
from penstock.optimization.measurements import Ratio, Role, Timing

if TYPE_CHECKING:
    from penstock.optimization.report import ControlReport

Floats = npt.NDArray[np.float64]

SAME_AGAIN_LOW: Final = 0.90
SAME_AGAIN_HIGH: Final = 1.10
"""Between these an A/A control says that the machine is quiet enough to decide."""
NEGATIVE_CONTROL_HIGH: Final = 1.10
"""Above this the measurement invents speed-ups."""
MIN_SAMPLES_FOR_MEAN: Final = 20
"""Below this neither Student's t nor a bootstrap can be trusted with the mean of figures of unknown distribution."""
TOO_FEW_SAMPLES: Final = "TooFewSamples"

_RESAMPLES: Final = 2000
_INTERVAL: Final = 0.95
_CONTINUITY: Final = 0.5
_CELLS_AT_ONCE: Final = 4_000_000
_BISECTIONS: Final = 60
_STEPS_PER_DECADE: Final = 20


def ratio(reference: Sequence[float], variant: Sequence[float], seed: int = 0) -> Ratio:
    """The median over rounds of reference / variant, with a bootstrap interval over the rounds.

    Args:
        reference: seconds of a run, one figure a round.
        variant: the same of the variant, in the same rounds.
        seed: of the bootstrap.

    Returns:
        How many times faster the variant is.

    Raises:
        ValueError: the two have not the same number of rounds, none at all, or a figure that is not above 0.
    """
    if len(reference) != len(variant) or not reference:
        raise ValueError(f"a ratio is paired by round: {len(reference)} rounds against {len(variant)}")
    if min(*reference, *variant) <= 0:
        raise ValueError("a run took no time at all: the clock is too coarse for so few runs in a round")
    ratios = np.asarray(reference, dtype=np.float64) / np.asarray(variant, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(0, len(ratios), size=(_RESAMPLES, len(ratios)))
    medians = np.median(ratios[draws], axis=1)
    low, high = np.quantile(medians, [(1 - _INTERVAL) / 2, (1 + _INTERVAL) / 2])
    return Ratio(value=float(np.median(ratios)), low=float(low), high=float(high))


def speedup(reference: Timing, variant: Timing, seed: int = 0) -> Ratio:
    """`ratio` of two timings of one session: of CPU time, or of wall time where a GPU did the work of either.

    Rounds that only one of them finished are left out.

    Raises:
        ValueError: as `ratio`.
    """
    by_wall = reference.accelerated or variant.accelerated
    first, second = (
        each.wall_seconds_per_run if by_wall else each.cpu_seconds_per_run for each in (reference, variant)
    )
    rounds = min(len(first), len(second))
    return ratio(first[:rounds], second[:rounds], seed)


def same_again_holds(found: Ratio) -> bool:
    """Whether an A/A control lets anything be decided."""
    return SAME_AGAIN_LOW <= found.value <= SAME_AGAIN_HIGH


def negative_control_holds(found: Ratio) -> bool:
    """Whether a model that cannot be faster was measured as not faster."""
    return found.value <= NEGATIVE_CONTROL_HIGH


def controls(timings: Sequence[Timing], seed: int = 0) -> tuple[ControlReport, ...]:
    """The controls of one session, decided.

    The A/A copy is read against the baseline; the negative control against the second baseline, or against the baseline
    where that is the only one. A control whose process or reference is missing is left out: then there is no decision,
    since `controls_hold` wants both.
    """
    from penstock.optimization.report import ControlReport  # noqa: PLC0415 -- with the API's types, which no process that measures needs

    by_role = {timing.role: timing for timing in timings}
    baseline = by_role.get(Role.BASELINE)
    plain = by_role.get(Role.SECOND_BASELINE, baseline)
    found: list[ControlReport] = []
    pairs: tuple[tuple[Role, Timing | None, Callable[[Ratio], bool]], ...] = (
        (Role.SAME_AGAIN, baseline, same_again_holds),
        (Role.NEGATIVE_CONTROL, plain, negative_control_holds),
    )
    for role, reference, holds in pairs:
        control = by_role.get(role)
        if control is not None and reference is not None:
            measured = speedup(reference, control, seed)
            found.append(
                ControlReport(name=role, batch_size=control.batch_size, ratio=measured, passed=holds(measured))
            )
    return tuple(found)


def controls_hold(found: Sequence[ControlReport]) -> bool:
    """Whether both controls are there and passed."""
    names = {control.name for control in found}
    return {Role.SAME_AGAIN, Role.NEGATIVE_CONTROL} <= names and all(control.passed for control in found)


def loss_bound_binary(lost: float, won: float, samples: int, confidence: float) -> float:
    """One-sided upper bound of the loss of a share, from a paired comparison of right and wrong.

    The score interval for a difference of paired proportions of T. Tango, "Equivalence test and confidence interval for
    the difference in proportions for the paired-sample design", Statistics in Medicine 17 (1998), 891-908, with half a
    lost sample added as a continuity correction. Without that it falls up to 3 points short of its confidence where few
    pairs differ; with it, it never did on the grid that its test enumerates.

    Args:
        lost: samples that the baseline has right and the candidate wrong.
        won: samples that the candidate has right and the baseline wrong.
        samples: all samples.
        confidence: such as 0.95.

    Returns:
        A share: 0.01 is one point.

    Raises:
        ValueError: the counts cannot be.
    """
    if samples < 1 or min(lost, won) < 0 or lost + won > samples:
        raise ValueError(f"{lost} lost and {won} won of {samples} samples cannot be")
    lost = min(lost + _CONTINUITY, samples - won)
    z = NormalDist().inv_cdf(confidence)
    low, high = (lost - won) / samples, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if _score(lost, won, samples, middle) > -z:
            low = middle
        else:
            high = middle
    return high


def _score(lost: float, won: float, samples: int, loss: float) -> float:
    """Tango's score statistic under the hypothesis that the loss is so great."""
    a = 2.0 * samples
    b = -lost - won + (2.0 * samples - lost + won) * loss
    c = -won * loss * (1 - loss)
    share_won = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = samples * (2 * share_won + loss * (1 - loss))
    difference = lost - won - samples * loss
    if variance <= 0:
        return 0.0 if difference >= 0 else -math.inf
    return difference / math.sqrt(variance)


def loss_bound_mean(
    differences: Sequence[float] | Floats, confidence: float, *, seed: int = 0, worst: float | None = None
) -> float:
    """One-sided upper bound of the mean of paired differences (growth is worse): the greater of two.

    Student's t, and a bias-corrected and accelerated bootstrap (B. Efron, "Better bootstrap confidence intervals",
    Journal of the American Statistical Association 82 (1987), 171-185), which follows a skew to the right.

    Args:
        differences: one figure a sample.
        confidence: such as 0.95.
        seed: of the bootstrap.
        worst: the greatest difference that there can be; the answer for fewer than `MIN_SAMPLES_FOR_MEAN` samples.

    Raises:
        Invalid: TooFewSamples, where there are fewer and the worst is not known either.
    """
    values = np.asarray(differences, dtype=np.float64)
    count = len(values)
    if count < MIN_SAMPLES_FOR_MEAN:
        if worst is not None:
            return worst
        raise Invalid(
            TOO_FEW_SAMPLES,
            f"{count} samples cannot bound a mean loss: give at least {MIN_SAMPLES_FOR_MEAN}, better hundreds",
        )
    mean, deviation = float(values.mean()), float(values.std(ddof=1))
    if deviation == 0:
        return mean
    student = mean + _student(confidence, count - 1) * deviation / math.sqrt(count)
    means = _resampled_means(values, np.random.default_rng(seed))
    return max(student, bca_bound(mean, means, _jackknife_of_mean(values), confidence))


def bca_bound(estimate: float, resampled: Floats, jackknife: Floats, confidence: float) -> float:
    """Upper bound by the bias-corrected and accelerated bootstrap.

    Args:
        estimate: of all samples.
        resampled: the estimates of the resamples.
        jackknife: the estimates that leave one sample (or one block of them) out.
        confidence: such as 0.95.
    """
    normal = NormalDist()
    edge = 0.5 / len(resampled)
    below = float((resampled < estimate).mean() + (resampled == estimate).mean() / 2)
    bias = normal.inv_cdf(min(max(below, edge), 1 - edge))
    spread = jackknife.mean() - jackknife
    largest = float(np.abs(spread).max())
    spread = (
        spread / largest if largest > 0 else spread
    )  # the acceleration has no scale, but squares of tiny figures vanish
    squares = float((spread**2).sum())
    acceleration = float((spread**3).sum()) / (6 * squares**1.5) if squares > 0 else 0.0
    z = bias + normal.inv_cdf(confidence)
    denominator = 1 - acceleration * z
    share = normal.cdf(bias + z / denominator) if denominator > 0 else 1.0
    return float(np.quantile(resampled, min(max(share, confidence), 1.0)))


def _resampled_means(values: Floats, generator: np.random.Generator) -> Floats:
    """Means of `_RESAMPLES` resamples, in parts that fit into memory."""
    rows = max(1, min(_RESAMPLES, _CELLS_AT_ONCE // len(values)))
    parts: list[Floats] = []
    done = 0
    while done < _RESAMPLES:
        take = min(rows, _RESAMPLES - done)
        parts.append(values[generator.integers(0, len(values), size=(take, len(values)))].mean(axis=1))
        done += take
    return np.concatenate(parts)


def _jackknife_of_mean(values: Floats) -> Floats:
    left_out: Floats = (values.sum() - values) / (len(values) - 1)
    return left_out


def _student(confidence: float, degrees: int) -> float:
    """Quantile of Student's t: Abramowitz and Stegun, 26.7.5; good to 0.001 from 19 degrees of freedom on."""
    z = NormalDist().inv_cdf(confidence)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3


def percentile(values: Sequence[float] | npt.NDArray[Any], share: float) -> float:
    """The least value that at least such a share of all does not exceed (nearest rank).

    Raises:
        ValueError: there are no values, or the share is not above 0 and at most 1.
    """
    if not len(values) or not 0 < share <= 1:
        raise ValueError(f"no {share} percentile of {len(values)} values")
    rank = max(math.ceil(share * len(values)) - 1, 0)
    return float(np.partition(np.asarray(values, dtype=np.float64), rank)[rank])


def histogram(values: Sequence[float] | npt.NDArray[Any]) -> tuple[tuple[float, int], ...]:
    """Upper bound and count of each bucket that is not empty; the bounds are powers of ten to the 1/20.

    Values are above 0. The bounds do not depend on the values, so that histograms can be laid over each other.
    """
    exponents = np.ceil(np.log10(np.asarray(values, dtype=np.float64)) * _STEPS_PER_DECADE).astype(np.int64)
    found, counts = np.unique(exponents, return_counts=True)
    return tuple(
        (float(10 ** (int(each) / _STEPS_PER_DECADE)), int(count)) for each, count in zip(found, counts, strict=True)
    )
