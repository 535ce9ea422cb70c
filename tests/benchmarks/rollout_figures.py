"""Intervals of shares, and a plot of what rollouts cost by effect."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape
from typing import Any

from tests.benchmarks.report import OUT

_WIDTH, _HEIGHT, _LEFT, _TOP = 460, 300, 60, 40
_COLOURS = ("#1b6ca8", "#c8553d", "#3a7d44", "#8e5ea2")


def exact_interval(events: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share (Clopper and Pearson, Biometrika 26 (1934))."""
    rest = (1 - level) / 2
    low = 0.0 if events == 0 else _root(lambda p: 1 - _at_most(events - 1, trials, p) - rest)
    high = 1.0 if events == trials else _root(lambda p: rest - _at_most(events, trials, p))
    return low, high


def write_plot(power: list[dict[str, Any]], alike: list[dict[str, Any]]) -> None:
    """Requests of the candidate until the verdict, by effect, as `rollout.svg`; beside, false reverts by test."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in power:
        if (
            row["kind"] in ("fails", "wrong answers", "slow at p99 only")
            and row["reverted"] > row["undecided"] + row["promoted"]
        ):
            spent = row["seconds"] if row["kind"] == "wrong answers" else row["requests"]
            unit = "seconds" if row["kind"] == "wrong answers" else "requests"
            lines.setdefault(f"{row['kind']} ({unit}), {row['traffic']}", []).append((row["effect"], max(spent, 1.0)))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * _WIDTH + 320} {_HEIGHT + 90}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        *_power_panel(lines),
        *_alike_panel(alike),
        "</svg>",
    ]
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "rollout.svg").write_text("\n".join(parts) + "\n")


def _power_panel(lines: dict[str, list[tuple[float, float]]]) -> list[str]:
    parts = [
        f'<text x="{_LEFT}" y="20">Median cost of finding a bad candidate, by share of requests that it harms</text>'
    ]
    for tick in range(-3, 1):
        x = _at(10.0**tick, 1e-3, 1.0, _LEFT, _WIDTH)
        parts.append(f'<text x="{x:.0f}" y="{_TOP + _HEIGHT + 18}" text-anchor="middle">{100 * 10.0**tick:g} %</text>')
        parts.append(f'<line x1="{x:.0f}" y1="{_TOP}" x2="{x:.0f}" y2="{_TOP + _HEIGHT}" stroke="#ddd"/>')
    for tick in range(5):
        y = _TOP + _HEIGHT - _at(10.0**tick, 1.0, 1e5, 0, _HEIGHT)
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{10**tick:,}</text>')
        parts.append(f'<line x1="{_LEFT}" y1="{y:.0f}" x2="{_LEFT + _WIDTH}" y2="{y:.0f}" stroke="#ddd"/>')
    for number, (name, points) in enumerate(sorted(lines.items())):
        path = " ".join(
            f"{_at(x, 1e-3, 1.0, _LEFT, _WIDTH):.1f},{_TOP + _HEIGHT - _at(y, 1.0, 1e5, 0, _HEIGHT):.1f}"
            for x, y in sorted(points)
        )
        colour, dash = _COLOURS[number // 2 % 4], "6 4" if name.endswith("bursty") else "none"
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
        )
        y = _TOP + 14 + 18 * number
        x = _LEFT + _WIDTH + 12
        parts.append(
            f'<line x1="{x}" y1="{y}" x2="{x + 24}" y2="{y}" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
        )
        parts.append(f'<text x="{x + 30}" y="{y + 4}">{escape(name)}</text>')
    return parts


def _alike_panel(alike: list[dict[str, Any]]) -> list[str]:
    left = _LEFT + _WIDTH + 300
    parts = [f'<text x="{left}" y="20">A/A rollouts with evidence beyond the bound for 0.001, in percent</text>']
    for number, row in enumerate(alike):
        y = _TOP + 10 + number * 34
        parts.append(f'<text x="{left}" y="{y + 14}">{row["traffic"]}, {row["requests/s"]:g}/s</text>')
        for place, (key, colour) in enumerate((("false reverts", _COLOURS[0]), ("z-test at 0.001", _COLOURS[1]))):
            share = row[key] / row["rollouts"]
            parts.append(
                f'<rect x="{left + 120}" y="{y + 14 * place}" width="{max(1.0, 200 * share):.1f}" height="12" fill="{colour}"/>'
            )
            parts.append(f'<text x="{left + 126 + 200 * share:.0f}" y="{y + 11 + 14 * place}">{100 * share:.1f}</text>')
    y = _TOP + 20 + len(alike) * 34
    parts.append(f'<text x="{left}" y="{y + 8}" fill="{_COLOURS[0]}">the operator</text>')
    parts.append(
        f'<text x="{left + 120}" y="{y + 8}" fill="{_COLOURS[1]}">a fixed-sample test, looked at as often</text>'
    )
    return parts


def _at(value: float, low: float, high: float, start: float, length: float) -> float:
    return start + length * math.log(value / low) / math.log(high / low)


def _root(rising: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


def _at_most(events: int, trials: int, p: float) -> float:
    if p <= 0 or p >= 1:
        return 1.0 if p <= 0 or events >= trials else 0.0
    return math.fsum(
        math.exp(
            math.lgamma(trials + 1)
            - math.lgamma(k + 1)
            - math.lgamma(trials - k + 1)
            + k * math.log(p)
            + (trials - k) * math.log1p(-p)
        )
        for k in range(events + 1)
    )
