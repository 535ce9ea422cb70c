"""quantize Static: the kind for the engine that will run the result."""

from __future__ import annotations

from penstock.optimization.recipes import EngineName, Step
from penstock_optimizer.steps import Context, Draft, StepRunner
from penstock_optimizer.steps.quantize_static_onnx import QuantizeStaticOnnx
from penstock_optimizer.steps.quantize_static_openvino import QuantizeStaticOpenVino

_RUNNERS: dict[EngineName, StepRunner] = {
    EngineName.ONNX_RUNTIME: QuantizeStaticOnnx(),
    EngineName.ONNX_RUNTIME_CUDA: QuantizeStaticOnnx(),
    EngineName.ONNX_RUNTIME_TENSORRT: QuantizeStaticOnnx(),
    EngineName.OPENVINO: QuantizeStaticOpenVino(),
}


class QuantizeStatic:
    """Static int8 quantization."""

    def infeasible(self, step: Step, context: Context) -> str | None:
        """On ONNX Runtime and OpenVINO."""
        runner = _RUNNERS.get(context.engine.name)
        if runner is None:
            return f"{context.engine.name} runs no QDQ models: use ONNXRuntime or OpenVINO"
        return runner.infeasible(step, context)

    def apply(self, step: Step, draft: Draft, context: Context) -> None:
        """Quantize."""
        _RUNNERS[context.engine.name].apply(step, draft, context)
