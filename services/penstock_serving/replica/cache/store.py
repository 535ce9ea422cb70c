"""Answers by key within a number of bytes, for a limited time.

What leaves first is decided by S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023,
algorithm 1): a new answer waits in a small queue, and only one that was asked for again there, or soon after it left, gets
into the main one. A flood of inputs that never come again passes through the small queue and takes nothing with it.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Answer = Mapping[str, Array]

_SMALL_SHARE: Final = 0.1
_MAX_USES: Final = 3
_PROMOTED_USES: Final = 2
ENTRY_BYTES: Final = 400
"""What the interpreter keeps for an entry beside its key, its arrays and the mapping that holds them: by measurement."""
GHOST_BYTES: Final = 220
"""The same for the memory of a key that has left."""


class _Entry:
    """A plain class with slots; one is made for each answer that is kept."""

    __slots__ = ("answer", "size", "stored_at", "uses")

    def __init__(self, answer: Answer, size: int, stored_at: float) -> None:
        self.answer = answer
        self.size = size
        self.stored_at = stored_at
        self.uses = 0


class AnswerStore:
    """Keeps answers. Times are seconds of any monotonic clock.

    Args:
        max_bytes: of keys and answers together, with what keeping them costs. Never exceeded.
        ttl_seconds: an answer that is so old is not given any more. Its memory is used again when room is needed.
    """

    def __init__(self, max_bytes: int, ttl_seconds: float) -> None:
        self._max_bytes = max_bytes
        self._ttl = ttl_seconds
        self._small: OrderedDict[bytes, _Entry] = OrderedDict()
        self._main: OrderedDict[bytes, _Entry] = OrderedDict()
        self._ghosts: OrderedDict[int, int] = OrderedDict()
        """Hashes of keys that left the small queue, and the size of the answers that they had."""
        self._small_bytes = 0
        self._ghosts_stand_for = 0
        self.bytes_used = 0
        self.evictions = 0

    def __len__(self) -> int:
        """How many answers are kept."""
        return len(self._small) + len(self._main)

    def find(self, key: bytes, now: float) -> Answer | None:
        """The answer for a key, unless there is none or it is too old."""
        entry = self._main.get(key) or self._small.get(key)
        if entry is None:
            return None
        if now - entry.stored_at >= self._ttl:
            self._remove(key)
            return None
        if entry.uses < _MAX_USES:
            entry.uses += 1
        return entry.answer

    def keep(self, key: bytes, answer: Answer, now: float) -> bool:
        """Keep a copy of an answer, in the place of the one that there was. False where it is too large."""
        size = sys.getsizeof(key) + ENTRY_BYTES
        # Refused before it is copied.
        if size + sum(array.nbytes for array in answer.values()) > self._max_bytes:
            return False
        kept = {name: _frozen_copy(array) for name, array in answer.items()}
        size += sys.getsizeof(kept) + sum(map(_size_of, kept.values()))
        if size > self._max_bytes:
            return False
        self._remove(key)
        remembered = self._forget(hash(key))
        self._make_room(self._max_bytes - size, now)
        entry = _Entry(kept, size, now)
        if remembered:
            self._main[key] = entry
        else:
            self._small[key] = entry
            self._small_bytes += size
        self.bytes_used += size
        return True

    def resize(self, max_bytes: int, ttl_seconds: float, now: float) -> None:
        """Take other bounds at once; both hold for what is already kept."""
        self._max_bytes = max_bytes
        self._ttl = ttl_seconds
        self._make_room(max_bytes, now)

    def _remove(self, key: bytes) -> None:
        entry = self._main.pop(key, None)
        if entry is None:
            entry = self._small.pop(key, None)
            if entry is None:
                return
            self._small_bytes -= entry.size
        self.bytes_used -= entry.size

    def _forget(self, ghost: int) -> bool:
        stood_for = self._ghosts.pop(ghost, None)
        if stood_for is None:
            return False
        self._ghosts_stand_for -= stood_for
        self.bytes_used -= GHOST_BYTES
        return True

    def _make_room(self, bound: int, now: float) -> None:
        """Evict until no more than `bound` bytes are in use."""
        while self.bytes_used > bound:
            if self._small and (self._small_bytes > _SMALL_SHARE * self._max_bytes or not self._main):
                self._evict_small(now)
            elif self._main:
                self._evict_main(now)
            else:
                self._forget(next(iter(self._ghosts)))

    def _evict_small(self, now: float) -> None:
        key, entry = self._small.popitem(last=False)
        self._small_bytes -= entry.size
        fresh = now - entry.stored_at < self._ttl
        if fresh and entry.uses >= _PROMOTED_USES:
            entry.uses = 0
            self._main[key] = entry
            return
        self.bytes_used -= entry.size
        self.evictions += 1
        if fresh:
            self._remember(hash(key), entry.size)

    def _evict_main(self, now: float) -> None:
        key, entry = self._main.popitem(last=False)
        if entry.uses and now - entry.stored_at < self._ttl:
            entry.uses -= 1
            self._main[key] = entry
            return
        self.bytes_used -= entry.size
        self.evictions += 1

    def _remember(self, ghost: int, size: int) -> None:
        """Remember that a key was here; together, such keys stand for as many bytes as the main queue may hold."""
        self._forget(ghost)
        self._ghosts[ghost] = size
        self._ghosts_stand_for += size
        self.bytes_used += GHOST_BYTES
        while self._ghosts_stand_for > (1 - _SMALL_SHARE) * self._max_bytes:
            self._forget(next(iter(self._ghosts)))


def _frozen_copy(array: Array) -> Array:
    """A copy that shares no memory with its batch or its engine, and that nobody can change."""
    copied: Array = np.array(array, order="C")
    copied.flags.writeable = False
    return copied


def _size_of(array: Array) -> int:
    size = sys.getsizeof(array)
    return size + sum(map(sys.getsizeof, array.reshape(-1))) if array.dtype.hasobject else size
