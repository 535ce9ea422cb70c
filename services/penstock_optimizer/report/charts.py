"""The report's pictures, as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any, Final

from markupsafe import Markup

from penstock.optimization.measurements import AccuracyResult, OperatorShare, Timing
from penstock.optimization.report import CandidateReport, Outcome, Report
from penstock.serving.manifest import BatchPoint
from penstock_optimizer.report.axes import Axis, axis, number
from penstock_optimizer.report.templates import TEMPLATES

_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 744, 12, 48
_ROW: Final = 26
_RIDGE: Final = 40
_RIDGE_HEIGHT: Final = 32
_LABELS: Final = 280
_SHOWN_OPERATORS: Final = 8

TONES: Final = {
    Outcome.CHOSEN: "chosen",
    Outcome.BASELINE: "baseline",
    Outcome.FINALIST: "good",
    Outcome.SLOWER: "good",
    Outcome.NO_GAIN: "plain",
    Outcome.ACCURACY_LOST: "bad",
    Outcome.NOT_CERTIFIED: "warn",
    Outcome.CONSTRAINT_BROKEN: "bad",
    Outcome.INFEASIBLE: "plain",
    Outcome.BROKEN: "bad",
    Outcome.OUT_OF_BUDGET: "plain",
    Outcome.UNDECIDED: "warn",
}
"""How an outcome is coloured."""


def timing_at(candidate: CandidateReport, batch_size: int) -> Timing | None:
    """The candidate's timing at a batch size."""
    return next((each for each in candidate.timings if each.batch_size == batch_size), None)


def cpu_milliseconds(timing: Timing) -> float:
    """CPU time of one run: the median over rounds."""
    return 1000 * median(timing.cpu_seconds_per_run)


def first_batch_size(report: Report) -> int:
    """The batch size that counts most."""
    return report.profile_spec.workload.batch_sizes[0]


def quality(candidate: CandidateReport) -> AccuracyResult | None:
    """The full accuracy test where there was one, else the gate."""
    return candidate.accuracy or candidate.gate


def pareto(report: Report) -> Markup | None:
    """Speed against accuracy, a number for each candidate, and the front: those that nothing beats in both.

    Accuracy is the difference from the baseline on the same samples: the full test and the gate look at different ones,
    on which the baseline itself differs. None where fewer than two candidates have both figures.
    """
    batch_size = first_batch_size(report)
    compared = next((result for each in report.candidates if (result := quality(each))), None)
    if compared is None:
        return None
    points: list[dict[str, Any]] = []
    for index, each in enumerate(report.candidates, 1):
        timing, result = timing_at(each, batch_size), quality(each)
        value = -result.loss if result else 0.0 if each.outcome is Outcome.BASELINE else None
        if timing is not None and value is not None:
            split = f" on {result.split}" if result else ""
            milliseconds = cpu_milliseconds(timing)
            points.append(
                {
                    "index": index,
                    "milliseconds": milliseconds,
                    "value": value,
                    "tone": TONES[each.outcome],
                    "tip": f"{index}. {each.recipe.label}: {number(milliseconds)} ms, {value:+.4f}{split}, {each.outcome}",
                }
            )
    if len(points) < 2:  # noqa: PLR2004 (a front of one point is none)
        return None
    height = 380
    places = [(each["milliseconds"], each["value"]) for each in points]
    x = axis([place[0] for place in places], _LEFT, _RIGHT, logarithmic=True)
    y = axis([place[1] for place in places], height - _BOTTOM, _TOP, margin=0.12)
    front = _polyline((x(milliseconds), y(value)) for milliseconds, value in _front(places))
    return _draw("pareto", height, x=x, y=y, points=points, front=front, metric=compared.metric, batch_size=batch_size)


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of times and values those that no other beats in both."""
    found: list[tuple[float, float]] = []
    for milliseconds, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not found or value > found[-1][1]:
            found.append((milliseconds, value))
    return found


def distributions(report: Report) -> Markup | None:
    """Wall-time distributions at the first batch size: a ridge for each measured candidate. None where none was kept."""
    batch_size = first_batch_size(report)
    rows = [
        (index, each, timing)
        for index, each in enumerate(report.candidates, 1)
        if (timing := timing_at(each, batch_size)) is not None and timing.histogram_milliseconds
    ]
    if not rows:
        return None
    bottom = _TOP + _RIDGE * len(rows)
    bounds = [bound for _, _, t in rows for bound, count in t.histogram_milliseconds if count and bound > 0]
    x = axis(bounds, _LABELS, _RIGHT, logarithmic=True)
    drawn = [
        _ridge(f"{index}. {each.recipe.label}", timing, x, _TOP + _RIDGE * row) | {"tone": TONES[each.outcome]}
        for row, (index, each, timing) in enumerate(rows, 1)
    ]
    return _draw("distributions", bottom + _BOTTOM, bottom=bottom, top=_TOP, x=x, rows=drawn, batch_size=batch_size)


def _ridge(label: str, timing: Timing, x: Axis, floor: int) -> dict[str, Any]:
    most = max(count for _, count in timing.histogram_milliseconds)
    bounds = [bound for bound, _ in timing.histogram_milliseconds]
    # A bucket is known by its upper bound and drawn at its middle, so that marks of percentiles stand where they belong.
    lower = [bounds[0] ** 2 / bounds[1] if len(bounds) > 1 else bounds[0], *bounds[:-1]]
    shape = [
        (x(math.sqrt(low * bound)), floor - _RIDGE_HEIGHT * count / most)
        for low, (bound, count) in zip(lower, timing.histogram_milliseconds, strict=True)
        if low > 0
    ]
    p50, p99 = timing.wall_milliseconds_p50, timing.wall_milliseconds_p99
    return {
        "label": label,
        "tip": f"{label}: p50 {number(p50)} ms, p99 {number(p99)} ms",
        "floor": floor,
        "ceiling": floor - _RIDGE_HEIGHT,
        "outline": _polyline([(shape[0][0], floor), *shape, (shape[-1][0], floor)]),
        "marks": (("p50", p50), ("p99", p99)),
    }


def intervals(report: Report) -> Markup | None:
    """Loss of each candidate with its confidence bound, beside no loss. None where none was tested."""
    tested = [(i, each, r) for i, each in enumerate(report.candidates, 1) if (r := quality(each)) is not None]
    if not tested:
        return None
    rows = [
        {
            "label": f"{index}. {each.recipe.label}",
            "tip": f"{index}. {each.recipe.label}: loss {result.loss:.4g}, bound {result.loss_bound:.4g} "
            f"over {result.samples} samples of {result.split}",
            "at": _TOP + _ROW * row + _ROW // 2,
            "loss": result.loss,
            "bound": result.loss_bound,
            "tone": TONES[each.outcome],
        }
        for row, (index, each, result) in enumerate(tested)
    ]
    bottom = _TOP + _ROW * len(rows)
    x = axis([0.0, *(value for _, _, r in tested for value in (r.loss, r.loss_bound))], _LABELS, _RIGHT)
    first = tested[0][2]
    title = f"loss of {first.metric} against the baseline, and its {first.confidence:.0%} bound (right is worse)"
    return _draw("intervals", bottom + _BOTTOM, bottom=bottom, top=_TOP, x=x, rows=rows, title=title)


def operators(before: CandidateReport, after: CandidateReport | None) -> Markup | None:
    """Time by operator in one run, before and after, on one scale. None where it was not profiled."""
    candidates = [("before", before)] + ([("after", after)] if after is not None and after is not before else [])
    found = [(name, each.recipe.label, _largest_shares(each.operators)) for name, each in candidates if each.operators]
    if not found:
        return None
    longest = max(share.milliseconds for _, _, shares in found for share in shares)
    x = Axis(0.0, longest or 1.0, _LABELS, _RIGHT - 120)
    at, sides = _TOP, []
    for name, label, shares in found:
        bars = [
            {
                "operator": share.operator,
                "top": at + 22 + 20 * row,
                "width": max(round(x(share.milliseconds) - x.start, 2), 1),
                "text": f"{number(share.milliseconds)} ms, {share.share:.0%}",
            }
            for row, share in enumerate(shares)
        ]
        sides.append({"name": name, "label": label, "top": at, "bars": bars})
        at += 22 + 20 * len(bars) + 12
    return _draw("operators", at, x=x, sides=sides)


def _largest_shares(shares: Sequence[OperatorShare]) -> list[OperatorShare]:
    ordered = sorted(shares, key=lambda share: -share.milliseconds)
    rest = ordered[_SHOWN_OPERATORS:]
    if not rest:
        return ordered
    return [
        *ordered[:_SHOWN_OPERATORS],
        OperatorShare(
            operator=f"{len(rest)} others",
            calls=sum(each.calls for each in rest),
            milliseconds=sum(each.milliseconds for each in rest),
            share=sum(each.share for each in rest),
        ),
    ]


def batch_curve(curve: Sequence[BatchPoint], chosen: int) -> Markup | None:
    """Rows a second by batch size; the size that is used is filled. None for fewer than two points."""
    if len(curve) < 2:  # noqa: PLR2004 (a curve)
        return None
    height = 280
    x = axis([float(point.rows) for point in curve], _LEFT, _RIGHT, logarithmic=True)
    y = axis([0.0, *(point.rows_per_second for point in curve)], height - _BOTTOM, _TOP)
    return _draw("batch_curve", height, x=x, y=y, curve=curve, chosen=chosen)


def _polyline(corners: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)


def _draw(name: str, height: int, **values: Any) -> Markup:
    """What a macro of `charts.svg` makes of values."""
    drawing: Markup = getattr(TEMPLATES.get_template("charts.svg").module, name)(height, **values)
    return drawing
