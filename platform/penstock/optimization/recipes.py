"""A recipe: what is done to a model, in order, and what runs the result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from penstock.models import Frozen


class StepName(StrEnum):
    """The steps. Each, or each method of one, has its row in `STEPS`."""

    GRAPH_OPTIMIZE = "graphOptimize"
    QUANTIZE = "quantize"
    PRUNE = "prune"
    DISTIL = "distil"
    COMPILE = "compile"


class QuantizeMethod(StrEnum):
    """How weights, and perhaps activations, get fewer bits."""

    DYNAMIC = "Dynamic"
    """int8 weights; activations are quantized at run time."""
    STATIC = "Static"
    """int8 QDQ with calibrated activations: ONNX Runtime's for ONNX Runtime, NNCF's for OpenVINO."""
    BF16 = "BF16"
    FP16 = "FP16"
    FP8 = "FP8"
    """On GPUs, by torchao."""
    INT4_WEIGHT_ONLY = "INT4WeightOnly"
    """On GPUs, by torchao."""


class PruneMethod(StrEnum):
    """Which weights go."""

    STRUCTURED = "Structured"
    """Whole channels: the model becomes smaller."""
    UNSTRUCTURED = "Unstructured"
    """Single weights become zero: smaller when compressed, no faster on dense kernels."""
    SEMI_STRUCTURED = "SemiStructured24"
    """Two of four, for GPUs that have sparse tensor cores."""


class EngineName(StrEnum):
    """The engines. Each has its row in `penstock.engines`."""

    ONNX_RUNTIME = "ONNXRuntime"
    OPENVINO = "OpenVINO"
    TORCH_EAGER = "TorchEager"
    TORCH_COMPILE = "TorchCompile"
    TORCH_EXPORT = "TorchExport"
    """A `.pt2` compiled ahead of time by AOTInductor."""
    ONNX_RUNTIME_CUDA = "ONNXRuntimeCUDA"
    ONNX_RUNTIME_TENSORRT = "ONNXRuntimeTensorRT"
    LITERT = "LiteRT"


class Precision(StrEnum):
    """Arithmetic that an engine is pinned to. What is quantized in the model itself stays so."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


@dataclass(frozen=True, slots=True)
class StepFacts:
    """What holds for a step, or a method of one."""

    runner: str
    """A module of `penstock_optimizer.steps`, and its class without constructor arguments. The module imports what is heavy (torch)
    only in `apply`."""
    training: int = 0
    """How long it trains, beside others that do; 0: it does not."""
    int8: bool = False
    """It leaves the model in int8."""
    precision: Precision = Precision.FP32
    """To which the engine is pinned with it."""


STEPS: Final[Mapping[str, StepFacts]] = {
    "quantize Static": StepFacts("quantize_static:QuantizeStatic", int8=True),
    "quantize BF16": StepFacts("half:QuantizeBF16", precision=Precision.BF16),
    "quantize FP8": StepFacts("gpu_quantize:QuantizeFP8"),
    "quantize Dynamic": StepFacts("quantize_dynamic:QuantizeDynamic", int8=True),
    "quantize FP16": StepFacts("half:QuantizeFP16", precision=Precision.FP16),
    "quantize INT4WeightOnly": StepFacts("gpu_quantize:QuantizeInt4WeightOnly"),
    "graphOptimize": StepFacts("graph_optimize:GraphOptimize"),
    "compile": StepFacts("compile:Compile"),
    "prune Structured": StepFacts("prune_structured:PruneStructured", training=1),
    "prune Unstructured": StepFacts("prune_unstructured:PruneUnstructured", training=1),
    "prune SemiStructured24": StepFacts("prune_semi_structured:PruneSemiStructured", training=1),
    "distil": StepFacts("distil:Distil", training=2),
}
"""By `Step.label`. Of the methods of one step, what gains most on most machines stands first, so that a short budget is well spent."""


class EngineSettings(Frozen):
    """How a model is run."""

    name: EngineName
    threads: Annotated[int, Field(ge=1)] = 1
    precision: Precision = Precision.FP32
    """Always pinned: OpenVINO lowers it unasked on hardware with bf16."""
    options: dict[str, str] = Field(default={})
    """The engine's own; its file says which it knows."""


class Step(Frozen):
    """One thing done to a model."""

    name: StepName
    method: str = ""
    """A `QuantizeMethod` or `PruneMethod` where the step has methods."""
    parameters: dict[str, str | int | float | bool] = Field(default={})
    """The step's own; its file says which it knows."""

    @property
    def label(self) -> str:
        """For people: `quantize Static`."""
        return f"{self.name} {self.method}".strip()


class Recipe(Frozen):
    """Steps in order, and the engine that runs what they made. No steps: a baseline."""

    steps: tuple[Step, ...] = ()
    engine: EngineSettings

    @property
    def key(self) -> str:
        """Sixteen hex digits that are equal for equal recipes."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json"))).hexdigest()[:16]

    @property
    def label(self) -> str:
        """For people: `graphOptimize + quantize Static → ONNXRuntime`, `graphOptimize → OpenVINO bf16`.

        fp32 is left out where the model itself is int8: what is not quantized stays fp32, but nobody would call it that.
        """
        steps = " + ".join(step.label for step in self.steps)
        int8 = any(step.label in STEPS and STEPS[step.label].int8 for step in self.steps)
        plain = int8 and self.engine.precision is Precision.FP32
        engine = self.engine.name.value if plain else f"{self.engine.name} {self.engine.precision}"
        return f"{steps} → {engine}" if steps else engine


def canonical_json(value: object) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
