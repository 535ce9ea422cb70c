"""SVG and HTML as text, with every value escaped, and axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)
_MOST_LABELS: Final = 8
_ALONE: Final = 0.01
"""Room beside a single value, as a share of it."""


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()

    def __add__(self, other: str) -> Markup:
        return Markup(str(self) + (other if isinstance(other, Markup) else escape(other, quote=False)))


def element(name: str, *children: str, **attributes: object) -> Markup:
    """An element. Plain strings among the children are escaped; `class_` is written `class`, `_` in a name as `-`.

    An attribute of None is left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = "".join(child if isinstance(child, Markup) else escape(child, quote=False) for child in children)
    return Markup(f"<{name}{written}>{inner}</{name}>")


def _text(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values to pixels, and knows where labels go."""

    low: float
    high: float
    start: float
    """Pixel of `low`."""
    end: float
    """Pixel of `high`."""
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return self.start + (self.end - self.start) * (at - low) / (high - low)

    @property
    def ticks(self) -> tuple[float, ...]:
        """Round values between the ends."""
        return _decades(self.low, self.high) if self.logarithmic else _round_steps(self.low, self.high)


def axis(values: Sequence[float], start: float, end: float, *, logarithmic: bool = False, margin: float = 0.06) -> Axis:
    """An axis on which all values lie, with some room at both ends.

    Args:
        values: at least one; above 0 where the axis is logarithmic.
        start: pixel of the low end.
        end: pixel of the high end.
        logarithmic: equal ratios get equal lengths.
        margin: room at each end, as a share of the span.
    """
    low, high = min(values), max(values)
    if logarithmic:
        room = max((high / low) ** margin, 1.1)
        return Axis(low / room, high * room, start, end, logarithmic=True)
    room = (high - low) * margin or abs(high) * _ALONE or 1.0
    return Axis(low - room, high + room, start, end)


def _round_steps(low: float, high: float, wanted: int = 5) -> tuple[float, ...]:
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * each for each in _STEPS if power * each >= rough * 0.999)
    first = math.ceil(low / step)
    return tuple(round(step * i, 12) for i in range(first, math.floor(high / step) + 1))


def _decades(low: float, high: float) -> tuple[float, ...]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for mantissas in ((1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 5), (1, 3), (1,)):
        found = tuple(m * 10.0**power for power in powers for m in mantissas if low <= m * 10.0**power <= high)
        if len(found) <= _MOST_LABELS:
            break
    return found


def number(value: float) -> str:
    """A value with three significant digits, without an exponent where people would not write one."""
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    if digits <= 0:
        return f"{value:,.0f}"
    text = f"{value:.{min(digits, 9)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def frame(
    x: Axis, y: Axis, x_title: str, y_title: str, *, x_labels: Sequence[tuple[float, str]] | None = None
) -> Markup:
    """Grid lines, labels and titles of a chart whose axes are given."""
    parts = [
        element("line", x1=x.start, x2=x.end, y1=y(value), y2=y(value), class_="grid")
        + element("text", number(value), x=x.start - 6, y=y(value) + 4, class_="tick end")
        for value in y.ticks
    ]
    for value, label in x_labels if x_labels is not None else [(each, number(each)) for each in x.ticks]:
        parts.append(element("line", x1=x(value), x2=x(value), y1=y.start, y2=y.end, class_="grid"))
        parts.append(element("text", label, x=x(value), y=y.start + 16, class_="tick middle"))
    middle = (y.start + y.end) / 2
    parts.append(element("text", x_title, x=(x.start + x.end) / 2, y=y.start + 36, class_="title middle"))
    parts.append(
        element("text", y_title, x=14.0, y=middle, class_="title middle", transform=f"rotate(-90 14 {middle:g})")
    )
    return Markup("".join(parts))


def chart(width: int, height: int, label: str, *parts: str) -> Markup:
    """A drawing that scales with the page."""
    return element("svg", *parts, viewBox=f"0 0 {width} {height}", role="img", aria_label=label)
