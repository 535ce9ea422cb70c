"""What was learned a moment ago. It is kept to spare work alone: whatever is forgotten, at any time, is only learned anew.

What nobody asks for any more goes by itself, since nobody tells when it is gone. A value that holds for a version of an object
has the version in its key.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Values by key, each for so many seconds from when it was learned. Safe for several threads.

    Args:
        seconds: after which a value is forgotten, at the next that is kept.
        clock: monotonic seconds.
        forget: told each value that is forgotten, or that another took the place of.
    """

    def __init__(
        self,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        forget: Callable[[V], object] = lambda _: None,
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._forget = forget
        self._kept: dict[K, tuple[float, V]] = {}
        """The oldest first."""
        self._outdated: dict[K, float] = {}
        """Until when what was learned counts no more."""
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """The value, where it is not too old."""
        with self._lock:
            found = self._kept.get(key)
        return None if found is None or self._is_old(found[0]) else found[1]

    def obtain(self, key: K, learn: Callable[[], V]) -> V:
        """The value, learned now where there is none that is not too old."""
        found = self.get(key)
        if found is not None:
            return found
        started = self._clock()
        return self.keep(key, learn(), started)

    def keep(self, key: K, value: V, since: float) -> V:
        """Keep a value, as of a time by the clock, or keep it for longer; the value."""
        with self._lock:
            if since <= self._outdated.get(key, float("-inf")):
                return value
            before = self._kept.pop(key, None)
            self._kept[key] = since, value
            forgotten = [] if before is None or before[1] is value else [before[1]]
            while self._kept and self._is_old(self._kept[oldest := next(iter(self._kept))][0]):
                forgotten.append(self._kept.pop(oldest)[1])
        for each in forgotten:
            self._forget(each)
        return value

    def outdate(self, key: K) -> None:
        """Something changed: what was learned until now, and what is being learned, counts no more."""
        with self._lock:
            now = self._clock()
            self._outdated = {each: at for each, at in self._outdated.items() if not self._is_old(at)} | {key: now}
            forgotten = self._kept.pop(key, None)
        if forgotten is not None:
            self._forget(forgotten[1])

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            forgotten, self._kept = [value for _, value in self._kept.values()], {}
        for each in forgotten:
            self._forget(each)

    def _is_old(self, since: float) -> bool:
        return self._clock() - since > self._seconds
