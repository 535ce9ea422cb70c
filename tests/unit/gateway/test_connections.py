from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from penstock_runtime.authority import OwnKey, PlatformAuthority, client_context, server_context
from penstock_serving.gateway.connections import ConnectionLimiter, TlsListener, peer_of


class Line(asyncio.Transport):
    """A connection that only remembers whether it was dropped."""

    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 1)})
        self.dropped = False

    def abort(self) -> None:
        self.dropped = True


def connect(limiter: ConnectionLimiter, address: str = "10.0.0.1") -> tuple[Line, Any]:
    line, protocol = Line(address), limiter.wrap(asyncio.Protocol)()
    protocol.connection_made(line)
    return line, protocol


def test_of_strangers_the_oldest_makes_room_for_a_new_one() -> None:
    limiter = ConnectionLimiter(strangers=2)
    lines = [connect(limiter)[0] for _ in range(4)]
    assert [line.dropped for line in lines] == [True, True, False, False]
    assert len(limiter) == 2


def test_strangers_of_one_address_put_out_nobody_else() -> None:
    limiter = ConnectionLimiter(strangers=2)
    other, _ = connect(limiter, "10.0.0.2")
    known, _ = connect(limiter)
    limiter.trust(known)
    flood = [connect(limiter)[0] for _ in range(50)]
    assert not other.dropped
    assert not known.dropped
    assert sum(not line.dropped for line in flood) == 2


def test_an_address_has_so_many_connections_whoever_they_are() -> None:
    limiter = ConnectionLimiter(strangers=4, of_a_peer=3)
    lines = [connect(limiter)[0] for _ in range(3)]
    limiter.trust(lines[1])
    assert [connect(limiter)[0].dropped, *(line.dropped for line in lines)] == [False, True, False, False]
    full = ConnectionLimiter(of_a_peer=2)
    for line in [connect(full)[0] for _ in range(2)]:
        full.trust(line)
    assert connect(full)[0].dropped


def test_all_addresses_together_have_so_many() -> None:
    limiter = ConnectionLimiter(most=2)
    known, _ = connect(limiter, "10.0.0.1")
    limiter.trust(known)
    stranger, _ = connect(limiter, "10.0.0.2")
    late, _ = connect(limiter, "10.0.0.3")
    assert [known.dropped, stranger.dropped, late.dropped] == [False, True, False]
    limiter.trust(late)
    assert connect(limiter, "10.0.0.4")[0].dropped


def test_a_connection_that_is_gone_counts_no_more() -> None:
    limiter = ConnectionLimiter(strangers=1)
    line, protocol = connect(limiter)
    protocol.connection_lost(None)
    assert len(limiter) == 0
    assert not connect(limiter)[0].dropped
    assert not line.dropped


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param("10.0.0.1", "10.0.0.2", False, id="two IPv4 addresses"),
        pytest.param("2001:db8::1", "2001:db8::ffff:1", True, id="two of one IPv6 network"),
        pytest.param("2001:db8::1", "2001:db8:0:1::1", False, id="two IPv6 networks"),
        pytest.param("::ffff:10.0.0.1", "10.0.0.1", True, id="an IPv4 address written as IPv6"),
        pytest.param("::ffff:10.0.0.1", "::ffff:10.0.0.2", False, id="two IPv4 addresses written as IPv6"),
        pytest.param("fe80::1%eth0", "fe80::2%eth0", True, id="two addresses of one link"),
    ],
)
def test_an_address_counts_for(one: str, other: str, *, same: bool) -> None:
    assert (peer_of(one) == peer_of(other)) is same


def test_handshakes_that_do_not_end_are_bounded_by_address() -> None:
    async def run() -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        authority, context, key = PlatformAuthority("secret"), server_context(), OwnKey()
        key.load_into(context, authority.sign(key.public, "name", 60.0))
        listener = TlsListener(listening, context, asyncio.Protocol, of_a_peer=2)
        trust = client_context(authority.pem)
        async with asyncio.timeout(60):
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
            reader, _ = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b"", "it is turned away"
            assert not any(each.at_eof() for each, _ in silent)
            for _, writer in silent:
                writer.close()
                await writer.wait_closed()
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="name")
                except OSError:
                    continue  # it has not noticed yet that there is room
                break
            writer.close()
            await listener.close()

    asyncio.run(run())
