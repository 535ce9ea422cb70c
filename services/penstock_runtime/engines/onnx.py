"""ONNX Runtime, on the CPU and with its CUDA and TensorRT providers.

On the CPU the arithmetic is the model's own: a precision other than fp32 is in the graph. On GPUs TF32 stays off, and
TensorRT is allowed the precision that is pinned and no other.

Options: `graphOptimization` (`all`, `extended`, `basic` or `disable`: what ONNX Runtime may rewrite when it loads);
`device` (index of the GPU); `engineCache` (folder for TensorRT's plans, which take minutes to make).
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.optimization.hardware import Hardware
from penstock.optimization.recipes import EngineName, EngineSettings, Precision
from penstock.protocol.refusals import Refusal, unfit_for_model
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_runtime.engines import Array, first_line, onnx_graph, options_of
from penstock_runtime.engines.onnx_signature import onnx_signature

_TENSORRT_LIBRARIES: Final = "tensorrt_libs"
"""A module whose import loads them all."""
_LOCALE: Final = re.compile(r"Failed to construct locale with name:(\S+?):")
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


def why_unavailable(name: EngineName, hardware: Hardware) -> str | None:
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
        # What it would write of a request that fails, it raises as well; and whoever asks must not fill a log.
        options.log_severity_level = 4
        providers = _providers(settings, chosen)
        try:
            # Of a provider that does not start it prints a banner, and a child writes its answer where that would go.
            with redirect_stdout(sys.stderr):
                self._session = ort.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # ONNX Runtime's errors have no common base of their own
            raise _refusal(path, error) from error
        if providers[0][0] not in self._session.get_providers():
            raise Invalid(
                Reason.ENGINE_UNAVAILABLE,
                f"{settings.name} cannot run {path.name} here: ONNX Runtime could not start {providers[0][0]}; "
                "check that the GPU's driver and libraries are those that onnxruntime-gpu was built for",
            )
        stated = onnx_graph.read(path)
        self.signature = onnx_signature(self._session, stated)
        self._recurrent = stated.recurrent
        self.branch = stated.branch
        """An operator that sends a whole run one way or another by inputs' values, if there is one."""
        nodes = (*self._session.get_inputs(), *self._session.get_outputs())
        self.axis_names = {
            node.name: tuple(axis if isinstance(axis, str) else "" for axis in node.shape) for node in nodes
        }
        """What the file calls open axes, by tensor."""
        self._outputs = self.signature.outputs
        self._names = [spec.name for spec in self.signature.outputs]
        taken = (*self.signature.inputs, *self.signature.optional)
        self._types = {spec.name: spec.datatype for spec in taken}
        self._bf16 = any(spec.datatype is DataType.BF16 for spec in (*taken, *self.signature.outputs))
        self._strings = {spec.name for spec in taken if spec.datatype is DataType.BYTES}
        self._maps = [(spec.name, spec.classes) for spec in self.signature.outputs if spec.classes]
        self._any_rank = any(spec.any_rank for spec in taken)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model once. Shapes: those of the signature.

        Raises:
            Invalid: the input is one that it refuses, or an output one that it cannot hand over.
        """
        if self._recurrent and not all(array.size for array in inputs.values()):
            # ONNX Runtime's recurrent operators end the process.
            raise unfit_for_model("the model has recurrent layers, which take no tensors without elements")
        if self._strings:
            inputs = {name: _decode(array, name) if name in self._strings else array for name, array in inputs.items()}
        try:
            if self._bf16:
                outputs = self._run_values(inputs)
            else:
                outputs = dict(zip(self._names, self._session.run(self._names, inputs), strict=True))
        except UnicodeDecodeError as error:
            raise _text_error(self._outputs) from error
        except (InvalidArgument, Fail) as error:
            differ = self._disagreement(inputs)
            if isinstance(error, Fail) and not (
                differ or self._any_rank or any(not array.size for array in inputs.values())
            ):
                raise
            raise unfit_for_model(f"the model refuses this input: {differ or _message_of(error)}") from error
        for name, classes in self._maps:
            outputs[name] = _matrix(outputs[name], classes)
        return outputs

    def _disagreement(self, inputs: Mapping[str, Array]) -> str:
        """Which inputs differ in an axis that the file calls by one name; empty where none do. Some models take them all the same."""
        seen: dict[str, tuple[str, int]] = {}
        for name, array in inputs.items():
            for axis, length in zip(self.axis_names.get(name, ()), array.shape, strict=False):
                other, found = seen.setdefault(axis, (name, length))
                if axis and found != length:
                    return f"'{name}' has {length} in its axis '{axis}', but '{other}' has {found}"
        return ""

    def _run_values(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run with typed values: numpy has no BF16, so its bits travel as uint16."""
        values = {}
        for name, array in inputs.items():
            if self._types[name] is DataType.BF16:
                contiguous = np.asarray(array, order="C")
                values[name] = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(contiguous, _ONNX_BFLOAT16)
            else:
                values[name] = ort.OrtValue.ortvalue_from_numpy(array)
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


def _decode(array: Array, name: str) -> Array:
    """ONNX Runtime's binding for Python takes and gives text alone, though its own strings are bytes."""
    decoded = np.empty(array.shape, dtype=object)
    try:
        decoded.ravel()[:] = [element.decode() for element in array.ravel()]
    except UnicodeDecodeError as error:
        raise unfit_for_model(
            f"input '{name}' has bytes that are not UTF-8, and ONNX Runtime takes text alone: "
            "send base64, or export the model with a UINT8 input"
        ) from error
    return decoded


def _text_error(outputs: Sequence[TensorSpec]) -> Invalid:
    texts = " or ".join(f"'{spec.name}'" for spec in outputs if spec.datatype is DataType.BYTES)
    return Invalid(
        Refusal.NOT_REPRESENTABLE,
        f"output {texts} has bytes that are not UTF-8, and ONNX Runtime gives text alone: "
        "export the model such that it gives base64, or UINT8",
    )


def _matrix(maps: Any, classes: tuple[str | int, ...]) -> Array:
    """A row for each map, a column for each class."""
    rows = [[each[name] for name in classes] for each in maps]
    return np.array(rows, dtype=np.float32).reshape(len(rows), len(classes))


def _message_of(error: Exception) -> str:
    """ONNX Runtime's sentence, without its codes and the places in its source."""
    line = first_line(error).rpartition(" Status Message: ")[2]
    return line.removeprefix("[ONNXRuntimeError] : ")


def _refusal(path: Path, error: Exception) -> Invalid:
    said = first_line(error)
    named = _LOCALE.search(str(error))
    if named is not None:
        return Invalid(
            Reason.ENGINE_UNAVAILABLE,
            f"ONNX Runtime cannot run {path.name} here: its text operators need the locale {named[1]}, which this machine "
            f"does not have: install it (Debian and Ubuntu: apt-get install locales, then localedef -i "
            f"{named[1].partition('.')[0]} -f UTF-8 {named[1]}), or serve from Penstock's images",
        )
    return Invalid(Reason.MODEL_INVALID, f"ONNX Runtime cannot load {path.name}: {said}")


def _level(name: str) -> Any:
    if name not in _LEVELS:
        raise Invalid(Reason.MODEL_INVALID, f"graphOptimization {name!r} is none of {', '.join(_LEVELS)}")
    return _LEVELS[name]


def _load_libraries(name: EngineName) -> None:
    """Load the libraries of CUDA, cuDNN and TensorRT out of NVIDIA's wheels, where the loader would not look for them.

    What is not there is left to the loader, and to the session's own error.
    """
    with redirect_stdout(sys.stderr):
        ort.preload_dlls()
        if name is EngineName.ONNX_RUNTIME_TENSORRT and importlib.util.find_spec(_TENSORRT_LIBRARIES):
            importlib.import_module(_TENSORRT_LIBRARIES)


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
    _load_libraries(settings.name)
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
