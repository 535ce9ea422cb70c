"""What the batcher learns of its clients: how many requests come at once."""

from __future__ import annotations


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
