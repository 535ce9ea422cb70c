"""The control groups under which the test cluster's pods run, in whichever hierarchies the host has."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_REMOVE_SECONDS = 10.0
_WEIGHTS = {"cpu.shares": "32768", "cpu.weight": "3200"}
"""Pods together weigh as much as some thirty of the host's own threads: at the default, as one, they starve beside them."""


def hierarchies() -> tuple[Path, ...]:
    """The one root of cgroup v2, or a folder for each hierarchy of v1."""
    if (_ROOT / "cgroup.controllers").exists():
        return (_ROOT,)
    folders = (each for each in sorted(_ROOT.iterdir()) if each.is_dir() and not each.is_symlink())
    return tuple(each for each in folders if (each / "cgroup.procs").exists())


def create(group: str) -> None:
    """Make a group, such as `a/b`, in every hierarchy; the first part has a weight beside the host's processes."""
    for root in hierarchies():
        folder = root
        for part in Path(group).parts:
            parent, folder = folder, folder / part
            folder.mkdir(exist_ok=True)
            for setting, weight in _WEIGHTS.items():
                if parent == root and (folder / setting).exists():
                    (folder / setting).write_text(weight)
            # In v1 a new group may use no CPU and no memory node until told which.
            for setting in ("cpuset.cpus", "cpuset.mems"):
                if (folder / setting).exists() and root != _ROOT:
                    (folder / setting).write_text((parent / setting).read_text())


def remove(group: str) -> None:
    """Remove a group and those in it, whose processes must be dead or dying.

    Raises:
        OSError: some process in it would not end.
    """
    deadline = time.monotonic() + _REMOVE_SECONDS
    for root in hierarchies():
        for folder in _innermost_first(root / group):
            while True:
                try:
                    folder.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)


def _innermost_first(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for each in folder.iterdir():
        if each.is_dir():
            yield from _innermost_first(each)
    yield folder
