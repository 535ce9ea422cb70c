"""Axes, and numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)
_MOST_LABELS: Final = 8
_ROUND_STEPS: Final = 5
"""As many labels, more or less, where they are round numbers."""
_ALONE: Final = 0.01
"""Room beside a single value, as a share of it."""


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
        """The pixel of a value, to two places."""
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return round(self.start + (self.end - self.start) * (at - low) / (high - low), 2)

    @property
    def middle(self) -> float:
        """The pixel between both ends."""
        return (self.start + self.end) / 2

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


def _round_steps(low: float, high: float) -> tuple[float, ...]:
    rough = (high - low) / _ROUND_STEPS
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
