"""What a new revision saves a month, at the traffic seen: from live figures of both, or from what an optimization measured."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from penstock.cost.allocation import CostLine

_LEAST_ANSWERS: Final = 1000
"""Of each revision. The cost of fewer says little, since starting a replica is part of it."""
_THROUGHPUT: Final = re.compile(r"([\d.,]+)/s → ([\d.,]+)/s")


class SavingsBasis(StrEnum):
    """Where the figures of before and after come from."""

    LIVE = "live"
    """Both revisions have answered in the window."""
    MEASURED = "measured"
    """The optimization measured both on one machine, without HTTP; live is the traffic, and what an answer costs now."""


@dataclass(frozen=True, slots=True)
class Savings:
    """Before and after."""

    basis: SavingsBasis
    before_per_thousand: float
    """What 1,000 answers cost by use, in the price list's currency."""
    after_per_thousand: float
    answers_a_month: float
    """If traffic goes on as it was."""

    @property
    def is_at_most(self) -> bool:
        """Whether it is a bound: what was measured has no HTTP in it, which takes as long as before and is charged as if it did not."""
        return self.basis is SavingsBasis.MEASURED

    @property
    def a_month(self) -> float:
        """What is saved; below 0 where it costs more."""
        return (self.before_per_thousand - self.after_per_thousand) * self.answers_a_month / 1000


def live_savings(before: CostLine, after: CostLine) -> Savings | None:
    """From two revisions that answered in the same window; None where one of them has hardly answered."""
    if min(before.counts.answered, after.counts.answered) < _LEAST_ANSWERS:
        return None
    return Savings(
        SavingsBasis.LIVE,
        before.used_cost * 1000 / before.counts.answered,
        after.used_cost * 1000 / after.counts.answered,
        before.monthly(before.counts.answered) + after.monthly(after.counts.answered),
    )


def measured_savings(after: CostLine, times: float) -> Savings | None:
    """From how many times as much one replica answers since it was optimized.

    `times` is of batcher and engine under load. What HTTP takes, decoding among it, is in what an answer costs and did not become
    faster, so that it was as much before: the saving is at most this.

    Args:
        after: of the optimized revision.
        times: requests a second after, over those before.
    """
    if times <= 0 or not after.counts.answered:
        return None
    now = after.used_cost * 1000 / after.counts.answered
    return Savings(SavingsBasis.MEASURED, now * times, now, after.monthly(after.counts.answered))


def read_throughput(text: str) -> float:
    """How many times as much a replica answers, from a run's figure such as `240/s → 2110/s`; 0 where it does not say."""
    found = _THROUGHPUT.search(text)
    if found is None:
        return 0.0
    before, after = (float(each.replace(",", "")) for each in found.groups())
    return after / before if before > 0 else 0.0
