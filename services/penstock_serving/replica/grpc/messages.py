"""Infer requests as gRPC has them, with raw or typed contents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from penstock.errors import Invalid
from penstock.protocol.datatypes import DTYPES, Array, array_from_bytes
from penstock.protocol.refusals import Refusal, bad_request
from penstock.serving.joining import Joining
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_serving.replica.codec.requests import (
    SHARED_MEMORY,
    InferRequest,
    RequestedOutput,
    RequestReader,
    check_shape,
)
from penstock_serving.replica.grpc.fields import parse_request, split_request

CONTENTS: Final[dict[DataType, str]] = {
    DataType.BOOL: "bool_contents",
    DataType.INT8: "int_contents",
    DataType.INT16: "int_contents",
    DataType.INT32: "int_contents",
    DataType.INT64: "int64_contents",
    DataType.UINT8: "uint_contents",
    DataType.UINT16: "uint_contents",
    DataType.UINT32: "uint_contents",
    DataType.UINT64: "uint64_contents",
    DataType.FP32: "fp32_contents",
    DataType.FP64: "fp64_contents",
    DataType.BYTES: "bytes_contents",
}
"""The field of typed contents that holds a datatype. FP16 and BF16 have none."""
_SHARED: Final = ("int_contents", "uint_contents")
"""Fields of 32-bit numbers, which hold narrower ones, too."""
_MOST_KNOWN: Final = 256
_LONGEST_KNOWN: Final = 4096
"""Of what requests have in common, so many are kept, each of so many bytes at most."""


@dataclass(slots=True)
class _Head:
    """What requests that differ in their id and in their raw contents alone have in common."""

    tensors: list[tuple[TensorSpec, str, int, tuple[int, ...]]]
    """Of each input: what the model says of it, its name in errors, how many elements it has, its shape."""
    outputs: tuple[RequestedOutput, ...]
    timeout_seconds: float | None
    priority: int


class MessageDecoder(RequestReader):
    """Decodes messages for one version of one model."""

    def __init__(self, namespace: str, model: str, version: str, signature: Signature, joining: Joining | None) -> None:
        super().__init__(signature, joining)
        self._names = (model, f"{namespace}/{model}")
        self._serving = f"model '{model}' version '{version}' of namespace '{namespace}'"
        self._version = version
        self._known: dict[bytes, _Head] = {}

    def check_asked(self, name: str, version: str) -> None:
        """See that this model is meant.

        Raises:
            Invalid: another is.
        """
        if name not in self._names or version not in ("", self._version):
            asked = f"model '{name}'" + (f" version '{version}'" if version else "")
            raise Invalid(Refusal.NOT_FOUND, f"there is no {asked}: this replica serves {self._serving}")

    def decode(self, body: bytes | bytearray, start: int, end: int) -> InferRequest:
        """Decode a request. Its arrays are views of the body where the contents are raw.

        Args:
            body: what holds the message.
            start: where it begins.
            end: where it ends.

        Raises:
            Invalid: with what is wrong and where.
        """
        rest, identity, raw = split_request(body, start, end)
        head = self._known.get(rest) if raw else None
        if head is None:
            return self._decode_anew(rest, identity, raw)
        inputs = _arrays(head.tensors, raw)
        rows, bucket = self._place(inputs)
        return InferRequest(inputs, rows, bucket, head.outputs, identity or None, head.timeout_seconds, head.priority)

    def _decode_anew(self, rest: bytes, identity: str, raw: list[memoryview]) -> InferRequest:
        message = parse_request(rest)
        self.check_asked(message.model_name, message.model_version)
        tensors = self._tensors(message)
        inputs = _arrays(tensors, raw) if raw else _typed_arrays(tensors, message.inputs)
        if raw and any(item.HasField("contents") for item in message.inputs):
            raise bad_request("the request has 'raw_input_contents' and typed 'contents': send all inputs in one form")
        asked = [{"name": each.name, "parameters": _parameters(each.parameters)} for each in message.outputs]
        parameters = _parameters(message.parameters)
        # Answers come in the form of the question.
        parameters["binary_data_output"] = bool(raw)
        for each in asked:
            each["parameters"]["binary_data"] = bool(raw)
        request = self.build(inputs, identity or None, parameters, asked)
        if raw and len(rest) <= _LONGEST_KNOWN:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[rest] = _Head(tensors, request.outputs, request.timeout_seconds, request.priority)
        return request

    def _tensors(self, message: Any) -> list[tuple[TensorSpec, str, int, tuple[int, ...]]]:
        found: dict[str, tuple[TensorSpec, str, int, tuple[int, ...]]] = {}
        for index, item in enumerate(message.inputs):
            spec, where = self.input_spec(index, item.name), f"inputs[{index}] '{item.name}'"
            if spec.name in found:
                raise bad_request(f"{where}: given twice")
            if item.datatype != spec.datatype:
                raise bad_request(f"{where}: datatype is '{item.datatype}', but the model's is '{spec.datatype}'")
            if SHARED_MEMORY in item.parameters:
                raise bad_request(f"{where}: shared memory is not supported")
            shape = list(item.shape)
            found[spec.name] = (spec, where, check_shape(shape, spec, where), tuple(shape))
        return list(found.values())


def _arrays(tensors: list[tuple[TensorSpec, str, int, tuple[int, ...]]], raw: list[memoryview]) -> dict[str, Array]:
    if len(raw) != len(tensors):
        raise bad_request(f"'raw_input_contents' has {len(raw)} entries, but there are {len(tensors)} inputs")
    return {
        spec.name: array_from_bytes(data, spec.datatype, count, where).reshape(shape)
        for (spec, where, count, shape), data in zip(tensors, raw, strict=True)
    }


def _typed_arrays(tensors: list[tuple[TensorSpec, str, int, tuple[int, ...]]], items: Any) -> dict[str, Array]:
    return {
        spec.name: _typed_array(item.contents, spec.datatype, count, where).reshape(shape)
        for (spec, where, count, shape), item in zip(tensors, items, strict=True)
    }


def _typed_array(contents: Any, datatype: DataType, count: int, where: str) -> Array:
    field = CONTENTS.get(datatype)
    if field is None:
        raise bad_request(f"{where}: {datatype} has no typed contents: send 'raw_input_contents'")
    if other := next((each.name for each, _ in contents.ListFields() if each.name != field), None):
        raise bad_request(f"{where}: {datatype} goes into '{field}', but there is '{other}'")
    values = getattr(contents, field)
    if len(values) != count:
        raise bad_request(f"{where}: its shape has {count} elements, but '{field}' has {len(values)}")
    if datatype is DataType.BYTES:
        found = np.empty(count, dtype=object)
        found[:] = list(values)
        return found
    dtype = DTYPES[datatype]
    if field not in _SHARED:
        return np.fromiter(values, dtype, count)
    wide = np.fromiter(values, np.int64, count)
    limits = np.iinfo(dtype)
    if count and not (limits.min <= wide.min() and wide.max() <= limits.max):
        bad = int(wide.min() if wide.min() < limits.min else wide.max())
        raise bad_request(f"{where}: {bad} is out of {datatype}'s range of {limits.min} to {limits.max}")
    return wide.astype(dtype)


def _parameters(given: Any) -> dict[str, Any]:
    """A map of parameters as JSON would have it."""
    found = {}
    for name, value in given.items():
        chosen = value.WhichOneof("parameter_choice")
        found[name] = getattr(value, chosen) if chosen is not None else None
    return found
