"""A `ModelInferRequest` on the wire, taken apart: the tensors' bytes are found where they lie, and not copied."""

from __future__ import annotations

from typing import Final, NamedTuple

from penstock.protocol.refusals import bad_request
from penstock_serving.rpc.schema import DecodeError, ModelInferRequest

_ID: Final = 0x1A
_RAW: Final = 0x3A
_PLAIN_TAGS: Final = frozenset((number << 3) | 2 for number in range(1, 8))
"""Tags of the fields that the message has. All hold bytes with their length before them."""
_MORE: Final = 0x80
_LONGEST_SHIFT: Final = 28


class SplitRequest(NamedTuple):
    """The parts of a request."""

    rest: bytes
    """All but the two below, still as on the wire: a client's requests mostly have it in common."""
    identity: str
    raw: list[memoryview]
    """`raw_input_contents`."""


def split_request(body: bytes | bytearray, start: int, end: int) -> SplitRequest:
    """Take a message apart.

    Args:
        body: what holds the message. It must not be changed while the parts are in use.
        start: where the message begins.
        end: where it ends.

    Raises:
        Invalid: this is no such message.
    """
    rest: list[bytes | bytearray] = []
    raw: list[memoryview] = []
    identity = b""
    whole = memoryview(body)
    at = kept = start
    while at < end:
        tag, begin = body[at], at
        size, at = _length(body, at + 1, end)
        after = at + size
        if tag not in _PLAIN_TAGS or size < 0 or after > end:
            return _split_by_library(whole[start:end])
        if tag in (_ID, _RAW):
            if kept < begin:
                rest.append(body[kept:begin])
            kept = after
            if tag == _RAW:
                raw.append(whole[at:after])
            elif identity:
                # The last one counts, but each has to be right.
                return _split_by_library(whole[start:end])
            else:
                identity = bytes(whole[at:after])
        at = after
    if kept < end:
        rest.append(body[kept:end])
    return SplitRequest(bytes(rest[0]) if len(rest) == 1 else b"".join(rest), _text(identity), raw)


def _length(body: bytes | bytearray, at: int, end: int) -> tuple[int, int]:
    """A length and where it ends; -1 where it is not written as usual, or not whole."""
    if at < end and (size := body[at]) < _MORE:
        return size, at + 1
    size = shift = 0
    while at < end and shift <= _LONGEST_SHIFT:
        byte = body[at]
        size |= (byte & 0x7F) << shift
        at += 1
        if byte < _MORE:
            return size, at
        shift += 7
    return -1, at


def _text(identity: bytes) -> str:
    try:
        return identity.decode()
    except UnicodeDecodeError as error:
        raise bad_request("the request's 'id' is not UTF-8") from error


def _split_by_library(message: memoryview) -> SplitRequest:
    """The same of a message that holds what is not usual, such as fields of a later release of the protocol."""
    request = parse_request(message)
    raw = [memoryview(each) for each in request.raw_input_contents]
    identity = request.id
    request.ClearField("raw_input_contents")
    request.ClearField("id")
    return SplitRequest(request.SerializeToString(deterministic=True), identity, raw)


def parse_request(message: bytes | memoryview) -> ModelInferRequest:
    """A request as protobuf reads it.

    Raises:
        Invalid: this is no such message.
    """
    try:
        return ModelInferRequest.FromString(message)
    except (DecodeError, UnicodeDecodeError) as error:
        raise bad_request(f"the message is no {ModelInferRequest.DESCRIPTOR.full_name}: {error}") from error
