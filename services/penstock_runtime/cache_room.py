"""The room that one fetch takes in a model cache."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from penstock.api.conditions import Reason
from penstock.errors import Unavailable

_STEP_BYTES: Final = 8 * 1024 * 1024
"""Room is reserved so much ahead where a model's size is not known."""


class RoomOwner(Protocol):
    """The cache whose room it is."""

    @property
    def folder(self) -> Path:
        """Where the cache lies."""

    def make_room(self, reservation: Path, wanted: int, needed: int) -> int:
        """Reserve bytes for a fetch; how many it has then."""

    def remove_one(self, reservation: Path) -> bool:
        """Remove a model that is not in use; False where there is none."""


class Reservation:
    """The room of one fetch."""

    def __init__(self, cache: RoomOwner, staging: Path, size: int | None) -> None:
        self._cache = cache
        self._staging = staging
        self._claimed = 0
        self._reserved = size or 0
        if size:
            cache.make_room(staging, size, size)

    def claim(self, count: int) -> None:
        """Have room for so many more bytes."""
        self._claimed += count
        if self._claimed > self._reserved:
            self._reserved = self._cache.make_room(self._staging, self._claimed + _STEP_BYTES, self._claimed)

    def reclaim(self, error: OSError) -> None:
        """Make room after the disk said that it is full."""
        if not self._cache.remove_one(self._staging):
            raise Unavailable(
                Reason.CACHE_UNAVAILABLE,
                f"the disk of the model cache {self._cache.folder} is full after {mebibytes(self._claimed)} of this model, and "
                "all other models there are in use: give the pool's nodes a larger disk",
            ) from error


def mebibytes(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 2**20:,.1f} MiB"
