"""The least number of replicas that would have been the cheapest to keep, had it been kept all the time that is remembered.

A replica that goes and is needed again is missed for as long as another one starts. Whether it pays to keep it depends on how
often the load comes back, which nobody knows and the past tells: of the rates seen, for each number that might be kept, what its
idle replicas would have cost and what would have been missed, by following the rate with the delay of a start. The cheapest
number is the floor ("follow the leader": Hannan 1957; Kalai and Vempala 2005; to keep a server for as long as a new one costs is
the rule of ski rental: Karlin, Manasse, Rudolph and Sleator 1988; Lin, Wierman, Andrew and Thereska 2011 for data centres). A burst
that came once is soon dearer to wait for than to miss again; one that comes back each few minutes is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from penstock.scaling.staffing import count_for

BIN_SECONDS: Final = 5.0
"""Between two remembered rates."""
REMEMBERED: Final = 180
"""Rates: a quarter of an hour."""
_CANDIDATES: Final = 12


@dataclass(frozen=True, slots=True)
class Floor:
    """A number of replicas to keep, and what it would have been worth."""

    replicas: int = 0
    spared: float = 0.0
    """Requests that would have been answered and were missed without it."""
    replica_seconds: float = 0.0
    """What it would have cost more."""


NO_FLOOR: Final = Floor()


@dataclass(frozen=True, slots=True)
class Staffing:
    """What a number of replicas follows from, but the rate."""

    capacity: float
    """Answers a second of one replica, above 0."""
    slack_seconds: float
    weight: float
    start_seconds: float
    """From a decision to a replica that takes requests."""
    hold_seconds: float = 0.0
    """How long a number is kept anyway."""

    def count(self, rate: float) -> int:
        """Replicas for a rate."""
        return count_for(rate, self.capacity, self.slack_seconds, self.weight)


def cheapest_floor(rates: Sequence[float], staffing: Staffing, lowest: int, highest: int) -> Floor:
    """The cheapest number to keep, of those that were needed at some time; `lowest` where none is cheaper.

    Args:
        rates: requests a second, one each `BIN_SECONDS`, oldest first.
        staffing: what a number follows from.
        lowest: which there would be anyway.
        highest: which is allowed.
    """
    needs = [max(lowest, min(highest, staffing.count(rate))) for rate in rates]
    levels = sorted(set(needs))
    if len(levels) < 2:  # noqa: PLR2004 (one level: nothing to choose)
        return Floor(lowest)
    levels = levels[:: -(-len(levels) // _CANDIDATES)] + levels[-1:]
    followed = _follow(needs, staffing)
    base_seconds, base_missed = _cost(rates, followed, lowest, staffing)
    best, least = Floor(lowest), base_seconds + staffing.weight / staffing.capacity * base_missed
    for level in levels:
        seconds, missed = _cost(rates, followed, level, staffing)
        if (cost := seconds + staffing.weight / staffing.capacity * missed) < least - 1e-9:
            best, least = Floor(level, base_missed - missed, seconds - base_seconds), cost
    return best


def _follow(needs: Sequence[int], staffing: Staffing) -> list[int]:
    """How many would have been there by following: what was needed one start ago, or in the time held before that."""
    delay = max(1, round(staffing.start_seconds / BIN_SECONDS))
    span = delay + round(staffing.hold_seconds / BIN_SECONDS)
    return [max(needs[max(0, at - span) : max(1, at - delay + 1)]) for at in range(len(needs))]


def _cost(rates: Sequence[float], followed: Sequence[int], floor: int, staffing: Staffing) -> tuple[float, float]:
    """Replica-seconds and missed requests with a floor: what waits is bounded by the slack, what comes beyond is missed."""
    waiting = missed = 0.0
    total = 0
    for rate, number in zip(rates, followed, strict=True):
        there = max(floor, number)
        total += there
        answered = there * staffing.capacity
        if rate <= answered and not waiting:  # nearly always
            continue
        waiting = max(0.0, waiting + (rate - answered) * BIN_SECONDS)
        if (over := waiting - answered * staffing.slack_seconds) > 0:
            missed += over
            waiting -= over
    return total * BIN_SECONDS, missed
