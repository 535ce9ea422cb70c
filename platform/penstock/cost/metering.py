"""From two looks at processes to what a replica has used: pure, so that what is counted can be shown by a table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.cost.energy import add_joules, estimate, share_of_accelerator, share_of_package
from penstock.cost.processes import Process, ProcessId, descend, group_by_root, seconds_since, worker_root
from penstock.cost.usage import EnergySource, ReservedResources, UsageCounts


@dataclass(frozen=True, slots=True)
class ReplicaRoots:
    """By which processes a replica and its worker are known."""

    replica: int
    """The server's own process, or its Ray actor's, which started it."""
    raylet: int = 0
    """Of the worker. 0: there is none, and nothing else is shared."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What there is to see at one moment."""

    at: float
    """Seconds of the monotonic clock."""
    processes: Sequence[Process]
    replicas: Collection[int] = ()
    """Processes from which the worker's replicas come, this one's among them (`ReplicaRoots.replica`)."""
    group_seconds: float | None = None
    """CPU time of the worker's container. None: it has none of its own, and its processes are counted."""
    busy_seconds: float = 0.0
    """CPU time of all that runs on the machine."""
    package_joules: float | None = None
    """Of all processors; None: cannot be read."""
    accelerator_joules: float | None = None
    """Of all accelerators that the replica can see."""
    answered: int = 0
    run_seconds: float = 0.0
    """Time for which the engine had runs under way."""


@dataclass(frozen=True, slots=True)
class Metering:
    """What was counted so far, and the last look."""

    usage: UsageCounts = field(default_factory=UsageCounts)
    last: Sight | None = None
    own: Mapping[ProcessId, Process] = field(default_factory=dict)
    worker: Mapping[ProcessId, Process] = field(default_factory=dict)


def meter(former: Metering, sight: Sight, roots: ReplicaRoots, reserved: ReservedResources) -> Metering:
    """Count what happened since the last look.

    At the first one, all that the replica's processes have used counts: they were started for it. What others used before it came does not.
    """
    before, usage = former.last, former.usage
    own = descend(sight.processes, {roots.replica})
    cpu = sum(seconds_since(former.own, own).values())
    worker = _worker_processes(sight, roots)
    overhead = _overhead(former, sight, worker, cpu) if before is not None else 0.0
    seconds = sight.at - before.at if before is not None else 0.0
    byte_seconds = seconds * sum(each.resident_bytes for each in own)
    counted = UsageCounts(
        seconds=usage.seconds + seconds,
        answered=sight.answered,
        cpu_seconds=usage.cpu_seconds + cpu,
        overhead_cpu_seconds=usage.overhead_cpu_seconds + overhead,
        memory_byte_seconds=usage.memory_byte_seconds + byte_seconds,
        accelerator_seconds=sight.run_seconds if reserved.accelerators else 0.0,
        joules=add_joules(usage.joules, _joules(former, sight, cpu, byte_seconds, reserved)),
        reserved_cpu_seconds=usage.reserved_cpu_seconds + seconds * reserved.cpus,
        reserved_memory_byte_seconds=usage.reserved_memory_byte_seconds + seconds * reserved.memory_bytes,
        reserved_accelerator_seconds=usage.reserved_accelerator_seconds + seconds * reserved.accelerators,
    )
    return Metering(counted, sight, {each.identity: each for each in own}, {each.identity: each for each in worker})


def _worker_processes(sight: Sight, roots: ReplicaRoots) -> list[Process]:
    if not roots.raylet:
        return []
    return descend(sight.processes, {worker_root(sight.processes, roots.raylet)})


def _overhead(former: Metering, sight: Sight, worker: Sequence[Process], own_seconds: float) -> float:
    """This replica's part of what the worker used besides its replicas: by CPU time; in equal parts where none used any."""
    if not worker:
        return 0.0
    used = seconds_since(former.worker, worker)
    groups = group_by_root(worker, sight.replicas)
    by_replica = {
        root: sum(used[each.identity] for each in group) for root, group in groups.items() if root in sight.replicas
    }
    total = sum(used.values())
    if sight.group_seconds is not None and former.last is not None and former.last.group_seconds is not None:
        total = sight.group_seconds - former.last.group_seconds
    rest = max(total - sum(by_replica.values()), 0.0)
    all_seconds = sum(by_replica.values())
    part = own_seconds / all_seconds if all_seconds > 0 else 1 / max(len(by_replica), 1)
    return rest * min(part, 1.0)


def _joules(
    former: Metering, sight: Sight, cpu_seconds: float, byte_seconds: float, reserved: ReservedResources
) -> dict[EnergySource, float]:
    before = former.last
    found: dict[EnergySource, float] = {}
    package = None if before is None else _difference(before.package_joules, sight.package_joules)
    if before is not None and package is not None:
        busy = sight.busy_seconds - before.busy_seconds
        found[EnergySource.RAPL] = share_of_package(package, cpu_seconds, busy)
    else:
        found[EnergySource.ESTIMATED] = estimate(cpu_seconds, byte_seconds)
    accelerator = None if before is None else _difference(before.accelerator_joules, sight.accelerator_joules)
    if accelerator is not None and reserved.accelerators:
        found[EnergySource.NVML] = share_of_accelerator(accelerator, reserved.accelerators)
    return found


def _difference(before: float | None, after: float | None) -> float | None:
    """None where one of them is not known, or the counter began anew."""
    return None if before is None or after is None or after < before else after - before
