"""Floors by the time of the week, on clocks that are changed."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from tests.telling import telling

from penstock.api.v1alpha1 import ScheduledFloor
from penstock.errors import Invalid
from penstock.scaling.schedule import floor_at

OFFICE = {"days": ["Mon", "Fri"], "start": "08:00", "end": "18:00", "timeZone": "Europe/Zurich", "minReplicas": 4}
NIGHT = {"days": ["Sat"], "start": "22:00", "end": "02:00", "timeZone": "Europe/Zurich", "minReplicas": 2}
EARLY = {"start": "02:30", "end": "02:45", "timeZone": "Europe/Zurich", "minReplicas": 3}


def at(utc: str) -> float:
    return dt.datetime.fromisoformat(utc).replace(tzinfo=dt.UTC).timestamp()


def floors(*entries: dict[str, Any]) -> list[ScheduledFloor]:
    return [ScheduledFloor.model_validate(each) for each in entries]


@pytest.mark.parametrize(
    ("name", "entry", "now", "floor"),
    [
        ("before it begins", OFFICE, "2026-07-06 05:59", None),
        ("when it begins, in summer", OFFICE, "2026-07-06 06:00", 4),
        ("at the same time of day in winter, an hour later", OFFICE, "2026-12-07 06:30", None),
        ("when it begins, in winter", OFFICE, "2026-12-07 07:00", 4),
        ("when it ends", OFFICE, "2026-07-06 16:00", None),
        ("on another day", OFFICE, "2026-07-07 08:00", None),
        ("over midnight, before it", NIGHT, "2026-07-04 21:00", 2),
        ("over midnight, after it, on a day that is not its own", NIGHT, "2026-07-04 23:59", 2),
        ("over midnight, on the evening of that day", NIGHT, "2026-07-05 21:00", None),
        ("in the hour that clocks leave out: from the earlier", EARLY, "2026-03-29 00:35", 3),
        ("in the hour that clocks leave out: to the later", EARLY, "2026-03-29 01:40", 3),
        ("in the hour that clocks repeat: the first time", EARLY, "2026-10-25 00:40", 3),
        ("in the hour that clocks repeat: the second time", EARLY, "2026-10-25 01:40", 3),
        ("once it has been repeated", EARLY, "2026-10-25 01:45", None),
    ],
)
def test_a_floor_holds(name: str, entry: dict[str, Any], now: str, floor: int | None) -> None:
    found = floor_at(floors(entry), at(now)).entry
    assert (None if found is None else found.min_replicas) == floor, name


def test_the_greatest_of_several_counts_and_the_next_change_is_told() -> None:
    found = floor_at(floors({**OFFICE, "minReplicas": 2}, {**OFFICE, "end": "12:00"}), at("2026-07-06 07:00"))
    assert found.entry is not None
    assert (found.entry.min_replicas, found.changes_at) == (4, at("2026-07-06 10:00"))


def test_without_a_schedule_nothing_holds_nor_changes() -> None:
    found = floor_at((), 0.0)
    assert (found.entry, found.changes_at) == (None, None)


def test_a_place_that_is_not_known_is_told() -> None:
    with pytest.raises(Invalid, match=telling("schedule Mars/Olympus Europe/Zurich")):
        floor_at(floors({**OFFICE, "timeZone": "Mars/Olympus"}), 0.0)
