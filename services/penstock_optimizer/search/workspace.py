"""Where searches keep what they made and tried, so that the same search again is free.

<workspace>/sources/<request>/         the model in the forms that steps need
<workspace>/data/<content>/            prepared samples
<workspace>/fetched/                   models and data from stores
<workspace>/searches/<key>/ledger/     one file a trial
<workspace>/searches/<key>/variants/   one folder a recipe
<workspace>/searches/<key>/outputs/    of variants, for the accuracy tests
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.errors import Unavailable

WORKSPACE_BUSY: Final = "WorkspaceBusy"
_PATIENCE_SECONDS: Final = 600.0
_POLL_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class SearchFolder:
    """The folder of one search."""

    root: Path

    @property
    def ledger(self) -> Path:
        """One file a trial."""
        return self.root / "ledger"

    @property
    def variants(self) -> Path:
        """One folder a recipe, by its key."""
        return self.root / "variants"

    @property
    def outputs(self) -> Path:
        """Of variants."""
        return self.root / "outputs"

    @property
    def control(self) -> Path:
        """The negative control."""
        return self.root / "control"

    def variant(self, key: str) -> Path:
        """The folder of a recipe's variant."""
        return self.variants / key


@dataclass(frozen=True, slots=True)
class Workspace:
    """A local folder that is kept between runs."""

    root: Path

    def source(self, request: str) -> Path:
        """The source folder of a request for a model, by the request's digest."""
        return self.root / "sources" / request

    def data(self, content: str) -> Path:
        """The folder of prepared samples, by the digest of what they were made from."""
        return self.root / "data" / content

    @property
    def fetched(self) -> Path:
        """Copies from stores."""
        return self.root / "fetched"

    def search(self, key: str) -> SearchFolder:
        """The folder of a search."""
        return SearchFolder(self.root / "searches" / key)

    @contextmanager
    def hold_preparation(self, path: Path) -> Iterator[None]:
        """Let only one process at a time make a source or data folder; the others wait.

        Raises:
            Unavailable: it takes too long.
        """
        with _try_lock(path.with_name(f".{path.name}.lock"), _PATIENCE_SECONDS) as held:
            if not held:
                raise Unavailable(
                    WORKSPACE_BUSY,
                    f"another search has been preparing {path} for {_PATIENCE_SECONDS:.0f} s: wait for it",
                )
            yield

    @contextmanager
    def hold_search(self, key: str) -> Iterator[SearchFolder]:
        """Hold a search; the kernel gives it back however this process ends.

        Raises:
            Unavailable: another process runs the same search.
        """
        folder = self.search(key)
        with _try_lock(folder.root / "lock", 0.0) as held:
            if not held:
                raise Unavailable(
                    WORKSPACE_BUSY,
                    f"another process runs the very same search, in {folder.root}: wait until it has ended, after which "
                    "its verdict is free, or give this one a workspace of its own",
                )
            for each in (folder.ledger, folder.variants, folder.outputs):
                each.mkdir(exist_ok=True)
            _sweep(folder)
            yield folder


def _sweep(folder: SearchFolder) -> None:
    """Remove what a killed search left half made. The search is held, so nobody else makes it now."""
    for parent in (folder.root, folder.variants, folder.outputs):
        for scratch in parent.glob(".*"):
            if scratch.is_dir():
                shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _try_lock(path: Path, patience: float) -> Iterator[bool]:
    """Whether the lock was taken in so many seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        held = _take_lock(descriptor)
        while not held and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            held = _take_lock(descriptor)
        yield held
    finally:
        os.close(descriptor)


def _take_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
