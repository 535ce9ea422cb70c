"""Which recipes a profile stands for, on what is known of the source and the machine. The baselines always go first.

Rapid takes each method with its usual settings; Thorough also their combinations and knobs. Recipes that a machine cannot
run are among them: the search asks each step and engine, and the report says what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from penstock.api.optimization import HardwareSelector, Objective, OptimizationProfileSpec, Strategy
from penstock.engines import ENGINES, GpuUse
from penstock.optimization.hardware import Hardware
from penstock.optimization.recipes import (
    STEPS,
    EngineName,
    EngineSettings,
    Precision,
    PruneMethod,
    QuantizeMethod,
    Recipe,
    Step,
    StepName,
)

_ATTENTION_MATMULS: Final = 4
_RANKS: Final[Mapping[str, int]] = {label: rank for rank, label in enumerate(STEPS)}
_SHARED_THROUGHPUT: Final = (Objective.THROUGHPUT, Objective.COST, Objective.ENERGY)


@dataclass(frozen=True, slots=True)
class _Knob:
    """A setting of a step that is tried otherwise than usual."""

    engine: EngineName
    step: StepName
    parameter: str
    values: tuple[str | bool, ...]
    quantized: QuantizeMethod | None = None
    """Only of models that are quantized so; None: of all."""
    transformer: bool = False
    """Only of transformers."""


_KNOBS: Final = (
    # How activation ranges are chosen; the usual way is MinMax.
    _Knob(EngineName.ONNX_RUNTIME, StepName.QUANTIZE, "calibration", ("Entropy", "Percentile"), QuantizeMethod.STATIC),
    _Knob(EngineName.ONNX_RUNTIME, StepName.QUANTIZE, "perChannel", (False,), QuantizeMethod.DYNAMIC),
    _Knob(EngineName.OPENVINO, StepName.QUANTIZE, "preset", ("Mixed",), QuantizeMethod.STATIC),
    _Knob(EngineName.ONNX_RUNTIME, StepName.GRAPH_OPTIMIZE, "transformer", (True,), transformer=True),
    _Knob(EngineName.ONNX_RUNTIME, StepName.QUANTIZE, "quantizer", ("NNCF",), QuantizeMethod.STATIC, transformer=True),
)


@dataclass(frozen=True)
class SourceFacts:
    """What the choice of recipes needs to know."""

    torch: bool = False
    """The source has a program that torch can run, so that torch eager is a baseline."""
    module: bool = False
    """The source has an import path: without the real `torch.nn.Module` nothing is pruned or distilled."""
    trainable: bool = False
    """There is a train split."""
    operators: Mapping[str, int] = field(default_factory=dict)
    """How many nodes of each operator type the ONNX form has."""
    gpus: bool = False
    """The machine has some that can be used."""

    @property
    def transformer(self) -> bool:
        """Attention looks like a softmax between matrix products; a classifier's head alone has too few of them."""
        products = self.operators.get("MatMul", 0) + self.operators.get("Gemm", 0)
        return self.operators.get("Softmax", 0) > 0 and products > max(
            _ATTENTION_MATMULS, self.operators.get("Conv", 0)
        )


def why_misplaced(selector: HardwareSelector, hardware: Hardware) -> str | None:
    """Why a profile is not worth trying on a machine, as a sentence; None where it is."""
    if selector.architectures and hardware.architecture not in selector.architectures:
        wanted = " or ".join(selector.architectures)
        return f"The profile is for {wanted} processors, and this machine has {hardware.architecture}."
    missing = [each for each in selector.instruction_sets if each not in hardware.instruction_sets]
    if missing:
        return f"The profile wants the instruction sets {', '.join(missing)}, which {hardware.cpu} does not have."
    if selector.accelerator_required and not hardware.gpus:
        return "The profile wants an accelerator, and this machine has none."
    return None


def baselines(spec: OptimizationProfileSpec, facts: SourceFacts, threads: int) -> tuple[Recipe, ...]:
    """Torch eager where the source allows, and ONNX Runtime; both fp32, with nothing done to the model, and on what will serve."""
    plain = EngineName.ONNX_RUNTIME_CUDA if _on_gpu(spec, facts) else EngineName.ONNX_RUNTIME
    names = ((EngineName.TORCH_EAGER,) if facts.torch else ()) + (plain,)
    return tuple(Recipe(engine=_engine(name, spec, facts, threads)) for name in names)


def _on_gpu(spec: OptimizationProfileSpec, facts: SourceFacts) -> bool:
    """A profile for accelerators is of nothing else: what a processor does beside one tells nothing of it."""
    return spec.hardware.accelerator_required and facts.gpus


def _engine(
    name: EngineName,
    spec: OptimizationProfileSpec,
    facts: SourceFacts,
    threads: int,
    precision: Precision = Precision.FP32,
) -> EngineSettings:
    options = {"device": "cuda"} if ENGINES[name].gpu is GpuUse.OPTION and _on_gpu(spec, facts) else {}
    return EngineSettings(name=name, threads=threads, precision=precision, options=options)


def enumerate_recipes(spec: OptimizationProfileSpec, facts: SourceFacts, threads: int) -> tuple[Recipe, ...]:
    """All recipes of a profile, without repetition: the baselines, then what is cheap and likely to win first.

    Args:
        spec: the profile.
        facts: of the source and the machine.
        threads: of one replica.
    """
    found = list(_combine(spec, facts, threads))
    found += list(_transformer_recipes(spec, tuple(found), facts))
    if spec.search.strategy is Strategy.THOROUGH:
        found += list(_with_knobs(tuple(found), facts))
        if threads > 1 and spec.objective in _SHARED_THROUGHPUT:
            # As many replicas of one thread each as one of many threads would take cores.
            found += [_with_one_thread(recipe) for recipe in found]
    ordered = sorted(found, key=lambda recipe: _cost(recipe, spec))
    by_key = {recipe.key: recipe for recipe in (*baselines(spec, facts, threads), *ordered)}
    return tuple(by_key.values())


def _combine(spec: OptimizationProfileSpec, facts: SourceFacts, threads: int) -> Iterator[Recipe]:
    """Every shrinking of the model, on every engine, with every quantization that the strategy asks for."""
    thorough = spec.search.strategy is Strategy.THOROUGH
    for prefix in _prefixes(spec, thorough=thorough):
        possible = not prefix or (facts.module and facts.trainable)
        # One recipe is enough to tell why a shrinking cannot be done here.
        engines = spec.engines if possible else spec.engines[:1]
        for engine in engines:
            for method in _methods(spec, shrunk=bool(prefix), thorough=thorough) if possible else (None,):
                yield _recipe(prefix, engine, method, spec, facts=facts, threads=threads)


def _prefixes(spec: OptimizationProfileSpec, *, thorough: bool) -> Iterator[tuple[Step, ...]]:
    """Ways to make the model smaller before it is quantized; none of them first."""
    yield ()
    prunes = list(_prune_steps(spec, thorough=thorough))
    distils = list(_distil_steps(spec, thorough=thorough))
    for step in (*prunes, *distils):
        yield (step,)
    if thorough and distils and prunes:
        yield (distils[0], prunes[0])


def _prune_steps(spec: OptimizationProfileSpec, *, thorough: bool) -> Iterator[Step]:
    prune = spec.steps.prune
    if prune is None:
        return
    for method in prune.methods:
        fixed = method is PruneMethod.SEMI_STRUCTURED
        for sparsity in prune.sparsities[: None if thorough and not fixed else 1]:
            share = 0.5 if fixed else float(sparsity)
            yield Step(
                name=StepName.PRUNE,
                method=method,
                parameters={"sparsity": share, "fineTuningEpochs": prune.fine_tuning_epochs},
            )


def _distil_steps(spec: OptimizationProfileSpec, *, thorough: bool) -> Iterator[Step]:
    distil = spec.steps.distil
    if distil is None:
        return
    automatic = distil.student_import_path is None
    for width in distil.widths[: None if thorough and automatic else 1]:
        parameters: dict[str, str | int | float | bool] = {
            "temperature": float(distil.temperature),
            "softLabelWeight": float(distil.soft_label_weight),
            "epochs": distil.epochs,
        }
        yield Step(name=StepName.DISTIL, parameters=parameters | ({"width": float(width)} if automatic else {}))


def _methods(spec: OptimizationProfileSpec, *, shrunk: bool, thorough: bool) -> tuple[QuantizeMethod | None, ...]:
    """Quantizations to combine with; a shrunk model gets the profile's first one only, where time is short."""
    quantize = spec.steps.quantize
    if quantize is None:
        return (None,)
    return quantize.methods[:1] if shrunk and not thorough else (*quantize.methods, None)


def _recipe(
    prefix: tuple[Step, ...],
    engine: EngineName,
    method: QuantizeMethod | None,
    spec: OptimizationProfileSpec,
    *,
    facts: SourceFacts,
    threads: int,
) -> Recipe:
    steps = list(prefix)
    graph_optimize, quantize, compiled = spec.steps.graph_optimize, spec.steps.quantize, spec.steps.compile
    if graph_optimize is not None and not ENGINES[engine].from_program:
        steps.append(Step(name=StepName.GRAPH_OPTIMIZE, parameters={"simplify": graph_optimize.simplify}))
    if method is not None and quantize is not None:
        calibrated = method is QuantizeMethod.STATIC
        parameters: dict[str, str | int | float | bool] = (
            {"calibrationSamples": quantize.calibration_samples} if calibrated else {}
        )
        steps.append(Step(name=StepName.QUANTIZE, method=method, parameters=parameters))
    if compiled is not None and ENGINES[engine].compiles:
        steps.append(Step(name=StepName.COMPILE, parameters={"mode": compiled.mode}))
    precision = next(
        (each for step in steps if (each := STEPS[step.label].precision) is not Precision.FP32), Precision.FP32
    )
    return Recipe(steps=tuple(steps), engine=_engine(engine, spec, facts, threads, precision))


def _with_knobs(recipes: tuple[Recipe, ...], facts: SourceFacts) -> Iterator[Recipe]:
    """The same recipes with other settings than the usual ones. What was shrunk by training is not trained for each."""
    for recipe in recipes:
        if any(STEPS[step.label].training for step in recipe.steps):
            continue
        quantize = next((step for step in recipe.steps if step.name is StepName.QUANTIZE), None)
        method = quantize.method if quantize is not None else None
        if method == QuantizeMethod.STATIC and recipe.engine.name is EngineName.OPENVINO:
            yield _with_bf16(recipe)
        for knob in _KNOBS:
            suits = knob.engine is recipe.engine.name and knob.quantized in (None, method)
            if suits and (facts.transformer or not knob.transformer):
                yield from (_with_parameter(recipe, knob, value) for value in knob.values)


def _transformer_recipes(
    spec: OptimizationProfileSpec, recipes: tuple[Recipe, ...], facts: SourceFacts
) -> Iterator[Recipe]:
    """int8 and bf16 together are a method of its own for transformers: their attention stays unquantized."""
    quantize = spec.steps.quantize
    if facts.transformer and quantize is not None and QuantizeMethod.BF16 in quantize.methods:
        for recipe in recipes:
            static = any(step.method == QuantizeMethod.STATIC for step in recipe.steps)
            if static and recipe.engine.name is EngineName.OPENVINO:
                yield _with_bf16(recipe)


def _with_parameter(recipe: Recipe, knob: _Knob, value: str | bool) -> Recipe:  # noqa: FBT001 -- a step's setting
    steps = tuple(
        step.model_copy(update={"parameters": {**step.parameters, knob.parameter: value}})
        if step.name is knob.step
        else step
        for step in recipe.steps
    )
    return recipe.model_copy(update={"steps": steps})


def _with_bf16(recipe: Recipe) -> Recipe:
    """int8 where the model is quantized, bf16 in between."""
    engine = recipe.engine.model_copy(update={"precision": Precision.BF16})
    return recipe.model_copy(update={"engine": engine})


def _with_one_thread(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"engine": recipe.engine.model_copy(update={"threads": 1})})


def _cost(recipe: Recipe, spec: OptimizationProfileSpec) -> tuple[int, int, int, int]:
    """A key to sort by: what trains goes last, then what seldom wins; engines as the profile lists them."""
    training = sum(STEPS[step.label].training for step in recipe.steps)
    quantize = next((step for step in recipe.steps if step.name is StepName.QUANTIZE), None)
    method = _RANKS[quantize.label] if quantize is not None else len(_RANKS)
    static = quantize is not None and quantize.method == QuantizeMethod.STATIC
    turned = {knob.parameter for knob in _KNOBS}
    knobs = int(recipe.engine.precision is Precision.BF16 and static) + sum(
        name in turned for step in recipe.steps for name in step.parameters
    )
    return training, knobs, method, spec.engines.index(recipe.engine.name)
