"""A world in which every trial's result is known beforehand, so that whole searches run in a unit test."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from penstock.api.optimization import OptimizationProfileSpec
from penstock.optimization.hardware import Hardware
from penstock.optimization.measurements import (
    AccuracyControl,
    AccuracyResult,
    Company,
    Energy,
    EnergyMethod,
    Judgement,
    LoadPoint,
    MetricName,
    Role,
    Timing,
)
from penstock.optimization.recipes import EngineName, Recipe
from penstock.optimization.trials import BuildTrial, GateTrial, JudgeTrial, LoadTrial, SessionTrial, Stage, Trial
from penstock.optimization.variants import Broken, Infeasible, Variant
from penstock.serving.manifest import BatchPoint, ModelFile, ModelFormat, Signature
from penstock_optimizer.search.candidates import SourceFacts, enumerate_recipes
from penstock_optimizer.search.decide import (
    Action,
    Build,
    Certify,
    Conclude,
    Gate,
    JudgeOutputs,
    LoadTest,
    MeasureSession,
    decide,
)
from penstock_optimizer.search.standing import SearchPlan
from penstock_optimizer.search.statistics import loss_bound_binary

HARDWARE = Hardware(architecture="x86_64", cpu="Test", cores=2, instruction_sets=("avx2", "avx512_vnni", "avx512_bf16"))
JUDGEMENTS = (Judgement(metric=MetricName.ACCURACY, output="y", labelled=True, reason="labels are int64"),)
BALANCED: dict[str, Any] = {
    "steps": {"graphOptimize": {}, "quantize": {"methods": ["Static", "Dynamic", "BF16"]}},
    "engines": ["ONNXRuntime", "OpenVINO"],
    "constraints": {"accuracy": {"minRatio": "0.99"}, "minSpeedup": "1.1"},
}


def spec(**changes: Any) -> OptimizationProfileSpec:
    return OptimizationProfileSpec.model_validate(BALANCED | changes)


def facts(
    *, torch: bool = True, module: bool = True, operators: dict[str, int] | None = None, gpus: bool = False
) -> SourceFacts:
    return SourceFacts(torch=torch, module=module, trainable=module, operators=operators or {"Conv": 4}, gpus=gpus)


def plan(profile: OptimizationProfileSpec | None = None, *, torch: bool = True, budget: float = 1200.0) -> SearchPlan:
    found = profile or spec()
    recipes = enumerate_recipes(found, facts(torch=torch), 1)
    return SearchPlan(
        spec=found, recipes=recipes, baseline_count=2 if torch else 1, budget_seconds=budget, labelled=True
    )


def named(searched: SearchPlan, engine: EngineName, method: str = "") -> Recipe:
    """The candidate with a quantization method, or with none, on an engine."""
    found = [
        each
        for each in searched.candidates
        if each.engine.name is engine
        and [step.method for step in each.steps if step.name == "quantize"] == ([method] if method else [])
    ]
    return found[0]


@dataclass
class World:
    """What each trial gives. Everything is as fast as ONNX Runtime fp32 and as good as the baseline, unless it says."""

    searched: SearchPlan
    speed: dict[str, float] = field(default_factory=dict)
    """By recipe key: how many times faster than ONNX Runtime fp32."""
    lost: dict[str, int] = field(default_factory=dict)
    """By recipe key: of 100 samples."""
    lost_in_test: dict[str, int] = field(default_factory=dict)
    """By recipe key: of 1000 samples, in the full test only."""
    infeasible: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    same_again: list[float] = field(default_factory=list)
    """Of each session in turn; 1.0 after that."""
    memory: dict[str, int] = field(default_factory=dict)
    p99: dict[str, float] = field(default_factory=dict)
    unsuited: str | None = None
    alone: tuple[str, ...] = ()
    """Recipes whose answers depend on who is beside them."""
    controls: tuple[AccuracyControl, ...] = ()
    test_samples: int = 1000
    seconds: float = 1.0
    """Of each trial."""

    def search(self, ledger: list[Trial] | None = None, until: int = 10_000) -> tuple[list[Trial], list[Action]]:
        """Run until there is nothing more to try, or so many trials stand in the ledger."""
        trials, actions = list(ledger or []), []
        while len(trials) < until:
            action = decide(self.searched, trials, sum(trial.seconds for trial in trials))
            if isinstance(action, Conclude):
                break
            actions.append(action)
            trials.append(self.trial(action, trials))
        return trials, actions

    def trial(self, action: Action, ledger: list[Trial]) -> Trial:
        match action:
            case Build():
                return BuildTrial(recipe=action.recipe, built=self._built(action.recipe), seconds=self.seconds)
            case JudgeOutputs():
                return JudgeTrial(
                    judgements=JUDGEMENTS, controls=self.controls, problem=self.unsuited, seconds=self.seconds
                )
            case Gate():
                assert action.judgements == JUDGEMENTS, "what was chosen once judges all"
                result = self._beside(action.recipe.key, self.lost.get(action.recipe.key, 0), 100, "validation")
                return GateTrial(stage=Stage.GATE, recipe_key=action.recipe.key, result=result, seconds=self.seconds)
            case Certify():
                count = self.test_samples
                lost = self.lost_in_test.get(action.recipe.key, 0)
                return GateTrial(
                    stage=Stage.CERTIFY,
                    recipe_key=action.recipe.key,
                    result=self._beside(action.recipe.key, lost, count, "test"),
                    seconds=self.seconds,
                )
            case MeasureSession():
                return self._session(action, sum(isinstance(each, SessionTrial) for each in ledger))
            case LoadTest():
                return self._load(action)
            case Conclude():
                raise AssertionError("nothing to try")

    def _built(self, recipe: Recipe) -> Variant | Infeasible | Broken:
        if recipe.key in self.infeasible:
            return Infeasible(part=recipe.label, reason="it needs what is not here")
        if recipe.key in self.broken:
            return Broken(part=recipe.label, message="it crashed")
        return Variant(
            recipe=recipe,
            format=ModelFormat.ONNX,
            entrypoint="model.onnx",
            signature=Signature(inputs=(), outputs=()),
            files={"model.onnx": ModelFile(sha256="0" * 64, size_bytes=1000)},
            engine=recipe.engine,
            weight_precision="fp32",
        )

    def _beside(self, key: str, lost: int, samples: int, split: str) -> AccuracyResult:
        problem = "beside zeros its answers change by up to 40% of their range" if key in self.alone else None
        company = Company(subjects=8, rows=8, beside="zeros", change=0.4 if problem else 0.0, problem=problem)
        return self._accuracy(lost, samples, split).model_copy(update={"company": company})

    @staticmethod
    def _accuracy(lost: int, samples: int, split: str) -> AccuracyResult:
        return AccuracyResult(
            metric=MetricName.ACCURACY,
            samples=samples,
            baseline=1.0,
            candidate=1 - lost / samples,
            loss=lost / samples,
            loss_bound=loss_bound_binary(lost, 0, samples, 0.95),
            confidence=0.95,
            baseline_right_candidate_wrong=lost,
            candidate_right_baseline_wrong=0,
            split=split,
        )

    def _session(self, action: MeasureSession, index: int) -> SessionTrial:
        noise = self.same_again[index] if index < len(self.same_again) else 1.0
        timings = []
        for entrant in action.entrants:
            speed = 1.0
            if entrant.role is Role.CANDIDATE:
                speed = self.speed.get(entrant.recipe.key, 1.0)
            elif entrant.role is Role.BASELINE and self.searched.baseline_count > 1:
                speed = 0.5
            elif entrant.role is Role.SAME_AGAIN:
                speed = noise * (0.5 if self.searched.baseline_count > 1 else 1.0)
            timings.append(self._timing(entrant.role, entrant.recipe.key, action, speed))
        return SessionTrial(
            rung=action.rung,
            attempt=action.attempt,
            batch_size=action.batch_size,
            timings=tuple(timings),
            seconds=self.seconds,
        )

    def _timing(self, role: Role, key: str, action: MeasureSession, speed: float) -> Timing:
        cpu = tuple(0.01 / speed * (1 + 0.002 * (turn % 3)) for turn in range(action.rounds))
        return Timing(
            role=role,
            recipe_key=key,
            batch_size=action.batch_size,
            rounds=action.rounds,
            runs=action.rounds * 10,
            cpu_seconds_per_run=cpu,
            wall_seconds_per_run=cpu,
            wall_milliseconds_p50=10 / speed,
            wall_milliseconds_p99=12 / speed,
            peak_memory_bytes=self.memory.get(key, 100_000_000),
            load_seconds=0.1,
            energy=Energy(method=EnergyMethod.ESTIMATED, cpu_seconds_per_sample=0.01 / speed),
        )

    def _load(self, action: LoadTest) -> LoadTrial:
        speed = self.speed.get(action.recipe.key, 1.0)
        bound = self.searched.bound_milliseconds
        point = LoadPoint(
            recipe_key=action.recipe.key,
            requests_per_second=100 * speed,
            p50_milliseconds=8 / speed,
            p99_milliseconds=self.p99.get(action.recipe.key, 10 / speed),
            bound_milliseconds=bound,
            cpu_seconds_per_request=0.01 / speed,
        )
        curve = (
            BatchPoint(rows=1, p50_milliseconds=10 / speed, p99_milliseconds=11 / speed, rows_per_second=100 * speed),
        )
        return LoadTrial(recipe_key=action.recipe.key, load=point, curve=curve, seconds=self.seconds)
