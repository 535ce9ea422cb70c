"""What the batcher learns while it runs: how many requests come at once, and how fast they are served."""

from __future__ import annotations

from typing import Final

_SMOOTHING: Final = 0.2


class Concurrency:
    """The most requests that were in the system at once, of late: the peak of the last one to two windows."""

    def __init__(self, window_seconds: float) -> None:
        self._window = window_seconds
        self._until = float("-inf")
        self._current = 0
        self._previous = 0

    def observe(self, in_system: int, now: float) -> None:
        """A request has arrived and, with it, so many are queued or executing."""
        if now >= self._until:
            self._previous = self._current if now < self._until + self._window else 0
            self._current = 0
            self._until = now + self._window
        self._current = max(self._current, in_system)

    def estimate(self, now: float) -> int:
        """How many requests are likely to be around; 1 while only lone ones came."""
        if now >= self._until + self._window:
            return 1
        return max(self._current, self._previous, 1)


class ServiceRate:
    """Requests a second that the engine answers while it is busy, smoothed exponentially over batches."""

    def __init__(self) -> None:
        self._seconds_each = 0.0

    def observe(self, requests: int, seconds: float) -> None:
        """A batch of so many requests took so long."""
        each = seconds / max(requests, 1)
        self._seconds_each = (
            each if not self._seconds_each else self._seconds_each + _SMOOTHING * (each - self._seconds_each)
        )

    def seconds_for(self, requests: int) -> float:
        """How long so many requests will take; 0 before anything was measured."""
        return requests * self._seconds_each
