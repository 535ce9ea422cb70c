"""quantize Static: the kind for the engine that will run the result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from penstock.engines import ENGINES, engines_where
from penstock.optimization.recipes import Step
from penstock.serving.manifest import ModelFormat
from penstock.wording import join_with_or
from penstock_optimizer.building.draft import BuildContext, Draft, StepRunner
from penstock_optimizer.steps.quantize_static_onnx import QuantizeStaticOnnx
from penstock_optimizer.steps.quantize_static_openvino import QuantizeStaticOpenVino

_QUANTIZERS: Final[Mapping[ModelFormat, StepRunner]] = {
    ModelFormat.ONNX: QuantizeStaticOnnx(),
    ModelFormat.OPENVINO: QuantizeStaticOpenVino(),
}


class QuantizeStatic:
    """Static int8 quantization."""

    def why_infeasible(self, step: Step, context: BuildContext) -> str | None:
        """On engines that run int8."""
        facts = ENGINES[context.engine.name]
        if not facts.int8:
            able = join_with_or(engines_where(lambda engine: engine.int8))
            return f"{context.engine.name} runs no QDQ models: use {able}"
        return _QUANTIZERS[facts.given].why_infeasible(step, context)

    def apply(self, step: Step, draft: Draft, context: BuildContext) -> None:
        """Quantize."""
        _QUANTIZERS[ENGINES[context.engine.name].given].apply(step, draft, context)
