"""What is told of costs: as tables for people, as a document for programs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.cost.advice import CostAdvice, Terms, advise
from penstock.cost.allocation import Allocation, CostKey, CostLine
from penstock.cost.prices import GIB, PriceList
from penstock.cost.savings import Savings, live_savings, measured_savings, read_throughput
from penstock.cost.usage import EnergySource

HEADINGS = (
    "MODEL", "REVISION", "REPLICAS", "ANSWERS", "CPU s", "GiB s", "ACC s", "J", "COST", "KEPT CPU s", "COST A MONTH", "IDLE A MONTH",
)  # fmt: skip


_AT_MOST, _WITHOUT_HTTP = "at most ", ", since what HTTP takes was not measured and is no less than before"


@dataclass(frozen=True, slots=True)
class DeploymentFacts:
    """What the cluster says of one deployment."""

    active: str | None
    """The revision that serves."""
    terms: Terms
    throughput: str = ""
    """Before and after of the optimization that made what serves; empty: there was none."""


@dataclass(frozen=True, slots=True)
class CostReport:
    """All there is to tell."""

    allocation: Allocation
    prices: PriceList
    source: str
    """Where the figures are from, in words."""
    facts: Mapping[tuple[str, str], DeploymentFacts] = field(default_factory=dict)

    def line_of(self, place: tuple[str, str]) -> CostLine | None:
        """A deployment's line that counts for what is to come: of the revision that serves, or the only one."""
        lines = [each for each in self.allocation.lines if (each.key.namespace, each.key.model) == place]
        facts = self.facts.get(place)
        active = [each for each in lines if facts is not None and each.key.revision == facts.active]
        return active[0] if active else lines[0] if len(lines) == 1 else None

    def advice(self) -> dict[tuple[str, str], CostAdvice]:
        """By deployment, dearest saving first."""
        found = {
            place: advice
            for place, facts in self.facts.items()
            if (line := self.line_of(place)) is not None
            and (advice := advise(line, facts.terms, self.prices)) is not None
        }
        return dict(sorted(found.items(), key=lambda item: -item[1].saves_a_month))

    def savings(self) -> dict[tuple[str, str], tuple[str, Savings]]:
        """By deployment, the revision before and what the one that serves saves."""
        found: dict[tuple[str, str], tuple[str, Savings]] = {}
        for place, facts in self.facts.items():
            after = self.line_of(place)
            if after is None or after.key.revision != facts.active:
                continue
            others = [
                each
                for each in self.allocation.lines
                if (each.key.namespace, each.key.model) == place and each.key.revision != facts.active
            ]
            before = max(others, key=lambda each: each.counts.answered, default=None)
            live = live_savings(before, after) if before is not None else None
            if before is not None and live is not None:
                found[place] = before.key.revision, live
            elif measured := measured_savings(after, read_throughput(facts.throughput)):
                found[place] = "the model itself", measured
        return found


def rows(report: CostReport) -> list[Sequence[str]]:
    """Cells of the table, one line a revision; figures are by 1,000 answers, but for the months."""
    return [_row(each, report.prices) for each in report.allocation.lines]


def _row(line: CostLine, prices: PriceList) -> Sequence[str]:
    counts = line.counts
    estimated = counts.joules.get(EnergySource.ESTIMATED, 0.0) > 0

    def thousand(figure: float, mark: str = "") -> str:
        value = line.figure_per_thousand(figure)
        return "-" if value is None else f"{mark}{value:.3g}"

    kinds = counts.accelerator_seconds if line.accelerator else 0.0
    return (
        f"{line.key.namespace}/{line.key.model}",
        line.key.revision or "-",
        f"{counts.seconds / line.window:.1f}" if line.window else "-",
        f"{counts.answered:,}",
        thousand(line.cpu_seconds),
        thousand(counts.memory_byte_seconds / GIB),
        thousand(kinds) if line.accelerator else "-",
        thousand(sum(counts.joules.values()), "~" if estimated else ""),
        thousand(line.cost),
        thousand(counts.reserved_cpu_seconds),
        _money(line.monthly(line.cost), prices),
        f"{_money(line.monthly(line.idle_cost), prices)} ({_percent(line.idle_cost, line.cost)})",
    )


def remarks(report: CostReport) -> list[str]:
    """What stands under the table."""
    prices, allocation = report.prices, report.allocation
    told = [
        f"Columns from CPU s to KEPT CPU s are by 1,000 answers; money in {prices.currency}. ~: energy was estimated.",
        f"Figures: {report.source}.",
    ]
    parts = ", ".join(f"{name} {seconds:,.1f}" for name, seconds in sorted(allocation.platform_seconds.items()))
    if parts:
        told.append(
            f"CPU seconds in all: {allocation.cpu_seconds:,.1f}, of which no model's: {parts} ({_money(allocation.platform_cost, prices)})."
        )
    for (namespace, model), (before, savings) in report.savings().items():
        verb = "saves" if savings.a_month >= 0 else "costs more by"
        told.append(
            f"{namespace}/{model}: 1,000 answers cost {savings.before_per_thousand:.3g} with {before}, "
            f"{savings.after_per_thousand:.3g} now ({savings.basis}); at the traffic seen that {verb} "
            f"{_AT_MOST if savings.is_at_most else ''}{_money(abs(savings.a_month), prices)} a month"
            f"{_WITHOUT_HTTP if savings.is_at_most else ''}."
        )
    for (namespace, model), advice in report.advice().items():
        told.append(
            f"{namespace}/{model}: {advice.change} would save {_money(advice.saves_a_month, prices)} a month: {advice.why}. "
            f"But {advice.gives_up}."
        )
    return told


def document(report: CostReport) -> dict[str, Any]:
    """All of it as JSON."""
    advice, savings = report.advice(), report.savings()
    allocation = report.allocation
    return {
        "currency": report.prices.currency,
        "prices": report.prices.model_dump(mode="json"),
        "source": report.source,
        "windowSeconds": allocation.seconds,
        "cpuSeconds": allocation.cpu_seconds,
        "cost": allocation.cost,
        "platform": {"cpuSeconds": dict(allocation.platform_seconds), "cost": allocation.platform_cost},
        "lines": [_line_document(each) for each in allocation.lines],
        "recommendations": [
            {
                "namespace": place[0], "model": place[1], "change": each.change, "why": each.why, "givesUp": each.gives_up,
                "savesAMonth": each.saves_a_month,
            }
            for place, each in advice.items()
        ],
        "savings": [
            {
                "namespace": place[0], "model": place[1], "before": before, "basis": each.basis,
                "beforePerThousand": each.before_per_thousand, "afterPerThousand": each.after_per_thousand, "isAtMost": each.is_at_most,
                "answersAMonth": each.answers_a_month, "savesAMonth": each.a_month,
            }
            for place, (before, each) in savings.items()
        ],
    }  # fmt: skip


def _line_document(line: CostLine) -> dict[str, Any]:
    key: CostKey = line.key
    return {
        "namespace": key.namespace,
        "model": key.model,
        "revision": key.revision,
        "accelerator": line.accelerator,
        "windowSeconds": line.window,
        "counts": line.counts.model_dump(mode="json"),
        "usedCost": line.used_cost,
        "reservedCost": line.reserved_cost,
        "cost": line.cost,
        "idleCost": line.idle_cost,
        "costPerThousand": line.figure_per_thousand(line.cost),
        "cpuSecondsPerThousand": line.figure_per_thousand(line.cpu_seconds),
        "joulesPerThousand": line.figure_per_thousand(sum(line.counts.joules.values())),
        "costAMonth": line.monthly(line.cost),
        "idleAMonth": line.monthly(line.idle_cost),
    }


def _money(amount: float, prices: PriceList) -> str:
    return f"{amount:,.2f} {prices.currency}" if amount >= 1 or amount == 0 else f"{amount:.3g} {prices.currency}"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %" if whole > 0 else "-"
