"""What would save most of what is kept in vain: fewer replicas, fewer cores, a share of a GPU, a group without one.

A recommendation leaves room (`_FULL`), says what it gives up, and is never carried out by anybody but the user.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from penstock.cost.allocation import CostLine
from penstock.cost.prices import MONTH, PriceList, cost_of

_FULL: Final = 0.7
"""Of what is kept, so much may be used on the average: the rest is for peaks, of which an average knows nothing."""
_SHARES: Final = (0.125, 0.25, 0.5)
_UNUSED: Final = 0.05
"""An accelerator that is in use for less than this share of the time is one that the model hardly needs."""
_LEAST_CORES: Final = 0.1
_WORTH: Final = 0.05
"""Of a line's cost: less is not worth a change."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the spec says that counts here."""

    fixed_replicas: int | None = None
    min_replicas: int = 1
    cpus: float = 1.0
    accelerators: float = 0.0
    accelerator: str = ""
    is_shareable: bool = True
    """Whether the accelerator can be shared."""
    objective_milliseconds: int | None = None
    capacity: float = 0.0
    """Requests a second that one replica answers within the objective; 0: not known."""

    @property
    def least_replicas(self) -> int:
        """So many there always are."""
        return self.min_replicas if self.fixed_replicas is None else self.fixed_replicas


@dataclass(frozen=True, slots=True)
class CostAdvice:
    """One thing that could be done."""

    change: str
    """To the spec, as it is written there."""
    why: str
    gives_up: str
    """What it costs otherwise, in a sentence."""
    saves_a_month: float
    """In the price list's currency, if traffic goes on as it was."""


def advise(line: CostLine, terms: Terms, prices: PriceList) -> CostAdvice | None:
    """What would save most; None where nothing would save a twentieth of what the line costs.

    Args:
        line: of the revision that serves.
        terms: of its deployment.
        prices: of what would be saved.
    """
    if line.window <= 0 or line.counts.seconds <= 0:
        return None
    found = max(_advices(line, terms, prices), key=lambda each: each.saves_a_month, default=None)
    return found if found is not None and found.saves_a_month > _WORTH * line.monthly(line.cost) else None


def _advices(line: CostLine, terms: Terms, prices: PriceList) -> Iterator[CostAdvice]:
    replicas = line.counts.seconds / line.window
    yield from _fewer_replicas(line, terms, replicas)
    yield from _fewer_cores(line, terms, prices, replicas)
    yield from _less_accelerator(line, terms, prices, replicas)


def _fewer_replicas(line: CostLine, terms: Terms, replicas: float) -> Iterator[CostAdvice]:
    """Where the least number is what there is, and more than the traffic asks for."""
    least = terms.least_replicas
    field = "scaling.minReplicas" if terms.fixed_replicas is None else "scaling.replicas"
    monthly = line.monthly(line.reserved_cost) / replicas
    # While it was scaled beyond the least number, that number was not what kept replicas there.
    if least == 0 or replicas > least + 0.5:
        return
    if line.counts.answered == 0:
        yield CostAdvice(
            "scaling.minReplicas: 0",
            "no request came",
            "the first request waits until a replica has started, which takes seconds to minutes",
            monthly * min(replicas, least),
        )
        return
    needed = _replicas_needed(line, terms, replicas)
    if needed < least:
        bound = (
            "its requests a second, by what a replica answers within the objective"
            if terms.capacity
            else "its use of CPU and accelerator; what a replica carries within an objective is not known, so measure it first"
        )
        gives_up = "peaks wait until more have started" if needed > 1 else (
            "where the only replica is lost, requests wait until another has started, and peaks likewise"
        )  # fmt: skip
        yield CostAdvice(
            f"{field}: {needed}",
            f"{least} are kept, {needed} would do by {bound}",
            gives_up,
            monthly * (least - needed),
        )


def _replicas_needed(line: CostLine, terms: Terms, replicas: float) -> int:
    if terms.capacity > 0:
        return max(math.ceil(line.counts.answered / line.window / (terms.capacity * _FULL)), 1)
    counts = line.counts
    shares = [
        used / kept
        for used, kept in (
            (counts.cpu_seconds, counts.reserved_cpu_seconds),
            (counts.accelerator_seconds, counts.reserved_accelerator_seconds),
        )
        if kept > 0
    ]
    return max(math.ceil(replicas * max(shares, default=1.0) / _FULL), 1)


def _fewer_cores(line: CostLine, terms: Terms, prices: PriceList, replicas: float) -> Iterator[CostAdvice]:
    """Cores of each replica. The model's threads follow from them, so answers may take longer."""
    used = line.counts.cpu_seconds / line.counts.seconds
    needed = max(math.ceil(used / _FULL / _LEAST_CORES) * _LEAST_CORES, _LEAST_CORES)
    if terms.cpus - needed < _LEAST_CORES:
        return
    objective = (
        f"the objective of {terms.objective_milliseconds} ms may break: try it on one replica"
        if terms.objective_milliseconds is not None
        else "try it on one replica"
    )
    threads = max(int(needed), 1)
    slower = (
        f"the engine gets {threads} thread{'s' * (threads > 1)} in the place of {int(terms.cpus)}, so a run takes longer; {objective}"
        if threads < int(terms.cpus)
        else "a peak of all replicas of a node at once has less room"
    )
    yield CostAdvice(
        f'resources.cpu: "{needed:g}"',
        f"each replica uses {used:.2g} of {terms.cpus:g} cores on the average",
        slower,
        replicas * cost_of(prices, cpu_seconds=(terms.cpus - needed) * MONTH),
    )


def _less_accelerator(line: CostLine, terms: Terms, prices: PriceList, replicas: float) -> Iterator[CostAdvice]:
    kept = line.counts.reserved_accelerator_seconds
    if kept <= 0 or terms.accelerators <= 0:
        return
    busy = line.counts.accelerator_seconds / line.counts.seconds

    def saving(rest: float) -> float:
        pieces = (terms.accelerators - rest) * MONTH
        return replicas * cost_of(prices, accelerator_seconds=pieces, accelerator=terms.accelerator)

    if busy < _UNUSED * terms.accelerators:
        yield CostAdvice(
            "resources.accelerator: null",
            f"a run is under way for {100 * busy:.1f} % of the time: a group without {terms.accelerator} may do",
            "answers take longer without it, by how much is not known: measure it with a second deployment first",
            saving(0.0),
        )
    fitting = next((share for share in _SHARES if share * _FULL >= busy and share < terms.accelerators), None)
    if terms.is_shareable and fitting is not None:
        yield CostAdvice(
            f'resources.accelerator.count: "{fitting:g}"',
            f"a run is under way for {100 * busy:.1f} % of the time",
            "replicas that share a GPU share its memory, which nothing divides, and wait for each other's runs",
            saving(fitting),
        )
