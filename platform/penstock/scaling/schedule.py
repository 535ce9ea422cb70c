"""Floors by the time of the week: when which holds, on the clocks of a place, also on the days on which these are changed."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from penstock.api.conditions import Reason
from penstock.api.v1alpha1 import ScheduledFloor, Weekday
from penstock.errors import Invalid

_DAYS = tuple(Weekday)
_AHEAD = 8
"""Days in which every entry begins at least once."""


@dataclass(frozen=True, slots=True)
class FloorNow:
    """What a schedule says of a moment."""

    entry: ScheduledFloor | None
    """The highest floor that holds; None: none does."""
    changes_at: float | None
    """When an entry next begins or ends, in epoch seconds; None where there is none."""


def floor_at(schedule: Sequence[ScheduledFloor], now: float) -> FloorNow:
    """What a schedule says of `now` (epoch seconds).

    Raises:
        Invalid: a time zone is not known here.
    """
    spans = [(each, *span) for each in schedule for span in _spans(each, now)]
    holding = [each for each, begin, end in spans if begin <= now < end]
    changes = [when for _, *span in spans for when in span if when > now]
    return FloorNow(max(holding, key=lambda each: each.min_replicas, default=None), min(changes, default=None))


def _spans(entry: ScheduledFloor, now: float) -> Iterator[tuple[float, float]]:
    """When it begins and ends, from yesterday on. What ends before it begins ends on the next day.

    Where clocks leave an hour out or repeat one, a time in it means two moments: the floor holds from the earlier to the later.
    """
    zone = _zone(entry.time_zone)
    today = dt.datetime.fromtimestamp(now, zone).date()
    begin, end = dt.time.fromisoformat(entry.start), dt.time.fromisoformat(entry.end)
    for ahead in range(-1, _AHEAD):
        day = today + dt.timedelta(days=ahead)
        if entry.days and _DAYS[day.weekday()] not in entry.days:
            continue
        last = day + dt.timedelta(days=int(end <= begin))
        yield min(_moments(day, begin, zone)), max(_moments(last, end, zone))


def _moments(day: dt.date, time: dt.time, zone: dt.tzinfo) -> tuple[float, float]:
    wall = dt.datetime.combine(day, time, zone)
    return wall.timestamp(), wall.replace(fold=1).timestamp()


def _zone(name: str) -> dt.tzinfo:
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise Invalid(
            Reason.INVALID_SPEC,
            f'spec.scaling.schedule has the time zone "{name}", which is not known: write one such as Europe/Zurich or UTC',
        ) from error
