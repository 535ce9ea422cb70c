"""Which of a request's headers are read, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from penstock.errors import Invalid
from penstock.protocol.refusals import Refusal
from penstock_serving.replica.front.codings import knows_coding
from penstock_serving.replica.front.exchange import HttpExchange

READ: Final = frozenset(
    (
        b"accept-encoding",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"expect",
        b"grpc-encoding",
        b"grpc-timeout",
        b"inference-header-content-length",
        b"te",
        b"traceparent",
        b"x-penstock-call",
        b"x-penstock-caller",
        b"x-penstock-gateway",
        b"x-penstock-shadow",
    )
)
_RPC_CONTENT: Final = b"application/grpc"
_CALL_HEADER: Final = b"x-penstock-call"
"""The path of a call that a gateway routes by a path of REST's form."""
_MOST_DIGITS: Final = 18
"""Of a 64-bit number."""
_FLAGS_END: Final = 54
"""Where `traceparent` has the last digit of its flags; the lowest bit of it says that the caller samples."""
_ODD_DIGITS: Final = frozenset(b"%c" % digit for digit in b"13579bdf")
_MOST_SAID: Final = 40
"""Bytes of a header that a refusal says again."""


def is_call(headers: Mapping[bytes, bytes]) -> bool:
    """Whether these are headers of a call of gRPC's."""
    return headers.get(b"content-type", b"").startswith(_RPC_CONTENT)


def target_of(url: bytes, headers: Mapping[bytes, bytes]) -> bytes:
    """The path of a call as its client asked for it."""
    return headers.get(_CALL_HEADER, url)


def read_headers(exchange: HttpExchange, headers: Mapping[bytes, bytes]) -> None:
    """Let a request know what its headers say of it.

    Args:
        exchange: the request.
        headers: by lower-case name, those of `READ` that it has; one that stands twice is joined by a comma.

    Raises:
        Invalid: one has no meaning.
    """
    exchange.passed_on = b"x-penstock-gateway" in headers
    traceparent = headers.get(b"traceparent")
    if traceparent:
        exchange.traceparent = traceparent
        exchange.sampled = traceparent[_FLAGS_END : _FLAGS_END + 1] in _ODD_DIGITS
    if caller := headers.get(b"x-penstock-caller"):
        exchange.flow = caller
    if coding := headers.get(b"content-encoding"):
        _read_coding(exchange, coding.lower())
    if exchange.rpc:
        exchange.take_headers(headers)
        return
    exchange.accepts = headers.get(b"accept-encoding", b"")
    json_length = headers.get(b"inference-header-content-length")
    if json_length is not None:
        if not json_length.isdigit() or len(json_length) > _MOST_DIGITS:
            raise Invalid(Refusal.BAD_REQUEST, "Inference-Header-Content-Length must be a number of bytes")
        exchange.json_length = int(json_length)


def _read_coding(exchange: HttpExchange, coding: bytes) -> None:
    if coding == b"identity":
        return
    if exchange.rpc or not knows_coding(coding):
        said = coding[:_MOST_SAID].decode("latin-1")
        known = "" if exchange.rpc else ", in gzip, or in deflate"
        raise Invalid(Refusal.UNSUPPORTED_ENCODING, f"send the body as it is{known}, not in {said!r}")
    exchange.coding = coding


def expects_word(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the client waits for a word before it sends the body.

    Raises:
        Invalid: it expects something else.
    """
    expected = headers.get(b"expect", b"").lower()
    if expected not in (b"", b"100-continue"):
        raise Invalid(Refusal.EXPECTATION_FAILED, "the only expectation that can be met is 100-continue")
    return expected != b""
