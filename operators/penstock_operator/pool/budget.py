"""How much memory what Ray clusters said last may take, all of them together."""

from __future__ import annotations

import threading
from typing import Final, Protocol
from weakref import WeakKeyDictionary

_MOST_BYTES: Final = 64 * 2**20


class Forgetful(Protocol):
    """Who keeps something that it can learn anew."""

    def forget(self) -> None:
        """Keep it no longer. Must wait for nothing."""


class MemoryBudget:
    """One bound for all who keep something: who learned it longest ago forgets it first.

    Args:
        most_bytes: in all, about.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most = most_bytes
        self._weights: WeakKeyDictionary[Forgetful, int] = WeakKeyDictionary()
        """The oldest first; those that are gone go by themselves."""
        self._total = 0
        """Of all; with those that went since it was summed up."""
        self._lock = threading.Lock()

    def charge(self, keeper: Forgetful, weight: int) -> None:
        """Count what one keeps now, and have others forget theirs where it is too much."""
        with self._lock:
            self._total += weight - self._weights.pop(keeper, 0)
            self._weights[keeper] = weight
            others = []
            if self._total > self._most:
                self._total = sum(self._weights.values())
            while self._total > self._most and len(self._weights) > 1:
                others.append(next(iter(self._weights)))
                self._total -= self._weights.pop(others[-1])
        for each in others:
            each.forget()
