"""The best setting of a policy for a load: a coordinate search over a few values of each parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from penstock_cli.replay.model import ReplayCase
from penstock_cli.replay.policies import PolicyFamily, Setting
from penstock_cli.replay.simulation import ReplayResult, simulate

VIOLATION_SECONDS: Final = 2.0
"""Replica-seconds that a request without an answer in time is taken to cost, where nobody says otherwise."""
Price = Callable[[ReplayResult], float]
"""What a result costs: the least is the best."""


@dataclass(frozen=True, slots=True)
class ReplayTrial:
    """A policy with a setting, and what came of it."""

    family: PolicyFamily
    setting: Setting
    result: ReplayResult


def price_by(violation_seconds: float) -> Price:
    """Replica-seconds, with so many more for each violation."""
    return lambda result: result.replica_seconds + violation_seconds * result.violations


def price_within(replica_seconds: float) -> Price:
    """The fewest violations at no more than so many replica-seconds; what takes more is dearer than all that does not."""
    return lambda result: (
        result.violations + result.replica_seconds * 1e-6
        if result.replica_seconds <= replica_seconds
        else 1e9 + result.replica_seconds
    )


class PolicySearch:
    """Tries settings of one policy on one load, each once.

    Args:
        case: what is replayed.
        arrivals: the load.
        seconds: its length.
        family: the policy.
    """

    def __init__(self, case: ReplayCase, arrivals: Sequence[float], seconds: float, family: PolicyFamily) -> None:
        self._case, self._arrivals, self._seconds, self._family = case, arrivals, seconds, family
        self._tried: dict[tuple[tuple[str, float], ...], ReplayTrial] = {}

    @property
    def trials(self) -> tuple[ReplayTrial, ...]:
        """All that were tried."""
        return tuple(self._tried.values())

    def run(self, setting: Setting) -> ReplayTrial:
        """One setting's trial."""
        key = tuple(sorted(setting.items()))
        if key not in self._tried:
            policy = self._family.make(self._case, setting)
            result = simulate(self._case, self._arrivals, self._seconds, policy)
            result.drop_waits()
            self._tried[key] = ReplayTrial(self._family, setting, result)
        return self._tried[key]

    def default(self) -> ReplayTrial:
        """That of the defaults."""
        return self.run(dict(self._family.defaults))

    def best(self, price: Price, rounds: int = 2) -> ReplayTrial:
        """The cheapest that a search finds: one parameter after the other takes its best value, `rounds` times over."""
        self.default()
        best = min(self.trials, key=lambda each: price(each.result))
        for _ in range(rounds):
            before = best
            for name, values in self._family.tried.items():
                trials = [best, *(self.run({**best.setting, name: value}) for value in values)]
                best = min(trials, key=lambda each: price(each.result))
            if best is before:
                break
        return best
