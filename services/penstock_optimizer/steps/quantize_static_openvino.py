"""quantize Static for OpenVINO: NNCF's int8, with SmoothQuant where the model is a transformer.

Parameters:
    calibrationSamples (int, 300).
    calibration (MinMax; MinMax): there is no other.
    preset (Performance or Mixed; Performance): symmetric activations, or asymmetric ones where that is more exact, which
        on MiniLM won .0006 of cosine and cost a sixth of the speed.
    model (Auto, Transformer or Other; Auto): a transformer's attention keeps fp32 where int8 hurts, and its activations
        are smoothed. Auto: where the graph has a softmax between matrix products.
    smoothQuantAlpha (number, -1): for transformers; below 0: NNCF's own.
    accurateBias (bool, false): NNCF's slower correction of biases.
    excludeOperators (words between commas, ""): OpenVINO's operator types left in the engine's precision.

An engine pinned to bf16 runs what stays unquantized in bf16: with int8 often the fastest on processors with AMX.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from penstock.optimization.recipes import Step
from penstock_optimizer.building import forms
from penstock_optimizer.building.draft import BuildContext, CannotDo, Draft
from penstock_optimizer.samples.arrays import rows_of_run, run_of
from penstock_optimizer.steps.parameters import Parameters, Value
from penstock_runtime.engines import Array

_DEFAULTS: Final[dict[str, Value]] = {
    "calibrationSamples": 300,
    "calibration": "MinMax",
    "preset": "Performance",
    "model": "Auto",
    "smoothQuantAlpha": -1.0,
    "accurateBias": False,
    "excludeOperators": "",
}
_PRESETS: Final = ("Performance", "Mixed")
_MODELS: Final = ("Auto", "Transformer", "Other")
_FEWEST_PRODUCTS: Final = 4
"""Matrix products of one attention: query, key, value, and what they make. A classifier's head has fewer."""


class QuantizeStaticOpenVino:
    """NNCF's."""

    def why_infeasible(self, step: Step, context: BuildContext) -> str | None:
        """Everywhere; the parameters must be known."""
        parameters = Parameters(step, _DEFAULTS)
        parameters.choice("preset", _PRESETS)
        parameters.choice("model", _MODELS)
        if parameters.choice("calibration", ("MinMax", "Entropy", "Percentile")) != "MinMax":
            return "NNCF chooses ranges its own way: leave 'calibration' at MinMax"
        del context
        return None

    def apply(self, step: Step, draft: Draft, context: BuildContext) -> None:
        """Calibrate and quantize."""
        import openvino  # noqa: PLC0415 -- only where the step runs

        parameters = Parameters(step, _DEFAULTS)
        path = forms.as_openvino(draft, context)
        model = openvino.Core().read_model(path)
        types = [node.get_type_name() for node in model.get_ordered_ops()]
        asked = parameters.choice("model", _MODELS)
        transformer = asked == "Transformer" or (asked == "Auto" and is_transformer(types))
        quantized = _quantize(model, parameters, context, transformer=transformer)
        if not any(node.get_type_name() == "FakeQuantize" for node in quantized.get_ordered_ops()):
            raise CannotDo("NNCF found nothing in the model that it could quantize")
        target = context.work / "quantized" / "model.xml"
        target.parent.mkdir(exist_ok=True)
        openvino.save_model(quantized, target, compress_to_fp16=False)
        forms.set_openvino(draft, target)
        draft.weight_precision = "int8"


def is_transformer(types: Sequence[str]) -> bool:
    """Whether a graph with these operator types has attention: a softmax among many matrix products, and few kernels."""
    softmax = "Softmax" in types or "ScaledDotProductAttention" in types or "SoftMax" in types
    products = types.count("MatMul")
    return softmax and products >= _FEWEST_PRODUCTS and products > types.count("Convolution") + types.count("Conv")


def quantize_onnx(path: Path, target: Path, samples: int, context: BuildContext) -> None:
    """The same for an ONNX model: QDQ that ONNX Runtime runs.

    Raises:
        CannotDo: NNCF cannot quantize it.
    """
    import onnx  # noqa: PLC0415 -- as above

    model = onnx.load(str(path))
    types = [node.op_type for node in model.graph.node]
    step = {**_DEFAULTS, "calibrationSamples": samples}
    from penstock.optimization.recipes import StepName  # noqa: PLC0415 -- as above

    parameters = Parameters(Step(name=StepName.QUANTIZE, parameters=step), _DEFAULTS)
    transformer = is_transformer(types)
    onnx.save_model(_quantize(model, parameters, context, transformer=transformer), str(target))


def _quantize(model: Any, parameters: Parameters, context: BuildContext, *, transformer: bool) -> Any:
    import nncf  # noqa: PLC0415 -- as above

    samples = forms.calibration(context, parameters.integer("calibrationSamples"))
    count = len(next(iter(samples.values())))
    signature = context.source.signature
    rows = rows_of_run(signature, 1)
    starts = range(0, count - rows + 1, rows)
    mixed = parameters.choice("preset", _PRESETS) == "Mixed"
    alpha = parameters.number("smoothQuantAlpha")
    advanced = nncf.AdvancedQuantizationParameters()
    if alpha >= 0:
        advanced.smooth_quant_alphas = nncf.AdvancedSmoothQuantParameters(matmul=alpha)
    excluded = list(parameters.words("excludeOperators"))

    def batch(start: int) -> dict[str, Array]:
        return run_of(samples, signature, np.arange(start, start + rows))

    try:
        return nncf.quantize(
            model,
            nncf.Dataset(starts, batch),
            preset=nncf.QuantizationPreset.MIXED if mixed else nncf.QuantizationPreset.PERFORMANCE,
            subset_size=max(1, len(starts)),
            fast_bias_correction=not parameters.boolean("accurateBias"),
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
            ignored_scope=nncf.IgnoredScope(types=excluded, validate=False) if excluded else None,
            advanced_parameters=advanced,
        )
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CannotDo(f"NNCF cannot quantize the model: {first}") from error
