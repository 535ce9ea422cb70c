"""quantize FP8 and INT4WeightOnly: torchao's, for torch engines on NVIDIA GPUs.

Parameters:
    groupSize (int, 128; INT4WeightOnly only): weights that share a scale.

FP8 quantizes weights and, at run time, activations, by rows; it takes compute capability 8.9. INT4WeightOnly takes 8.0
and computes in bf16. Both change linear layers only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from penstock.engines import ENGINES
from penstock.optimization.hardware import Hardware
from penstock.optimization.recipes import Precision, Step
from penstock_optimizer.building import forms
from penstock_optimizer.building.draft import BuildContext, CannotDo, Draft
from penstock_optimizer.steps.parameters import Parameters, Value

if TYPE_CHECKING:
    import torch

    from penstock_optimizer.sources.torch_program import Inputs

_NONE: Final[Mapping[str, Value]] = {}
_GROUP: Final[Mapping[str, Value]] = {"groupSize": 128}


class _GpuQuantize:
    """One of the two."""

    capability: float
    defaults: Mapping[str, Value]
    precision: str

    def why_infeasible(self, step: Step, context: BuildContext) -> str | None:
        """With such a GPU, a torch engine, and an import path."""
        Parameters(step, self.defaults)
        if not ENGINES[context.engine.name].torch:
            return f"{context.engine.name} does not run torchao's layers: use TorchCompile"
        missing = _missing_gpu(context.hardware, self.capability)
        if missing is None and context.source.import_path is None:
            return "it changes layers of the torch.nn.Module, and the model has no import path"
        return missing

    def apply(self, step: Step, draft: Draft, context: BuildContext) -> None:
        """Quantize the linear layers, and capture the result on the GPU."""
        import torch  # noqa: PLC0415 -- torch takes seconds
        from torchao.quantization import quantize_  # noqa: PLC0415 -- as above

        module = forms.as_module(draft, context)
        if not any(isinstance(layer, torch.nn.Linear) for layer in module.modules()):
            raise CannotDo("the model has no linear layers, and this changes nothing else")
        module = module.to(device="cuda", dtype=torch.bfloat16)
        quantize_(module, self._configuration(Parameters(step, self.defaults)))
        forms.set_exported(draft, _capture(module, forms.example_inputs(draft, context), context))
        engine = draft.engine or context.engine
        options = {**engine.options, "device": "cuda"}
        draft.engine = engine.model_copy(update={"options": options, "precision": Precision.FP32})
        draft.weight_precision = self.precision

    def _configuration(self, parameters: Parameters) -> Any:
        """What torchao is told."""
        from torchao.quantization import (  # noqa: PLC0415 -- as above
            Float8DynamicActivationFloat8WeightConfig,
            Int4WeightOnlyConfig,
            PerRow,
        )

        if "groupSize" in self.defaults:
            return Int4WeightOnlyConfig(group_size=parameters.integer("groupSize"))
        return Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())


class QuantizeFP8(_GpuQuantize):
    """8-bit floats."""

    capability = 8.9
    defaults = _NONE
    precision = "fp8"


class QuantizeInt4WeightOnly(_GpuQuantize):
    """4-bit weights."""

    capability = 8.0
    defaults = _GROUP
    precision = "int4"


def _missing_gpu(hardware: Hardware, capability: float) -> str | None:
    if not hardware.gpus:
        return "it takes an NVIDIA GPU, and this machine has none"
    best = max(float(gpu.compute_capability or 0) for gpu in hardware.gpus)
    if best < capability:
        return f"it takes compute capability {capability}, and {hardware.gpus[0].name} has {best}"
    return None


def _capture(module: torch.nn.Module, inputs: Inputs, context: BuildContext) -> Path:
    """A `.pt2` of plain tensors that takes and gives fp32, as the source does."""
    import torch  # noqa: PLC0415 -- as above
    from torchao.utils import unwrap_tensor_subclass  # noqa: PLC0415 -- as above

    from penstock_optimizer.sources.torch_program import Inputs, Positional, export, save  # noqa: PLC0415 -- as above

    on_gpu = {name: tensor.to("cuda") for name, tensor in inputs.tensors.items()}
    outer = Positional(unwrap_tensor_subclass(module), inputs, torch.bfloat16)
    path = context.work / "gpu.pt2"
    save(export(outer, Inputs(on_gpu, len(on_gpu))), path)
    return path
