"""What policies make of one load, at settings found on some draws of it, told by other draws.

A search finds what fits the draws that it saw, for the chance in them, too: so no figure is of those.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from penstock_cli.replay.loads import LoadShape, draw_arrivals, shape_rates
from penstock_cli.replay.model import ReplayCase, ServiceTimes
from penstock_cli.replay.options import VIOLATION_SECONDS
from penstock_cli.replay.policies import LEAST, POLICIES, PolicyFamily
from penstock_cli.replay.search import PolicySearch, Price, ReplayTrial, price_by

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
CONFIRMED: Final = (*SEARCHED, *range(4, 10))
"""Of those on which the setting to meet a rival is chosen, among the best few found: on three draws chance decides between them."""
TOLD: Final = tuple(range(101, 113))
"""Seeds of those that are told of."""
_SETTINGS: Final = (
    *itertools.product((1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 128.0, 1000.0), (0.0, 20.0, 60.0), (0.0,)),
    *itertools.product((4.0, 16.0, 1000.0), (0.0, 20.0, 60.0, 120.0), (2.0, 3.0, 4.0, 5.0, 6.0, 7.0)),
    *itertools.product((1.0, 2.0), (0.0, 20.0), (2.0, 3.0, 4.0, 5.0, 6.0, 7.0)),
)
"""Of ours that are tried: what a miss weighs, the window, and replicas at least."""
_MANY: Final = (5.0, 6.0, 7.0)
"""Replicas at least, beyond what a search tries by itself."""
_NEAR: Final = (1.0, 1.04)
"""Of another's replica-seconds on the searched draws: what spends up to so much may be found to spend less on more draws."""
_FEW: Final = 8
"""Settings that are tried on more draws, for each rival."""


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
    confirm = search(shape, family, CONFIRMED)
    tried = [
        mine.default(),
        *(mine.run({**family.defaults, "weight": w, "window": v, LEAST: n}) for w, v, n in _SETTINGS),
    ]
    rivalries = []
    for name, rival in POLICIES.items():
        if name == "penstock":
            continue
        found, shown = search(shape, rival), PolicySearch(CASE, told, SECONDS, rival)
        theirs = search(shape, rival, CONFIRMED)
        for at, trial in (("default", found.default()), ("best", _best(found, price))):
            near = [each for share in _NEAR for each in sorted(tried, key=_within(share, trial))[:_FEW]]
            matched = _match([confirm.run(each.setting) for each in near], theirs.run(trial.setting))
            rivalries.append(Rivalry(at, shown.run(trial.setting), tell.run(matched.setting)))
    best = tell.run(min(tried, key=price).setting)
    return LoadVerdict(shape, len(TOLD), tell.default(), best, tuple(rivalries))


def _best(search: PolicySearch, price: Price) -> ReplayTrial:
    """The best that a search finds, with as many replicas at least as ours may keep; what was found without them stays unless it is beaten."""
    best = search.best(price)
    for least in _MANY:
        search.run({**best.setting, LEAST: least})
    return search.best(price)


def _within(share: float, theirs: ReplayTrial) -> Price:
    """The fewest violations within that share of a rival's replica-seconds; what takes more is dearer than all that does not.

    Of as few, what spends most: who has none on the loads tried, by little, has some on others. Nobody can have fewer replicas
    than the least all the time: who has them is met at just that.
    """
    most = max(share * theirs.replica_seconds, len(theirs.results) * SECONDS * CASE.minimum)
    return lambda trial: (
        trial.violations - trial.replica_seconds * 1e-6
        if trial.replica_seconds <= most
        else 1e9 + trial.replica_seconds
    )


def _match(tried: Sequence[ReplayTrial], theirs: ReplayTrial) -> ReplayTrial:
    """The one of fewest violations that spends no more than a rival, draw by draw, by more than one standard error of the mean."""

    def spends_more(ours: ReplayTrial) -> bool:
        pairs = zip(ours.results, theirs.results, strict=True)
        more = [mine.replica_seconds - other.replica_seconds for mine, other in pairs]
        return statistics.mean(more) + statistics.stdev(more) / math.sqrt(len(more)) > 1e-6

    return min(tried, key=lambda each: (spends_more(each), each.violations, -each.replica_seconds))
