"""Infer requests in JSON, whose tensors may follow it in binary form, as the Open Inference Protocol v2 has them for HTTP."""

from __future__ import annotations

from typing import Any, Final

import orjson

from penstock.protocol.datatypes import Array, array_from_bytes, array_from_json
from penstock.protocol.refusals import bad_request
from penstock.serving.manifest import TensorSpec
from penstock_serving.replica.codec.requests import SHARED_MEMORY, InferRequest, RequestReader, check_shape

_NO_BYTES: Final = memoryview(b"")


class RequestDecoder(RequestReader):
    """Decodes documents for one model."""

    def decode(self, body: bytes | bytearray, json_length: int | None = None) -> InferRequest:
        """Decode a request.

        Args:
            body: JSON, and what follows it.
            json_length: how much of the body is JSON; binary tensors follow. None: all.

        Raises:
            Invalid: with what is wrong and where.
        """
        document, text, binary = _split(body, json_length)
        inputs = self._decode_inputs(document.get("inputs"), text, binary)
        return self.build(inputs, document.get("id"), document.get("parameters"), document.get("outputs"))

    def _decode_inputs(self, listed: Any, text: bytes | bytearray, binary: memoryview) -> dict[str, Array]:
        if type(listed) is not list:
            raise bad_request("'inputs' must be a list of the model's input tensors")
        inputs: dict[str, Array] = {}
        offset = 0
        for index, item in enumerate(listed):
            if type(item) is not dict:
                raise bad_request(f"inputs[{index}]: must be an object")
            name = item.get("name")
            if type(name) is not str:
                raise bad_request(f"inputs[{index}]: 'name' must be a string")
            spec, where = self.input_spec(index, name), f"inputs[{index}] '{name}'"
            if spec.name in inputs:
                raise bad_request(f"{where}: given twice")
            array, used = _tensor(item, spec, where, text, binary[offset:] if offset else binary)
            offset += used
            inputs[spec.name] = array
        if offset != len(binary):
            raise bad_request(f"{len(binary) - offset} bytes of binary data belong to no input's 'binary_data_size'")
        return inputs


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
    count = check_shape(shape, spec, where)
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
    if parameters.get(SHARED_MEMORY):
        raise bad_request(f"{where}: shared memory is not supported")
    size = parameters.get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or not 0 <= size <= available:
        raise bad_request(f"{where}: binary_data_size is {size!r}, but {available} bytes of binary data are left")
    return size
