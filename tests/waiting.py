"""Waiting in tests for what other processes and threads do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")
PATIENCE = 120.0
"""Seconds. Nothing that tests wait for takes as long on an idle machine; those that run them seldom are idle."""


def is_alive(process: int) -> bool:
    """Whether a process runs: one that has ended and that nobody has waited for does not.

    What ends while it is looked at is there to be opened and gone to be read.
    """
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def eventually(
    look: Callable[[], _T], what: str | Callable[[], str] = "", seconds: float = PATIENCE, *, pause: float = 0.05
) -> _T:
    """The first true answer.

    Args:
        look: asked again and again.
        what: what is waited for, for the failure; a function where that is to say how it is then.
        seconds: how long.
        pause: seconds between two looks.

    Raises:
        AssertionError: there was none in time; it says what the last answer was.
    """
    deadline = time.monotonic() + seconds
    while not (answer := look()):
        if time.monotonic() > deadline:
            told = what() if callable(what) else what
            raise AssertionError(f"not within {seconds:g} s: {told or 'what is waited for'}; last seen: {answer!r}")
        time.sleep(pause)
    return answer
