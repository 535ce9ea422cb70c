"""Connections to the agent's own ports, bounded in number and in time: anyone in the network may open some.

A connection is a stranger's until a request on it has shown a token. Of strangers each address has few, and a new one puts out
the oldest, so that silent ones keep nobody out; the callers that are known are never put out.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Final, cast

HEAD_SECONDS: Final = 15.0
"""From a connection's beginning, or from an answer, until the next request's head is there."""
MOST_STRANGERS_OF_A_PEER: Final = 64
MOST_OF_A_PEER: Final = 1024
"""A node with as many replicas has a connection for each at times, and an operator one for each of its threads."""
MOST: Final = 8192
_MOST_HANDSHAKES: Final = 1024
"""Of TLS, under way."""
_PAUSE_SECONDS: Final = 0.1
"""After a connection could not be accepted: there are no files left, for a moment."""


def peer_of(address: str) -> str:
    """Whom an address counts for: of IPv6, a network of 64 bits is one, since each of its hosts may take any in it."""
    host = ip_address(address.partition("%")[0])
    if host.version == 4:  # noqa: PLR2004 -- IPv4
        return str(host)
    return str(host.ipv4_mapped) if host.ipv4_mapped else str(ip_network((host, 64), strict=False))


class ConnectionLimiter:
    """Counts connections. Belongs to one event loop.

    Args:
        strangers: connections of one address that have shown no token.
        of_a_peer: connections of one address.
        most: connections in all.
    """

    def __init__(
        self,
        strangers: int = MOST_STRANGERS_OF_A_PEER,
        of_a_peer: int = MOST_OF_A_PEER,
        most: int = MOST,
    ) -> None:
        self._most_strangers = strangers
        self._most_of_a_peer = of_a_peer
        self._most = most
        self._strangers: dict[str, dict[_Connection, None]] = {}
        """By peer, the oldest first."""
        self._all_strangers: dict[_Connection, None] = {}
        self._counts: Counter[str] = Counter()
        self._open: dict[asyncio.BaseTransport, _Connection] = {}

    def wrap(self, handler: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """What an event loop's server makes for a new connection.

        Args:
            handler: makes what speaks HTTP on one connection.
        """
        return lambda: _Connection(self, handler())

    def __len__(self) -> int:
        """Connections that are open."""
        return len(self._open)

    def trust(self, transport: asyncio.BaseTransport | None) -> None:
        """A request on this connection has shown a token that holds."""
        connection = None if transport is None else self._open.get(transport)
        if connection is not None:
            self._forget_stranger(connection)

    def admit(self, connection: _Connection) -> bool:
        """Make room for a connection; False where there is none."""
        own = self._strangers.get(connection.peer, {})
        if len(own) >= self._most_strangers:
            self._evict(next(iter(own)))
        elif self._counts[connection.peer] >= self._most_of_a_peer:
            if not own:
                return False
            self._evict(next(iter(own)))
        if len(self._open) >= self._most:
            if not self._all_strangers:
                return False
            self._evict(next(iter(self._all_strangers)))
        self._open[connection.transport] = connection
        self._counts[connection.peer] += 1
        self._strangers.setdefault(connection.peer, {})[connection] = None
        self._all_strangers[connection] = None
        return True

    def release(self, connection: _Connection) -> None:
        """A connection is gone."""
        if self._open.pop(connection.transport, None) is None:
            return
        self._counts[connection.peer] -= 1
        if not self._counts[connection.peer]:
            del self._counts[connection.peer]
        self._forget_stranger(connection)

    def _evict(self, connection: _Connection) -> None:
        self.release(connection)
        connection.transport.abort()

    def _forget_stranger(self, connection: _Connection) -> None:
        self._all_strangers.pop(connection, None)
        own = self._strangers.get(connection.peer)
        if own is not None:
            own.pop(connection, None)
            if not own:
                del self._strangers[connection.peer]


class _Connection(asyncio.Protocol):
    """One connection: what speaks HTTP on it, counted."""

    def __init__(self, limiter: ConnectionLimiter, inner: asyncio.Protocol) -> None:
        self._limiter = limiter
        self._inner = inner
        self._admitted = False
        self.peer = ""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.peer = peer_of(transport.get_extra_info("peername")[0])
        self._admitted = self._limiter.admit(self)
        if self._admitted:
            self._inner.connection_made(transport)
        else:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._limiter.release(self)
        if self._admitted:
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._admitted:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._admitted else False

    def pause_writing(self) -> None:
        if self._admitted:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._admitted:
            self._inner.resume_writing()


class TlsListener:
    """Accepts connections, and hands them on once TLS is spoken on them.

    A handshake that does not end is nobody's connection yet, so handshakes are counted here. A peer with too many of them is
    turned away until the time is over for some.

    Args:
        listening: a socket, which is closed with this.
        context: of TLS.
        factory: makes the protocol of a connection.
        of_a_peer: handshakes of one address.
    """

    def __init__(
        self,
        listening: socket.socket,
        context: ssl.SSLContext,
        factory: Callable[[], asyncio.Protocol],
        of_a_peer: int = MOST_STRANGERS_OF_A_PEER,
    ) -> None:
        listening.setblocking(False)
        self._listening = listening
        self._context = context
        self._factory = factory
        self._most_of_a_peer = of_a_peer
        self._counts: Counter[str] = Counter()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    async def close(self) -> None:
        """Accept nothing more. Connections that were handed on stay."""
        tasks = [self._accepting, *self._handshakes]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listening.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(self._listening)
            except OSError:
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            peer = peer_of(address[0])
            if self._counts[peer] >= self._most_of_a_peer or len(self._handshakes) >= _MOST_HANDSHAKES:
                accepted.close()
                continue
            self._counts[peer] += 1
            task = loop.create_task(self._shake_hands(accepted, peer))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, accepted: socket.socket, peer: str) -> None:
        try:
            with contextlib.suppress(OSError):
                await asyncio.get_running_loop().connect_accepted_socket(
                    self._factory, accepted, ssl=self._context, ssl_handshake_timeout=HEAD_SECONDS
                )
        finally:
            self._counts[peer] -= 1
            if not self._counts[peer]:
                del self._counts[peer]
