"""CPU time of trees of processes, from what the system says of each process at two moments.

A process tells its own time and that of children that it has waited for, theirs included (proc(5), `cutime`). So a tree's time
since the last look is what each of its living processes has used, and what was waited for less what was counted already while it
lived. Nothing is counted twice, and what ended between two looks is counted by who waited for it. Only a process that nobody waits
for takes with it what it used since the last look.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

ProcessId = tuple[int, int]
"""Number and start, in ticks since the machine started: numbers are used again."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process as the system shows it."""

    pid: int
    parent: int
    session: int
    started: int
    """Ticks since the machine started."""
    own_seconds: float
    """CPU time of its threads."""
    waited_seconds: float
    """CPU time of children that it has waited for, and of theirs."""
    resident_bytes: int = 0

    @property
    def identity(self) -> ProcessId:
        """What no other process was or will be."""
        return self.pid, self.started


def descend(processes: Iterable[Process], roots: Collection[int]) -> list[Process]:
    """Those among `processes` that are one of the roots, or that one of them started, directly or not."""
    children: dict[int, list[Process]] = {}
    found: list[Process] = []
    for each in processes:
        children.setdefault(each.parent, []).append(each)
        if each.pid in roots:
            found.append(each)
    seen = {each.pid for each in found}
    for each in found:
        for child in children.get(each.pid, ()):
            if child.pid not in seen:
                seen.add(child.pid)
                found.append(child)
    return found


def seconds_since(before: Mapping[ProcessId, Process], now: Iterable[Process]) -> dict[ProcessId, float]:
    """CPU seconds that each living process of a tree has used since the last look, with what it has waited for in between.

    Args:
        before: the tree's processes then; without any, all that they ever used counts.
        now: the tree's processes.
    """
    living = {each.identity: each for each in now}
    told = _told_by_heir(before, living)
    used: dict[ProcessId, float] = {}
    for identity, each in living.items():
        former = before.get(identity)
        own, waited = (former.own_seconds, former.waited_seconds) if former is not None else (0.0, 0.0)
        ended = max(each.waited_seconds - waited - told.get(each.pid, 0.0), 0.0)
        used[identity] = max(each.own_seconds - own, 0.0) + ended
    return used


def _told_by_heir(before: Mapping[ProcessId, Process], living: Mapping[ProcessId, Process]) -> dict[int, float]:
    """What was counted of processes that have ended, by the living one that waits for them or for who did."""
    numbers = {each.pid for each in living.values()}
    formers = {each.pid: each for each in before.values()}
    told: dict[int, float] = {}
    for identity, each in before.items():
        if identity in living:
            continue
        heir, seen = each.parent, {each.pid}
        while heir not in numbers and heir in formers and heir not in seen:
            seen.add(heir)
            heir = formers[heir].parent
        told[heir] = told.get(heir, 0.0) + each.own_seconds + each.waited_seconds
    return told


def worker_root(processes: Iterable[Process], raylet: int) -> int:
    """The process from which all of a Ray node's come: the raylet, or what started it where that leads its session.

    `ray start --block` starts raylet, dashboard and global control store side by side.
    """
    by_pid = {each.pid: each for each in processes}
    found = by_pid.get(raylet)
    parent = by_pid.get(found.parent) if found is not None else None
    if found is None or parent is None or parent.pid == 1:
        return raylet
    return parent.pid if parent.session == parent.pid == found.session else raylet


def group_by_root(processes: Iterable[Process], roots: Collection[int]) -> dict[int, list[Process]]:
    """A tree's processes by the topmost of `roots` that each comes from; those that come from none are under 0."""
    by_pid = {each.pid: each for each in processes}
    groups: dict[int, list[Process]] = {}
    for each in by_pid.values():
        root, at, seen = 0, each, {each.pid}
        while True:
            root = at.pid if at.pid in roots else root
            if at.parent in seen or at.parent not in by_pid:
                break
            seen.add(at.parent)
            at = by_pid[at.parent]
        groups.setdefault(root, []).append(each)
    return groups
