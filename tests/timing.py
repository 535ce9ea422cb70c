"""Where the time of a run of the suite went: the slowest tests, each folder's share, and when each worker had done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest

SLOWEST = 10


@dataclass(frozen=True)
class Phase:
    """The setup, call or teardown of a test."""

    test: str
    """Its id."""
    seconds: float
    end: float
    """When it had ended, by the clock."""
    worker: str
    """Where it ran; empty without workers."""


def phases(reports: Iterable[object]) -> Iterator[Phase]:
    """What reports of tests say; those of collection are passed over."""
    for report in reports:
        if isinstance(report, pytest.TestReport):
            yield Phase(report.nodeid, report.duration, report.stop, getattr(report, "worker_id", ""))


def slowest(found: Iterable[Phase], count: int = SLOWEST) -> list[tuple[str, float]]:
    """The tests that took longest, with their fixtures, and the seconds of each."""
    taken: dict[str, float] = defaultdict(float)
    for each in found:
        taken[each.test] += each.seconds
    return sorted(taken.items(), key=lambda item: -item[1])[:count]


def by_folder(found: Iterable[Phase]) -> list[tuple[str, float, int]]:
    """Folders below `tests/`, the one that took longest first, with seconds over all workers and the number of tests."""
    taken: dict[str, float] = defaultdict(float)
    tests: dict[str, set[str]] = defaultdict(set)
    for each in found:
        folder = "/".join(each.test.partition("::")[0].split("/")[:-1][:3])
        taken[folder] += each.seconds
        tests[folder].add(each.test)
    return [(folder, taken[folder], len(tests[folder])) for folder in sorted(taken, key=lambda name: -taken[name])]


def by_worker(found: Iterable[Phase]) -> list[tuple[str, float, float]]:
    """Workers with the seconds that each was at work, and how long before the last one it had done."""
    taken: dict[str, float] = defaultdict(float)
    ends: dict[str, float] = defaultdict(float)
    for each in found:
        taken[each.worker] += each.seconds
        ends[each.worker] = max(ends[each.worker], each.end)
    last = max(ends.values(), default=0.0)
    return [(worker, taken[worker], last - ends[worker]) for worker in sorted(taken) if worker]


def lines(found: list[Phase]) -> Iterator[str]:
    """What is printed at the end of a run."""
    yield "The slowest tests, with what they set up:"
    for test, seconds in slowest(found):
        yield f"{seconds:7.1f} s  {test}"
    yield "By folder, over all workers:"
    for folder, seconds, count in by_folder(found):
        yield f"{seconds:7.1f} s  {folder} ({count})"
    workers = by_worker(found)
    if workers:
        yield "By worker: " + ", ".join(
            f"{worker} {seconds:.0f} s, done {before:.0f} s before the last" for worker, seconds, before in workers
        )
