"""CPU time of a gateway or an operator with the processes that it started, as a metric."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock.cost.processes import Process, ProcessId, descend, seconds_since
from penstock.telemetry import names
from penstock_runtime.processes import read_processes


class ComponentMetrics(Collector):
    """Looks at the processes whenever it is asked.

    Args:
        component: its name, such as `gateway`.
    """

    def __init__(self, component: str) -> None:
        self._component = component
        self._seen: Mapping[ProcessId, Process] = {}
        self._seconds = 0.0

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering it looks at no process."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """The one family."""
        own = descend(read_processes(), {os.getpid()})
        self._seconds += sum(seconds_since(self._seen, own).values())
        self._seen = {each.identity: each for each in own}
        family = CounterMetricFamily(
            names.METRIC_PLATFORM_CPU.removesuffix("_total"),
            "Of the component and the processes that it started",
            labels=("component",),
        )
        family.add_metric((self._component,), self._seconds)
        yield family
