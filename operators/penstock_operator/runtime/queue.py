"""A work queue: each key at most once, at its time, never by two workers at once, with back-off for those that fail."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

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


class Schedule(Generic[K]):
    """The queue's decisions, without a clock or a lock: the caller says what time it is."""

    def __init__(self, backoff: Backoff = Backoff(), jitter: Callable[[], float] = lambda: 0.0) -> None:  # frozen
        self._backoff = backoff
        self._jitter = jitter
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._order = 0
        self._processing: set[K] = set()
        self._failures: dict[K, int] = {}

    def __len__(self) -> int:
        return len(self._due)

    def add(self, key: K, due: float) -> None:
        """Want a key processed at `due` or, where it waits already, at the earlier of both times."""
        waiting = self._due.get(key)
        if waiting is not None and waiting <= due:
            return
        self._due[key] = due
        self._order += 1
        heapq.heappush(self._heap, (due, self._order, key))

    def take(self, now: float) -> K | None:
        """The key that has been due longest and is not being processed, now marked as being processed."""
        held: list[tuple[float, int, K]] = []
        taken: K | None = None
        while self._heap and self._heap[0][0] <= now:
            entry = heapq.heappop(self._heap)
            due, _, key = entry
            if self._due.get(key) != due:
                continue  # superseded by an earlier time
            if key in self._processing:
                held.append(entry)
                continue
            del self._due[key]
            self._processing.add(key)
            taken = key
            break
        for entry in held:
            heapq.heappush(self._heap, entry)
        return taken

    def next_due(self) -> float | None:
        """When the next key that is not being processed is due; None where there is none."""
        return min((due for key, due in self._due.items() if key not in self._processing), default=None)

    def succeeded(self, key: K) -> None:
        """Processing ended well: the key's failures are forgotten."""
        self._processing.discard(key)
        self._failures.pop(key, None)

    def failed(self, key: K, now: float) -> float:
        """Processing failed: the key is due again after its back-off, whose seconds are returned."""
        self._processing.discard(key)
        failures = self._failures.get(key, 0) + 1
        self._failures[key] = failures
        delay = self._backoff.delay(failures, self._jitter())
        self.add(key, now + delay)
        return delay


class WorkQueue(Generic[K]):
    """A `Schedule` that threads share and can wait on."""

    def __init__(self, schedule: Schedule[K], clock: Callable[[], float] = time.monotonic) -> None:
        self._schedule = schedule
        self._clock = clock
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        with self._changed:
            return len(self._schedule)

    def add(self, key: K, after: float = 0.0) -> None:
        """Want a key processed in `after` seconds at the latest."""
        with self._changed:
            self._schedule.add(key, self._clock() + after)
            self._changed.notify()

    def take(self, timeout: float) -> K | None:
        """Wait up to `timeout` seconds for a key; None where none came or the queue is closed."""
        deadline = self._clock() + timeout
        with self._changed:
            while not self._closed:
                now = self._clock()
                key = self._schedule.take(now)
                if key is not None:
                    return key
                if now >= deadline:
                    return None
                due = self._schedule.next_due()
                self._changed.wait(min(deadline, deadline if due is None else due) - now)
        return None

    def succeeded(self, key: K, requeue_after: float | None = None) -> None:
        """Processing ended well; process again in `requeue_after` seconds where given."""
        with self._changed:
            self._schedule.succeeded(key)
            if requeue_after is not None:
                self._schedule.add(key, self._clock() + requeue_after)
            self._changed.notify()

    def failed(self, key: K) -> float:
        """Processing failed; returns the seconds until the key is due again."""
        with self._changed:
            delay = self._schedule.failed(key, self._clock())
            self._changed.notify()
            return delay

    def close(self) -> None:
        """Wake every waiting worker with None, from now on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
