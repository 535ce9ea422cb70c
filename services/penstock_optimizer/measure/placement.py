"""Which cores the contestants of a session share."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_LOOK_SECONDS: Final = 0.2
_STAT: Final = Path("/proc/stat")
_BUSY_FIELDS: Final = (0, 1, 2, 5, 6, 7)
"""user, nice, system, irq, softirq, steal of a `cpu` line, as proc(5) has them."""


def shared_cores(threads: int) -> tuple[int, ...] | None:
    """The least busy of the cores that this process may use, as many as there are threads.

    All contestants run on the same cores, one after another, so that a slow core is slow for all of them. None where there
    are not more cores than threads: then there is nothing to choose.
    """
    allowed = os.sched_getaffinity(0)
    if threads >= len(allowed):
        return None
    before = busy_ticks(_STAT.read_text(encoding="ascii"))
    time.sleep(_LOOK_SECONDS)
    after = busy_ticks(_STAT.read_text(encoding="ascii"))
    return least_busy_cores({core: after.get(core, 0) - before.get(core, 0) for core in allowed}, threads)


def busy_ticks(stat: str) -> dict[int, int]:
    """Ticks by core that were not idle, from the text of /proc/stat."""
    found: dict[int, int] = {}
    for line in stat.splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu":
            found[int(name[3:])] = sum(int(fields[index]) for index in _BUSY_FIELDS if index < len(fields))
    return found


def least_busy_cores(ticks: Mapping[int, int], count: int) -> tuple[int, ...]:
    """So many cores with the fewest ticks; the higher number of two equals, since systems put their own work on low ones."""
    return tuple(sorted(sorted(ticks, key=lambda core: (ticks[core], -core))[:count]))
