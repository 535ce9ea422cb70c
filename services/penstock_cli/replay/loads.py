"""Loads: when requests come. Generated ones are rates by second, from which Poisson arrivals are drawn."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Final

from penstock.errors import Invalid
from penstock_cli.files import read_text

_MOST_REQUESTS: Final = 2_000_000
_ROWS: Final = "write seconds, or SECONDS,RATE, one a line, in numbers from 0"
_LONGEST_SHOWN: Final = 60
_HIGH_SECONDS, _LOW_SECONDS = 45.0, 90.0


class LoadShape(StrEnum):
    """How the rate goes over time, from a low to a high one."""

    CONSTANT = "constant"
    """Half-way between both, always."""
    STEP = "step"
    """High in the second third."""
    SPIKE = "spike"
    """High for a thirtieth of the time, low before and after."""
    DIURNAL = "diurnal"
    """One day: a sine from low to high and back."""
    BURSTY = "bursty"
    """A Markov-modulated Poisson process: high for 45 s on average, low for 90 s, both exponentially distributed."""
    SLOW_START = "slow-start"
    """A line from low to high over two thirds, then high."""


def shape_rates(shape: LoadShape, low: float, high: float, seconds: int, seed: int) -> list[float]:
    """Requests a second, by second.

    Args:
        shape: how they go.
        low: the least.
        high: the most.
        seconds: how long.
        seed: of what is random in it.
    """
    third = seconds / 3
    match shape:
        case LoadShape.CONSTANT:
            return [(low + high) / 2] * seconds
        case LoadShape.STEP:
            return [high if third <= at < 2 * third else low for at in range(seconds)]
        case LoadShape.SPIKE:
            return [high if third <= at < third + seconds / 30 else low for at in range(seconds)]
        case LoadShape.DIURNAL:
            middle, half = (low + high) / 2, (high - low) / 2
            return [middle - half * math.cos(2 * math.pi * at / seconds) for at in range(seconds)]
        case LoadShape.SLOW_START:
            return [min(high, low + (high - low) * at / (2 * third)) for at in range(seconds)]
        case LoadShape.BURSTY:
            return _burst(low, high, seconds, random.Random(seed))  # noqa: S311 (nobody gains by guessing them)


def _burst(low: float, high: float, seconds: int, source: random.Random) -> list[float]:
    rates: list[float] = []
    is_high, until = False, source.expovariate(1 / _LOW_SECONDS)
    for at in range(seconds):
        while at >= until:
            is_high = not is_high
            until += source.expovariate(1 / (_HIGH_SECONDS if is_high else _LOW_SECONDS))
        rates.append(high if is_high else low)
    return rates


def draw_arrivals(rates: Sequence[float], seed: int) -> list[float]:
    """Seconds at which requests come, in order: independent of each other, with the rate of each second.

    Raises:
        Invalid: there are more of them than a replay is made for.
    """
    if sum(rates) > _MOST_REQUESTS:
        raise Invalid(
            "InvalidLoad", f"{sum(rates):,.0f} requests are more than {_MOST_REQUESTS:,}: replay a shorter load"
        )
    source = random.Random(seed)  # noqa: S311 (nobody gains by guessing them)
    times: list[float] = []
    # A unit-rate Poisson process, with its clock run at the load's rate.
    due = source.expovariate(1.0)
    for second, rate in enumerate(rates):
        while due < rate:
            times.append(second + due / rate)
            due += source.expovariate(1.0)
        due -= rate
    return times


def read_load(path: Path, seed: int) -> list[float]:
    """The arrivals of a recorded load, in seconds from 0.

    The file has one number a line, the seconds at which a request came; or `SECONDS,RATE` on each line: requests a second from
    then on, until the last line.

    Raises:
        Invalid: it is neither.
    """
    numbers: list[tuple[float, ...]] = []
    for at, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip() and not line.strip().startswith("#"):
            numbers.append(_read_row(line.strip(), f"{path}:{at}"))
    if not numbers:
        raise Invalid("InvalidLoad", f"{path}: there is no request in it: {_ROWS}")
    if all(len(row) == 1 for row in numbers):
        times = sorted(row[0] for row in numbers)
        return [each - times[0] for each in times]
    if not all(len(row) == 2 for row in numbers) or any(b[0] <= a[0] for a, b in pairwise(numbers)):  # noqa: PLR2004 (a pair)
        raise Invalid("InvalidLoad", f"{path}: write SECONDS,RATE on every line, with growing seconds")
    return draw_arrivals(_spread(numbers), seed)


def _read_row(line: str, where: str) -> tuple[float, ...]:
    try:
        row = tuple(float(each) for each in line.split(","))
    except ValueError:
        row = (-1.0,)
    if any(not math.isfinite(each) or each < 0 for each in row):
        shown = line if len(line) <= _LONGEST_SHOWN else f"{line[:_LONGEST_SHOWN]}…"
        raise Invalid("InvalidLoad", f"{where}: {shown!r} is no such line: {_ROWS}; what is a heading begins with #")
    return row


def _spread(points: Sequence[tuple[float, ...]]) -> list[float]:
    """Rates by second: of each second, that of the last line at or before it."""
    rates: list[float] = []
    for (start, rate), (end, _) in pairwise(points):
        rates += [rate] * (round(end - points[0][0]) - round(start - points[0][0]))
    return rates
