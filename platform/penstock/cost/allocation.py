"""Who used and kept how much, and what it costs: lines by namespace, model and revision whose sum is all that was seen.

A line costs the greater of what it used and what was kept for it, resource by resource, as in OpenCost's allocation: what is kept is
nobody else's, and what is used beyond it was somebody's. Idle is what was kept and not used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from penstock.cost.energy import add_joules
from penstock.cost.prices import MONTH, PriceList, cost_of, cost_of_energy
from penstock.cost.usage import UsageCounts


@dataclass(frozen=True, slots=True, order=True)
class CostKey:
    """Whose a line is."""

    namespace: str
    model: str
    revision: str = ""


@dataclass(frozen=True, slots=True)
class Consumption:
    """What one revision's replicas have used and kept in a time."""

    key: CostKey
    counts: UsageCounts
    accelerator: str = ""
    window: float = 0.0
    """Seconds of the time; 0: those of the whole allocation."""


@dataclass(frozen=True, slots=True)
class CostLine:
    """One revision's share."""

    key: CostKey
    counts: UsageCounts
    accelerator: str
    used_cost: float
    """Of what it used, overhead and energy included."""
    reserved_cost: float
    """Of what was kept for it."""
    cost: float
    """Of the greater of both, resource by resource, and energy."""
    idle_cost: float
    """Of what was kept and not used."""
    window: float
    """Seconds in which all this was."""

    def monthly(self, figure: float) -> float:
        """What a figure of the window is in a month that goes on as the window did."""
        return figure * MONTH / self.window if self.window > 0 else 0.0

    @property
    def cpu_seconds(self) -> float:
        """With its overhead."""
        return self.counts.cpu_seconds + self.counts.overhead_cpu_seconds

    def figure_per_thousand(self, figure: float) -> float | None:
        """A figure of this line by 1,000 answers; None where none were given."""
        return figure * 1000 / self.counts.answered if self.counts.answered else None


@dataclass(frozen=True, slots=True)
class Allocation:
    """All lines, and what belongs to no model."""

    seconds: float
    """Of the window that was looked at."""
    lines: Sequence[CostLine]
    platform_seconds: Mapping[str, float] = field(default_factory=dict)
    """CPU time by component: gateways and operators."""
    platform_cost: float = 0.0

    @property
    def cpu_seconds(self) -> float:
        """All that was used: lines, overhead and platform."""
        return sum(each.cpu_seconds for each in self.lines) + sum(self.platform_seconds.values())

    @property
    def cost(self) -> float:
        """Of all lines and the platform."""
        return sum(each.cost for each in self.lines) + self.platform_cost


def allocate(
    consumptions: Iterable[Consumption],
    prices: PriceList,
    seconds: float,
    platform_seconds: Mapping[str, float] | None = None,
) -> Allocation:
    """The lines, dearest first.

    Args:
        consumptions: by replica or by revision; those of one revision are added up.
        prices: of what is used and kept.
        seconds: of the window.
        platform_seconds: CPU time of what serves all models, by component.
    """
    lines = sorted(
        (_line(each, prices, seconds) for each in _merge(consumptions)), key=lambda line: (-line.cost, line.key)
    )
    platform = dict(platform_seconds or {})
    return Allocation(seconds, lines, platform, cost_of(prices, cpu_seconds=sum(platform.values())))


def share_platform(allocation: Allocation) -> Allocation:
    """The same with gateways and operators charged to the models, by CPU time, so that no line but theirs is left."""
    total, extra = sum(each.cpu_seconds for each in allocation.lines), sum(allocation.platform_seconds.values())
    if total <= 0 or extra <= 0:
        return allocation
    lines = []
    for each in allocation.lines:
        part = each.cpu_seconds / total
        counts = each.counts.model_copy(
            update={"overhead_cpu_seconds": each.counts.overhead_cpu_seconds + part * extra}
        )
        more = part * allocation.platform_cost
        lines.append(replace(each, counts=counts, used_cost=each.used_cost + more, cost=each.cost + more))
    return Allocation(allocation.seconds, lines)


def add_counts(one: UsageCounts, other: UsageCounts) -> UsageCounts:
    """Sums of two replicas."""
    sums = {name: getattr(one, name) + getattr(other, name) for name in UsageCounts.model_fields if name != "joules"}
    return UsageCounts(**sums, joules=add_joules(one.joules, other.joules))


def _merge(consumptions: Iterable[Consumption]) -> list[Consumption]:
    merged: dict[tuple[CostKey, str], Consumption] = {}
    for each in consumptions:
        place, before = (each.key, each.accelerator), merged.get((each.key, each.accelerator))
        merged[place] = (
            each
            if before is None
            else replace(each, counts=add_counts(before.counts, each.counts), window=max(before.window, each.window))
        )
    return list(merged.values())


def _line(consumption: Consumption, prices: PriceList, seconds: float) -> CostLine:
    counts, kind = consumption.counts, consumption.accelerator
    cpu = counts.cpu_seconds + counts.overhead_cpu_seconds
    energy = cost_of_energy(prices, counts.joules)
    used = cost_of(
        prices,
        cpu_seconds=cpu,
        memory_byte_seconds=counts.memory_byte_seconds,
        accelerator_seconds=counts.accelerator_seconds,
        accelerator=kind,
    )
    reserved = cost_of(
        prices,
        cpu_seconds=counts.reserved_cpu_seconds,
        memory_byte_seconds=counts.reserved_memory_byte_seconds,
        accelerator_seconds=counts.reserved_accelerator_seconds,
        accelerator=kind,
    )
    greater = cost_of(
        prices,
        cpu_seconds=max(cpu, counts.reserved_cpu_seconds),
        memory_byte_seconds=max(counts.memory_byte_seconds, counts.reserved_memory_byte_seconds),
        accelerator_seconds=max(counts.accelerator_seconds, counts.reserved_accelerator_seconds),
        accelerator=kind,
    )
    # What is used beyond a reservation is in `greater` alone, so the rest of it is what was kept in vain.
    return CostLine(
        key=consumption.key,
        counts=counts,
        accelerator=kind,
        used_cost=used + energy,
        reserved_cost=reserved,
        cost=greater + energy,
        idle_cost=max(greater - used, 0.0),
        window=consumption.window or seconds,
    )
