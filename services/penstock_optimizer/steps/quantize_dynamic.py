"""quantize Dynamic: int8 weights, activations quantized at run time. ONNX Runtime only; needs no data.

Parameters:
    perChannel (bool, true): a scale for each output channel. Without it all-MiniLM-L6-v2 falls from a cosine of .994 to
        .949 for 5 % of speed.
    embeddings (bool, false): also the tables of Gather, which are the most of a small language model's size.
    reduceRange (bool, false): 7-bit weights, for x86 processors without VNNI, whose int8 products saturate. On where the
        processor has none.
    excludeNodes (words between commas, ""): nodes left in fp32.
"""

from __future__ import annotations

from typing import Final

from penstock.optimization.hardware import Hardware
from penstock.optimization.recipes import EngineName, Step
from penstock_optimizer.building import forms
from penstock_optimizer.building.draft import BuildContext, CannotDo, Draft
from penstock_optimizer.steps.parameters import Parameters, Value

_DEFAULTS: Final[dict[str, Value]] = {
    "perChannel": True,
    "embeddings": False,
    "reduceRange": False,
    "excludeNodes": "",
}
_SAFE: Final = {"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm", "asimd"}
"""Instruction sets whose int8 products do not saturate."""


def saturates(hardware: Hardware) -> bool:
    """Whether 8-bit weights may overflow in the processor's products (ONNX Runtime's documentation on quantization)."""
    return not _SAFE & set(hardware.instruction_sets)


class QuantizeDynamic:
    """ONNX Runtime's."""

    def why_infeasible(self, step: Step, context: BuildContext) -> str | None:
        """On ONNX Runtime's CPU provider only."""
        Parameters(step, _DEFAULTS)
        if context.engine.name is not EngineName.ONNX_RUNTIME:
            return f"{context.engine.name} has no kernels for it: use quantize Static, or ONNXRuntime"
        return None

    def apply(self, step: Step, draft: Draft, context: BuildContext) -> None:
        """Quantize the weights of matrix products."""
        import onnx  # noqa: PLC0415 -- only where the step runs
        from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415 -- as above

        parameters = Parameters(step, _DEFAULTS)
        model = onnx.load(str(forms.as_onnx(draft, context)))
        # Shapes that an exporter noted stand in the way where the quantizer turns Gemm into MatMul.
        del model.graph.value_info[:]
        # Convolutions would become ConvInteger, which is slower than fp32.
        operators = ["MatMul", "Gemm", "Attention", "LSTM"] + (["Gather"] if parameters.boolean("embeddings") else [])
        if not any(node.op_type in operators for node in model.graph.node):
            raise CannotDo(
                "the model has no matrix products, and dynamic quantization changes nothing else: use Static"
            )
        target = context.work / "dynamic.onnx"
        quantize_dynamic(
            model,
            target,
            op_types_to_quantize=operators,
            per_channel=parameters.boolean("perChannel"),
            reduce_range=parameters.boolean("reduceRange") or saturates(context.hardware),
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(parameters.words("excludeNodes")),
            # Of what comes out of fused operators, whose types ONNX does not infer.
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
        )
        forms.set_onnx(draft, target)
        draft.weight_precision = "int8"
