"""The HTTP connection's time limits, over a real socket with short ones."""

from __future__ import annotations

import asyncio
import time

import pytest

from penstock.errors import Invalid
from penstock.protocol.refusals import Deferred, TooLate, status_of
from penstock_serving.replica.front.connection import HttpConnection
from penstock_serving.replica.front.exchange import HttpExchange
from penstock_serving.replica.front.limits import ConnectionLimits

_PIPELINED = 3


class Echo:
    """Answers every request with its body."""

    draining = False

    def __init__(self) -> None:
        self.gone: list[HttpExchange] = []
        self.hold = False
        self.all_gone = asyncio.Event()

    def refuse_early(self, exchange: HttpExchange) -> Deferred | None:
        return TooLate(0.05, 1) if exchange.url == b"/busy" else None

    def handle(self, exchange: HttpExchange) -> None:
        if exchange.refusal is not None:
            exchange.connection.respond(exchange, status_of(exchange.refusal), b"", b"busy")
        elif not self.hold:
            exchange.connection.respond(exchange, 200, b"", bytes(exchange.body))

    def refuse(self, exchange: HttpExchange, error: Invalid) -> None:
        exchange.connection.respond(exchange, status_of(error), b"", error.message.encode())

    def cancel(self, exchange: HttpExchange) -> None:
        self.gone.append(exchange)
        if len(self.gone) == _PIPELINED:
            self.all_gone.set()


async def settle() -> None:
    """Until what was sent within this process was read. That takes turns of the loop: a pause may end in the first of them."""
    for _ in range(25):
        await asyncio.sleep(0.002)


async def talk(sent: bytes, echo: Echo, later: float, limits: ConnectionLimits) -> bytes:
    """Send some bytes, let the connection look at its limits as of `later` seconds from now, and read to the end."""
    connections: set[HttpConnection] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: HttpConnection(echo, limits, connections), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(sent)
    await settle()
    for connection in tuple(connections):
        connection.check_deadlines(time.monotonic() + later)
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()
        server.close()


LIMITS = ConnectionLimits(max_body_bytes=1000, receive_seconds=30, idle_seconds=300)


def test_a_header_that_does_not_end_gets_408() -> None:
    answer = asyncio.run(talk(b"POST / HTTP/1.1\r\nHost: r\r\n", Echo(), 31, LIMITS))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"Connection: close" in answer


def test_a_body_that_stops_gets_408() -> None:
    answer = asyncio.run(talk(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n12345", Echo(), 31, LIMITS))
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_what_follows_the_last_request_gets_no_answer() -> None:
    answer = asyncio.run(talk(b"GET / HTTP/1.0\r\n\r\n\0", Echo(), 0, LIMITS))
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
def test_a_request_to_speak_another_protocol_is_answered_in_this_one_and_the_connection_ends(protocol: bytes) -> None:
    asked = b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: " + protocol + b"\r\n\r\n"
    answer = asyncio.run(talk(asked, Echo(), 0, LIMITS))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "endless",
    [CHUNKED + b"1\r\nx\r\n0\r\nX: ", CHUNKED + b"0\r\n" + b"X: y\r\n" * 20, CHUNKED + b"1;", b"GET / HTTP/1.1\r\nX: "],
    ids=["a trailer", "many trailers", "an extension of a chunk", "a header"],
)
def test_what_never_ends_gets_431(endless: bytes) -> None:
    limits = ConnectionLimits(max_body_bytes=1000, max_header_bytes=1000)
    answer = asyncio.run(talk(endless + b"y" * 2000, Echo(), 0, limits))
    assert answer.startswith(b"HTTP/1.1 431 ")


def test_the_beginning_of_a_request_after_a_long_one_is_not_taken_for_a_long_header() -> None:
    limits = ConnectionLimits(max_body_bytes=1000, max_header_bytes=1000)
    sent = b"POST / HTTP/1.1\r\nContent-Length: 999\r\n\r\n" + b"x" * 999 + b"GET / HTT"
    answer = asyncio.run(talk(sent, Echo(), 31, limits))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"HTTP/1.1 408 " in answer


def test_an_idle_connection_is_closed_after_its_answer() -> None:
    answer = asyncio.run(talk(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab", Echo(), 301, LIMITS))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nab")


def test_http_1_0_is_answered_and_closed() -> None:
    answer = asyncio.run(talk(b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nab", Echo(), 0, LIMITS))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close" in answer


def test_what_is_refused_by_its_headers_is_read_past_and_its_connection_serves_on() -> None:
    refused = b"POST /busy HTTP/1.1\r\nContent-Length: 900\r\n\r\n" + b"x" * 900
    answer = asyncio.run(talk(refused + b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab", Echo(), 301, LIMITS))
    first, _, second = answer.partition(b"busy")
    assert first.startswith(b"HTTP/1.1 429 ")
    assert b"Connection: close" not in first
    assert second.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "refused",
    [
        b"Content-Length: 70000\r\n\r\n",
        b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n" + (b"8000\r\n" + b"x" * 0x8000 + b"\r\n") * 4,
    ],
    ids=["a long body", "one that the client asks about", "one whose length nobody knows"],
)
def test_a_body_that_would_be_read_for_nothing_ends_its_connection(refused: bytes) -> None:
    limits = ConnectionLimits(max_body_bytes=1_000_000)
    answer = asyncio.run(talk(b"POST /busy HTTP/1.1\r\n" + refused, Echo(), 0, limits))
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"Connection: close" in answer
    assert answer.count(b"HTTP/1.1 ") == 1


def test_a_client_that_goes_is_reported_for_each_request_that_it_waited_for() -> None:
    async def scenario() -> int:
        echo = Echo()
        echo.hold = True
        connections: set[HttpConnection] = set()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: HttpConnection(echo, LIMITS, connections), "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n" * _PIPELINED)
        await settle()
        writer.close()
        async with asyncio.timeout(10):
            await echo.all_gone.wait()
        server.close()
        return len(echo.gone)

    assert asyncio.run(scenario()) == _PIPELINED
