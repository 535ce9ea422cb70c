"""Fetched models in a folder of the node, shared by all its replicas.

In the folder, for each model by its key (`penstock_runtime.sources.source.RemoteListing.key`):

- `KEY/model/`: its files; `KEY/record.json`: their sizes and SHA-256. The folder appears whole, by renaming.
- `KEY.lock`: locked (flock) shared while a replica serves from it, exclusively while it is fetched or removed. Its time of
  modification is that of the last use.
- `.fetching-KEY/`: a fetch that is under way, or was when its process died: then the next one for it goes on there.

`.lock` is held, for moments, by who counts bytes or removes a model. Locks go with the process that holds them, so there
is nothing to clean up after one that was killed, except for `.fetching-KEY`, which the next fetch of anything removes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pydantic import ValidationError

from penstock.api.conditions import Reason
from penstock.errors import Unavailable
from penstock.models import Frozen
from penstock.serving.manifest import ModelFile
from penstock_runtime.atomic import READABLE_BY_ALL, write_atomically
from penstock_runtime.cache_locks import CacheLocks, explain_failures
from penstock_runtime.cache_room import Reservation, mebibytes
from penstock_runtime.downloading import Room
from penstock_runtime.files import sha256_of
from penstock_runtime.sources.source import SourceChanged

_MODEL: Final = "model"
_RECORD: Final = "record.json"
_RESERVED: Final = "reserved"
_FETCHING: Final = ".fetching-"
_REMOVED: Final = ".removed-"
_WAIT_SECONDS: Final = 3600.0
_ABANDONED_SECONDS: Final = 600.0
"""After which a fetch that nobody works on is removed, if no one needs its room sooner."""
Fill = Callable[[Path, Room], dict[str, ModelFile]]
"""Brings a model into a folder and says what it brought."""


class _Record(Frozen):
    """`record.json`."""

    uri: str
    bytes: int
    files: dict[str, ModelFile]


@dataclass
class HeldModel:
    """A model that stays where it is until this is closed, or its process ends."""

    path: Path
    """Folder of its files."""
    key: str = ""
    """Of a model in the cache; empty for one that lies elsewhere."""
    lock: int | None = field(default=None, repr=False)

    def touch(self) -> None:
        """Note that it is in use now."""
        if self.lock is not None:
            os.utime(self.lock)

    def close(self) -> None:
        """Let it be removed when its room is needed."""
        if self.lock is not None:
            self.touch()
            os.close(self.lock)
            self.lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ModelCache:
    """The folder.

    Args:
        folder: made where it is not there.
        max_bytes: of all models together; None: as many as the disk has.
    """

    def __init__(self, folder: Path, max_bytes: int | None = None) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._locks = CacheLocks(folder, _WAIT_SECONDS)

    def get(self, key: str, uri: str, size: int | None, fill: Fill) -> HeldModel:
        """A model, brought by `fill` where it is not there. Of several processes, one fills and the others wait.

        Its files are read and compared with what was recorded; what changed is fetched again.

        Args:
            key: of its content.
            uri: for the record.
            size: bytes that it will take; None where that is not known.
            fill: see `Fill`.

        Raises:
            Unavailable: CacheUnavailable: no room, no access, or another process fetches for too long.
            PenstockError: whatever `fill` raises.
        """
        with explain_failures(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        while True:
            held = self._acquire_shared(key)
            if self._is_whole(key):
                held.touch()
                return held
            held.close()
            with self._locks.lock_exclusive(key):
                if not (self.folder / key).exists():
                    self._fill(key, uri, size, fill)

    def acquire(self, key: str) -> HeldModel | None:
        """A model that was just got by a process that has let go of it; None where it went meanwhile."""
        held = self._acquire_shared(key)
        if (self.folder / key / _RECORD).is_file():
            return held
        held.close()
        return None

    def used_bytes(self) -> int:
        """Of all models and of fetches that are under way."""
        return sum(self._sizes().values()) + sum(
            self._reserved_bytes(each) for each in self.folder.glob(f"{_FETCHING}*")
        )

    def _acquire_shared(self, key: str) -> HeldModel:
        return HeldModel(self.folder / key / _MODEL, key, self._locks.lock_shared(key))

    def _fill(self, key: str, uri: str, size: int | None, fill: Fill) -> None:
        """Under the exclusive lock."""
        staging = self.folder / f"{_FETCHING}{key}"
        self._sweep(_ABANDONED_SECONDS, but=staging)
        try:
            with explain_failures(self.folder):
                (staging / _MODEL).mkdir(parents=True, exist_ok=True)
            room = Reservation(self, staging, size)
            with explain_failures(self.folder):
                files = fill(staging / _MODEL, room)
                total = sum(each.size_bytes for each in files.values())
                record = _Record(uri=uri, bytes=total, files=files)
                write_atomically(staging / _RECORD, record.model_dump_json().encode(), READABLE_BY_ALL)
                (staging / _RESERVED).unlink(missing_ok=True)
                staging.rename(self.folder / key)
        except BaseException as error:
            # What a store broke off is gone on with by the next fetch; all else begins anew.
            broken_off = isinstance(error, Unavailable) and error.reason == Reason.STORAGE_UNREACHABLE
            if not broken_off or isinstance(error, SourceChanged):
                shutil.rmtree(staging, ignore_errors=True)
                self._locks.path(key).unlink(missing_ok=True)
            raise

    def _is_whole(self, key: str) -> bool:
        """Whether a model is there as it was recorded. One that is not is put out of the way, for good."""
        folder = self.folder / key
        try:
            seen = _identity(folder)
            record = _Record.model_validate_json((folder / _RECORD).read_bytes())
            if all(_is_unchanged(folder / _MODEL / name, about) for name, about in record.files.items()):
                return True
        except FileNotFoundError:
            return False
        except ValidationError:
            pass
        with self._locks.lock_accounts():
            # Another process may have put a good one there since. Who serves the bad one keeps its lock, on a file that
            # has no name any more.
            if folder.exists() and _identity(folder) == seen:
                self._remove(key)
        return False

    def make_room(self, reservation: Path, wanted: int, needed: int) -> int:
        """Reserve bytes for a fetch, removing what was least recently used.

        Args:
            reservation: the fetch's folder.
            wanted: bytes in all.
            needed: as many will do.

        Returns:
            What is reserved now.

        Raises:
            Unavailable: CacheUnavailable.
        """
        with self._locks.lock_accounts():
            held = self._reserved_bytes(reservation)
            while wanted > held:
                used = self.used_bytes() - held
                free = shutil.disk_usage(self.folder).free + held
                most = free if self.max_bytes is None else min(free, self.max_bytes - used)
                if wanted <= most:
                    held = wanted
                elif not self._remove_oldest(reservation):
                    if needed > max(most, held):
                        raise self._room_error(needed, used, free)
                    held = max(most, held)
                    break
            (reservation / _RESERVED).write_text(str(held))
            return held

    def remove_one(self, reservation: Path) -> bool:
        """Remove the model that was least recently used, of those that are not in use; False where there is none."""
        with self._locks.lock_accounts():
            return self._remove_oldest(reservation)

    def _remove_oldest(self, reservation: Path) -> bool:
        if self._sweep(0, but=reservation):
            return True
        last_used = {key: self._last_use(key) for key in self._sizes()}
        for key in sorted(last_used, key=lambda each: last_used[each]):
            lock = self._locks.try_lock(key)
            if lock is not None:
                self._remove(key)
                os.close(lock)
                return True
        return False

    def _remove(self, key: str) -> None:
        """Under `.lock`: the folder first, so that no one finds half of it."""
        away = self.folder / f"{_REMOVED}{key}-{os.getpid()}-{time.monotonic_ns()}"
        (self.folder / key).rename(away)
        self._locks.path(key).unlink(missing_ok=True)
        shutil.rmtree(away, ignore_errors=True)

    def _sweep(self, age_seconds: float, but: Path) -> bool:
        """Remove what processes that died left; whether there was anything."""
        found = False
        for each in self.folder.glob(f"{_REMOVED}*"):
            shutil.rmtree(each, ignore_errors=True)
        for each in self.folder.glob(f"{_FETCHING}*"):
            key = each.name.removeprefix(_FETCHING)
            with contextlib.suppress(FileNotFoundError):
                if each == but or time.time() - _newest_mtime(each) < age_seconds:
                    continue
                lock = self._locks.try_lock(key)
                if lock is None:
                    continue
                shutil.rmtree(each, ignore_errors=True)
                if not (self.folder / key).exists():
                    self._locks.path(key).unlink(missing_ok=True)
                os.close(lock)
                found = True
        return found

    def _sizes(self) -> dict[str, int]:
        """Bytes of each whole model, by key."""
        sizes = {}
        for path in self.folder.glob(f"*/{_RECORD}"):
            if not path.parent.name.startswith("."):
                with contextlib.suppress(FileNotFoundError, ValidationError):
                    sizes[path.parent.name] = _Record.model_validate_json(path.read_bytes()).bytes
        return sizes

    def _last_use(self, key: str) -> float:
        try:
            return self._locks.path(key).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    @staticmethod
    def _reserved_bytes(staging: Path) -> int:
        try:
            return int((staging / _RESERVED).read_text() or 0)
        except FileNotFoundError:
            return 0

    def _room_error(self, total: int, used: int, free: int) -> Unavailable:
        bound = "" if self.max_bytes is None else f" of the {mebibytes(self.max_bytes)} that it may hold"
        return Unavailable(
            Reason.CACHE_UNAVAILABLE,
            f"the model cache {self.folder} has no room for {mebibytes(total)}: models in use take {mebibytes(used)}{bound}, and the "
            f"disk has {mebibytes(free)} free. Raise the pool's cache.maxBytes, or give its nodes a larger disk",
        )


def _identity(folder: Path) -> tuple[int, int]:
    about = folder.stat()
    return about.st_ino, about.st_ctime_ns


def _is_unchanged(path: Path, about: ModelFile) -> bool:
    return path.is_file() and path.stat().st_size == about.size_bytes and sha256_of(path) == about.sha256


def _newest_mtime(folder: Path) -> float:
    return max((each.stat().st_mtime for each in (folder, *folder.rglob("*"))), default=0.0)
