"""quantize BF16 and FP16: half the bits for arithmetic, or for weights. They have no parameters.

BF16 and FP16 on OpenVINO and torch: the engine is pinned to the precision, and the model stays as it is. FP16 on ONNX
Runtime's GPU providers: weights are converted, inputs and outputs stay fp32. Where the processor has no
instructions for it, this is slower than fp32, and so cannot be done.
"""

from __future__ import annotations

from penstock.engines import ENGINES, GpuUse
from penstock.optimization.fitting import NATIVE
from penstock.optimization.hardware import Hardware
from penstock.optimization.recipes import Precision, Step
from penstock.wording import join_with_or
from penstock_optimizer.building import forms
from penstock_optimizer.building.draft import BuildContext, Draft
from penstock_optimizer.steps.parameters import Parameters


class _Half:
    """One of the two."""

    precision: Precision

    def why_infeasible(self, step: Step, context: BuildContext) -> str | None:
        """Where the engine has kernels and the processor has instructions."""
        Parameters(step, {})
        engine = context.engine.name
        if ENGINES[engine].gpu is GpuUse.ALWAYS:
            if self.precision is Precision.BF16:
                return f"{engine} is given FP16 or FP32 models: use quantize FP16"
            return None if context.hardware.gpus else "it takes a GPU, and this machine has none"
        if self.precision not in ENGINES[engine].precisions:
            return f"{engine} has no {self.precision} kernels for CPUs: use OpenVINO"
        if context.engine.options.get("device", "cpu") != "cpu":
            return None
        return _missing(self.precision, context.hardware)

    def apply(self, step: Step, draft: Draft, context: BuildContext) -> None:
        """Pin the engine, or convert the weights."""
        del step
        engine = draft.engine or context.engine
        if ENGINES[engine.name].gpu is GpuUse.ALWAYS:
            _convert(draft, context)
        else:
            draft.engine = engine.model_copy(update={"precision": self.precision})
        draft.weight_precision = str(self.precision)


class QuantizeBF16(_Half):
    """bfloat16: the range of fp32 with 8 bits of it."""

    precision = Precision.BF16


class QuantizeFP16(_Half):
    """IEEE half precision."""

    precision = Precision.FP16


def _missing(precision: Precision, hardware: Hardware) -> str | None:
    native = NATIVE[precision]
    if set(native) & set(hardware.instruction_sets):
        return None
    return f"{hardware.cpu} has no {precision} instructions ({join_with_or(native)}): it would be slower than fp32"


def _convert(draft: Draft, context: BuildContext) -> None:
    import onnx  # noqa: PLC0415 -- only where the step runs
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415 -- as above

    target = context.work / "fp16.onnx"
    model = onnx.load(str(forms.as_onnx(draft, context)))
    onnx.save_model(convert_float_to_float16(model, keep_io_types=True), str(target))
    forms.set_onnx(draft, target)
