"""One request over HTTP, and its answer: the headers that say what became of it, and its place on the connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from penstock.errors import PenstockError
from penstock.protocol.datatypes import Array
from penstock.protocol.refusals import Deferred, MethodNotAllowed, Refusal, error_document, status_of
from penstock.telemetry import names
from penstock.telemetry.spans import SpanContext, parse_traceparent
from penstock_serving.replica.cache.cache import CacheResult
from penstock_serving.replica.call import Call
from penstock_serving.replica.codec.responses import ResponseEncoder
from penstock_serving.replica.front.codings import ACCEPTED, LEAST_COMPRESSED, choose_coding, compress

JSON: Final = b"Content-Type: application/json\r\n"
_BINARY: Final = b"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: %d\r\n"
_CACHE_STATUS: Final = {
    CacheResult.HIT: b"Cache-Status: penstock; hit\r\n",
    CacheResult.MISS: b"Cache-Status: penstock; fwd=miss\r\n",
    CacheResult.SHARED: b"Cache-Status: penstock; fwd=miss; collapsed\r\n",
    CacheResult.BYPASS: b"Cache-Status: penstock; fwd=bypass\r\n",
}
"""The response header of RFC 9211 by what the cache did."""
_FIRST_FAILURE: Final = 500


class Responder(Protocol):
    """The connection that a request came by."""

    @property
    def lone(self) -> bool:
        """Whether there is no other connection, so that nothing else can have come at the same time."""

    @property
    def max_body_bytes(self) -> int:
        """How large a body may be, or a message of a stream."""

    def respond(self, exchange: HttpExchange, status: int, headers: bytes, body: bytes) -> None:
        """Answer a request of this connection."""

    def transmit(self, exchange: HttpExchange, answer: bytes) -> None:
        """Answer a request of this connection with these bytes, from the status line to the last; the last of a stream's."""

    def transmit_part(self, exchange: HttpExchange, part: bytes) -> None:
        """Send a part of a stream's answer."""


class HttpExchange(Call):
    """A request on a connection, and what of HTTP is the same for every protocol that is spoken over it."""

    __slots__ = (
        "accepts",
        "body",
        "coding",
        "connection",
        "encoder",
        "json_length",
        "keep_alive",
        "method",
        "refusal",
        "response",
        "status",
        "traceparent",
        "unsent",
        "url",
    )

    encoder: Any
    """What writes the answer of one that is answered with tensors; set by its route."""
    unsent: bytearray
    """Of one that streams: parts of its answer that wait for the answers before it."""
    rpc = False
    """Whether it is a call of gRPC's."""
    streams = False
    """Whether its body is taken as it comes, by `receive`, and its answer may begin before the body has ended."""

    def __init__(self, connection: Responder, method: bytes, url: bytes, received_ns: int) -> None:
        Call.__init__(self, received_ns)  # this is on the hot path, and costs less than `super`
        self.connection = connection
        self.method = method
        self.url = url
        self.body: bytes | bytearray = b""
        self.coding = b""
        """What the body is compressed in, in lower case; empty: it is as it is."""
        self.accepts = b""
        """`Accept-Encoding`, as it came."""
        self.json_length: int | None = None
        """`Inference-Header-Content-Length`."""
        self.keep_alive = True
        self.traceparent = b""
        """The header as it came. It is parsed only where the trace is kept."""
        self.refusal: Deferred | None = None
        """Why it is refused whatever its body says."""
        self.response: bytes | None = None
        self.status = 0

    def take_headers(self, headers: Mapping[bytes, bytes]) -> None:
        """Read gRPC's own headers, of a call. They are by lower-case name.

        Raises:
            Invalid: one is not understood.
        """
        raise NotImplementedError

    def receive(self, chunk: bytes) -> None:
        """A part of the body of one that streams.

        Raises:
            Invalid: it cannot be read on.
        """
        raise NotImplementedError

    def leave(self) -> None:
        """The replica drains: a stream ends once what came on it is answered."""
        raise NotImplementedError

    def caller(self) -> SpanContext | None:
        """From the header as it came."""
        return parse_traceparent(self.traceparent.decode("latin-1")) if self.traceparent else None

    def answer_lines(self) -> bytes:
        """Header lines that say what became of the request."""
        lines = b"" if self.cache is None else _CACHE_STATUS[self.cache]
        if self.span is not None:
            lines += b"traceresponse: %b\r\n" % self.span.traceparent().encode()
        return lines


class RestExchange(HttpExchange):
    """A request of the protocol's REST form."""

    __slots__ = ("content", "head")

    encoder: ResponseEncoder
    head: bytes
    content: bytes

    def encode(self, outputs: Mapping[str, Array]) -> None:
        """Make the body, in JSON or with binary tensors after it, compressed where the client would have it so."""
        if self.request is not None:
            self.content, json_length = self.encoder.encode(self.request, outputs)
            self.head = JSON if json_length is None else _BINARY % json_length
            if self.accepts and len(self.content) >= LEAST_COMPRESSED and (coding := choose_coding(self.accepts)):
                shorter = compress(self.content, coding)
                if shorter is not self.content:
                    self.content = shorter
                    self.head += b"Content-Encoding: %b\r\n" % coding

    def send(self) -> None:
        """Answer with 200."""
        self.connection.respond(self, 200, self.head + self.answer_lines(), self.content)

    def refuse(self, error: PenstockError) -> None:
        """Answer with the protocol's error."""
        head = JSON
        if isinstance(error, Deferred):
            head += b"Retry-After: %d\r\n" % error.retry_after_seconds
        elif isinstance(error, MethodNotAllowed):
            head += b"Allow: %b\r\n" % error.allowed.encode()
        elif error.reason == Refusal.UNSUPPORTED_ENCODING:
            head += b"Accept-Encoding: %b\r\n" % ACCEPTED
        self.connection.respond(self, status_of(error), head + self.answer_lines(), error_document(error.message))

    def attributes(self) -> dict[str, str | int | float | bool]:
        """By OpenTelemetry's conventions for HTTP."""
        found: dict[str, str | int | float | bool] = {
            names.ATTR_HTTP_METHOD: self.method.decode("latin-1"),
            names.ATTR_URL_PATH: self.url.partition(b"?")[0].decode("latin-1"),
            names.ATTR_HTTP_STATUS: self.status,
        }
        if self.status >= _FIRST_FAILURE:
            found[names.ATTR_ERROR_TYPE] = str(self.status)
        return found

    def failure(self) -> str:
        """The status."""
        return f"HTTP {self.status}"
