"""What the replica has used and what is kept for it: looked at every few seconds, told as metrics."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock.cost.metering import Metering, ReplicaRoots, Sight, meter
from penstock.cost.processes import Process, ProcessId, descend, worker_root
from penstock.cost.usage import EnergySource, UsageCounts
from penstock.serving.control import ActorFacts, ReplicaSettings
from penstock.telemetry import names
from penstock_runtime import energy
from penstock_runtime.processes import busy_seconds, command_line, container_seconds, read_processes

LOOK_SECONDS: Final = 10.0
"""A look reads some 15 µs for each process that can be seen."""
_VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
"""Set by Ray, for each actor."""
SERVER_MODULE: Final = "penstock_serving.replica"


class UsageMeter:
    """Looks at the replica's processes. Its methods are called by one thread at a time.

    Args:
        actor: what the replica's actor knows.
        powercap: where the kernel shows what processors take.
    """

    def __init__(self, actor: ActorFacts, powercap: Path = energy.POWERCAP) -> None:
        self._reserved = actor.reserved
        self._roots = ReplicaRoots(actor.process or os.getpid(), actor.raylet)
        self._metering = Metering()
        self._package = energy.meter(gpu=False, powercap=powercap)
        devices = energy.visible_devices(os.environ.get(_VISIBLE)) if actor.reserved.accelerators else ()
        self._accelerators = [energy.meter(gpu=True, device=each) for each in devices]
        self._servers: dict[ProcessId, bool] = {}

    @property
    def usage(self) -> UsageCounts:
        """As of the last look."""
        return self._metering.usage

    def look(self, answered: int, run_seconds: float) -> None:
        """Count what was used since the last look.

        Args:
            answered: inference requests so far.
            run_seconds: for which the engine had runs under way so far.
        """
        processes = read_processes()
        sight = Sight(
            at=time.monotonic(),
            processes=processes,
            replicas=self._replicas(processes),
            group_seconds=container_seconds() if self._roots.raylet else None,
            busy_seconds=busy_seconds(),
            package_joules=self._package.read(),
            accelerator_joules=self._accelerator_joules(),
            answered=answered,
            run_seconds=run_seconds,
        )
        self._metering = meter(self._metering, sight, self._roots, self._reserved)

    def _accelerator_joules(self) -> float | None:
        """Of all that the replica can see; None where one of them does not tell."""
        read = [told for each in self._accelerators if (told := each.read()) is not None]
        return sum(read) if read and len(read) == len(self._accelerators) else None

    def _replicas(self, processes: Sequence[Process]) -> set[int]:
        """The worker's replicas: each server's parent is its actor."""
        if not self._roots.raylet:
            return {self._roots.replica}
        worker = descend(processes, {worker_root(processes, self._roots.raylet)})
        known = self._metering.worker
        for each in worker:
            if each.identity not in self._servers:
                found = SERVER_MODULE in command_line(each.pid)
                # A process that was just forked has its parent's command line until it runs a program of its own.
                if found or each.identity in known:
                    self._servers[each.identity] = found
        self._servers = {one.identity: self._servers[one.identity] for one in worker if one.identity in self._servers}
        servers = [each for each in worker if self._servers.get(each.identity)]
        pids = {each.pid for each in servers}
        # A server's own child may have its command line.
        return {self._roots.replica, *(each.parent for each in servers if each.parent not in pids)}


class UsageMetrics(Collector):
    """A replica's usage as counters.

    Args:
        settings: the replica's.
        usage: as of the last look.
    """

    def __init__(self, settings: ReplicaSettings, usage: Callable[[], UsageCounts]) -> None:
        self._labels = {
            "namespace": settings.namespace,
            "model": settings.model,
            "version": settings.version,
            "revision": settings.revision,
        }
        self._accelerator = settings.actor.reserved.accelerator
        self._usage = usage

    def collect(self) -> Iterable[Metric]:
        """All families."""
        usage = self._usage()
        for name, text, value in (
            (names.METRIC_REPLICA_SECONDS, "Since the replica started", usage.seconds),
            (names.METRIC_REPLICA_ANSWERED, "Inference requests that were answered", usage.answered),
            (names.METRIC_REPLICA_CPU, "Of the replica's server, its actor, and what they started", usage.cpu_seconds),
            (
                names.METRIC_REPLICA_OVERHEAD,
                "The replica's part of what its worker's other processes used",
                usage.overhead_cpu_seconds,
            ),
            (names.METRIC_REPLICA_MEMORY, "Resident memory over time", usage.memory_byte_seconds),
            (names.METRIC_RESERVED_CPU, "CPUs that Ray keeps for the replica, over time", usage.reserved_cpu_seconds),
            (names.METRIC_RESERVED_MEMORY, "Memory that Ray keeps, over time", usage.reserved_memory_byte_seconds),
        ):
            yield self._counter(name, text, {"": value})
        kinds = {self._accelerator: usage.accelerator_seconds} if self._accelerator else {}
        yield self._counter(names.METRIC_REPLICA_ACCELERATOR, "With a run under way", kinds, "accelerator")
        reserved = {self._accelerator: usage.reserved_accelerator_seconds} if self._accelerator else {}
        yield self._counter(names.METRIC_RESERVED_ACCELERATOR, "That Ray keeps, over time", reserved, "accelerator")
        yield self._counter(names.METRIC_REPLICA_JOULES, "Of the replica, by source", usage.joules, "source")

    def _counter(
        self, name: str, text: str, values: Mapping[str, float] | Mapping[EnergySource, float], label: str = ""
    ) -> CounterMetricFamily:
        more = (label,) if label else ()
        family = CounterMetricFamily(name.removesuffix("_total"), text, labels=(*self._labels, *more))
        for value_of, value in values.items():
            family.add_metric((*self._labels.values(), *((value_of,) if label else ())), value)
        return family
