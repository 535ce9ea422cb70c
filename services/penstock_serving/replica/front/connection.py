"""An HTTP/1.1 server on asyncio's callbacks and llhttp: no task and no future for a request.

Requests on a connection may be pipelined: they are handled as they come, at once, and answered in order.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final, Protocol, cast

import httptools

from penstock.errors import Invalid
from penstock.protocol.refusals import Refusal
from penstock_serving.replica.exchange import Exchange
from penstock_serving.replica.front.guard import Guard

logger = logging.getLogger(__name__)

_LINGER_SECONDS: Final = 2.0
_MAX_PIPELINED: Final = 64
_MOST_ABOUT_A_BYTE: Final = 16
"""Bytes that frame each byte of a chunked body, and that byte. The rest counts as header: extensions, trailers."""
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    408: "Request Timeout",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    417: "Expectation Failed",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
STATUS_LINES: Final = {code: f"HTTP/1.1 {code} {reason}\r\n".encode() for code, reason in _REASONS.items()}


@dataclass(frozen=True)
class Limits:
    """What a client may ask of a connection."""

    max_body_bytes: int
    guard: Guard = field(default_factory=Guard)
    max_header_bytes: int = 32 * 1024
    receive_seconds: float = 30.0
    """A request whose bytes stop coming for this long is given up."""
    idle_seconds: float = 300.0
    """A connection without a request is closed after this long; longer than a gateway keeps it, so that the gateway closes."""


class Application(Protocol):
    """What answers requests."""

    def handle(self, exchange: Exchange) -> None:
        """A request is complete. Call `exchange.connection.respond` for it, now or later."""

    def refuse(self, exchange: Exchange, error: Invalid, *, close: bool) -> None:
        """A request is wrong as HTTP. Respond with the error."""

    def disconnected(self, exchange: Exchange) -> None:
        """The client went before its answer."""


class HttpConnection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, application: Application, limits: Limits, connections: set[HttpConnection]) -> None:
        self._application = application
        self._limits = limits
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._pending: deque[Exchange] = deque()
        self._url = b""
        self._exchange: Exchange | None = None
        self._receiving = False
        self._in_headers = False
        self._came = 0
        self._alone = True
        self._done = False
        self._refused = False
        self._read_paused = False
        self._write_paused = False
        self._draining = False
        self.last_data = self._began = time.monotonic()
        self._clear_headers()

    def _clear_headers(self) -> None:
        self._length = 0
        self._json_length: int | None = None
        self._expects = b""
        self._encoding = b""
        self._traceparent = b""
        self._shown = b""

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection."""
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application of every request that will not be answered."""
        self._connections.discard(self)
        if self._receiving and not self._done:
            logger.info("a client closed its connection in the middle of a request%s", f": {exc}" if exc else "")
        self._done = True
        self._transport = None
        for exchange in self._pending:
            if exchange.response is None:
                self._application.disconnected(exchange)
        self._pending.clear()
        self._exchange = None

    def data_received(self, data: bytes) -> None:
        """Parse what came; requests are handled on the way."""
        if self._done:
            return
        self.last_data = time.monotonic()
        self._alone = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # No other protocol is spoken here: the request was answered as it is, and nothing after it is read.
            self._done = True
            if self._pending:
                self._pending[-1].keep_alive = False
            elif self._transport is not None:
                self._transport.close()
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if not isinstance(cause, Invalid):
                raise
            self._refuse(cause)
        except httptools.HttpParserError as error:
            self._refuse(Invalid(Refusal.BAD_REQUEST, f"this is not HTTP/1.1: {error}"))
        if self._receiving and not self._done:
            self._bound(len(data))

    def eof_received(self) -> bool:
        """Close: a client that has closed its side wants no answer any more."""
        return False

    def pause_writing(self) -> None:
        """The client does not take its answers: read no further requests."""
        self._write_paused = True
        self._balance()

    def resume_writing(self) -> None:
        """The client takes its answers again."""
        self._write_paused = False
        self._balance()

    # Called by the parser.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._receiving = self._in_headers = True
        self._began = self.last_data
        self._came = 0
        self._url = b""
        self._clear_headers()

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; most are of no interest."""
        if not self._in_headers:
            return
        match name.lower():
            case b"content-length":
                self._length = int(value)
            case b"traceparent":
                self._traceparent = value
            case b"inference-header-content-length":
                if not value.isdigit() or len(value) > 18:  # noqa: PLR2004 -- digits of a 64-bit number
                    raise Invalid(Refusal.BAD_REQUEST, "Inference-Header-Content-Length must be a number of bytes")
                self._json_length = int(value)
            case b"expect":
                self._expects = value.lower()
            case b"content-encoding":
                self._encoding = value.lower()
            case b"x-penstock-gateway":
                self._shown = value

    def on_headers_complete(self) -> None:
        """Refuse what can be known wrong from the headers alone, before the body comes."""
        if self._done:
            return
        self._in_headers = False
        exchange = Exchange(self, self._parser.get_method(), self._url, time.monotonic_ns())
        self._exchange = exchange
        exchange.traceparent = self._traceparent
        exchange.json_length = self._json_length
        if not self._limits.guard.lets(self._shown, self._url):
            raise Invalid(Refusal.NOT_A_GATEWAY, "this replica answers its gateways alone: ask one of them")
        if self._length > self._limits.max_body_bytes:
            raise self._too_large()
        if self._encoding and self._encoding != b"identity":
            raise Invalid(Refusal.UNSUPPORTED_ENCODING, "Content-Encoding is not supported: send the body as it is")
        if self._expects:
            if self._expects != b"100-continue":
                raise Invalid(Refusal.EXPECTATION_FAILED, "the only expectation that can be met is 100-continue")
            if self._transport is not None and not self._pending:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, chunk: bytes) -> None:
        """A part of the body."""
        exchange = self._exchange
        if exchange is None or self._done:
            return
        if not exchange.body:
            exchange.body = chunk
            if len(chunk) > self._limits.max_body_bytes:
                raise self._too_large()
            return
        if len(exchange.body) + len(chunk) > self._limits.max_body_bytes:
            raise self._too_large()
        if type(exchange.body) is bytes:
            exchange.body = bytearray(exchange.body)
        exchange.body += chunk

    def on_message_complete(self) -> None:
        """Hand a whole request on."""
        exchange = self._exchange
        if exchange is None or self._done:
            return
        self._exchange = None
        self._receiving = self._alone = False
        exchange.keep_alive = self._parser.should_keep_alive() and not self._draining
        if not exchange.keep_alive:
            self._done = True
        self._pending.append(exchange)
        if len(self._pending) >= _MAX_PIPELINED:
            self._balance()
        self._application.handle(exchange)

    # Called by the application.

    def respond(self, exchange: Exchange, status: int, headers: bytes, body: bytes) -> None:
        """Answer a request; the bytes go out as soon as those before it have.

        Args:
            exchange: a request of this connection.
            status: HTTP status.
            headers: whole header lines, each with its CRLF, without Content-Length and Connection.
            body: the whole body.
        """
        exchange.status = status
        close = b"" if exchange.keep_alive else b"Connection: close\r\n"
        exchange.response = b"%b%bContent-Length: %d\r\n%b\r\n%b" % (
            STATUS_LINES[status],
            headers,
            len(body),
            close,
            body if exchange.method != b"HEAD" else b"",
        )
        pending = self._pending
        transport = self._transport
        if transport is None:
            return
        while pending and (ready := pending[0].response) is not None:
            answered = pending.popleft()
            transport.write(ready)
            if not answered.keep_alive:
                self._finish(transport)
                return
        if self._read_paused:
            self._balance()

    def close_when_idle(self) -> None:
        """Take no further request: answer those that came, saying that the connection closes, then close it."""
        self._draining = True
        if self._pending:
            self._pending[-1].keep_alive = False
        elif not self._receiving and self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection now."""
        if self._transport is not None:
            self._transport.abort()

    def check_deadlines(self, now: float) -> None:
        """Close the connection if it has been silent for too long. `now` is the monotonic clock in seconds."""
        silent = now - self.last_data
        if self._transport is None:
            return
        if self._write_paused and silent > self._limits.idle_seconds:
            self._transport.abort()
        elif self._receiving and not self._read_paused and not self._done:
            # Headers must come within the time as a whole, or a byte now and then would hold a connection for ever.
            waited = now - self._began if self._in_headers else silent
            if waited > self._limits.receive_seconds:
                self._refuse(
                    Invalid(Refusal.TIMED_OUT_READING, f"the rest of the request did not come within {waited:.0f} s")
                )
        elif not self._pending and silent > self._limits.idle_seconds:
            self._transport.close()

    # Inside.

    def _bound(self, size: int) -> None:
        """Count what has come of a request that is not whole: its header, and what stands about its body, are bounded."""
        # Where another request ended in the same bytes, nobody knows how many of them are this one's.
        self._came = self._came + size if self._alone else 0
        body = 0 if self._exchange is None else len(self._exchange.body)
        if self._came - body * _MOST_ABOUT_A_BYTE > self._limits.max_header_bytes:
            self._refuse(
                Invalid(Refusal.HEADERS_TOO_LARGE, f"the header is over {self._limits.max_header_bytes} bytes")
            )

    def _too_large(self) -> Invalid:
        return Invalid(Refusal.LENGTH_TOO_LARGE, f"the body is over the limit of {self._limits.max_body_bytes} bytes")

    def _refuse(self, error: Invalid) -> None:
        """Answer what cannot be read on, and read nothing more."""
        if self._done:
            # It stands after the last request that is answered.
            return
        self._done = self._refused = True
        self._receiving = False
        exchange = self._exchange or Exchange(self, b"", self._url, time.monotonic_ns())
        self._exchange = None
        exchange.body = b""
        exchange.keep_alive = False
        self._pending.append(exchange)
        self._application.refuse(exchange, error, close=True)

    def _finish(self, transport: asyncio.Transport) -> None:
        """The last answer has been written. Closing with unread data would reset the connection under it, so linger."""
        self._done = True
        self._pending.clear()
        if not self._refused:
            transport.close()
            return
        if transport.can_write_eof():
            transport.write_eof()
        asyncio.get_running_loop().call_later(_LINGER_SECONDS, transport.abort)

    def _balance(self) -> None:
        """Stop reading while the client does not take its answers or has too many requests open."""
        if self._transport is None:
            return
        pause = self._write_paused or len(self._pending) >= _MAX_PIPELINED
        if pause and not self._read_paused:
            self._transport.pause_reading()
        elif not pause and self._read_paused and not self._transport.is_closing():
            self.last_data = time.monotonic()
            self._transport.resume_reading()
        self._read_paused = pause
