"""CPU time and memory of processes, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command's name (state is field 0)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time that live processes have used so far, all threads, in seconds.

    Linux' scheduler statistics give nanoseconds per thread; where they are absent, clock ticks do.
    """
    total = 0.0
    for pid in pids:
        try:
            total += sum(
                int((task / "schedstat").read_text().split()[0]) / 1e9 for task in Path(f"/proc/{pid}/task").iterdir()
            )
        except (FileNotFoundError, ProcessLookupError, IndexError):
            try:
                total += sum(int(ticks) for ticks in _fields(pid)[11:13]) / _TICKS
            except (FileNotFoundError, ProcessLookupError):
                continue
    return total


def age_seconds(pid: int) -> float:
    """How long ago a process was started."""
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return uptime - int(_fields(pid)[19]) / _TICKS


def memory_mib(pid: int) -> float:
    """Proportional set size where readable, else resident set size, in MiB."""
    for name, key in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        try:
            for line in Path(f"/proc/{pid}/{name}").read_text().splitlines():
                if line.startswith(key):
                    return int(line.split()[1]) / 1024
        except (FileNotFoundError, PermissionError):
            continue
    return 0.0


def resident_mib(pid: int) -> float:
    """Resident set size in MiB; 0 where the process is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_MIB
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def children(pid: int) -> list[int]:
    """The processes that one has started and that live."""
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def all_processes() -> Iterator[tuple[int, int, str]]:
    """Every process as (pid, parent's pid, command line)."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                yield int(entry.name), int(_fields(int(entry.name))[1]), command
            except (FileNotFoundError, ProcessLookupError):
                continue


def descendants(root: int) -> list[int]:
    """The process and all that it started, directly or not, and that live."""
    children: dict[int, list[int]] = {}
    for pid, parent, _ in all_processes():
        children.setdefault(parent, []).append(pid)
    found, frontier = [], [root]
    while frontier:
        pid = frontier.pop()
        found.append(pid)
        frontier.extend(children.get(pid, ()))
    return found


def matching(text: str, among: Iterable[int]) -> list[int]:
    """Those of the given processes whose command line contains the text."""
    wanted = set(among)
    return [pid for pid, _, command in all_processes() if pid in wanted and text in command]


def pin(pids: Sequence[int]) -> None:
    """To the first core, all their threads."""
    first = sorted(os.sched_getaffinity(0))[:1]
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), first)
