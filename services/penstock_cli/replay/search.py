"""The best setting of a policy for a load: a coordinate search over a few values of each parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from penstock_cli.replay.model import ReplayCase
from penstock_cli.replay.policies import LEAST, PolicyFamily, Setting
from penstock_cli.replay.simulation import ReplayResult, simulate


@dataclass(frozen=True, slots=True)
class ReplayTrial:
    """A policy with a setting, and what came of it."""

    family: PolicyFamily
    setting: Setting
    results: tuple[ReplayResult, ...]
    """One for each load, in their order."""

    @property
    def violations(self) -> int:
        """Of all loads."""
        return sum(each.violations for each in self.results)

    @property
    def replica_seconds(self) -> float:
        """Of all loads."""
        return sum(each.replica_seconds for each in self.results)


Price = Callable[[ReplayTrial], float]
"""What a trial costs: the least is the best."""


def price_by(violation_seconds: float) -> Price:
    """Replica-seconds, with so many more for each violation."""
    return lambda trial: trial.replica_seconds + violation_seconds * trial.violations


class PolicySearch:
    """Tries settings of one policy on the same loads, each once.

    Args:
        case: what is replayed.
        loads: the arrivals of each.
        seconds: their length.
        family: the policy.
    """

    def __init__(
        self, case: ReplayCase, loads: Sequence[Sequence[float]], seconds: float, family: PolicyFamily
    ) -> None:
        self._case, self._loads, self._seconds, self._family = case, loads, seconds, family
        self._tried: dict[tuple[tuple[str, float], ...], ReplayTrial] = {}

    @property
    def trials(self) -> tuple[ReplayTrial, ...]:
        """All that were tried."""
        return tuple(self._tried.values())

    def run(self, setting: Setting) -> ReplayTrial:
        """One setting's trial."""
        key = tuple(sorted(setting.items()))
        if key not in self._tried:
            self._tried[key] = ReplayTrial(
                self._family, setting, tuple(self._play(setting, load) for load in self._loads)
            )
        return self._tried[key]

    def _play(self, setting: Setting, load: Sequence[float]) -> ReplayResult:
        least = min(max(self._case.minimum, round(setting[LEAST])), self._case.maximum)
        case = replace(self._case, minimum=least)
        result = simulate(case, load, self._seconds, self._family.make(case, setting))
        result.drop_waits()
        return result

    def default(self) -> ReplayTrial:
        """That of the defaults."""
        return self.run(dict(self._family.defaults))

    def best(self, price: Price) -> ReplayTrial:
        """The cheapest that a search finds: one parameter after the other takes its best value, twice over."""
        self.default()
        best = min(self.trials, key=price)
        for _ in range(2):
            before = best
            for name, values in self._family.tried.items():
                trials = [best, *(self.run({**best.setting, name: value}) for value in values)]
                best = min(trials, key=price)
            if best is before:
                break
        return best
