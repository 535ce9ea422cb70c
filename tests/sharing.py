"""What one of the suite's workers makes, all use, and the last one ends."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def common_folder(config: pytest.Config) -> Path:
    """The folder of a run that all its workers have in common."""
    own: Path = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]  # pytest has it for its fixtures
    return own.parent if hasattr(config, "workerinput") else own


@contextmanager
def shared(folder: Path, name: str, make: Callable[[], Any], end: Callable[[Any], object]) -> Iterator[Any]:
    """What `make` gives (JSON can hold it), made by whoever comes first; whoever leaves as the last calls `end` with it.

    Who uses it is told by locks, which a worker that dies lets go.

    Args:
        folder: common to all.
        name: of what is shared.
        make: called where nobody uses it.
        end: called with the same when nobody uses it any more.
    """
    value = folder / f"{name}.json"
    with (folder / f"{name}.users").open("w") as users:
        with _locked(folder, name):
            if _last(users):
                value.write_text(json.dumps(make()))
            fcntl.flock(users, fcntl.LOCK_SH)
        found = json.loads(value.read_text())
        try:
            yield found
        finally:
            with _locked(folder, name):
                fcntl.flock(users, fcntl.LOCK_UN)
                if _last(users):
                    end(found)


@contextmanager
def _locked(folder: Path, name: str) -> Iterator[None]:
    with (folder / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _last(users: Any) -> bool:
    """Whether nobody has a share; nobody takes one while the lock of its name is held."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
