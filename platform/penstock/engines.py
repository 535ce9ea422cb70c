"""The engines and the formats of models: the one place that says what each can do. Everything else follows from it.

A further engine is a name in `EngineName`, a row here, and its file in `penstock_runtime.engines`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from penstock.optimization.recipes import EngineName, Precision
from penstock.serving.manifest import ModelFormat


class GpuUse(StrEnum):
    """Whether an engine computes on a GPU."""

    NEVER = "Never"
    OPTION = "Option"
    """Where its option `device` says so."""
    ALWAYS = "Always"


class Servability(StrEnum):
    """How a model of a format comes to be served."""

    AS_IS = "AsIs"
    SIGNED = "Signed"
    """Only where a search made and signed it: such files are code."""
    CONVERTED = "Converted"
    """Only after a search made another format of it: such files are code, or need some."""
    ELSEWHERE = "Elsewhere"
    """Never by a replica: it is made for other machines, which copy it from the artifact store."""


@dataclass(frozen=True, slots=True)
class FormatFacts:
    """What holds for a format of models."""

    suffix: str
    served: Servability
    optimizable: bool = False
    """Whether a search can start from it."""
    code: bool = False
    """Whether its reader, or the model when it runs, does what the file says."""
    from_program: bool = False
    """Whether a search makes it from torch's program; others are made from ONNX."""
    fixed_batch: bool = False
    """Whether a search makes it for a batch of one, since its shapes are fixed."""


FORMATS: Final[Mapping[ModelFormat, FormatFacts]] = {
    ModelFormat.ONNX: FormatFacts(".onnx", Servability.AS_IS, optimizable=True),
    ModelFormat.OPENVINO: FormatFacts(".xml", Servability.AS_IS),
    # torch parses shapes of a `.pt2` with sympy, which evaluates them, and looks up the functions that it names.
    ModelFormat.TORCH_EXPORT: FormatFacts(".pt2", Servability.SIGNED, optimizable=True, code=True, from_program=True),
    # TorchScript has operators that read and write files (`aten::from_file`).
    ModelFormat.TORCHSCRIPT: FormatFacts(".pt", Servability.CONVERTED, optimizable=True, code=True),
    ModelFormat.SAFETENSORS: FormatFacts(".safetensors", Servability.CONVERTED, optimizable=True),
    ModelFormat.LITERT: FormatFacts(".tflite", Servability.ELSEWHERE, from_program=True, fixed_batch=True),
}


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What holds for an engine."""

    module: str
    """Its file in `penstock_runtime.engines`, imported only where the engine is used."""
    package: str
    """The library that it imports."""
    install: str
    """What brings the library."""
    formats: tuple[ModelFormat, ...]
    """That it can load. A search makes the first one for it."""
    torch: bool = False
    """It runs torch's programs in torch: their files name functions to be called, hold pickles or machine code, or come with
    a module's source."""
    compiles: bool = False
    """It runs what torch's Inductor compiled."""
    native: bool = False
    """Its files hold machine code for the processor that they were compiled on."""
    gpu: GpuUse = GpuUse.NEVER
    int8: bool = False
    """It runs models that are quantized to int8, with scales in the graph (QDQ)."""
    precisions: tuple[Precision, ...] = (Precision.FP32,)
    """To which its arithmetic can be pinned while the model stays as it is."""
    strings: bool = False
    """It has tensors of strings."""
    checks_ids: bool = False
    """It refuses an id outside its table, where others may read what lies behind it."""
    reentrant: bool = False
    """Several threads may run one loaded model at once, on the same weights; each run has its own intermediate results. Of the others,
    OpenVINO needs a request each and was seen to gain less, LiteRT an interpreter each; torch has one number of threads a process; on
    a GPU runs wait for each other."""
    plans: bool = False
    """Its ONNX files may hold parts that are compiled already (`EPContext`), which are machine code."""

    @property
    def given(self) -> ModelFormat:
        """The format that a search makes for it."""
        return self.formats[0]

    @property
    def from_program(self) -> bool:
        """Whether a search gives it torch's program, or what is converted from that."""
        return FORMATS[self.given].from_program


_ONNX: Final = (ModelFormat.ONNX,)
_PROGRAMS: Final = (ModelFormat.TORCH_EXPORT, ModelFormat.TORCHSCRIPT, ModelFormat.SAFETENSORS)
_ALL: Final = (Precision.FP32, Precision.BF16, Precision.FP16)
_SERVING: Final = "penstock[serving]"
_OPTIMIZER: Final = "penstock[optimizer]"
_GPU_BUILD: Final = "penstock[serving-gpu] (onnxruntime-gpu in place of onnxruntime)"

ENGINES: Final[Mapping[EngineName, EngineFacts]] = {
    EngineName.ONNX_RUNTIME: EngineFacts(
        "onnx", "onnxruntime", _SERVING, _ONNX, int8=True, strings=True, checks_ids=True, reentrant=True
    ),
    EngineName.OPENVINO: EngineFacts(
        "openvino", "openvino", _SERVING, (ModelFormat.OPENVINO, ModelFormat.ONNX), int8=True, precisions=_ALL
    ),
    EngineName.TORCH_EAGER: EngineFacts(
        "torch_eager", "torch", _OPTIMIZER, _PROGRAMS, torch=True, gpu=GpuUse.OPTION, precisions=_ALL
    ),
    EngineName.TORCH_COMPILE: EngineFacts(
        "torch_compile", "torch", _OPTIMIZER, _PROGRAMS, torch=True, compiles=True, gpu=GpuUse.OPTION, precisions=_ALL
    ),
    EngineName.TORCH_EXPORT: EngineFacts(
        "torch_export", "torch", _OPTIMIZER, _PROGRAMS[:1], torch=True, compiles=True, native=True, gpu=GpuUse.OPTION
    ),
    EngineName.ONNX_RUNTIME_CUDA: EngineFacts("onnx", "onnxruntime", _GPU_BUILD, _ONNX, gpu=GpuUse.ALWAYS, int8=True),
    EngineName.ONNX_RUNTIME_TENSORRT: EngineFacts(
        "onnx", "onnxruntime", _GPU_BUILD, _ONNX, gpu=GpuUse.ALWAYS, int8=True, precisions=_ALL, plans=True
    ),
    EngineName.LITERT: EngineFacts(
        "litert", "ai_edge_litert", "ai-edge-litert", (ModelFormat.LITERT,), checks_ids=True
    ),
}

DEFAULT_ENGINES: Final[Mapping[ModelFormat, EngineName]] = {
    each: next(name for name, facts in ENGINES.items() if each in facts.formats) for each in FORMATS
}
"""What runs a model of each format that names no engine: the first of the table that loads it."""


def engines_where(holds: Callable[[EngineFacts], bool]) -> tuple[EngineName, ...]:
    """The engines for which something holds, in the table's order."""
    return tuple(name for name, facts in ENGINES.items() if holds(facts))


def formats_where(holds: Callable[[FormatFacts], bool]) -> tuple[ModelFormat, ...]:
    """The formats for which something holds, in the table's order."""
    return tuple(each for each, facts in FORMATS.items() if holds(facts))
