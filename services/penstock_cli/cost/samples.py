"""From samples of metrics to what revisions have used: pure, wherever the samples come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from penstock.cost.allocation import Consumption, CostKey
from penstock.cost.usage import EnergySource, UsageCounts
from penstock.telemetry import names

FIELDS: Final = {
    names.METRIC_REPLICA_SECONDS: "seconds",
    names.METRIC_REPLICA_ANSWERED: "answered",
    names.METRIC_REPLICA_CPU: "cpu_seconds",
    names.METRIC_REPLICA_OVERHEAD: "overhead_cpu_seconds",
    names.METRIC_REPLICA_MEMORY: "memory_byte_seconds",
    names.METRIC_REPLICA_ACCELERATOR: "accelerator_seconds",
    names.METRIC_RESERVED_CPU: "reserved_cpu_seconds",
    names.METRIC_RESERVED_MEMORY: "reserved_memory_byte_seconds",
    names.METRIC_RESERVED_ACCELERATOR: "reserved_accelerator_seconds",
}
"""Which figure each metric is; joules, which have a source, are told apart."""
_SOURCES: Final = {each.value: each for each in EnergySource}


@dataclass(frozen=True, slots=True)
class CostSample:
    """One value of a metric."""

    metric: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


Owner = Callable[[CostSample], str]
"""By what samples are put together beside namespace, model and revision: a replica, or nothing where they are sums already."""


def consumptions(samples: Iterable[CostSample], replica_of: Owner = lambda _: "") -> list[Consumption]:
    """What each revision, or each of its replicas, has used. Samples of other metrics are passed over."""
    sums: dict[tuple[CostKey, str], dict[str, float]] = {}
    joules: dict[tuple[CostKey, str], dict[EnergySource, float]] = {}
    kinds: dict[tuple[CostKey, str], str] = {}
    for each in samples:
        labels = each.labels
        key = CostKey(labels.get("namespace", ""), labels.get("model", ""), labels.get("revision", ""))
        place = key, replica_of(each)
        if each.metric == names.METRIC_REPLICA_JOULES and labels.get("source") in _SOURCES:
            energy = joules.setdefault(place, {})
            source = _SOURCES[labels["source"]]
            energy[source] = energy.get(source, 0.0) + max(each.value, 0.0)
        elif each.metric in FIELDS:
            found = sums.setdefault(place, {})
            name = FIELDS[each.metric]
            found[name] = found.get(name, 0.0) + max(each.value, 0.0)
            if labels.get("accelerator"):
                kinds[place] = labels["accelerator"]
    return [
        Consumption(
            place[0],
            UsageCounts(**{**found, "answered": round(found.get("answered", 0.0))}, joules=joules.get(place, {})),
            kinds.get(place, ""),
        )
        for place, found in sums.items()
    ]


def consumptions_since_start(samples: Iterable[CostSample]) -> list[Consumption]:
    """What revisions have used by the counters of replicas that run now, each since it started.

    A revision's window is the mean age of its replicas: that many of them for that long.
    """
    by_revision: dict[CostKey, list[Consumption]] = {}
    for each in consumptions(samples, lambda sample: sample.labels.get("instance", "")):
        by_revision.setdefault(each.key, []).append(each)
    return [
        Consumption(one.key, one.counts, one.accelerator, sum(other.counts.seconds for other in all_) / len(all_))
        for all_ in by_revision.values()
        for one in all_
    ]


def platform_seconds(samples: Iterable[CostSample]) -> dict[str, float]:
    """CPU time of gateways and operators, by component."""
    found: dict[str, float] = {}
    for each in samples:
        if each.metric == names.METRIC_PLATFORM_CPU and each.labels.get("component"):
            component = each.labels["component"]
            found[component] = found.get(component, 0.0) + max(each.value, 0.0)
    return found
