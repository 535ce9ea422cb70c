"""OpenVINO on the CPU, from its own IR or from ONNX.

Left alone, OpenVINO lowers fp32 to bf16 where the processor has it, takes all cores and pins threads to them. Here
precision, threads and streams are what the settings say, and what was taken is read back.

Options: `dynamicQuantizationGroupSize` (0: activations of models with compressed weights keep their precision).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino as ov

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.optimization.hardware import Hardware
from penstock.optimization.recipes import EngineName, EngineSettings, Precision
from penstock.protocol.refusals import unfit_for_model
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_runtime.engines import Array, first_line, options_of

_DATATYPES: Final = {
    "boolean": DataType.BOOL,
    "u8": DataType.UINT8,
    "u16": DataType.UINT16,
    "u32": DataType.UINT32,
    "u64": DataType.UINT64,
    "i8": DataType.INT8,
    "i16": DataType.INT16,
    "i32": DataType.INT32,
    "i64": DataType.INT64,
    "f16": DataType.FP16,
    "bf16": DataType.BF16,
    "f32": DataType.FP32,
    "f64": DataType.FP64,
}
_PRECISIONS: Final = {Precision.FP32: "f32", Precision.BF16: "bf16", Precision.FP16: "f16"}
_WIDE: Final = (DataType.INT64, DataType.UINT64)
"""Types whose values OpenVINO's CPU plugin cuts to 32 bits, without a word."""
_BOUND: Final = 1 << 31
_LENGTHS: Final = (8, 64, 224, 2, 1)
"""Of open axes, with one of which a model's shapes fit together."""
_MOST_SHAPES: Final = 1024
_OF_SHAPES: Final = "/shape_inference/"
"""In the message of a run that failed because an operator's inputs do not fit together."""
_KNOWN: Final = {"dynamicQuantizationGroupSize": "0"}


def why_unavailable(name: EngineName, hardware: Hardware) -> str | None:
    """It runs on every CPU that it is packaged for."""
    del name, hardware
    return None


def load(entrypoint: Path, settings: EngineSettings, signature: Signature | None) -> OpenVinoEngine:
    """Load a model; it carries its own signature."""
    del signature
    return OpenVinoEngine(entrypoint, settings)


class OpenVinoEngine:
    """One compiled model with one request."""

    platform = "openvino"

    def __init__(self, path: Path, settings: EngineSettings) -> None:
        properties = _properties(settings)
        try:
            core = ov.Core()
            model = core.read_model(str(path))
            compiled = core.compile_model(model, "CPU", properties)
        except RuntimeError as error:
            raise Invalid(Reason.MODEL_INVALID, f"OpenVINO cannot load {path.name}: {_message_of(error)}") from error
        _check_pinned(compiled, settings)
        self.signature = Signature(
            inputs=tuple(_spec(port, f"input_{i}", "input") for i, port in enumerate(model.inputs)),
            outputs=tuple(_spec(port, f"output_{i}", "output") for i, port in enumerate(model.outputs)),
        )
        self.branch = _branch(model)
        """An operator that sends a whole run one way or another."""
        self._inputs, self._outputs = self.signature.inputs, self.signature.outputs
        self._wide = tuple(spec.name for spec in self._inputs if spec.datatype in _WIDE)
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._hides = settings.threads == 1 and _is_dynamic(model)
        """Whether `infer` would hide that a run failed. With one thread it does so where shapes are found out as the run goes, and
        the outputs are still those of the run before, which was another caller's; `wait` raises."""
        self._follows = self._hides and _follows(model)
        self._ran: set[tuple[tuple[int, ...], ...]] = set()
        """Shapes of inputs that ran well, where nothing else decides whether the next run does: `infer` costs less."""
        self._keeps = bool(self._request.query_state())
        """Whether the model has variables (`ReadValue`, `Assign`), in which a run leaves something for the next one."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model once. The outputs are the caller's own: the request's memory is used again.

        Every run starts from the variables' initial values: nothing of one caller's request may reach another's answer.

        Raises:
            Invalid: the inputs' shapes do not fit together, or a whole number has more than 32 bits.
        """
        for name in self._wide:
            _check_width(inputs[name], name)
        request = self._request
        if self._keeps:
            request.reset_state()
        for index, spec in enumerate(self._inputs):
            request.set_input_tensor(index, _tensor(inputs[spec.name], spec.datatype))
        try:
            self._infer(inputs)
        except RuntimeError as error:
            if _OF_SHAPES not in str(error):
                raise
            raise unfit_for_model(f"the model refuses this input: {_cause_of(error)}") from error
        return {
            spec.name: _copy(request.get_output_tensor(index), spec.datatype)
            for index, spec in enumerate(self._outputs)
        }

    def _infer(self, inputs: Mapping[str, Array]) -> None:
        if not self._hides:
            self._request.infer()
            return
        shapes = tuple(inputs[spec.name].shape for spec in self._inputs)
        if shapes in self._ran:
            self._request.infer()
            return
        self._request.start_async()
        self._request.wait()
        if self._follows and len(self._ran) < _MOST_SHAPES:
            self._ran.add(shapes)

    def read_hints(self) -> dict[str, str]:
        """What OpenVINO says that it runs with: threads, streams, precision."""
        names = ("INFERENCE_NUM_THREADS", "NUM_STREAMS", "INFERENCE_PRECISION_HINT", "ENABLE_CPU_PINNING")
        return {name: str(self._compiled.get_property(name)) for name in names}


def _is_dynamic(model: Any) -> bool:
    """Whether any tensor's shape is known only when the model runs."""
    return any(port.partial_shape.is_dynamic for operator in model.get_ops() for port in operator.outputs())


def _follows(model: Any) -> bool:
    """Whether all shapes follow from those of the inputs, and not from what these hold."""
    for length in _LENGTHS:
        tried = model.clone()
        try:
            tried.reshape({port: _with_length(port.partial_shape, length) for port in tried.inputs})
        except RuntimeError:
            continue  # too small for its kernels, or too large for its tables
        return not _is_dynamic(tried)
    return False


def _with_length(shape: Any, length: int) -> list[int]:
    return [length if axis.is_dynamic else int(axis.get_length()) for axis in shape]


def _branch(model: Any) -> str | None:
    """The first operator, here or in the body of another, that has a condition of its own."""
    for operator in model.get_ops():
        kind: str = operator.get_type_name()
        if kind == "If":
            return kind
        if kind not in ("Loop", "TensorIterator"):
            continue
        body = operator.get_function()
        if kind == "Loop":
            place = operator.get_special_body_ports()[1]
            if body.get_results()[place].input_value(0).get_node().get_type_name() != "Constant":
                return kind
        inner = _branch(body)
        if inner is not None:
            return inner
    return None


def _properties(settings: EngineSettings) -> dict[str, Any]:
    options = options_of(settings, _KNOWN)
    size = options["dynamicQuantizationGroupSize"]
    if not size.isdigit():
        raise Invalid(Reason.MODEL_INVALID, f"dynamicQuantizationGroupSize {size!r} is not a number")
    return {
        "INFERENCE_PRECISION_HINT": _PRECISIONS[settings.precision],
        "INFERENCE_NUM_THREADS": settings.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # replicas share the machine: the kernel places them
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": int(size),
        "CACHE_DIR": "",
    }


def _check_pinned(compiled: Any, settings: EngineSettings) -> None:
    wanted = _PRECISIONS[settings.precision]
    taken = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if taken != wanted:
        raise Invalid(
            Reason.ENGINE_UNAVAILABLE,
            f"OpenVINO cannot compute in {settings.precision} on this processor, it took {taken}: use fp32 here",
        )


def _spec(port: Any, fallback: str, what: str) -> TensorSpec:
    name = _name(port) or fallback
    datatype = _DATATYPES.get(port.element_type.get_type_name())
    if datatype is None:
        raise Invalid(
            Reason.MODEL_INVALID,
            f"{what} '{name}' is a {port.element_type.get_type_name()}, which cannot be served with OpenVINO: "
            "use ONNX Runtime for strings, or export it as numbers",
        )
    shape = port.partial_shape
    if shape.rank.is_dynamic:
        raise Invalid(Reason.MODEL_INVALID, f"{what} '{name}' has no fixed number of axes: export it with one")
    axes = tuple(-1 if axis.is_dynamic else int(axis.get_length()) for axis in shape)
    return TensorSpec(name=name, datatype=datatype, shape=axes)


def _name(port: Any) -> str | None:
    """The name that the model's owner gave. A tensor may have several: its node's is the owner's where it is one."""
    names = sorted(port.get_names())
    node = port.get_node().get_friendly_name().removesuffix("/sink_port_0")
    return node if node in names else next(iter(names), None)


def _tensor(array: Array, datatype: DataType) -> Any:
    """The array as OpenVINO's, without a copy where its memory lies in order."""
    array = np.asarray(array, order="C")
    if datatype is DataType.BF16:
        return ov.Tensor(array, array.shape, ov.Type.bf16)
    return ov.Tensor(array, shared_memory=array.flags.writeable)


def _check_width(array: Array, name: str) -> None:
    # All bits that any of them has, in one look: of ids, which are small and not negative, that is all there is to see.
    if not array.size or 0 <= int(np.bitwise_or.reduce(array, axis=None)) < _BOUND:
        return
    if not -_BOUND <= int(array.min()) <= int(array.max()) < _BOUND:
        raise unfit_for_model(
            f"input '{name}' has numbers of more than 32 bits, which OpenVINO would cut: use ONNX Runtime for such a model"
        )


def _copy(tensor: Any, datatype: DataType) -> Array:
    if datatype is DataType.BF16:
        copy: Array = np.frombuffer(tensor.data.tobytes(), dtype=np.uint16)
        return copy.reshape(tuple(tensor.shape))
    data: Array = tensor.data
    return data.copy()


def _cause_of(error: RuntimeError) -> str:
    """The last line of a run's failure: what comes before it are places in OpenVINO's source, and its operators."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [first_line(error)])[-1][:500]


def _message_of(error: RuntimeError) -> str:
    """OpenVINO's messages begin with where in its source they were made."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check "))]
    return (telling or lines or [first_line(error)])[0][:500]
