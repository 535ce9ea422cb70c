"""Infer answers as gRPC has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from penstock.protocol.datatypes import Array, array_to_bytes, text_bytes
from penstock.serving.manifest import DataType
from penstock_serving.replica.codec.requests import InferRequest, RequestedOutput
from penstock_serving.replica.codec.responses import unicode_error
from penstock_serving.replica.grpc.messages import CONTENTS
from penstock_serving.rpc.schema import ModelInferResponse

_ID: Final = b"\x1a"
_RAW: Final = b"\x32"
"""The tags of `id` and `raw_output_contents`."""
_MOST_KNOWN: Final = 256


class MessageEncoder:
    """Encodes answers of one version of one model."""

    def __init__(self, model: str, version: str) -> None:
        self._names = ModelInferResponse(model_name=model, model_version=version).SerializeToString()
        self._described: dict[tuple[str, DataType, tuple[int, ...]], bytes] = {}

    def encode(self, request: InferRequest, arrays: Mapping[str, Array]) -> list[bytes]:
        """The parts of a `ModelInferResponse` in their order. A message may be put together of parts that each hold some fields.

        Args:
            request: what was asked.
            arrays: every output by name, this request's rows only.

        Raises:
            Invalid: an output cannot be written.
        """
        parts = [self._names]
        if request.id is not None:
            identity = request.id.encode()
            parts += (_ID, varint(len(identity)), identity)
        if not request.outputs[0].binary and all(output.datatype in CONTENTS for output in request.outputs):
            parts.append(_encode_typed(request.outputs, arrays))
            return parts
        described = self._described
        blobs: list[bytes] = []
        for output in request.outputs:
            array = arrays[output.name]
            parts.append(
                described.get((output.name, output.datatype, array.shape)) or self._describe(output, array.shape)
            )
            blob = _bytes_of(array, output)
            blobs += (_RAW, varint(len(blob)), blob)
        return parts + blobs

    def _describe(self, output: RequestedOutput, shape: tuple[int, ...]) -> bytes:
        tensor = {"name": output.name, "datatype": output.datatype.value, "shape": shape}
        found: bytes = ModelInferResponse(outputs=[tensor]).SerializeToString()
        if len(self._described) >= _MOST_KNOWN:
            self._described.clear()
        self._described[output.name, output.datatype, shape] = found
        return found


def _encode_typed(outputs: tuple[RequestedOutput, ...], arrays: Mapping[str, Array]) -> bytes:
    message = ModelInferResponse()
    for output in outputs:
        array = arrays[output.name]
        tensor = message.outputs.add(name=output.name, datatype=output.datatype.value, shape=array.shape)
        try:
            values = (
                [text_bytes(each) for each in array.flat]
                if output.datatype is DataType.BYTES
                else array.ravel().tolist()
            )
        except UnicodeEncodeError as error:
            raise unicode_error(output.name) from error
        getattr(tensor.contents, CONTENTS[output.datatype]).extend(values)
    found: bytes = message.SerializeToString()
    return found


def _bytes_of(array: Array, output: RequestedOutput) -> bytes:
    try:
        return array_to_bytes(array, output.datatype)
    except UnicodeEncodeError as error:
        raise unicode_error(output.name) from error


def varint(number: int) -> bytes:
    """A length as protobuf writes it."""
    if number < 0x80:  # noqa: PLR2004 -- seven bits a byte
        return bytes((number,))
    found = bytearray()
    while number >= 0x80:  # noqa: PLR2004 -- the same
        found.append((number & 0x7F) | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
