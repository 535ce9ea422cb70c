"""ONNX Runtime, on the CPU and with its CUDA and TensorRT providers.

On the CPU the arithmetic is the model's own: a precision other than fp32 is in the graph. On GPUs TF32 stays off, and
TensorRT is allowed the precision that is pinned and no other.

Options: `graphOptimization` (`all`, `extended`, `basic` or `disable`: what ONNX Runtime may rewrite when it loads);
`device` (index of the GPU); `engineCache` (folder for TensorRT's plans, which take minutes to make).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.optimization.hardware import Hardware
from penstock.optimization.recipes import EngineName, EngineSettings, Precision
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_runtime.engines import Array, first_line, options_of

_DATATYPES: Final = {
    "tensor(bool)": DataType.BOOL,
    "tensor(uint8)": DataType.UINT8,
    "tensor(uint16)": DataType.UINT16,
    "tensor(uint32)": DataType.UINT32,
    "tensor(uint64)": DataType.UINT64,
    "tensor(int8)": DataType.INT8,
    "tensor(int16)": DataType.INT16,
    "tensor(int32)": DataType.INT32,
    "tensor(int64)": DataType.INT64,
    "tensor(float16)": DataType.FP16,
    "tensor(bfloat16)": DataType.BF16,
    "tensor(float)": DataType.FP32,
    "tensor(double)": DataType.FP64,
    "tensor(string)": DataType.BYTES,
}
_ONNX_BFLOAT16: Final = 16
"""`TensorProto.BFLOAT16`."""


_LEVELS: Final = {
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "disable": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
_PROVIDERS: Final = {
    EngineName.ONNX_RUNTIME_CUDA: "CUDAExecutionProvider",
    EngineName.ONNX_RUNTIME_TENSORRT: "TensorrtExecutionProvider",
}
_KNOWN: Final = {"graphOptimization": "all", "device": "0", "engineCache": ""}


def unavailable(name: EngineName, hardware: Hardware) -> str | None:
    """Why it cannot run here; None where it can."""
    provider = _PROVIDERS.get(name)
    if provider is None:
        return None
    if provider not in ort.get_available_providers():
        return f"this build of ONNX Runtime has no {provider}: install onnxruntime-gpu in place of onnxruntime"
    return None if hardware.gpus else "this machine has no GPU that can be used"


def load(entrypoint: Path, settings: EngineSettings, signature: Signature | None) -> OnnxEngine:
    """Load a model; it carries its own signature."""
    del signature
    return OnnxEngine(entrypoint, settings)


class OnnxEngine:
    """One ONNX Runtime session, with its threads pinned to the number given."""

    platform = "onnx_onnxv1"

    def __init__(self, path: Path, settings: EngineSettings) -> None:
        chosen = options_of(settings, _KNOWN)
        options = ort.SessionOptions()
        options.intra_op_num_threads = settings.threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = _level(chosen["graphOptimization"])
        # Spinning threads take the cores from the loop that reads the next batch.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        fast = "1" if settings.precision is Precision.BF16 else "0"
        options.add_session_config_entry("mlas.enable_gemm_fastmath_arm64_bfloat16", fast)
        options.log_severity_level = 3
        providers = _providers(settings, chosen)
        try:
            self._session = ort.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # ONNX Runtime's errors have no common base of their own
            raise Invalid(Reason.MODEL_INVALID, f"ONNX Runtime cannot load {path.name}: {first_line(error)}") from error
        if providers[0][0] not in self._session.get_providers():
            raise Invalid(
                Reason.ENGINE_UNAVAILABLE,
                f"{settings.name} cannot run {path.name} here: ONNX Runtime could not start {providers[0][0]}; "
                "check that the GPU's driver and libraries are those that onnxruntime-gpu was built for",
            )
        self.signature = Signature(
            inputs=tuple(_spec(node, "input") for node in self._session.get_inputs()),
            outputs=tuple(_spec(node, "output") for node in self._session.get_outputs()),
        )
        self._outputs = self.signature.outputs
        self._names = [spec.name for spec in self.signature.outputs]
        tensors = (*self.signature.inputs, *self.signature.outputs)
        self._bf16 = any(spec.datatype is DataType.BF16 for spec in tensors)
        self._strings = {spec.name for spec in self.signature.inputs if spec.datatype is DataType.BYTES}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model once. Shapes: those of the signature."""
        if self._strings:
            inputs = {name: _decoded(array) if name in self._strings else array for name, array in inputs.items()}
        if self._bf16:
            return self._run_values(inputs)
        return dict(zip(self._names, self._session.run(self._names, inputs), strict=True))

    def _run_values(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run with typed values: numpy has no BF16, so its bits travel as uint16."""
        values = {}
        for spec in self.signature.inputs:
            array = inputs[spec.name]
            if spec.datatype is DataType.BF16:
                contiguous = np.ascontiguousarray(array)
                values[spec.name] = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(contiguous, _ONNX_BFLOAT16)
            else:
                values[spec.name] = ort.OrtValue.ortvalue_from_numpy(array)
        results = self._session.run_with_ort_values(self._names, values)
        return {
            spec.name: _bits(value) if spec.datatype is DataType.BF16 else value.numpy()
            for spec, value in zip(self._outputs, results, strict=True)
        }


def _bits(value: Any) -> Array:
    """A copy of a BF16 value's bits: the value's memory goes with it."""
    import ctypes  # noqa: PLC0415 -- only for this datatype

    shape = tuple(value.shape())
    count = int(np.prod(shape, dtype=np.int64))
    raw = ctypes.string_at(value.data_ptr(), count * 2)
    return np.frombuffer(raw, dtype=np.uint16).reshape(shape)


def _decoded(array: Array) -> Array:
    """ONNX Runtime takes strings: byte strings that are not UTF-8 keep their bytes by surrogates."""
    decoded = np.empty(array.shape, dtype=object)
    decoded.ravel()[:] = [element.decode("utf-8", "surrogateescape") for element in array.ravel()]
    return decoded


def _spec(node: Any, what: str) -> TensorSpec:
    datatype = _DATATYPES.get(node.type)
    if datatype is None:
        raise Invalid(
            Reason.MODEL_INVALID,
            f"{what} '{node.name}' is a {node.type}, which the Open Inference Protocol cannot carry: export it as a tensor",
        )
    shape = tuple(axis if isinstance(axis, int) and axis >= 0 else -1 for axis in node.shape)
    return TensorSpec(name=node.name, datatype=datatype, shape=shape)


def _level(name: str) -> Any:
    if name not in _LEVELS:
        raise Invalid(Reason.MODEL_INVALID, f"graphOptimization {name!r} is none of {', '.join(_LEVELS)}")
    return _LEVELS[name]


def _providers(settings: EngineSettings, options: Mapping[str, str]) -> list[tuple[str, dict[str, str]]]:
    """What runs the operators, in order of preference."""
    provider = _PROVIDERS.get(settings.name)
    cpu: tuple[str, dict[str, str]] = ("CPUExecutionProvider", {})
    if provider is None:
        return [cpu]
    if provider not in ort.get_available_providers():
        raise Invalid(
            Reason.ENGINE_UNAVAILABLE,
            f"{settings.name}: this build of ONNX Runtime has no {provider}: "
            "install onnxruntime-gpu in place of onnxruntime",
        )
    cuda = ("CUDAExecutionProvider", {"device_id": options["device"], "use_tf32": "0"})
    if settings.name is EngineName.ONNX_RUNTIME_CUDA:
        return [cuda, cpu]
    given = {
        "device_id": options["device"],
        "trt_fp16_enable": str(settings.precision is Precision.FP16),
        "trt_bf16_enable": str(settings.precision is Precision.BF16),
    }
    if options["engineCache"]:
        given |= {"trt_engine_cache_enable": "True", "trt_engine_cache_path": options["engineCache"]}
    return [(provider, given), cuda, cpu]
