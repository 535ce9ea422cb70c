"""Where a search stands: what its ledger says of every recipe, and who leads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

from penstock.api.optimization import Objective, OptimizationProfileSpec, Strategy
from penstock.api.quantity import parse_quantity
from penstock.optimization.measurements import Company, Ratio, Role, Timing
from penstock.optimization.recipes import Recipe
from penstock.optimization.report import ControlReport, Outcome
from penstock.optimization.trials import BuildTrial, GateTrial, JudgeTrial, LoadTrial, SessionTrial, Stage, Trial
from penstock.optimization.variants import Variant
from penstock_optimizer.search.constraints import full_test_problem, gate_problem
from penstock_optimizer.search.statistics import controls, controls_hold, speedup

MAX_ATTEMPTS: Final = 3
"""Sessions at the first batch size whose controls fail before the search gives up."""
_FEW: Final = {Strategy.RAPID: 6, Strategy.THOROUGH: 4}
"""So many candidates, or fewer, are measured in one last rung."""


@dataclass(frozen=True)
class SearchPlan:
    """All that a search was asked for."""

    spec: OptimizationProfileSpec
    recipes: tuple[Recipe, ...]
    """Baselines first."""
    baseline_count: int
    """1 or 2: torch eager where the source allows, and ONNX Runtime, which is the last of them."""
    budget_seconds: float
    seed: int = 0
    latency_bound_milliseconds: float | None = None
    """Of the load test."""
    memory_bytes: int | None = None
    """What a replica is given."""
    labelled: bool = False
    synthetic: bool = False
    """The samples were made up, since none were given."""

    @property
    def baselines(self) -> tuple[Recipe, ...]:
        """The first one is what ratios are to."""
        return self.recipes[: self.baseline_count]

    @property
    def candidates(self) -> tuple[Recipe, ...]:
        """All others."""
        return self.recipes[self.baseline_count :]

    @property
    def bound_milliseconds(self) -> float | None:
        """The p99 that requests under load are to keep: the profile's own, or else the deployment's."""
        own = self.spec.constraints.latency_p99_milliseconds
        return float(own) if own is not None else self.latency_bound_milliseconds

    @property
    def memory_limit(self) -> int | None:
        """Bytes that the process of a variant may take at its peak."""
        asked = self.spec.constraints.memory
        limits = [int(parse_quantity(str(asked)))] if asked is not None else []
        return min([*limits, *([self.memory_bytes] if self.memory_bytes is not None else [])], default=None)


class Standing:
    """A ledger, read by recipe and by stage. Nothing here is remembered between two looks."""

    def __init__(self, plan: SearchPlan, ledger: Sequence[Trial]) -> None:
        self.plan = plan
        self.builds = {trial.recipe.key: trial for trial in ledger if isinstance(trial, BuildTrial)}
        self.judge = next((trial for trial in ledger if isinstance(trial, JudgeTrial)), None)
        accuracy = [trial for trial in ledger if isinstance(trial, GateTrial)]
        self.gates = {trial.recipe_key: trial for trial in accuracy if trial.stage is Stage.GATE}
        self.tests = {trial.recipe_key: trial for trial in accuracy if trial.stage is Stage.CERTIFY}
        self.loads = {trial.recipe_key: trial for trial in ledger if isinstance(trial, LoadTrial)}
        self.sessions = [trial for trial in ledger if isinstance(trial, SessionTrial)]

    def variant(self, key: str) -> Variant | None:
        """What a recipe was built to."""
        trial = self.builds.get(key)
        return trial.built if trial is not None and isinstance(trial.built, Variant) else None

    @property
    def plain(self) -> Recipe:
        """ONNX Runtime fp32 on what will serve, against which a speed-up must pay."""
        return self.plan.baselines[-1]

    @property
    def baseline(self) -> Recipe:
        """What ratios and losses are to: the first baseline that could be built."""
        return next((each for each in self.plan.baselines if self.variant(each.key)), self.plan.baselines[0])

    @property
    def running_baselines(self) -> tuple[Recipe, ...]:
        """Those that could be built."""
        return tuple(each for each in self.plan.baselines if self.variant(each.key))

    def gate_failure(self, key: str) -> str | None:
        """Why a recipe did not pass the gate; None where it did, or was not there yet."""
        trial = self.gates.get(key)
        if trial is None:
            return None
        if trial.result is None:
            return trial.problem or "it could not be run"
        company = self.company(key)
        if company is not None and self.runs_alone(key) and self.first_batch > 1 and not self.by_load:
            return f"{company.problem}, so requests may not be joined, and the objective is of batch {self.first_batch}"
        return gate_problem(self.plan.spec.constraints.accuracy, trial.result)

    def test_failure(self, key: str) -> tuple[Outcome, str] | None:
        """Why a recipe did not pass the full test; None where it did, or was not there yet."""
        trial = self.tests.get(key)
        if trial is None:
            return None
        if trial.result is None:
            return Outcome.BROKEN, trial.problem or "it could not be run"
        return full_test_problem(self.plan.spec.constraints.accuracy, trial.result)

    def company(self, key: str) -> Company | None:
        """What others in a batch do to a recipe's answers, by the last look; None where nobody looked."""
        trials = (self.tests.get(key), self.gates.get(key))
        return next((each.result.company for each in trials if each and each.result and each.result.company), None)

    def runs_alone(self, key: str) -> bool:
        """Whether a recipe's requests may not be joined, since its answers depend on who is beside them."""
        company = self.company(key)
        return company is not None and company.problem is not None

    @cached_property
    def admitted(self) -> tuple[Recipe, ...]:
        """Candidates that were built and passed the gate."""
        return tuple(
            each
            for each in self.plan.candidates
            if self.variant(each.key) and each.key in self.gates and self.gate_failure(each.key) is None
        )

    def session(self, rung: int, batch_size: int) -> SessionTrial | None:
        """The last attempt of a rung at a batch size."""
        found = [each for each in self.sessions if each.rung == rung and each.batch_size == batch_size]
        return max(found, key=lambda each: each.attempt, default=None)

    def controls_of(self, session: SessionTrial) -> tuple[ControlReport, ...]:
        """A session's controls, decided."""
        return _controls(session.timings, self.plan.seed)

    def holds(self, session: SessionTrial | None) -> bool:
        """Whether a session's controls let anything be decided."""
        return session is not None and controls_hold(self.controls_of(session))

    def entrants(self, rung: int) -> tuple[Recipe, ...]:
        """Candidates that take part in a rung: those admitted, then each time the better half."""
        entrants = self.admitted
        for former in range(rung):
            session = self.session(former, self.first_batch)
            if session is None:
                return ()
            ranked = self.rank(entrants, session)
            keep = max(math.ceil(len(ranked) / 2), min(self.few, len(ranked)))
            entrants = ranked[:keep]
        return entrants

    @property
    def few(self) -> int:
        """So many candidates are not halved again."""
        return max(_FEW[self.plan.spec.search.strategy], self.plan.spec.search.finalists)

    @property
    def first_batch(self) -> int:
        """The batch size that counts most."""
        return self.plan.spec.workload.batch_sizes[0]

    def rank(self, recipes: Sequence[Recipe], session: SessionTrial) -> tuple[Recipe, ...]:
        """Those that finished a session, the best by the objective first."""
        scored = [(gain.value, each) for each in recipes if (gain := self.measured_gain(each.key, session))]
        return tuple(each for _, each in sorted(scored, key=lambda pair: -pair[0]))

    @cached_property
    def last_session(self) -> SessionTrial | None:
        """Of the first batch size, in the last rung whose controls held."""
        rungs = sorted({each.rung for each in self.sessions}, reverse=True)
        return next((s for r in rungs if self.holds(s := self.session(r, self.first_batch))), None)

    @cached_property
    def leaders(self) -> tuple[Recipe, ...]:
        """Candidates of the last rung that gain enough and keep to the memory, the best first."""
        session = self.last_session
        if session is None:
            return ()
        ranked = self.rank(self.entrants(session.rung), session)
        return tuple(e for e in ranked if self.is_worthwhile(e.key, session) and self.memory_problem(e.key) is None)

    @property
    def passed(self) -> tuple[Recipe, ...]:
        """Leaders that passed the full test, the best first."""
        return tuple(each for each in self.leaders if each.key in self.tests and not self.test_failure(each.key))

    def timing(self, key: str, session: SessionTrial) -> Timing | None:
        """A recipe's timing in a session; controls apart."""
        roles = (Role.BASELINE, Role.SECOND_BASELINE, Role.CANDIDATE)
        return next((each for each in session.timings if each.recipe_key == key and each.role in roles), None)

    def speedup_over(self, reference: str, key: str, session: SessionTrial) -> Ratio | None:
        """How many times faster a recipe is than another, in one session."""
        first, second = self.timing(reference, session), self.timing(key, session)
        return _speedup(first, second, self.plan.seed) if first and second else None

    def measured_gain(self, key: str, session: SessionTrial) -> Ratio | None:
        """A recipe's gain over ONNX Runtime fp32 in what a session can tell of the objective's figure."""
        first, second = self.timing(self.plain.key, session), self.timing(key, session)
        if first is None or second is None:
            return None
        a, b = first.energy.joules_per_sample, second.energy.joules_per_sample
        match self.plan.spec.objective:
            case Objective.MEMORY:
                share = first.peak_memory_bytes / max(second.peak_memory_bytes, 1)
            case Objective.ENERGY if self.joules_known and a is not None and b:
                share = a / b
            case _:
                return _speedup(first, second, self.plan.seed)
        return Ratio(value=share, low=share, high=share)

    def is_worthwhile(self, key: str, session: SessionTrial) -> bool:
        """Whether a recipe gains as much as is asked, and surely more than nothing."""
        gain = self.measured_gain(key, session)
        if gain is None or gain.low <= 1:
            return False
        # What only a load test tells is compared with the asked gain there.
        return self.by_load or gain.value >= float(self.plan.spec.constraints.min_speedup)

    @property
    def by_load(self) -> bool:
        """Whether the load test has the objective's figure."""
        match self.plan.spec.objective:
            case Objective.THROUGHPUT | Objective.COST:
                return True
            case Objective.ENERGY:
                return not self.joules_known
            case Objective.LATENCY | Objective.MEMORY:
                return False

    @cached_property
    def joules_known(self) -> bool:
        """Whether this machine measures energy."""
        timings = [timing for session in self.sessions for timing in session.timings]
        return bool(timings) and all(timing.energy.joules_per_sample is not None for timing in timings)

    def gain(self, key: str) -> Ratio | None:
        """A recipe's gain over ONNX Runtime fp32 in the objective's figure, by all that is known."""
        session = self.last_session
        measured = self.measured_gain(key, session) if session is not None else None
        loaded = self._gain_under_load(key) if self.by_load else None
        if measured is None or loaded is None:
            return measured
        # A load test is run once; what is uncertain of it is what was uncertain of the same engine's runs.
        return Ratio(
            value=loaded, low=loaded * measured.low / measured.value, high=loaded * measured.high / measured.value
        )

    def _gain_under_load(self, key: str) -> float | None:
        before, after = self.loads.get(self.plain.key), self.loads.get(key)
        if before is None or after is None or before.load is None or after.load is None:
            return None
        if self.plan.spec.objective is not Objective.THROUGHPUT:
            return before.load.cpu_seconds_per_request / max(after.load.cpu_seconds_per_request, 1e-12)
        if before.load.requests_per_second <= 0:
            return None
        threads = {recipe.key: recipe.engine.threads for recipe in self.plan.recipes}
        a, b = (each.requests_per_second for each in (before.load, after.load))
        return (b / threads[key]) / (a / threads[self.plain.key])

    def memory_problem(self, key: str) -> str | None:
        """Why a recipe takes too much memory; None where it does not, or was not measured."""
        limit, session = self.plan.memory_limit, self.last_session
        timing = self.timing(key, session) if session is not None else None
        if limit is None or timing is None or timing.peak_memory_bytes <= limit:
            return None
        return f"its process takes {timing.peak_memory_bytes / 1e6:.0f} MB, and {limit / 1e6:.0f} MB are allowed"

    def load_problem(self, key: str) -> str | None:
        """Why a recipe cannot be served under load; None where it can, or was not loaded."""
        trial = self.loads.get(key)
        if trial is None:
            return None
        if trial.load is None:
            return trial.problem or "it could not be run under load"
        bound = trial.load.bound_milliseconds
        if bound is None or (trial.load.requests_per_second > 0 and trial.load.p99_milliseconds <= bound):
            return None
        return f"its p99 under load is {trial.load.p99_milliseconds:.2f} ms, and {bound:.0f} ms are allowed"


@lru_cache(maxsize=4096)
def _speedup(reference: Timing, variant: Timing, seed: int) -> Ratio:
    """A search looks at the same timings before each trial, and a bootstrap takes its time."""
    return speedup(reference, variant, seed)


@lru_cache(maxsize=256)
def _controls(timings: tuple[Timing, ...], seed: int) -> tuple[ControlReport, ...]:
    """Likewise."""
    return controls(timings, seed)
