"""The HTTP front with a transport in memory: any chunking, pipelining, order of answers, and anything that is no HTTP.

What comes back is read by a reader of its own. Whatever is sent, no request gets another's answer, nothing is raised into the
event loop, and what is kept stays bounded.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass, field
from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import Invalid
from penstock.protocol.refusals import Deferred, error_document, status_of
from penstock_serving.replica.front.connection import HttpConnection
from penstock_serving.replica.front.exchange import HttpExchange
from penstock_serving.replica.front.limits import ConnectionLimits

LIMITS: Final = ConnectionLimits(max_body_bytes=400, max_header_bytes=2000)
_LOOP: Final = asyncio.new_event_loop()


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False
        self.paused = False

    def write(self, data: Any) -> None:
        """Keep it, unless it comes too late."""
        assert not self.closed, "written after the end"
        self.written += data

    def can_write_eof(self) -> bool:
        """As TCP can."""
        return True

    def write_eof(self) -> None:
        """The last byte was written."""
        self.closed = True

    def close(self) -> None:
        """The same."""
        self.closed = True

    def abort(self) -> None:
        """The same at once."""
        self.closed = True

    def is_closing(self) -> bool:
        """Whether it was the last byte."""
        return self.closed

    def pause_reading(self) -> None:
        """Whoever sends has to wait."""
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        """And no longer."""
        assert self.paused
        self.paused = False


def seen(method: bytes, url: bytes, body: bytes, json_length: int | None) -> bytes:
    """What the application answers: a digest of all that it was given."""
    return hashlib.sha256(repr((method, url, body, json_length)).encode()).hexdigest().encode()


class Echo:
    """Answers each request with what it saw, at once or later."""

    draining = False

    def __init__(self) -> None:
        self.hold: list[bool] = []
        self.held: list[HttpExchange] = []
        self.handled = 0
        self.gone: list[HttpExchange] = []

    def refuse_early(self, exchange: HttpExchange) -> Deferred | None:
        """Nothing."""
        del exchange

    def handle(self, exchange: HttpExchange) -> None:
        """Answer, or keep it."""
        assert len(exchange.body) <= LIMITS.max_body_bytes
        self.handled += 1
        if self.hold and self.hold[self.handled % len(self.hold)]:
            self.held.append(exchange)
        else:
            self.answer(exchange)

    def answer(self, exchange: HttpExchange) -> None:
        """Answer."""
        said = seen(exchange.method, exchange.url, bytes(exchange.body), exchange.json_length)
        exchange.connection.respond(exchange, 200, b"", said)

    def refuse(self, exchange: HttpExchange, error: Invalid) -> None:
        """Answer with the error."""
        exchange.connection.respond(exchange, status_of(error), b"", error_document(error.message))

    def cancel(self, exchange: HttpExchange) -> None:
        """Nobody waits for it."""
        self.gone.append(exchange)


@dataclass
class Sent:
    """A request on the wire, and what is to come back."""

    wire: bytes
    method: bytes = b""
    answer: bytes = b""
    last: bool = False
    """The connection ends after it."""


_NAMES: Final = st.sampled_from(["Content-Length", "content-length", "CONTENT-LENGTH"])
_OTHERS: Final = st.lists(
    st.sampled_from(
        [
            b"Host: a",
            b"X-Empty:",
            b"Accept: */*",
            b"traceparent: 00-x-y-01",
            b"Content-Encoding: identity",
            b"Content-Encoding: GZip",
            b"Accept-Encoding: gzip;q=1.0, *;q=0",
            b"Cookie: a=b",
        ]
    ),
    max_size=3,
    unique=True,
).filter(lambda drawn: sum(each.startswith(b"Content-Encoding") for each in drawn) < 2)


@st.composite
def well_formed(draw: st.DrawFn, number: int) -> Sent:
    """A request that is right, however it is written."""
    method = draw(st.sampled_from([b"POST", b"GET", b"PUT", b"HEAD", b"OPTIONS", b"DELETE"]))
    url = b"/%d/" % number + draw(st.sampled_from([b"", b"infer", b"?q=1", b"a%20b", b"v2/models/m"]))
    body = draw(st.binary(max_size=60)) if method != b"HEAD" else b""
    headers = draw(_OTHERS)
    json_length = draw(st.one_of(st.none(), st.integers(0, 10**6)))
    if json_length is not None:
        headers.append(b"Inference-Header-Content-Length: %d" % json_length)
    if body and draw(st.integers(0, 5)) == 0:
        headers.append(b"Expect: 100-continue")
    old = draw(st.integers(0, 9)) == 0
    last = old or draw(st.integers(0, 14)) == 0
    if last and not old:
        headers.append(draw(st.sampled_from([b"Connection: close", b"connection: CLOSE"])))
    framed = b""
    if body or draw(st.booleans()):
        if draw(st.booleans()) and not old:
            headers.append(b"Transfer-Encoding: chunked")
            framed = draw(_chunked(body))
        else:
            headers.append(f"{draw(_NAMES)}: {len(body)}".encode())
            framed = body
    head = b"%b %b HTTP/1.%d\r\n" % (method, url, not old) + b"".join(each + b"\r\n" for each in headers)
    return Sent(head + b"\r\n" + framed, method, seen(method, url, body, json_length), last)


@st.composite
def _chunked(draw: st.DrawFn, body: bytes) -> bytes:
    wire = b""
    while body:
        size = draw(st.integers(1, len(body)))
        extension = draw(st.sampled_from([b"", b";a=b", b";x"]))
        wire += (b"%x" if draw(st.booleans()) else b"%X") % size + extension + b"\r\n" + body[:size] + b"\r\n"
        body = body[size:]
    trailer = draw(
        st.sampled_from([b"", b"X-Sum: 1\r\n", b"Expect: nothing\r\n", b"Inference-Header-Content-Length: 9\r\n"])
    )
    return wire + b"0\r\n" + trailer + b"\r\n"


malformed: Final = st.one_of(
    st.binary(min_size=1, max_size=80),
    st.sampled_from(
        [
            b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 401\r\n\r\n" + b"x" * 401,
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n191\r\n" + b"x" * 401 + b"\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\nabc",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"y" * 3000 + b"\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"y" * 3000 + b"\r\nx\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 700 + b"\r\n",
            b"GET / HTTP/1.1\r\nX: " + b"y" * 3000,
            b"GET /" + b"y" * 3000,
            b"GET / HTTP/1.1\r\nExpect: much\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Encoding: br\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Encoding: gzip\r\n\r\n",
            b"GET / HTTP/1.1\r\nInference-Header-Content-Length: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nInference-Header-Content-Length: " + b"9" * 30 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nab",
            b"CONNECT a:1 HTTP/1.1\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET  /  HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\nHost: a\n\n",
            b"GET / HTTP/1.1\r\n Folded: x\r\n\r\n",
            b"\r\n\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01",
        ]
    ),
)


@dataclass
class Wire:
    """A connection under test."""

    echo: Echo = field(default_factory=Echo)
    transport: Transport = field(default_factory=Transport)
    connections: set[HttpConnection] = field(default_factory=set)

    largest: int = 0

    def __post_init__(self) -> None:
        self.connection = HttpConnection(self.echo, LIMITS, self.connections)
        self.connection.connection_made(self.transport)

    def feed(self, data: bytes) -> None:
        """As the event loop hands bytes on, until the connection is closed."""
        if not self.transport.closed:
            self.largest = max(self.largest, len(data))
            self.connection.data_received(data)
            self.bounded()

    def bounded(self) -> None:
        """Nothing is kept that was not counted, but for what was read at once: with another request's end, and at last."""
        connection = self.connection
        assert len(connection._url) <= LIMITS.max_header_bytes + 2 * self.largest
        if connection._exchange is not None:
            assert len(connection._exchange.body) <= LIMITS.max_body_bytes

    def end(self) -> None:
        """The client goes."""
        self.connection.connection_lost(None)
        assert not self.connections


def answers(written: bytes, methods: list[bytes]) -> list[tuple[int, bytes, bool]]:
    """Status, body, and whether the connection ends; of whole answers alone."""
    found = []
    while written:
        head, separator, rest = written.partition(b"\r\n\r\n")
        assert separator, f"a head without its end: {written!r}"
        line, *lines = head.split(b"\r\n")
        version, code, _ = line.split(b" ", 2)
        assert version == b"HTTP/1.1"
        if code == b"100":
            written = rest
            continue
        fields = {name.lower(): value for name, value in (each.split(b": ", 1) for each in lines)}
        assert len(fields) == len(lines)
        head_only = len(found) < len(methods) and methods[len(found)] == b"HEAD"
        size = 0 if head_only else int(fields[b"content-length"])
        assert len(rest) >= size, "a body that is cut off"
        found.append((int(code), rest[:size], fields.get(b"connection") == b"close"))
        written = rest[size:]
    return found


@given(st.data())
def conversation(data: st.DataObject) -> None:
    """Requests that are right get their own answers in their order; what is wrong gets one error at the end."""
    _LOOP.run_until_complete(_conversation(data))


async def _conversation(data: st.DataObject) -> None:
    wire = Wire()
    wire.echo.hold = data.draw(st.lists(st.booleans(), max_size=4))
    requests = [data.draw(well_formed(number)) for number in range(data.draw(st.integers(1, 6)))]
    bad = data.draw(st.one_of(st.none(), malformed))
    stream = b"".join(each.wire for each in requests) + (bad or b"")
    cuts = sorted(set(data.draw(st.lists(st.integers(0, len(stream)), max_size=12))))
    if data.draw(st.integers(0, 9)) == 0:
        cuts = list(range(len(stream)))
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        if start < stop:
            wire.feed(stream[start:stop])
        if wire.echo.held and data.draw(st.integers(0, 3)) == 0:
            wire.echo.answer(wire.echo.held.pop(data.draw(st.integers(0, len(wire.echo.held) - 1))))
    while wire.echo.held:
        wire.echo.answer(wire.echo.held.pop(data.draw(st.integers(0, len(wire.echo.held) - 1))))
    ending = next((index + 1 for index, each in enumerate(requests) if each.last), len(requests))
    found = answers(bytes(wire.transport.written), [each.method for each in requests])
    for (status, body, closes), request in zip(found, requests[:ending], strict=False):
        assert (status, body) == (200, b"" if request.method == b"HEAD" else request.answer), request
        assert closes == request.last or wire.transport.closed
    assert len(found) >= ending, "a request without an answer"
    if ending < len(requests) or requests[ending - 1].last:
        assert len(found) == ending, "an answer after the last"
        assert wire.transport.closed
    elif bad is None:
        assert len(found) == ending
        assert not wire.transport.closed
    wire.end()


@given(st.lists(st.one_of(malformed, st.binary(max_size=50), well_formed(0).map(lambda each: each.wire)), max_size=6))
def arbitrary_bytes(pieces: list[bytes]) -> None:
    """Whatever comes: whole answers, no more of them than requests that were handled and one refusal, and an end in time."""
    _LOOP.run_until_complete(_arbitrary(pieces))


async def _arbitrary(pieces: list[bytes]) -> None:
    wire = Wire()
    for piece in pieces:
        wire.feed(piece)
    handled = wire.echo.handled
    if not wire.transport.closed:
        # A client that says no more is answered in time, if it has begun anything; else it is let go.
        for seconds in (31.0, 301.0):
            if not wire.transport.closed:
                wire.connection.check_deadlines(time.monotonic() + seconds)
        assert wire.transport.closed
    assert wire.echo.handled == handled
    assert wire.transport.written.count(b"HTTP/1.1 ") <= handled + 1 + wire.transport.written.count(b" 100 Continue")
    wire.end()
