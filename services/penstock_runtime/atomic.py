"""Local files and folders that are there whole or not at all, whenever a process or the machine ends.

Only the standard library is imported: children that must start quickly use this, too.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

READABLE_BY_ALL: Final = 0o644
"""The mode of what processes of other users read, too: artifacts, and models in a node's cache."""


def write_atomically(path: Path, body: bytes, mode: int | None = None) -> None:
    """Write a file beside its place and rename it. When this returns, it is on disk.

    Args:
        path: its place.
        body: what it holds.
        mode: see `stage_file`.

    Raises:
        OSError: it cannot be written; what was there before is there still.
    """
    with stage_file(path, mode) as partial:
        partial.write_bytes(body)


@contextmanager
def stage_file(path: Path, mode: int | None = None) -> Iterator[Path]:
    """A name beside a path; what is written there is brought to disk and renamed to the path.

    What a process that is killed leaves behind is named as the path is, with a dot before and more behind.

    Args:
        path: the file's place.
        mode: who may read it; None: what the process's umask leaves, as for any new file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        yield partial
        if mode is not None:
            partial.chmod(mode)
        os.fsync(handle)
        partial.replace(path)
        _sync_folder(path.parent)
    finally:
        os.close(handle)
        partial.unlink(missing_ok=True)


@contextmanager
def stage_folder(path: Path) -> Iterator[Path]:
    """A new folder beside a path; with what is put there it takes the place of what is at the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield partial
        shutil.rmtree(path, ignore_errors=True)
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    """Bring a rename to disk. Some file systems of networks know no such thing."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
