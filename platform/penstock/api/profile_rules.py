"""The CEL rules of optimization profiles and runs. See `penstock.api.rules`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel

from penstock.api import optimization as api
from penstock.api.rule import (
    Rule,
    decimal,
    immutable,
    import_path,
    is_none_of,
    is_one_of,
    location,
    positive_quantity,
    ratio,
    shares,
)
from penstock.engines import FORMATS, GpuUse, Servability, engines_where, formats_where
from penstock.optimization.hardware import KNOWN_INSTRUCTION_SETS
from penstock.optimization.recipes import EngineName
from penstock.wording import join_with_or

_GPU: Final = engines_where(lambda engine: engine.gpu is not GpuUse.NEVER)
OPTIMIZABLE: Final = formats_where(lambda each: each.optimizable)
_NEVER_SERVED: Final = engines_where(lambda engine: FORMATS[engine.given].served is Servability.ELSEWHERE)
_IMMUTABLE_PROFILE: Final = immutable(
    "a profile cannot be changed, since what was measured under it would no longer be what it says: create another "
    "profile under a new name and point the deployments' optimizationProfileRef at it"
)


def _engine_for(condition: str, engines: tuple[EngineName, ...], why: str, otherwise: str, field_path: str) -> Rule:
    """Where the condition holds, one of these engines must be there. `otherwise`: what else can be done."""
    wanted = is_one_of("each", engines)
    message = f"{why}: add {join_with_or(engines)} to engines, or {otherwise}"
    return Rule(f"!({condition}) || self.engines.exists(each, {wanted})", message, field_path=field_path)


def _method(step: str, methods: tuple[str, ...]) -> str:
    return f"has(self.steps.{step}) && self.steps.{step}.methods.exists(each, {is_one_of('each', methods)})"


MODEL_RULES: Final[Mapping[type[BaseModel], tuple[Rule, ...]]] = {
    api.OptimizationRun: (
        Rule(
            "self.metadata.name.size() <= 60 && !self.metadata.name.contains('.')",
            "metadata.name must have at most 60 characters, all of them a-z, 0-9 or -, such as digits-2: it becomes part "
            "of other objects' names",
        ),
    ),
    api.OptimizationRunSpec: (
        Rule(
            is_one_of("self.model.modelFormat", OPTIMIZABLE),
            f"an optimization starts from {join_with_or(OPTIMIZABLE)}: give the model as one of these",
            field_path=".model.modelFormat",
        ),
    ),
    api.OptimizationProfileSpec: (
        Rule(
            f"self.engines.exists(each, {is_none_of('each', _NEVER_SERVED)})",
            f"engines must name one that serves, such as ONNXRuntime or OpenVINO: {join_with_or(_NEVER_SERVED)} alone only makes "
            "bundles for "
            "devices",
            field_path=".engines",
        ),
        _engine_for(
            _method("quantize", ("FP8", "INT4WeightOnly")),
            engines_where(lambda engine: engine.torch),
            "FP8 and INT4WeightOnly are torchao's, on GPUs",
            "leave these methods out",
            ".steps.quantize.methods",
        ),
        _engine_for(
            _method("quantize", ("Static", "Dynamic")),
            engines_where(lambda engine: engine.int8),
            "Static and Dynamic make int8",
            "leave these methods out",
            ".steps.quantize.methods",
        ),
        _engine_for(
            _method("prune", ("SemiStructured24",)),
            _GPU,
            "SemiStructured24 is for GPUs with sparse tensor cores",
            "take Structured, which makes models faster everywhere",
            ".steps.prune.methods",
        ),
        _engine_for(
            "has(self.steps.compile)",
            engines_where(lambda engine: engine.compiles),
            "compile makes machine code by torch's Inductor",
            "leave compile out",
            ".steps.compile",
        ),
        _engine_for(
            "self.hardware.acceleratorRequired",
            _GPU,
            "acceleratorRequired needs an engine that uses one",
            "leave acceleratorRequired out",
            ".hardware.acceleratorRequired",
        ),
    ),
    api.Workload: (
        Rule(
            "self.batchSizes.all(each, each <= self.maxBatchSize)",
            "batchSizes must not be above maxBatchSize (32 where it is left out): lower the one or raise the other",
            field_path=".batchSizes",
        ),
    ),
    api.AccuracyConstraint: (
        Rule(
            "has(self.minRatio) || has(self.maxLossPoints) || has(self.minValue)",
            'accuracy needs a bound: write minRatio, such as "0.99", maxLossPoints, such as "1", or minValue, such as '
            '"0.995"',
        ),
        Rule(
            "!has(self.metric) || self.metric != 'ImportPath' || has(self.importPath)",
            "importPath is needed with metric ImportPath: name the callable from (outputs, labels) to a figure for each "
            "sample, such as metrics.ranking:score",
            field_path=".importPath",
        ),
        Rule(
            "!has(self.importPath) || (has(self.metric) && self.metric == 'ImportPath')",
            "importPath is used with metric ImportPath only: write metric: ImportPath, or leave importPath out",
            field_path=".importPath",
        ),
    ),
}

FIELD_RULES: Final[Mapping[tuple[type[BaseModel], str], tuple[Rule, ...]]] = {
    (api.OptimizationProfile, "spec"): (_IMMUTABLE_PROFILE,),
    (api.ClusterOptimizationProfile, "spec"): (_IMMUTABLE_PROFILE,),
    (api.OptimizationRun, "spec"): (
        immutable(
            "a run cannot be changed, since it says what was measured: create another under a new name; a deployment's "
            "own run follows the deployment"
        ),
    ),
    (api.PruneStep, "sparsities"): shares("sparsities", "0.5"),
    (api.DistilStep, "widths"): shares("widths", "0.5"),
    (api.DistilStep, "student_import_path"): import_path("studentImportPath", "models.digits:small"),
    (api.DistilStep, "temperature"): decimal("temperature", "4", positive=True),
    (api.DistilStep, "soft_label_weight"): ratio("softLabelWeight", "0.7"),
    (api.HardwareSelector, "architectures"): (
        Rule(
            "self.all(each, each in ['x86_64', 'aarch64'])",
            "architectures must be the kernel's names, x86_64 or aarch64 (not amd64 or arm64)",
        ),
    ),
    (api.HardwareSelector, "instruction_sets"): (
        Rule(
            f"self.all(each, each in [{', '.join(repr(each) for each in KNOWN_INSTRUCTION_SETS)}])",
            f"instructionSets must be flags as /proc/cpuinfo has them, of these: {', '.join(KNOWN_INSTRUCTION_SETS)}",
        ),
    ),
    (api.DataSource, "storage_uri"): location("storageUri", "file:///data/digits"),
    (api.AccuracyConstraint, "import_path"): import_path("importPath", "metrics.ranking:score"),
    (api.AccuracyConstraint, "min_ratio"): ratio("minRatio", "0.99"),
    (api.AccuracyConstraint, "max_loss_points"): decimal("maxLossPoints", "1"),
    (api.AccuracyConstraint, "min_value"): decimal("minValue", "0.995"),
    (api.AccuracyConstraint, "confidence"): (
        Rule(
            r"string(self).matches('^0\\.[5-9][0-9]*$')",
            'confidence must be a decimal from "0.5" to below "1", in quotes, such as "0.95"',
        ),
    ),
    (api.Constraints, "memory"): positive_quantity("memory", "1Gi or 512Mi"),
    (api.Constraints, "min_speedup"): decimal("minSpeedup", "1.1", positive=True),
}
