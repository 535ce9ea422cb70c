"""What policies make of one load, at settings found on some draws of it, told by other draws.

A search finds what fits the draws that it saw, for the chance in them, too: so no figure is of those.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from penstock_cli.replay.loads import LoadShape, draw_arrivals, shape_rates
from penstock_cli.replay.model import ReplayCase, ServiceTimes
from penstock_cli.replay.policies import LEAST, POLICIES, PolicyFamily
from penstock_cli.replay.search import VIOLATION_SECONDS, PolicySearch, ReplayTrial, price_by, price_within

CASE: Final = ReplayCase(
    ServiceTimes(((1, 0.24), (2, 0.34), (4, 0.56), (8, 1.0)), 8),
    slo_seconds=3.0,
    start_seconds=20.0,
    minimum=1,
    maximum=12,
)
"""A transformer of middling size on a core: 8 requests/s in full batches."""
LOW, HIGH, SECONDS = 4.0, 48.0, 1200
SEARCHED: Final = (1, 2, 3)
"""Seeds of the draws on which settings are found."""
TOLD: Final = tuple(range(101, 113))
"""Seeds of those that are told of."""
_SETTINGS: Final = (
    *itertools.product((1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 1000.0), (0.0, 20.0, 60.0), (0.0,)),
    *itertools.product((4.0, 16.0, 1000.0), (0.0, 20.0, 60.0, 120.0), (2.0, 3.0, 4.0, 5.0, 6.0, 7.0)),
)
"""Of ours that are tried: what a miss weighs, the window, and replicas at least."""
_WITHIN: Final = 0.96
"""Of another's replica-seconds on the searched draws, so that chance does not make ours dearer on the others."""


@dataclass(frozen=True, slots=True)
class Rivalry:
    """One rival's result, and ours at the setting that was found to cost no more; both on the draws that are told of."""

    at: str
    """`default` or `best`."""
    theirs: ReplayTrial
    ours: ReplayTrial

    @property
    def holds(self) -> bool:
        """Whether ours violates no more at no more replica-seconds."""
        within = self.ours.replica_seconds <= self.theirs.replica_seconds * (1 + 1e-9)
        return within and self.ours.violations <= self.theirs.violations


@dataclass(frozen=True, slots=True)
class LoadVerdict:
    """How a policy stands on a load, on the draws that are told of."""

    shape: LoadShape
    draws: int
    default: ReplayTrial
    best: ReplayTrial
    rivalries: tuple[Rivalry, ...]

    @property
    def holds(self) -> bool:
        """Whether no rival, at its defaults or at its best, is ahead in either figure."""
        return all(each.holds for each in self.rivalries)

    def text(self) -> str:
        """In a sentence."""
        behind = [
            f"{each.theirs.family.title} at its {each.at} ({_figures(each.theirs, self.draws)}; ours {_figures(each.ours, self.draws)})"
            for each in self.rivalries
            if not each.holds
        ]
        if behind:
            return f"BEHIND on {self.shape}: {'; '.join(behind)}"
        return (
            f"holds on {self.shape}: against each of {len(self.rivalries)} no more violations at no more replica-hours"
        )


def _figures(trial: ReplayTrial, draws: int) -> str:
    return f"{trial.violations / draws:.0f} violations, {trial.replica_seconds / draws / 3600:.3f} h"


def draw(shape: LoadShape, seeds: Sequence[int]) -> list[list[float]]:
    """Arrivals, by seed."""
    return [draw_arrivals(shape_rates(shape, LOW, HIGH, SECONDS, seed), seed) for seed in seeds]


def search(shape: LoadShape, family: PolicyFamily, seeds: Sequence[int] = ()) -> PolicySearch:
    """A search on the draws that are for searching."""
    return PolicySearch(CASE, draw(shape, seeds or SEARCHED), SECONDS, family)


def judge(shape: LoadShape, family: PolicyFamily) -> LoadVerdict:
    """How a policy stands on a load, against each of the others at its defaults and at the best setting found."""
    told = draw(shape, TOLD)
    price = price_by(VIOLATION_SECONDS)
    mine, tell = search(shape, family), PolicySearch(CASE, told, SECONDS, family)
    tried = [mine.default(), *(mine.run({"weight": w, "window": v, LEAST: n}) for w, v, n in _SETTINGS)]
    # Nobody can have fewer than the least all the time: who has them is met at just that.
    least_seconds = len(mine.default().results) * SECONDS * CASE.minimum
    rivalries = []
    for name, rival in POLICIES.items():
        if name == "penstock":
            continue
        found, shown = search(shape, rival), PolicySearch(CASE, told, SECONDS, rival)
        for at, trial in (("default", found.default()), ("best", found.best(price))):
            matched = min(tried, key=price_within(max(_WITHIN * trial.replica_seconds, least_seconds)))
            rivalries.append(Rivalry(at, shown.run(trial.setting), tell.run(matched.setting)))
    best = tell.run(min(tried, key=price).setting)
    return LoadVerdict(shape, len(TOLD), tell.default(), best, tuple(rivalries))
