"""When the requests of an open loop are sent: fixed before the first of them, so that no answer can delay the next."""

from __future__ import annotations

import random
from enum import StrEnum


class ArrivalProcess(StrEnum):
    """How requests follow each other."""

    POISSON = "poisson"
    """Independent users: exponential gaps, as in MLPerf's scenario Server."""
    CONSTANT = "constant"
    """Equal gaps."""


def arrival_times(process: ArrivalProcess, rate: float, seconds: float, seed: int) -> list[float]:
    """Seconds since the start at which requests are sent, in order.

    Args:
        process: how they follow each other.
        rate: requests a second, on average; above 0.
        seconds: how long.
        seed: the same gives the same times.
    """
    if process is ArrivalProcess.CONSTANT:
        return [number / rate for number in range(round(rate * seconds))]
    source = random.Random(seed)  # noqa: S311 (nobody gains by guessing them)
    times: list[float] = []
    at = source.expovariate(rate)
    while at < seconds:
        times.append(at)
        at += source.expovariate(rate)
    return times
