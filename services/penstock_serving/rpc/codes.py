"""gRPC's status: its codes, which of them a refusal has, and how a status is written."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final
from urllib.parse import quote

from penstock.errors import PenstockError
from penstock.protocol.refusals import Deferred, Refusal


class RpcCode(IntEnum):
    """gRPC's status codes, those that are used here."""

    OK = 0
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


CODES: Final[Mapping[str, RpcCode]] = {
    Refusal.BAD_REQUEST: RpcCode.INVALID_ARGUMENT,
    Refusal.MODEL_REFUSED: RpcCode.INVALID_ARGUMENT,
    Refusal.NOT_A_GATEWAY: RpcCode.PERMISSION_DENIED,
    Refusal.NOT_FOUND: RpcCode.NOT_FOUND,
    Refusal.METHOD_NOT_ALLOWED: RpcCode.UNIMPLEMENTED,
    Refusal.NOT_REPRESENTABLE: RpcCode.FAILED_PRECONDITION,
    # Nothing of it was run, so that it may be sent again.
    Refusal.TIMED_OUT_READING: RpcCode.UNAVAILABLE,
    Refusal.LENGTH_TOO_LARGE: RpcCode.RESOURCE_EXHAUSTED,
    Refusal.UNSUPPORTED_ENCODING: RpcCode.UNIMPLEMENTED,
    Refusal.EXPECTATION_FAILED: RpcCode.INVALID_ARGUMENT,
    Refusal.HEADERS_TOO_LARGE: RpcCode.RESOURCE_EXHAUSTED,
    Refusal.QUEUE_FULL: RpcCode.RESOURCE_EXHAUSTED,
    Refusal.OVERLOADED: RpcCode.RESOURCE_EXHAUSTED,
    Refusal.ENGINE_FAILED: RpcCode.INTERNAL,
    Refusal.DRAINING: RpcCode.UNAVAILABLE,
    Refusal.EXPIRED: RpcCode.DEADLINE_EXCEEDED,
}
"""gRPC's code by refusal."""
STATUS_CODES: Final[Mapping[int, RpcCode]] = {
    400: RpcCode.INVALID_ARGUMENT,
    401: RpcCode.UNAUTHENTICATED,
    403: RpcCode.PERMISSION_DENIED,
    404: RpcCode.NOT_FOUND,
    405: RpcCode.UNIMPLEMENTED,
    408: RpcCode.UNAVAILABLE,
    413: RpcCode.RESOURCE_EXHAUSTED,
    415: RpcCode.UNIMPLEMENTED,
    429: RpcCode.RESOURCE_EXHAUSTED,
    500: RpcCode.INTERNAL,
    502: RpcCode.UNAVAILABLE,
    503: RpcCode.UNAVAILABLE,
    504: RpcCode.DEADLINE_EXCEEDED,
}
"""gRPC's code by HTTP status, of what a gateway answers."""
ACCEPTED_ENCODINGS: Final = b"identity, deflate, gzip"
"""How messages may be compressed."""
PLAIN_CHARACTERS: Final = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
"""What stands as it is in a status message, beside letters and digits: all of printable ASCII but the percent sign."""


def code_of(error: PenstockError) -> RpcCode:
    """The code for an error; INTERNAL for a reason that is not a refusal."""
    return CODES.get(error.reason, RpcCode.INTERNAL)


def status_lines(code: RpcCode, message: str) -> bytes:
    """The header lines, or trailer lines, of a status."""
    return b"grpc-status: %d\r\ngrpc-message: %b\r\n" % (code, quote(message, safe=PLAIN_CHARACTERS).encode())


def refusal_lines(error: PenstockError) -> bytes:
    """The same of an error. Where trying again may help, they say when, in the form that gRPC's clients go by."""
    lines = status_lines(code_of(error), error.message)
    if isinstance(error, Deferred):
        lines += b"grpc-retry-pushback-ms: %d\r\n" % (error.retry_after_seconds * 1000)
    if error.reason == Refusal.UNSUPPORTED_ENCODING:
        lines += b"grpc-accept-encoding: %b\r\n" % ACCEPTED_ENCODINGS
    return lines
