"""Carries out what `penstock_optimizer.search.decide` decides: one action, one trial. Failures are trials too."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from penstock.errors import Invalid
from penstock.optimization.measurements import AccuracyResult, Role
from penstock.optimization.recipes import Recipe
from penstock.optimization.trials import BuildTrial, GateTrial, JudgeTrial, LoadTrial, SessionTrial, Stage, Trial
from penstock.optimization.variants import BuildRequest
from penstock_optimizer.accuracy.evaluate import evaluate, look_at_baseline
from penstock_optimizer.building.variant import build, check_feasibility
from penstock_optimizer.measure.controls import negative_control
from penstock_optimizer.measure.load import load_test
from penstock_optimizer.measure.session import Contestant, SessionSettings, run_session
from penstock_optimizer.publishing.signing_key import secrets_of
from penstock_optimizer.search.decide import Build, Certify, Gate, JudgeOutputs, LoadTest, MeasureSession
from penstock_optimizer.search.preparation import Prepared
from penstock_optimizer.search.workspace import SearchFolder

_CONTROL_KEY: Final = "negative-control"
_LEAST_BUILD_SECONDS: Final = 60.0
_BUILD_SHARE: Final = 0.5
"""Of the time that is left, for one build: a training that took all of it would leave none to measure."""

Doable = Build | JudgeOutputs | Gate | MeasureSession | Certify | LoadTest


@dataclass(frozen=True)
class Execution:
    """Runs trials of one search. Each runs in children of its own, which end with this process."""

    prepared: Prepared
    folder: SearchFolder

    def run(self, action: Doable, seconds_left: float) -> Trial:
        """Carry out an action.

        Args:
            action: what to do.
            seconds_left: of the budget. What trains sizes itself to it.

        Raises:
            Invalid: the samples cannot be read any more.
        """
        started = time.monotonic()
        match action:
            case Build():
                return self._build(action.recipe, seconds_left, started)
            case JudgeOutputs():
                return self._judge(action, started)
            case Gate() | Certify():
                return self._accuracy(action, started)
            case MeasureSession():
                return self._session(action, started)
            case LoadTest():
                return self._load(action, started)

    def _build(self, recipe: Recipe, seconds_left: float, started: float) -> BuildTrial:
        prepared = self.prepared
        built = check_feasibility(recipe, prepared.source, prepared.data, prepared.hardware) or build(
            BuildRequest(
                source=str(prepared.source_folder),
                data=prepared.data,
                recipe=recipe,
                output=str(self.folder.variant(recipe.key)),
                seed=prepared.request.seed,
                # Nothing is measured meanwhile, so a build may use the whole machine.
                threads=max(recipe.engine.threads, prepared.hardware.cores),
                budget_seconds=max(_LEAST_BUILD_SECONDS, seconds_left * _BUILD_SHARE),
            ),
            sandbox=prepared.request.sandbox,
            hidden=secrets_of(prepared.request),
        )
        return BuildTrial(recipe=recipe, built=built, seconds=time.monotonic() - started)

    def _judge(self, action: JudgeOutputs, started: float) -> JudgeTrial:
        prepared = self.prepared
        try:
            judgements, controls = look_at_baseline(
                self.folder.variant(action.baseline.key),
                prepared.data,
                prepared.plan.spec.constraints.accuracy,
                limit=action.samples,
                work=self.folder.outputs,
                python_path=prepared.source.python_path,
                sandbox=prepared.request.sandbox,
                hidden=(Path(prepared.request.signing_key),),
            )
        except Invalid as error:
            return JudgeTrial(problem=error.message, seconds=time.monotonic() - started)
        return JudgeTrial(judgements=judgements, controls=controls, seconds=time.monotonic() - started)

    def _accuracy(self, action: Gate | Certify, started: float) -> GateTrial:
        prepared = self.prepared
        full = isinstance(action, Certify)
        stage: Literal[Stage.GATE, Stage.CERTIFY] = Stage.CERTIFY if full else Stage.GATE
        result: AccuracyResult | None = None
        problem: str | None = None
        try:
            result = evaluate(
                self.folder.variant(action.baseline.key),
                self.folder.variant(action.recipe.key),
                prepared.data,
                prepared.plan.spec.constraints.accuracy,
                split="test" if full else "validation",
                limit=None if isinstance(action, Certify) else action.samples,
                work=self.folder.outputs,
                judgements=action.judgements,
                python_path=prepared.source.python_path,
                sandbox=prepared.request.sandbox,
                hidden=secrets_of(prepared.request),
            )
        except Invalid as error:
            problem = error.message
        return GateTrial(
            stage=stage,
            recipe_key=action.recipe.key,
            result=result,
            problem=problem,
            seconds=time.monotonic() - started,
        )

    def _session(self, action: MeasureSession, started: float) -> SessionTrial:
        settings = SessionSettings(
            sandbox=self.prepared.request.sandbox,
            hidden=secrets_of(self.prepared.request),
            batch_size=action.batch_size,
            samples=Path(self.prepared.data.test),
            rounds=action.rounds,
            seconds_per_round=action.seconds_per_round,
            seed=self.prepared.plan.seed + 1000 * action.rung + action.attempt,
        )
        result = run_session([self._contestant(each.role, each.recipe) for each in action.entrants], settings)
        return SessionTrial(
            rung=action.rung,
            attempt=action.attempt,
            batch_size=action.batch_size,
            timings=result.timings,
            problems=result.problems,
            seconds=time.monotonic() - started,
        )

    def _contestant(self, role: Role, recipe: Recipe) -> Contestant:
        folder = self.folder.variant(recipe.key)
        if role is Role.NEGATIVE_CONTROL:
            return Contestant(role, _CONTROL_KEY, negative_control(folder, self.folder.control))
        return Contestant(role, recipe.key, folder)

    def _load(self, action: LoadTest, started: float) -> LoadTrial:
        prepared = self.prepared
        workload = prepared.plan.spec.workload
        try:
            load, curve = load_test(
                self.folder.variant(action.recipe.key),
                prepared.data,
                workload.model_copy(update={"max_batch_size": 1}) if action.alone else workload,
                prepared.plan.bound_milliseconds,
                seconds=action.seconds,
                seed=prepared.plan.seed,
                sandbox=prepared.request.sandbox,
                hidden=secrets_of(prepared.request),
            )
        except Invalid as error:
            return LoadTrial(
                recipe_key=action.recipe.key, load=None, problem=error.message, seconds=time.monotonic() - started
            )
        load = load.model_copy(update={"recipe_key": action.recipe.key})
        return LoadTrial(recipe_key=action.recipe.key, load=load, curve=curve, seconds=time.monotonic() - started)
