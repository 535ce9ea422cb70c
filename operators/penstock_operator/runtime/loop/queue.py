"""A work queue: each key at most once, at its time, never by two workers at once, with back-off for those that fail."""

from __future__ import annotations

import heapq
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait after the n-th failure in a row: `base * 2**(n-1)`, at most `maximum`."""

    base: float = 0.2
    maximum: float = 30.0

    def delay(self, failures: int, jitter: float) -> float:
        """The wait after `failures` (from 1) failures, shortened by up to half: `jitter` is from 0 to 1."""
        exponent = min(failures - 1, 62)
        return min(self.maximum, self.base * 2.0**exponent) * (1.0 - 0.5 * jitter)


@dataclass(frozen=True, slots=True)
class Shares:
    """How many keys may be processed at once of what belongs together; a tenant's slow keys leave room for others'.

    A key is slow whose processing took long the last time, and a group, such as a namespace, while it has such a key.
    """

    group: int
    """Of one group."""
    slow_group: int
    """Of one that is slow: by fresh keys it could hold as many workers as by those known to be slow."""
    slow_groups: int
    """Of all slow groups together."""
    slow: int
    """Slow keys of all groups together; one of each group."""

    @staticmethod
    def from_workers(workers: int, *, one_group: bool = False) -> Shares:
        """A group has three quarters of the workers, or all where it is alone; each share is one at least."""
        slow = max(1, workers // 4)
        if one_group:
            return Shares(workers, max(1, workers - slow), workers, slow)
        return Shares(max(1, workers * 3 // 4), max(1, workers * 3 // 8), max(1, workers * 5 // 8), slow)


_SLOW: Final = "slow"
_SLOW_GROUPS: Final = "slow groups"
"""Lanes that are shared by all groups."""
_ALL: Final = Shares(sys.maxsize, sys.maxsize, sys.maxsize, sys.maxsize)


class Schedule(Generic[K]):
    """The queue's decisions, without a clock or a lock: the caller says what time it is.

    A key belongs to lanes: its group's, and those of what is slow. While a lane is full, its keys that are due are parked, and
    each key that leaves it lets one go on.

    Args:
        backoff: of keys that fail.
        jitter: from 0 to 1.
        group: of a key.
        shares: of groups and of slow keys.
    """

    def __init__(
        self,
        backoff: Backoff = Backoff(),  # frozen
        jitter: Callable[[], float] = lambda: 0.0,
        group: Callable[[K], Hashable] = lambda _: None,
        shares: Shares = _ALL,
    ) -> None:
        self._backoff = backoff
        self._jitter = jitter
        self._group = group
        self._shares = shares
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._order = 0
        self._processing: dict[K, tuple[Hashable, ...]] = {}
        """With the lanes that they were taken in."""
        self._taken: Counter[Hashable] = Counter()
        """By lane."""
        self._parked: dict[Hashable, list[tuple[float, int, K]]] = {}
        self._waiting: set[K] = set()
        """Keys that are parked at their present time."""
        self._slow: set[K] = set()
        self._slow_groups: Counter[Hashable] = Counter()
        """How many slow keys each has."""
        self._failures: dict[K, int] = {}

    def __len__(self) -> int:
        return len(self._due)

    def add(self, key: K, due: float) -> None:
        """Want a key processed at `due` or, where it waits already, at the earlier of both times."""
        waiting = self._due.get(key)
        if waiting is not None and waiting <= due:
            return
        self._due[key] = due
        self._waiting.discard(key)
        self._order += 1
        heapq.heappush(self._heap, (due, self._order, key))

    def take(self, now: float) -> K | None:
        """The key that has been due longest, is not being processed, and whose lanes have room; now marked as processed."""
        held: list[tuple[float, int, K]] = []
        taken: K | None = None
        while self._heap and self._heap[0][0] <= now:
            entry = heapq.heappop(self._heap)
            due, _, key = entry
            if self._due.get(key) != due or key in self._waiting:
                continue  # superseded by an earlier time
            if key in self._processing:
                held.append(entry)
                continue
            lanes = self._lanes(key)
            full = next((lane for lane, most in lanes.items() if self._taken[lane] >= most), None)
            if full is not None:
                self._park(entry, lanes, full)
                continue
            del self._due[key]
            self._processing[key] = tuple(lanes)
            self._taken.update(lanes.keys())
            taken = key
            break
        for entry in held:
            heapq.heappush(self._heap, entry)
        return taken

    def next_due(self) -> float | None:
        """When the next key is due that is neither being processed nor parked; None where there is none."""
        idle = (due for key, due in self._due.items() if key not in self._processing and key not in self._waiting)
        return min(idle, default=None)

    def overdue_seconds(self, now: float) -> float:
        """For how long the key that has been due longest has waited, parked or not, and is not being processed."""
        return max((now - due for key, due in self._due.items() if key not in self._processing), default=0.0)

    def mark_succeeded(self, key: K, *, slow: bool = False) -> None:
        """Processing ended well: the key's failures are forgotten. `slow`: it took long."""
        self._leave_lanes(key, slow=slow)
        self._failures.pop(key, None)

    def mark_failed(self, key: K, now: float, *, slow: bool = False) -> float:
        """Processing failed: the key is due again after its back-off, whose seconds are returned."""
        self._leave_lanes(key, slow=slow)
        failures = self._failures.get(key, 0) + 1
        self._failures[key] = failures
        delay = self._backoff.delay(failures, self._jitter())
        self.add(key, now + delay)
        return delay

    def _lanes(self, key: K) -> dict[Hashable, int]:
        """A key's lanes, with how many each has room for."""
        group, shares = self._group(key), self._shares
        if not self._slow_groups[group]:
            return {("group", group): shares.group}
        lanes: dict[Hashable, int] = {("group", group): shares.slow_group, _SLOW_GROUPS: shares.slow_groups}
        return {**lanes, _SLOW: shares.slow, (_SLOW, group): 1} if key in self._slow else lanes

    def _park(self, entry: tuple[float, int, K], lanes: Mapping[Hashable, int], full: Hashable) -> None:
        heapq.heappush(self._parked.setdefault(full, []), entry)
        self._waiting.add(entry[2])
        for lane, most in lanes.items():
            if lane is not full and self._taken[lane] < most:
                self._admit_next(lane)  # this key was to take the room there, and cannot

    def _leave_lanes(self, key: K, *, slow: bool) -> None:
        self._note(key, slow=slow)
        for lane in self._processing.pop(key, ()):
            self._taken[lane] -= 1
            if not self._taken[lane]:
                del self._taken[lane]
            self._admit_next(lane)

    def _note(self, key: K, *, slow: bool) -> None:
        """Whether a key is slow now; a group that has no slow one any more has more room."""
        if slow == (key in self._slow):
            return
        group = self._group(key)
        (self._slow.add if slow else self._slow.discard)(key)
        self._slow_groups[group] += 1 if slow else -1
        if not self._slow_groups[group]:
            del self._slow_groups[group]
            for lane in (("group", group), _SLOW_GROUPS):
                while lane in self._parked:
                    self._admit_next(lane)

    def _admit_next(self, lane: Hashable) -> None:
        """One key that waited for room in a lane is looked at again."""
        parked = self._parked.get(lane, [])
        while parked:
            entry = heapq.heappop(parked)
            due, _, key = entry
            if self._due.get(key) == due and key in self._waiting:
                self._waiting.discard(key)
                heapq.heappush(self._heap, entry)
                break
        if not parked:
            self._parked.pop(lane, None)


class WorkQueue(Generic[K]):
    """A `Schedule` that threads share and can wait on."""

    def __init__(self, schedule: Schedule[K]) -> None:
        self._schedule = schedule
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        with self._changed:
            return len(self._schedule)

    def overdue_seconds(self) -> float:
        """See `Schedule.overdue_seconds`."""
        with self._changed:
            return self._schedule.overdue_seconds(time.monotonic())

    def add(self, key: K, after: float = 0.0) -> None:
        """Want a key processed in `after` seconds at the latest."""
        with self._changed:
            self._schedule.add(key, time.monotonic() + after)
            self._changed.notify()

    def take(self, timeout: float) -> K | None:
        """Wait up to `timeout` seconds for a key; None where none came or the queue is closed."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                key = self._schedule.take(now)
                if key is not None:
                    return key
                if now >= deadline:
                    return None
                due = self._schedule.next_due()
                self._changed.wait(min(deadline, deadline if due is None else due) - now)
        return None

    def mark_succeeded(self, key: K, requeue_after: float | None = None, *, slow: bool = False) -> None:
        """Processing ended well; process again in `requeue_after` seconds where given. `slow`: it took long."""
        with self._changed:
            self._schedule.mark_succeeded(key, slow=slow)
            if requeue_after is not None:
                self._schedule.add(key, time.monotonic() + requeue_after)
            self._changed.notify()

    def mark_failed(self, key: K, *, slow: bool = False) -> float:
        """Processing failed; returns the seconds until the key is due again. `slow`: it took long."""
        with self._changed:
            delay = self._schedule.mark_failed(key, time.monotonic(), slow=slow)
            self._changed.notify()
            return delay

    def close(self) -> None:
        """Wake every waiting worker with None, from now on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
