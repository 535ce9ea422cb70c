"""The report's pictures, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Final

from penstock.optimization.measurements import AccuracyResult, OperatorShare, Timing
from penstock.optimization.report import CandidateReport, Outcome, Report
from penstock.serving.manifest import BatchPoint
from penstock_optimizer.report.svg import Axis, Markup, axis, chart, element, frame, number

WIDTH: Final = 760
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 744.0, 12.0, 48.0
_ROW: Final = 26.0
_LABELS: Final = 280.0
_SHOWN_OPERATORS: Final = 8
_LABEL_LENGTH: Final = 40

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
    points = []
    batch_size = first_batch_size(report)
    compared = next((result for each in report.candidates if (result := quality(each))), None)
    if compared is None:
        return None
    for index, each in enumerate(report.candidates, 1):
        timing, result = timing_at(each, batch_size), quality(each)
        value = -result.loss if result else 0.0 if each.outcome is Outcome.BASELINE else None
        if timing is not None and value is not None:
            points.append((index, each, cpu_milliseconds(timing), value))
    if len(points) < 2:  # noqa: PLR2004 (a front of one point is none)
        return None
    height = 380
    x = axis([p[2] for p in points], _LEFT, _RIGHT, logarithmic=True)
    y = axis([p[3] for p in points], height - _BOTTOM, _TOP, margin=0.12)
    drawn = [_front(points, x, y)]
    for index, each, milliseconds, value in points:
        split = f" on {result.split}" if (result := quality(each)) else ""
        tip = f"{index}. {each.recipe.label}: {number(milliseconds)} ms, {value:+.4f}{split}, {each.outcome}"
        drawn.append(
            element(
                "g",
                element("title", tip),
                element("circle", cx=x(milliseconds), cy=y(value), r=9.0, class_=f"dot {TONES[each.outcome]}"),
                element("text", str(index), x=x(milliseconds), y=y(value) + 4, class_="in middle"),
            )
        )
    axes = frame(
        x,
        y,
        f"CPU time of one run at batch {batch_size}, ms (left is better)",
        f"{compared.metric}, against the baseline",
    )
    return chart(WIDTH, height, "Speed against accuracy", axes, *drawn)


def _front(points: Sequence[tuple[int, CandidateReport, float, float]], x: Axis, y: Axis) -> Markup:
    best: float | None = None
    corners: list[tuple[float, float]] = []
    for _, _, milliseconds, value in sorted(points, key=lambda p: (p[2], -p[3])):
        if best is None or value > best:
            best = value
            corners.append((x(milliseconds), y(value)))
    return element("polyline", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in corners), class_="front")


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
    height = int(_TOP + 40 * len(rows) + _BOTTOM)
    bounds = [bound for _, _, t in rows for bound, count in t.histogram_milliseconds if count and bound > 0]
    x = axis(bounds, _LABELS, _RIGHT, logarithmic=True)
    base = Axis(0, 1, height - _BOTTOM, _TOP)
    parts = [
        element("line", x1=x(v), x2=x(v), y1=base.start, y2=base.end, class_="grid")
        + element("text", number(v), x=x(v), y=base.start + 16, class_="tick middle")
        for v in x.ticks
    ]
    parts.append(
        element(
            "text",
            f"wall time of one run at batch {batch_size}, ms",
            x=(x.start + x.end) / 2,
            y=base.start + 36,
            class_="title middle",
        )
    )
    for row, (index, each, timing) in enumerate(rows):
        parts.append(_ridge(f"{index}. {each.recipe.label}", timing, x, _TOP + 40.0 * (row + 1), TONES[each.outcome]))
    return chart(WIDTH, height, "Latency distributions", *parts)


def _ridge(label: str, timing: Timing, x: Axis, floor: float, tone: str) -> Markup:
    most = max(count for _, count in timing.histogram_milliseconds)
    bounds = [bound for bound, _ in timing.histogram_milliseconds]
    # A bucket is known by its upper bound and drawn at its middle, so that marks of percentiles stand where they belong.
    lower = [bounds[0] ** 2 / bounds[1] if len(bounds) > 1 else bounds[0], *bounds[:-1]]
    shape = [
        (x(math.sqrt(low * bound)), floor - 32.0 * count / most)
        for low, (bound, count) in zip(lower, timing.histogram_milliseconds, strict=True)
        if low > 0
    ]
    outline = [(shape[0][0], floor), *shape, (shape[-1][0], floor)]
    tip = f"{label}: p50 {number(timing.wall_milliseconds_p50)} ms, p99 {number(timing.wall_milliseconds_p99)} ms"
    marks = [
        element("line", x1=x(value), x2=x(value), y1=floor, y2=floor - 32.0, class_=f"mark {kind}")
        for value, kind in ((timing.wall_milliseconds_p50, "p50"), (timing.wall_milliseconds_p99, "p99"))
        if value > 0
    ]
    return element(
        "g",
        element("title", tip),
        element("text", _short(label), x=_LABELS - 10, y=floor - 4, class_="tick end"),
        element("polygon", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in outline), class_=f"ridge {tone}"),
        *marks,
    )


def intervals(report: Report) -> Markup | None:
    """Loss of each candidate with its confidence bound, beside no loss. None where none was tested."""
    rows = [(i, each, r) for i, each in enumerate(report.candidates, 1) if (r := quality(each)) is not None]
    if not rows:
        return None
    height = int(_TOP + _ROW * len(rows) + _BOTTOM)
    x = axis([0.0, *(v for _, _, r in rows for v in (r.loss, r.loss_bound))], _LABELS, _RIGHT)
    bottom = height - _BOTTOM
    parts = [
        element("line", x1=x(v), x2=x(v), y1=bottom, y2=_TOP, class_="grid")
        + element("text", number(v), x=x(v), y=bottom + 16, class_="tick middle")
        for v in x.ticks
    ]
    parts.append(element("line", x1=x(0.0), x2=x(0.0), y1=bottom, y2=_TOP, class_="zero"))
    title = (
        f"loss of {rows[0][2].metric} against the baseline, and its {rows[0][2].confidence:.0%} bound (right is worse)"
    )
    parts.append(element("text", title, x=(x.start + x.end) / 2, y=bottom + 36, class_="title middle"))
    for row, (index, each, result) in enumerate(rows):
        at = _TOP + _ROW * (row + 0.5)
        tone = TONES[each.outcome]
        tip = (
            f"{index}. {each.recipe.label}: loss {result.loss:.4g}, bound {result.loss_bound:.4g} "
            f"over {result.samples} samples of {result.split}"
        )
        parts.append(
            element(
                "g",
                element("title", tip),
                element("text", _short(f"{index}. {each.recipe.label}"), x=_LABELS - 10, y=at + 4, class_="tick end"),
                element("line", x1=x(result.loss), x2=x(result.loss_bound), y1=at, y2=at, class_=f"whisker {tone}"),
                element("circle", cx=x(result.loss), cy=at, r=5.0, class_=f"dot {tone}"),
            )
        )
    return chart(WIDTH, height, "Accuracy intervals", *parts)


def operators(before: CandidateReport, after: CandidateReport | None) -> Markup | None:
    """Time by operator in one run, before and after, on one scale. None where it was not profiled."""
    sides = [("before", before)] + ([("after", after)] if after is not None and after is not before else [])
    found = [(name, each.recipe.label, _largest(each.operators)) for name, each in sides if each.operators]
    if not found:
        return None
    longest = max(share.milliseconds for _, _, shares in found for share in shares)
    x = Axis(0.0, longest or 1.0, _LABELS, _RIGHT - 120)
    at, parts = _TOP, []
    for name, label, shares in found:
        parts.append(element("text", f"{name}: {label}", x=8.0, y=at + 14, class_="title"))
        at += 22
        for share in shares:
            parts.append(element("text", _short(share.operator), x=_LABELS - 10, y=at + 13, class_="tick end"))
            width = max(x(share.milliseconds) - x.start, 1.0)
            parts.append(element("rect", x=x.start, y=at + 2, width=width, height=14.0, class_=f"bar {name}"))
            text = f"{number(share.milliseconds)} ms, {share.share:.0%}"
            parts.append(element("text", text, x=x.start + width + 6, y=at + 13, class_="tick"))
            at += 20
        at += 12
    return chart(WIDTH, int(at), "Time by operator", *parts)


def _largest(shares: Sequence[OperatorShare]) -> list[OperatorShare]:
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
    line = " ".join(f"{x(point.rows):.1f},{y(point.rows_per_second):.1f}" for point in curve)
    dots = [
        element(
            "g",
            element("title", f"{p.rows} rows: {number(p.rows_per_second)} rows/s, p99 {number(p.p99_milliseconds)} ms"),
            element(
                "circle",
                cx=x(p.rows),
                cy=y(p.rows_per_second),
                r=6.0,
                class_=f"dot {'chosen' if p.rows == chosen else 'plain'}",
            ),
        )
        for p in curve
    ]
    labels = [(float(p.rows), str(p.rows)) for p in curve]
    axes = frame(x, y, "rows in a batch", "rows/s", x_labels=labels)
    return chart(WIDTH, height, "Batch curve", axes, element("polyline", points=line, class_="curve"), *dots)


def _short(label: str) -> str:
    return label if len(label) <= _LABEL_LENGTH else f"{label[: _LABEL_LENGTH - 1]}…"
