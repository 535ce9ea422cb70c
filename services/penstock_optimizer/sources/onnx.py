"""ONNX: a file with or without external data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from onnx.external_data_helper import convert_model_to_external_data, uses_external_data

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_optimizer.accuracy.likeness import difference_between
from penstock_optimizer.sources.opening import ONNX_FILE, Opened, Opening
from penstock_runtime.engines import Array

_LARGE: Final = 3 << 29
"""Bytes of weights from which they are kept beside the graph: protobuf holds at most 2 GiB."""
_BATCH: Final = "batch"
_DTYPES: Final = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
    "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8,
    "tensor(bool)": np.bool_,
}  # fmt: skip

_DATATYPES: Final = {
    onnx.TensorProto.BOOL: DataType.BOOL,
    onnx.TensorProto.UINT8: DataType.UINT8,
    onnx.TensorProto.UINT16: DataType.UINT16,
    onnx.TensorProto.UINT32: DataType.UINT32,
    onnx.TensorProto.UINT64: DataType.UINT64,
    onnx.TensorProto.INT8: DataType.INT8,
    onnx.TensorProto.INT16: DataType.INT16,
    onnx.TensorProto.INT32: DataType.INT32,
    onnx.TensorProto.INT64: DataType.INT64,
    onnx.TensorProto.FLOAT16: DataType.FP16,
    onnx.TensorProto.BFLOAT16: DataType.BF16,
    onnx.TensorProto.FLOAT: DataType.FP32,
    onnx.TensorProto.DOUBLE: DataType.FP64,
    onnx.TensorProto.STRING: DataType.BYTES,
}


class OnnxSource:
    """An ONNX model."""

    def open(self, opening: Opening) -> Opened:
        """Check the model, join its external data, free its batch axis if that changes nothing, and write it."""
        model = load(opening.entry)
        target = opening.output / ONNX_FILE
        write(model, target)
        if _has_fixed_batch(model) and not _free_batch(model, target, opening):
            write(model, target)
        return Opened(parameters_of(model))


def load(path: Path) -> onnx.ModelProto:
    """Read and check a model with its external data.

    Raises:
        Invalid: ModelInvalid.
    """
    try:
        _check_ranks(onnx.load(str(path), load_external_data=False), path)
        onnx.checker.check_model(str(path))
        return onnx.load(str(path))
    except Invalid:
        raise
    except Exception as error:  # the checker's and protobuf's errors have no common base
        first = str(error).strip().splitlines()[0][:500] if str(error).strip() else type(error).__name__
        raise Invalid(Reason.MODEL_INVALID, f"{path.name} is no valid ONNX model: {first}") from error


def _check_ranks(model: onnx.ModelProto, path: Path) -> None:
    """ONNX Runtime serves a tensor of any rank; but nothing can be made up or measured for it."""
    for what, values in (("input", _inputs(model)), ("output", model.graph.output)):
        for each in values:
            if each.type.HasField("tensor_type") and not each.type.tensor_type.HasField("shape"):
                raise Invalid(
                    Reason.MODEL_INVALID,
                    f"{path.name}: {what} '{each.name}' has no fixed number of axes, so that it can be served but not "
                    "profiled or optimized: export it with one",
                )


def write(model: onnx.ModelProto, path: Path) -> None:
    """Write a model: in one file, or where that cannot be, with its weights in `<name>.data` beside it."""
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _LARGE:
        convert_model_to_external_data(model, location=f"{path.name}.data", size_threshold=1024)
        onnx.save_model(model, str(path))
        return
    onnx.save_model(model, str(path))


def signature_of(path: Path) -> Signature:
    """What an ONNX model takes and gives; an axis without a fixed length is -1.

    Raises:
        Invalid: ModelInvalid: a tensor's type has no counterpart in the inference protocol.
    """
    model = onnx.load(str(path), load_external_data=False)
    return Signature(
        inputs=tuple(_spec(each) for each in _inputs(model)), outputs=tuple(_spec(each) for each in model.graph.output)
    )


def parameters_of(model: onnx.ModelProto) -> int:
    """Numbers in floating-point initializers, and in constants that are not scalars."""
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16}
    return sum(math.prod(tensor.dims) for tensor in model.graph.initializer if tensor.data_type in floats)


def external_files(path: Path) -> tuple[Path, ...]:
    """The files beside a model that hold its weights.

    Raises:
        Invalid: ModelInvalid: one of them is not there or not beside it.
    """
    model = onnx.load(str(path), load_external_data=False)
    names = {
        entry.value
        for tensor in model.graph.initializer
        if uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    files = tuple(path.parent / name for name in sorted(names))
    for file in files:
        if not file.resolve().is_relative_to(path.parent.resolve()) or not file.is_file():
            raise Invalid(Reason.MODEL_INVALID, f"{path.name} keeps weights in {file.name}, which is not beside it")
    return files


def _spec(value: Any) -> TensorSpec:
    if value.type.HasField("sequence_type") or value.type.HasField("map_type"):
        raise Invalid(
            Reason.MODEL_INVALID,
            f"'{value.name}' is a sequence or a map, which can be served but neither profiled nor optimized: convert the model"
            " with tensors instead (skl2onnx: options={'zipmap': False})",
        )
    tensor = value.type.tensor_type
    datatype = _DATATYPES.get(tensor.elem_type)
    if datatype is None:
        raise Invalid(
            Reason.MODEL_INVALID, f"tensor {value.name} has a type that the Open Inference Protocol cannot carry"
        )
    shape = tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in tensor.shape.dim)
    return TensorSpec(name=value.name, datatype=datatype, shape=shape)


def _inputs(model: onnx.ModelProto) -> list[Any]:
    initializers = {tensor.name for tensor in model.graph.initializer}
    return [each for each in model.graph.input if each.name not in initializers]


def _has_fixed_batch(model: onnx.ModelProto) -> bool:
    """Whether all inputs and outputs have a first axis of the same fixed length."""
    firsts = set()
    for each in (*_inputs(model), *model.graph.output):
        axes = each.type.tensor_type.shape.dim
        firsts.add(axes[0].dim_value if axes and axes[0].HasField("dim_value") else None)
    return len(firsts) == 1 and firsts != {None}


def _free_batch(model: onnx.ModelProto, target: Path, opening: Opening) -> bool:
    """Write the model with a free first axis; whether two batches in one then give what they give one by one."""
    rows = _inputs(model)[0].type.tensor_type.shape.dim[0].dim_value
    free = onnx.ModelProto()
    free.CopyFrom(model)
    del free.graph.value_info[:]
    for each in (*_inputs(free), *free.graph.output):
        each.type.tensor_type.shape.dim[0].dim_param = _BATCH
    original = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    double = _make_two_batches(original, rows, opening.examples.shapes)
    if double is None:
        return False
    write(free, target)
    try:
        session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
        got = session.run(None, double)
        halves = [
            original.run(None, {name: array[start : start + rows] for name, array in double.items()})
            for start in (0, rows)
        ]
    except Exception:  # noqa: BLE001 -- any failure says the same: the graph counts on its batch
        return False
    wanted = [np.concatenate(parts) for parts in zip(*halves, strict=True)]
    return all(difference_between(ours, theirs) is None for ours, theirs in zip(wanted, got, strict=True))


def _make_two_batches(
    session: onnxruntime.InferenceSession, rows: int, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Array] | None:
    """Two batches of made inputs; None where they cannot be made."""
    generator = np.random.default_rng(0)
    feed: dict[str, Array] = {}
    for node in session.get_inputs():
        inner = shapes.get(node.name, tuple(node.shape[1:]))
        dtype = _DTYPES.get(node.type)
        if dtype is None or not all(isinstance(axis, int) for axis in inner):
            return None
        shape = (2 * rows, *inner)
        drawn = (
            generator.standard_normal(shape) if np.issubdtype(dtype, np.floating) else generator.integers(0, 2, shape)
        )
        feed[node.name] = drawn.astype(dtype)
    return feed
