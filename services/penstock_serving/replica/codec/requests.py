"""Infer requests: from a body to named arrays that fit the model's signature."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from penstock.protocol.datatypes import Array, array_from_bytes, array_from_json
from penstock.protocol.refusals import bad_request
from penstock.serving.joining import Joining
from penstock.serving.manifest import DataType, Signature, TensorSpec

DEFAULT_PRIORITY: Final = 8
"""The priority of a request that names none, or 0."""
LAST_PRIORITY: Final = 16
_MAX_AXES: Final = 32
_SHARED_MEMORY: Final = "shared_memory_region"
_LONGEST_WITHOUT_ELEMENTS: Final = 1 << 24
"""Product of the other axes of a tensor without elements. Sixty bytes of request must not make an engine fill gigabytes."""
_NO_BYTES: Final = memoryview(b"")
_NOTHING: Final[Mapping[str, Any]] = {}


@dataclass(slots=True)
class RequestedOutput:
    """An output that the client asked for, and in which form."""

    name: str
    datatype: DataType
    binary: bool


@dataclass(slots=True)
class InferRequest:
    """A decoded request.

    `bucket` is equal for two requests that may run in one batch; `rows` is the length of the batch axis, 1 where
    none is known. `timeout_seconds` counts from the request's arrival. Priority 1 goes first.
    """

    inputs: dict[str, Array]
    rows: int
    bucket: tuple[tuple[int, ...], ...]
    outputs: tuple[RequestedOutput, ...]
    id: str | None = None
    timeout_seconds: float | None = None
    priority: int = DEFAULT_PRIORITY


class RequestDecoder:
    """Decodes infer requests for one model.

    Args:
        signature: what it takes and gives.
        joining: which axis of each tensor counts rows; None: that is not known, and nothing is asked of any axis.
    """

    def __init__(self, signature: Signature, joining: Joining | None = None) -> None:
        self._axes = joining.inputs if joining is not None else {}
        self._ragged = joining is not None and joining.ragged
        self._required = tuple(spec.name for spec in signature.inputs)
        self._optional = frozenset(spec.name for spec in signature.optional)
        self._inputs = {spec.name: spec for spec in (*signature.inputs, *signature.optional)}
        self._outputs = {spec.name: spec for spec in signature.outputs}
        self._varies = any(
            length == -1 and axis != self._axes.get(spec.name)
            for spec in signature.inputs
            for axis, length in enumerate(spec.shape)
        )
        # No shape has negative lengths: a bucket of these is no other request's.
        self._alone = itertools.count(-1, -1)
        simple = len(self._axes) == 1 and not self._varies and not signature.optional
        self._only = next(iter(self._axes.items())) if simple else None
        """The one axis to look at, where there is no more to it."""
        self._default = {
            binary: tuple(RequestedOutput(spec.name, spec.datatype, binary) for spec in signature.outputs)
            for binary in (False, True)
        }

    def decode(self, body: bytes | bytearray, json_length: int | None = None) -> InferRequest:
        """Decode a request.

        Args:
            body: the HTTP body.
            json_length: `Inference-Header-Content-Length`: how much of the body is JSON; binary tensors follow. None: all.

        Raises:
            Invalid: with what is wrong and where.
        """
        document, text, binary = _split(body, json_length)
        inputs = self._decode_inputs(document.get("inputs"), text, binary)
        request = InferRequest(inputs, *self._place(inputs), self._default[False])
        identity = document.get("id")
        if identity is not None:
            if type(identity) is not str:
                raise bad_request("'id' must be a string")
            request.id = identity
        parameters = document.get("parameters")
        if parameters is not None:
            _apply_parameters(request, parameters)
            if _flag(parameters, "binary_data_output", "parameters"):
                request.outputs = self._default[True]
        outputs = document.get("outputs")
        if outputs is not None and outputs != []:
            request.outputs = self._requested(outputs, binary=request.outputs is self._default[True])
        return request

    def _decode_inputs(self, listed: Any, text: bytes | bytearray, binary: memoryview) -> dict[str, Array]:
        if type(listed) is not list or not listed:
            raise bad_request("'inputs' must be a list of the model's input tensors")
        inputs: dict[str, Array] = {}
        offset = 0
        for index, item in enumerate(listed):
            spec, where = self._spec(index, item)
            if spec.name in inputs:
                raise bad_request(f"{where}: given twice")
            array, used = _tensor(item, spec, where, text, binary[offset:] if offset else binary)
            offset += used
            inputs[spec.name] = array
        if len(inputs) != len(self._inputs):
            missing = ", ".join(f"'{name}'" for name in self._required if name not in inputs)
            if missing:
                raise bad_request(f"inputs: {missing} missing")
        if offset != len(binary):
            raise bad_request(f"{len(binary) - offset} bytes of binary data belong to no input's 'binary_data_size'")
        return inputs

    def _spec(self, index: int, item: Any) -> tuple[TensorSpec, str]:
        if type(item) is not dict:
            raise bad_request(f"inputs[{index}]: must be an object")
        name = item.get("name")
        if type(name) is not str:
            raise bad_request(f"inputs[{index}]: 'name' must be a string")
        spec = self._inputs.get(name)
        if spec is None:
            known = ", ".join(f"'{known}'" for known in self._inputs)
            raise bad_request(f"inputs[{index}] '{name}': the model has no such input; it has {known}")
        return spec, f"inputs[{index}] '{name}'"

    def _place(self, inputs: dict[str, Array]) -> tuple[int, tuple[tuple[int, ...], ...]]:
        """How many rows a request has, and the bucket of those that it may run with."""
        if self._only is not None and (length := inputs[self._only[0]].shape[self._only[1]]):
            return length, ()
        if not self._axes:
            return 1, ()
        rows = -1
        alone = len(inputs) != len(self._required)
        for name, axis in self._axes.items():
            length = inputs[name].shape[axis]
            if rows not in (-1, length):
                if not self._ragged:
                    raise bad_request(f"input '{name}': its batch axis is {length}, but the inputs before have {rows}")
                alone = True
            rows = length
        if alone or not rows:
            # What replaces a value of the model's own would replace it for all others of the batch; and inputs of different
            # lengths, or of no rows, were no part of the proof.
            return rows, ((next(self._alone),),)
        if not self._varies:
            return rows, ()
        shapes = ((axis, inputs[name].shape) for name, axis in self._axes.items())
        return rows, tuple(shape[:axis] + shape[axis + 1 :] for axis, shape in shapes)

    def _requested(self, listed: Any, *, binary: bool) -> tuple[RequestedOutput, ...]:
        if type(listed) is not list:
            raise bad_request("'outputs' must be a list")
        chosen: dict[str, RequestedOutput] = {}
        for index, item in enumerate(listed):
            name = item.get("name") if type(item) is dict else None
            if type(name) is not str:
                raise bad_request(f"outputs[{index}]: must be an object with a 'name'")
            where = f"outputs[{index}] '{name}'"
            spec = self._outputs.get(name)
            if spec is None:
                known = ", ".join(f"'{known}'" for known in self._outputs)
                raise bad_request(f"{where}: the model has no such output; it has {known}")
            if name in chosen:
                raise bad_request(f"{where}: asked for twice")
            parameters = item.get("parameters")
            if parameters is None:
                parameters = _NOTHING
            elif type(parameters) is not dict:
                raise bad_request(f"{where}: 'parameters' must be an object")
            asked = _flag(parameters, "binary_data", where)
            if parameters.get("classification"):
                raise bad_request(f"{where}: classification is not supported; ask for the tensor")
            if parameters.get(_SHARED_MEMORY):
                raise bad_request(f"{where}: shared memory is not supported")
            chosen[name] = RequestedOutput(name, spec.datatype, binary if asked is None else asked)
        return tuple(chosen.values())


def _split(body: bytes | bytearray, json_length: int | None) -> tuple[dict[str, Any], bytes | bytearray, memoryview]:
    """The document, its text, and the binary data after it."""
    if json_length is None:
        text, binary = body, _NO_BYTES
    elif json_length > len(body):
        raise bad_request(f"Inference-Header-Content-Length is {json_length}, but the body has {len(body)} bytes")
    else:
        text, binary = body[:json_length], memoryview(body)[json_length:]
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        hint = ""
        if b"NaN" in text or b"Infinity" in text or "infinity" in str(error):
            hint = "; JSON has no NaN and no Infinity: send the tensor in binary form"
        raise bad_request(f"the body is not valid JSON: {error}{hint}") from error
    if type(document) is not dict:
        raise bad_request("the body must be a JSON object with 'inputs'")
    return document, text, binary


def _tensor(
    item: dict[str, Any], spec: TensorSpec, where: str, text: bytes | bytearray, binary: memoryview
) -> tuple[Array, int]:
    """One input's array, and how many bytes of the binary data it used."""
    datatype = item.get("datatype")
    if datatype != spec.datatype:
        found = "missing" if datatype is None else f"{datatype!r}"
        raise bad_request(f"{where}: datatype is {found}, but the model's is '{spec.datatype}'")
    shape: Any = item.get("shape")
    count = _check_shape(shape, spec, where)
    data = item.get("data")
    if item.get("parameters") is not None:
        size = _binary_size(item["parameters"], where, len(binary))
        # A client that writes all fields, set or not, writes an empty list and a size of 0 for what it does not use.
        given = data is not None and data != []
        if size is not None and not (size == 0 and given):
            if given:
                raise bad_request(f"{where}: has both 'data' and 'binary_data_size'")
            return array_from_bytes(binary[:size], spec.datatype, count, where).reshape(shape), size
    if data is None:
        raise bad_request(f"{where}: has neither 'data' nor the parameter 'binary_data_size'")
    array = array_from_json(data, spec.datatype, where, text)
    if array.size != count:
        raise bad_request(f"{where}: shape {shape} has {count} elements, but 'data' has {array.size}")
    if array.ndim == 1:
        return array.reshape(shape), 0
    if array.shape != tuple(shape):
        if count == 0 and array.shape == tuple(shape[: array.ndim]):
            # Below an empty list there is nothing that could show the other axes.
            return array.reshape(shape), 0
        raise bad_request(f"{where}: 'data' is nested as {list(array.shape)}, but the shape is {shape}")
    return array, 0


def _binary_size(parameters: Any, where: str, available: int) -> int | None:
    """`binary_data_size` among an input's parameters, or None where it is not there."""
    if type(parameters) is not dict:
        raise bad_request(f"{where}: 'parameters' must be an object")
    if parameters.get(_SHARED_MEMORY):
        raise bad_request(f"{where}: shared memory is not supported")
    size = parameters.get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or not 0 <= size <= available:
        raise bad_request(f"{where}: binary_data_size is {size!r}, but {available} bytes of binary data are left")
    return size


def _check_shape(shape: Any, spec: TensorSpec, where: str) -> int:
    """The number of elements of a shape that fits the model's."""
    wanted = spec.shape
    if shape is None:
        raise bad_request(f"{where}: 'shape' is missing")
    if type(shape) is not list or len(shape) > _MAX_AXES:
        raise bad_request(f"{where}: 'shape' must be a list of at most {_MAX_AXES} whole numbers")
    count = 1
    fits = len(shape) == len(wanted)
    for index, length in enumerate(shape):
        if type(length) is not int or length < 0:
            raise bad_request(f"{where}: 'shape' must hold whole numbers from 0, not {length!r}")
        count *= length
        fits = fits and wanted[index] in (-1, length)
    if not fits and not spec.any_rank:
        raise bad_request(f"{where}: shape {shape} does not fit the model's {list(wanted)}")
    if count == 0 and math.prod(max(length, 1) for length in shape) > _LONGEST_WITHOUT_ELEMENTS:
        raise bad_request(f"{where}: shape {shape} has no elements, but axes that are too long")
    return count


def _flag(parameters: Any, name: str, where: str) -> bool | None:
    if type(parameters) is not dict:
        raise bad_request(f"{where}: 'parameters' must be an object")
    value = parameters.get(name)
    if value is not None and type(value) is not bool:
        raise bad_request(f"{where}: parameter '{name}' must be true or false, not {value!r}")
    return value


def _apply_parameters(request: InferRequest, parameters: Any) -> None:
    if type(parameters) is not dict:
        raise bad_request("'parameters' must be an object")
    timeout = parameters.get("timeout")
    if timeout is not None:
        if type(timeout) is not int or timeout < 0:
            raise bad_request(f"parameter 'timeout' must be whole microseconds from 0, not {timeout!r}")
        request.timeout_seconds = timeout / 1e6 if timeout else None
    priority = parameters.get("priority")
    if priority is not None:
        if type(priority) is not int or not 0 <= priority <= LAST_PRIORITY:
            raise bad_request(
                f"parameter 'priority' must be a whole number from 0 to {LAST_PRIORITY}, not {priority!r}"
            )
        request.priority = priority or DEFAULT_PRIORITY
