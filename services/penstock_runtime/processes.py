"""Processes, their container and the machine, from /proc and the control groups: CPU time and memory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from penstock.cost.processes import Process

PROC: Final = Path("/proc")
_CGROUP: Final = Path("/sys/fs/cgroup")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_PARENT, _SESSION, _UTIME, _STIME, _CUTIME, _CSTIME, _STARTED, _RESIDENT = 1, 3, 11, 12, 13, 14, 19, 21
"""Fields of /proc/PID/stat after the command's name, which may hold anything; the state is field 0 (proc(5))."""
_BUSY: Final = (0, 1, 2, 5, 6, 7)
"""Fields of /proc/stat's first line that are time in which processors worked: all but idle and iowait; guests are part of user."""


def read_processes(proc: Path = PROC) -> list[Process]:
    """All processes that can be seen; one that ends meanwhile is left out."""
    return list(_read_all(proc))


def _read_all(proc: Path) -> Iterator[Process]:
    for name in os.listdir(proc):  # noqa: PTH208 -- a path object for each costs as much as reading it
        if not name.isdigit():
            continue
        try:
            text = (proc / name / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        yield parse_stat(int(name), text)


def parse_stat(pid: int, text: str) -> Process:
    """A process from its /proc/PID/stat."""
    fields = text.rpartition(")")[2].split()
    return Process(
        pid=pid,
        parent=int(fields[_PARENT]),
        session=int(fields[_SESSION]),
        started=int(fields[_STARTED]),
        own_seconds=(int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS,
        waited_seconds=(int(fields[_CUTIME]) + int(fields[_CSTIME])) / _TICKS,
        resident_bytes=int(fields[_RESIDENT]) * _PAGE_BYTES,
    )


def command_line(pid: int, proc: Path = PROC) -> list[str]:
    """A process's arguments; none where it is gone or has none."""
    try:
        return (proc / str(pid) / "cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
    except OSError:
        return []


def busy_seconds(proc: Path = PROC) -> float:
    """CPU time of all that the machine's processors did; 0 where it cannot be read."""
    try:
        fields = (proc / "stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0
    return sum(int(fields[place]) for place in _BUSY if place < len(fields)) / _TICKS


def container_seconds(proc: Path = PROC, cgroup: Path = _CGROUP) -> float | None:
    """CPU time of the container in which this process runs.

    None where it runs in none: `/` of a control group namespace is the container's, and `cgroup.type` is absent from the machine's own.
    """
    try:
        if not re.search(r"^0::/$", (proc / "self" / "cgroup").read_text(encoding="ascii"), re.MULTILINE):
            return None
        if not (cgroup / "cgroup.type").exists():
            return None
        return parse_cpu_stat((cgroup / "cpu.stat").read_text(encoding="ascii"))
    except OSError:
        return None


def parse_cpu_stat(text: str) -> float | None:
    """Seconds from a control group's `cpu.stat`; None where it does not say."""
    found = re.search(r"^usage_usec (\d+)$", text, re.MULTILINE)
    return int(found[1]) / 1e6 if found else None
