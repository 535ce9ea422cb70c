"""The locks of the model cache: `flock` on files that may be removed while others wait for them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from penstock.api.conditions import Reason
from penstock.errors import Unavailable

_POLL_SECONDS: Final = 0.1
_COUNTING_POLL_SECONDS: Final = 0.01
_COUNTING: Final = ".lock"


@contextlib.contextmanager
def explain_failures(folder: Path) -> Iterator[None]:
    """Say of a folder that cannot be used what to do."""
    try:
        yield
    except OSError as error:
        raise Unavailable(
            Reason.CACHE_UNAVAILABLE,
            f"the model cache {folder} cannot be used ({error.strerror or error}): let user {os.getuid()} write there "
            "(the pool's cache.hostPath)",
        ) from error


class CacheLocks:
    """Locks in one folder. They go with the process that holds them.

    Args:
        folder: of the cache.
        wait_seconds: for others, at most.
    """

    def __init__(self, folder: Path, wait_seconds: float) -> None:
        self._folder = folder
        self._wait_seconds = wait_seconds

    def path(self, key: str) -> Path:
        """The lock file of a model. Its time of modification is that of the model's last use."""
        return self._folder / f"{key}.lock"

    def lock_shared(self, key: str) -> int:
        """A descriptor that keeps a model where it is.

        Raises:
            Unavailable: CacheUnavailable; another process has had it too long.
        """
        return self._wait_for_lock(key, fcntl.LOCK_SH)

    @contextlib.contextmanager
    def lock_exclusive(self, key: str) -> Iterator[None]:
        """Nobody else uses, fetches or removes a model meanwhile.

        Raises:
            Unavailable: CacheUnavailable; others have had it too long.
        """
        lock = self._wait_for_lock(key, fcntl.LOCK_EX)
        try:
            yield
        finally:
            os.close(lock)

    def try_lock(self, key: str, kind: int = fcntl.LOCK_EX) -> int | None:
        """A descriptor that holds a lock; None where another holds it, or removed its file just now."""
        path = self.path(key)
        with explain_failures(self._folder):
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
            if os.fstat(lock).st_ino == path.stat().st_ino:
                return lock
        os.close(lock)
        return None

    @contextlib.contextmanager
    def lock_accounts(self) -> Iterator[None]:
        """Nobody else counts bytes, reserves any or removes a model meanwhile."""
        deadline = time.monotonic() + self._wait_seconds
        with (self._folder / _COUNTING).open("a") as file:
            while True:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                self._check_deadline(deadline)
                time.sleep(_COUNTING_POLL_SECONDS)
            yield

    def _wait_for_lock(self, key: str, kind: int) -> int:
        deadline = time.monotonic() + self._wait_seconds
        while True:
            lock = self.try_lock(key, kind)
            if lock is not None:
                return lock
            self._check_deadline(deadline)
            time.sleep(_POLL_SECONDS)

    def _check_deadline(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise Unavailable(
                Reason.CACHE_UNAVAILABLE,
                f"another process has been at the same model in {self._folder} for {self._wait_seconds:.0f} s: "
                "look at the other replicas of this node",
            )
