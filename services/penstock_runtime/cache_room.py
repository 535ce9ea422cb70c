"""The room that one fetch takes in a model cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from penstock.api.conditions import Reason
from penstock.errors import Unavailable

if TYPE_CHECKING:
    from penstock_runtime.model_cache import ModelCache

_STEP_BYTES: Final = 8 * 1024 * 1024
"""Room is reserved so much ahead where a model's size is not known."""


class Reservation:
    """The room of one fetch."""

    def __init__(self, cache: ModelCache, staging: Path, size: int | None) -> None:
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
