"""An HTTP/1.1 server on asyncio's callbacks and llhttp: no task and no future for a request.

Requests on a connection may be pipelined: they are handled as they come, at once, and answered in order.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Final, cast

import httptools

from penstock.errors import Invalid
from penstock.protocol.refusals import Refusal
from penstock.routing.shadowing import SHADOW_HEADER
from penstock_serving.replica.front.application import HttpApplication, RpcApplication
from penstock_serving.replica.front.exchange import HttpExchange, RestExchange
from penstock_serving.replica.front.guard import GATEWAY_HEADER
from penstock_serving.replica.front.headers import READ, expects_word, is_call, read_headers, target_of
from penstock_serving.replica.front.limits import ConnectionLimits
from penstock_serving.replica.front.states import ConnectionState, Flow
from penstock_serving.replica.front.statuses import STATUS_LINES

logger = logging.getLogger(__name__)

_SHADOW_HEADER: Final = SHADOW_HEADER.encode()
_LINGER_SECONDS: Final = 2.0
_MAX_PIPELINED: Final = 64
_MOST_ABOUT_A_BYTE: Final = 16
"""Bytes that frame each byte of a chunked body, and that byte. The rest counts as header: extensions, trailers."""
_READ_FOR_NOTHING: Final = 64 * 1024
"""Bytes of a body that are read of a request that is refused already, so that its connection can go on."""

# Globals, since they are looked at for each header.
_AT_REST: Final = ConnectionState.AT_REST
_HEADER: Final = ConnectionState.HEADER
_BODY: Final = ConnectionState.BODY
_RECEIVING: Final = (_HEADER, _BODY)
_READING: Final = (_AT_REST, _HEADER, _BODY)


class HttpConnection(asyncio.Protocol):
    """One client's connection.

    Args:
        application: answers requests.
        limits: what a client may ask.
        connections: all that are open.
        rpc: answers gRPC's calls, which come as HTTP/1.1 from a gateway; None: they are requests as any other.
    """

    def __init__(
        self,
        application: HttpApplication,
        limits: ConnectionLimits,
        connections: set[HttpConnection],
        rpc: RpcApplication | None = None,
    ) -> None:
        self._application = application
        self._rpc = rpc
        self._limits = limits
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._pending: deque[HttpExchange] = deque()
        self._url = b""
        self._exchange: HttpExchange | None = None
        self._state = _AT_REST
        self._flow = Flow.FREE
        self._came = 0
        """Bytes of the request that is not whole, but for those that came together with the end of another."""
        self._size = 0
        self.last_data = self._began = time.monotonic()
        self._headers: dict[bytes, bytes] = {}

    @property
    def lone(self) -> bool:
        """Whether there is no other connection."""
        return len(self._connections) == 1

    @property
    def max_body_bytes(self) -> int:
        """How large a body may be, or a message of a stream."""
        return self._limits.max_body_bytes

    def _application_of(self, exchange: HttpExchange) -> HttpApplication:
        return self._rpc if exchange.rpc and self._rpc is not None else self._application

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection."""
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application of every request that will not be answered."""
        self._connections.discard(self)
        if self._state in _RECEIVING:
            logger.info("a client closed its connection in the middle of a request%s", f": {exc}" if exc else "")
        self._state = ConnectionState.CLOSED
        self._transport = None
        for exchange in self._pending:
            if exchange.response is None:
                self._application_of(exchange).cancel(exchange)
        self._pending.clear()
        self._exchange = None

    def data_received(self, data: bytes) -> None:
        """Parse what came; requests are handled on the way."""
        if self._state not in _READING:
            return
        self.last_data = time.monotonic()
        self._size = len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # No other protocol is spoken here: the request was answered as it is, and nothing after it is read.
            self._state = ConnectionState.LAST
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
        if self._state in _RECEIVING:
            self._bound()
        else:
            self._came = 0

    def eof_received(self) -> bool:
        """Close: a client that has closed its side wants no answer any more."""
        return False

    def pause_writing(self) -> None:
        """The client does not take its answers: read no further requests."""
        self._set_flow(Flow.STALLED)

    def resume_writing(self) -> None:
        """The client takes its answers again."""
        self._set_flow(Flow.CROWDED if len(self._pending) >= _MAX_PIPELINED else Flow.FREE)

    # Called by the parser.

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._state is not _AT_REST:
            return
        self._state = _HEADER
        self._began = self.last_data
        self._url = b""
        self._headers = {}

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; most are of no interest."""
        if self._state is _HEADER and (lower := name.lower()) in READ:
            before = self._headers.get(lower)
            self._headers[lower] = value if before is None else b"%b, %b" % (before, value)

    def on_headers_complete(self) -> None:
        """Refuse what can be known wrong from the headers alone, before the body comes."""
        if self._state is not _HEADER:
            return
        self._state = _BODY
        headers = self._headers
        self._exchange = exchange = self._begin(self._parser.get_method())
        read_headers(exchange, headers)
        if not self._limits.guard.admits(headers.get(GATEWAY_HEADER, b""), self._url):
            raise Invalid(Refusal.NOT_A_GATEWAY, "this replica answers its gateways alone: ask one of them")
        if word := headers.get(_SHADOW_HEADER):
            exchange.shown = self._limits.guard.why_shown(word)
        length = int(headers.get(b"content-length", b"0"))
        if length > self._limits.max_body_bytes:
            raise self._size_error()
        exchange.refusal = refusal = (
            self._application_of(exchange) if exchange.rpc else self._application
        ).refuse_early(exchange)
        if refusal is not None and (length > _READ_FOR_NOTHING or b"expect" in headers):
            raise refusal
        if b"expect" in headers and expects_word(headers) and self._transport is not None and not self._pending:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if exchange.streams:
            self._pending.append(exchange)

    def on_body(self, chunk: bytes) -> None:
        """A part of the body."""
        exchange = self._exchange
        if exchange is None:
            return
        if exchange.streams:
            self._came -= len(chunk) * _MOST_ABOUT_A_BYTE
            exchange.receive(chunk)
            return
        if not exchange.body:
            exchange.body = chunk
            if len(chunk) > self._limits.max_body_bytes:
                raise self._size_error()
            return
        if exchange.refusal is not None and len(exchange.body) > _READ_FOR_NOTHING:
            raise exchange.refusal
        if len(exchange.body) + len(chunk) > self._limits.max_body_bytes:
            raise self._size_error()
        if type(exchange.body) is bytes:
            exchange.body = bytearray(exchange.body)
        exchange.body += chunk

    def on_message_complete(self) -> None:
        """Hand a whole request on."""
        exchange = self._exchange
        if exchange is None:
            return
        self._exchange = None
        # Nobody knows how many of the bytes in hand are the next request's.
        self._came = -self._size
        exchange.keep_alive = self._parser.should_keep_alive() and not self._application.draining
        self._state = _AT_REST if exchange.keep_alive else ConnectionState.LAST
        if not exchange.streams:
            self._pending.append(exchange)
        if len(self._pending) >= _MAX_PIPELINED and self._flow is Flow.FREE:
            self._set_flow(Flow.CROWDED)
        if exchange.rpc:
            self._application_of(exchange).handle(exchange)
        else:
            self._application.handle(exchange)

    # Called by the application.

    def respond(self, exchange: HttpExchange, status: int, headers: bytes, body: bytes) -> None:
        """Answer a request; the bytes go out as soon as those before it have.

        Args:
            exchange: a request of this connection.
            status: HTTP status.
            headers: whole header lines, each with its CRLF, without Content-Length and Connection.
            body: the whole body.
        """
        exchange.status = status
        close = b"" if exchange.keep_alive else b"Connection: close\r\n"
        answer = b"%b%bContent-Length: %d\r\n%b\r\n%b" % (
            STATUS_LINES[status],
            headers,
            len(body),
            close,
            body if exchange.method != b"HEAD" else b"",
        )
        self.transmit(exchange, answer)

    def transmit(self, exchange: HttpExchange, answer: bytes) -> None:
        """Answer a request; the bytes go out as soon as those before it have.

        Args:
            exchange: a request of this connection.
            answer: all of it, from the status line on; of a stream, what is left of it.
        """
        exchange.response = answer if not exchange.streams else bytes(exchange.unsent) + answer
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
        if self._flow is Flow.CROWDED and len(pending) < _MAX_PIPELINED:
            self._set_flow(Flow.FREE)

    def transmit_part(self, exchange: HttpExchange, part: bytes) -> None:
        """Send a part of a stream's answer."""
        if self._transport is not None and self._pending and self._pending[0] is exchange:
            self._transport.write(part)
        else:
            exchange.unsent += part

    def close_when_idle(self) -> None:
        """Of an application that is draining: say with the last answer that the connection closes, or close it."""
        if self._pending:
            last = self._pending[-1]
            last.keep_alive = False
            if last.streams:
                last.leave()
        elif self._state not in _RECEIVING and self._transport is not None:
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
        if self._flow is Flow.STALLED and silent > self._limits.idle_seconds:
            self._transport.abort()
        elif self._state in _RECEIVING and self._flow is Flow.FREE:
            # Headers must come within the time as a whole, or a byte now and then would hold a connection for ever.
            waited = now - self._began if self._state is _HEADER else silent
            streams = self._exchange is not None and self._exchange.streams
            if waited > (self._limits.idle_seconds if streams else self._limits.receive_seconds):
                self._refuse(
                    Invalid(Refusal.TIMED_OUT_READING, f"the rest of the request did not come within {waited:.0f} s")
                )
        elif not self._pending and silent > self._limits.idle_seconds:
            self._transport.close()

    # Inside.

    def _begin(self, method: bytes) -> HttpExchange:
        """What stands for the request whose header was read, as far as it came."""
        if self._rpc is not None and is_call(self._headers):
            return self._rpc.exchange(self, method, target_of(self._url, self._headers), time.monotonic_ns())
        return RestExchange(self, method, self._url, time.monotonic_ns())

    def _bound(self) -> None:
        """Count what has come of a request that is not whole: its header, and what stands about its body, are bounded."""
        self._came += self._size
        body = 0 if self._exchange is None else len(self._exchange.body)
        if self._came - body * _MOST_ABOUT_A_BYTE > self._limits.max_header_bytes:
            self._refuse(
                Invalid(Refusal.HEADERS_TOO_LARGE, f"the header is over {self._limits.max_header_bytes} bytes")
            )

    def _size_error(self) -> Invalid:
        return Invalid(Refusal.LENGTH_TOO_LARGE, f"the body is over the limit of {self._limits.max_body_bytes} bytes")

    def _refuse(self, error: Invalid) -> None:
        """Answer what cannot be read on, and read nothing more."""
        if self._state not in _READING:
            # It stands after the last request that is answered.
            return
        self._state = ConnectionState.REFUSED
        exchange = self._exchange or self._begin(b"")
        self._exchange = None
        exchange.body = b""
        exchange.keep_alive = False
        if exchange not in self._pending:
            self._pending.append(exchange)
        self._application_of(exchange).refuse(exchange, error)

    def _finish(self, transport: asyncio.Transport) -> None:
        """The last answer has been written. Closing with unread data would reset the connection under it, so linger."""
        self._pending.clear()
        if self._exchange is not None and self._exchange.streams:
            # It ended before its body did.
            self._exchange = None
            self._state = ConnectionState.REFUSED
        if self._state is not ConnectionState.REFUSED:
            self._state = ConnectionState.LAST
            transport.close()
            return
        if transport.can_write_eof():
            transport.write_eof()
        asyncio.get_running_loop().call_later(_LINGER_SECONDS, transport.abort)

    def _set_flow(self, flow: Flow) -> None:
        """Stop reading, or begin again."""
        before, self._flow = self._flow, flow
        transport = self._transport
        if transport is None or flow is before:
            return
        if before is Flow.FREE:
            transport.pause_reading()
        elif flow is Flow.FREE and not transport.is_closing():
            self.last_data = time.monotonic()
            transport.resume_reading()
