"""Other replicas that answer late, wrong, too much or not at all, over real sockets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from penstock.errors import Invalid, Unavailable
from penstock.routing.outcomes import ShadowPeer
from penstock_runtime.authority import OwnKey, PlatformAuthority, client_context, server_context
from penstock_serving.replica.shadow.exchange import PeerReply
from penstock_serving.replica.shadow.peers import PeerConnections

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
REQUEST = (b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n", b"{}")
ANSWER = b"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x"
AUTHORITY = PlatformAuthority("secret")
NAME = "a.replica.penstock.internal"


async def read_request(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"{}")


@asynccontextmanager
async def peer(serve: Serve, context: ssl.SSLContext | None = None, name: str = "") -> AsyncIterator[ShadowPeer]:
    """A peer that serves each connection so."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    try:
        yield ShadowPeer(address=f"127.0.0.1:{port}", tls_name=name)
    finally:
        server.close()


def say(*parts: bytes, hold: bool = False) -> Serve:
    """Answer each request with these bytes, and then hold the connection or close it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for part in parts:
            writer.write(part)
            await writer.drain()
        if hold:
            await reader.read()

    return serve


def ask(serve: Serve, seconds: float = 20.0) -> PeerReply:
    async def scenario() -> PeerReply:
        connections = PeerConnections(None)
        async with peer(serve) as asked:
            try:
                return await connections.ask(asked, REQUEST, 1000, seconds)
            finally:
                connections.keep_only(())

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    ("serve", "seconds", "error", "told"),
    [
        pytest.param(say(hold=True), 0.2, Unavailable, "did not answer within", id="it hangs"),
        pytest.param(say(ANSWER[:-1], hold=True), 0.2, Unavailable, "did not answer within", id="it stops in the middle"),
        pytest.param(say(), 20, Unavailable, "closed the connection", id="it closes"),
        pytest.param(say(ANSWER[:-1]), 20, Unavailable, "closed the connection", id="it closes in the middle"),
        pytest.param(say(b"SSH-2.0-OpenSSH_9\r\n"), 20, Invalid, "does not answer in HTTP", id="it speaks something else"),
        pytest.param(say(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"), 20, Invalid, "in HTTP", id="its length is none"),
        pytest.param(
            say(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", bytes(1 << 20), hold=True), 20, Invalid, "its answer is over",
            id="it answers too much",
        ),
        pytest.param(say(b"HTTP/1.1 200 OK\r\nX: ", b"y" * (1 << 20), hold=True), 20, Invalid, "is over|in HTTP", id="its header never ends"),
    ],
)  # fmt: skip
def test_who_does_not_answer_as_it_should(serve: Serve, seconds: float, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        ask(serve, seconds)


@pytest.mark.parametrize(
    ("serve", "reply"),
    [
        pytest.param(say(ANSWER), PeerReply(200, b"{}x", 2), id="an answer"),
        pytest.param(say(*(bytes([each]) for each in ANSWER)), PeerReply(200, b"{}x", 2), id="byte by byte"),
        pytest.param(
            say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"), PeerReply(200, b"ok"), id="in chunks"
        ),
        pytest.param(
            say(b"HTTP/1.1 503 Gone\r\nContent-Length: 0\r\nInference-Header-Content-Length: -1\r\n\r\n"), PeerReply(503, b""),
            id="a refusal",
        ),
    ],
)  # fmt: skip
def test_who_answers_in_http(serve: Serve, reply: PeerReply) -> None:
    assert ask(serve) == reply


def test_connections_are_kept_and_one_that_was_closed_meanwhile_is_made_anew() -> None:
    served: list[int] = []

    async def serve_twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = len(set(served))
        for _ in range(2):
            await read_request(reader)
            served.append(connection)
            writer.write(ANSWER)
            await writer.drain()

    async def scenario() -> None:
        connections = PeerConnections(None)
        async with peer(serve_twice) as asked:
            for _ in range(5):
                assert (await connections.ask(asked, REQUEST, 1000, 20.0)).status == 200
            connections.keep_only(())

    asyncio.run(scenario())
    assert served == [0, 0, 1, 1, 2]


def certified(name: str) -> ssl.SSLContext:
    context, key = server_context(), OwnKey()
    key.load_into(context, AUTHORITY.sign(key.public, name, 86_400.0))
    return context


@pytest.mark.parametrize(
    ("trusts", "context", "name", "answers"),
    [
        pytest.param(True, certified(NAME), NAME, True, id="the replica that was meant"),
        pytest.param(True, certified("b.replica.penstock.internal"), NAME, False, id="another replica"),
        pytest.param(True, None, "", False, id="one that speaks no TLS, asked by one that does"),
        pytest.param(True, None, NAME, False, id="one that should speak TLS and does not"),
        pytest.param(False, certified(NAME), NAME, False, id="one that speaks TLS, asked by one that does not"),
    ],
)
def test_over_tls_only_who_has_the_name_is_asked(
    *, trusts: bool, context: ssl.SSLContext | None, name: str, answers: bool
) -> None:
    asked_for: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked_for.append(await read_request(reader))
        writer.write(ANSWER)
        await writer.drain()

    async def scenario() -> bool:
        connections = PeerConnections(client_context(AUTHORITY.pem) if trusts else None)
        async with peer(serve, context, name) as asked:
            try:
                # Who takes a handshake for the beginning of a request waits for the rest of it.
                await connections.ask(asked, REQUEST, 1000, 0.3 if context is None else 20.0)
            except Unavailable:
                return False
            finally:
                connections.keep_only(())
            return True

    assert asyncio.run(scenario()) is answers
    assert bool(asked_for) is answers
