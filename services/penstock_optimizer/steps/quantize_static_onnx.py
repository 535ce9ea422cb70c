"""quantize Static for ONNX Runtime: int8 QDQ with activation ranges from calibration samples.

Parameters:
    calibrationSamples (int, 300).
    calibration (MinMax, Entropy or Percentile; MinMax): how ranges are chosen.
    percentile (number, 99.99): of absolute values that the range keeps, for Percentile.
    quantizer (ONNXRuntime or NNCF; ONNXRuntime): NNCF smooths activations of transformers first (SmoothQuant), without
        which ONNX Runtime's quantizer ruins all-MiniLM-L6-v2 (cosine .935).
    activations (QUInt8 or QInt8; QUInt8): unsigned ones are what VNNI multiplies; GPUs want QInt8.
    perChannel (bool, true): a scale for each output channel of a weight.
    reduceRange (bool, false): 7-bit weights, on where the processor has no VNNI or the like.
    excludeOperators, excludeNodes (words between commas, ""): operator types and nodes left in fp32.
    operators (words between commas, ""): only these operator types; empty: all that ONNX Runtime knows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from penstock.optimization.recipes import EngineName, Step
from penstock_optimizer.building import forms
from penstock_optimizer.building.draft import BuildContext, CannotDo, Draft
from penstock_optimizer.samples.arrays import as_onnxruntime_takes, rows_of_run, run_of
from penstock_optimizer.steps.parameters import Parameters, Value
from penstock_optimizer.steps.quantize_dynamic import saturates
from penstock_runtime.engines import Array

_DEFAULTS: Final[dict[str, Value]] = {
    "calibrationSamples": 300,
    "calibration": "MinMax",
    "percentile": 99.99,
    "quantizer": "ONNXRuntime",
    "activations": "",
    "perChannel": True,
    "reduceRange": False,
    "excludeOperators": "",
    "excludeNodes": "",
    "operators": "",
}
_CALIBRATIONS: Final = ("MinMax", "Entropy", "Percentile")
_QUANTIZERS: Final = ("ONNXRuntime", "NNCF")
_BATCH: Final = 8
_BINS: Final = 2048
"""Of a histogram. The library's default for Entropy, 128, equals the number of quantized levels, and then the search for
a threshold has one candidate: the result is MinMax's."""
_LEVELS: Final = 128


class QuantizeStaticOnnx:
    """ONNX Runtime's quantizer, with its calibrators called directly; or NNCF's."""

    def why_infeasible(self, step: Step, context: BuildContext) -> str | None:
        """Everywhere; the parameters must be known."""
        parameters = Parameters(step, _DEFAULTS)
        parameters.choice("calibration", _CALIBRATIONS)
        parameters.choice("quantizer", _QUANTIZERS)
        del context
        return None

    def apply(self, step: Step, draft: Draft, context: BuildContext) -> None:
        """Calibrate, and write QDQ."""
        parameters = Parameters(step, _DEFAULTS)
        path = preprocess(forms.as_onnx(draft, context), context)
        target = context.work / "static.onnx"
        if parameters.choice("quantizer", _QUANTIZERS) == "NNCF":
            from penstock_optimizer.steps.quantize_static_openvino import quantize_onnx  # noqa: PLC0415 -- as below

            quantize_onnx(path, target, parameters.integer("calibrationSamples"), context)
        else:
            _quantize(path, target, _ranges(path, parameters, context), parameters, context)
        _require_quantized(target)
        forms.set_onnx(draft, target)
        draft.weight_precision = "int8"


def preprocess(path: Path, context: BuildContext) -> Path:
    """The model with shapes inferred and constants folded, as the quantizers want it; as it is where that fails."""
    import onnxruntime  # noqa: PLC0415 -- only where the step runs
    from onnxruntime.quantization import quant_pre_process  # noqa: PLC0415 -- as above

    target = context.work / f"{path.stem}-preprocessed.onnx"
    onnxruntime.set_default_logger_severity(4)
    try:
        quant_pre_process(str(path), str(target), skip_symbolic_shape=True)
    except Exception:  # noqa: BLE001 -- its passes fail on some graphs that quantize well without them
        return path
    return target


class _Reader:
    """One batch of calibration samples, as ONNX Runtime's calibrators read them."""

    def __init__(self, batch: dict[str, Array]) -> None:
        self._batches = iter((batch,))

    def get_next(self) -> dict[str, Array] | None:
        """The batch; then None."""
        return next(self._batches, None)


def _ranges(path: Path, parameters: Parameters, context: BuildContext) -> Any:
    """Ranges of all activations, as ONNX Runtime's `TensorsData`."""
    from onnxruntime.quantization import CalibrationMethod  # noqa: PLC0415 -- as above
    from onnxruntime.quantization.calibrate import create_calibrator  # noqa: PLC0415 -- as above

    method = parameters.choice("calibration", _CALIBRATIONS)
    options: dict[str, Value] = {}
    if method == "Entropy":
        options = {"num_bins": _BINS, "num_quantized_bins": _LEVELS}
    elif method == "Percentile":
        options = {"num_bins": _BINS, "percentile": parameters.number("percentile")}
    calibrator = create_calibrator(
        path,
        list(parameters.words("operators")) or None,
        augmented_model_path=str(context.work / "augmented.onnx"),
        calibrate_method=getattr(CalibrationMethod, method),
        extra_options=options,
    )
    samples = as_onnxruntime_takes(forms.calibration(context, parameters.integer("calibrationSamples")))
    signature = context.source.signature
    rows = rows_of_run(signature, _BATCH)
    count = len(next(iter(samples.values())))
    # One batch at a time: the calibrators keep all intermediate outputs of what one call reads.
    for start in range(0, count, rows):
        calibrator.collect_data(_Reader(run_of(samples, signature, np.arange(start, start + rows) % count)))
    ranges = calibrator.compute_data()
    del calibrator
    return ranges


def _quantize(path: Path, target: Path, ranges: Any, parameters: Parameters, context: BuildContext) -> None:
    import onnx  # noqa: PLC0415 -- as above
    from onnxruntime.quantization import QuantType  # noqa: PLC0415 -- as above
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer  # noqa: PLC0415 -- as above
    from onnxruntime.quantization.quant_utils import load_model_with_shape_infer  # noqa: PLC0415 -- as above
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry  # noqa: PLC0415 -- as above

    gpu = context.engine.name is not EngineName.ONNX_RUNTIME
    wanted = parameters.words("activations") or (("QInt8",) if gpu else ("QUInt8",))
    if len(wanted) != 1 or wanted[0] not in ("QInt8", "QUInt8"):
        raise CannotDo(f"quantize Static: 'activations' is {', '.join(wanted)}: expected QInt8 or QUInt8")
    signed = wanted[0] == "QInt8"
    known = parameters.words("operators") or sorted({*QLinearOpsRegistry, *QDQRegistry})
    excluded = set(parameters.words("excludeOperators"))
    model = load_model_with_shape_infer(path)
    quantizer = QDQQuantizer(
        model,
        parameters.boolean("perChannel"),
        parameters.boolean("reduceRange") or (not gpu and saturates(context.hardware)),
        QuantType.QInt8,
        QuantType.QInt8 if signed else QuantType.QUInt8,
        ranges,
        [],
        list(parameters.words("excludeNodes")),
        [each for each in known if each not in excluded],
        {"ActivationSymmetric": gpu, "WeightSymmetric": True},
    )
    quantizer.quantize_model()
    quantizer.model.save_model_to_file(str(target), use_external_data_format=False)
    onnx.checker.check_model(str(target))


def _require_quantized(path: Path) -> None:
    import onnx  # noqa: PLC0415 -- as above

    if not any(node.op_type == "QuantizeLinear" for node in onnx.load(str(path), load_external_data=False).graph.node):
        raise CannotDo("the quantizer found nothing in the model that it could quantize")
