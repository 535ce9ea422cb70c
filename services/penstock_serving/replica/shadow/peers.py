"""Asks other replicas, over connections that are kept. Nothing here waits for longer than it is told to."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Collection
from typing import Final

import httptools

from penstock.addresses import split_port
from penstock.errors import Invalid, Unavailable
from penstock.routing.outcomes import ShadowPeer
from penstock_serving.replica.shadow.exchange import PeerReply

_READ_BYTES: Final = 256 * 1024
_LENGTH_HEADER: Final = b"inference-header-content-length"
_MOST_HEADER_BYTES: Final = 64 * 1024
_MOST_DIGITS: Final = 18
_MOST_KEPT: Final = 2
"""Idle connections to one replica."""

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class PeerConnections:
    """Connections to other replicas. All methods are called on one event loop.

    Args:
        trust: by which those are known that have a certificate; None: nobody is asked over TLS.
    """

    def __init__(self, trust: ssl.SSLContext | None) -> None:
        self._trust = trust
        self._idle: dict[ShadowPeer, list[_Connection]] = {}

    async def ask(self, peer: ShadowPeer, parts: tuple[bytes, ...], most_bytes: int, seconds: float) -> PeerReply:
        """Send one request and read the answer.

        A connection that was kept may have been closed meanwhile: then it is tried once more, on a new one.

        Args:
            peer: whom.
            parts: all bytes of the request, in order.
            most_bytes: that the answer's body may have.
            seconds: that all of it may take.

        Raises:
            Unavailable: there is no answer.
            Invalid: what it answers is no HTTP, or too much.
        """
        try:
            async with asyncio.timeout(seconds):
                if kept := self._idle.get(peer):
                    try:
                        return await self._exchange(peer, kept.pop(), parts, most_bytes)
                    except (OSError, Unavailable):
                        self.forget(peer)
                return await self._exchange(peer, await self._connect(peer), parts, most_bytes)
        except TimeoutError as error:
            raise Unavailable("PeerUnreachable", f"{peer.address} did not answer within {seconds:.0f} s") from error
        except OSError as error:
            raise Unavailable("PeerUnreachable", f"{peer.address} cannot be asked: {error}") from error

    def keep_only(self, peers: Collection[ShadowPeer]) -> None:
        """Close the connections to all others."""
        for peer in [each for each in self._idle if each not in peers]:
            self.forget(peer)

    def forget(self, peer: ShadowPeer) -> None:
        """Close the connections to a replica that nothing is asked over now."""
        for _, writer in self._idle.pop(peer, ()):
            writer.close()

    async def _connect(self, peer: ShadowPeer) -> _Connection:
        if bool(peer.tls_name) is not (self._trust is not None):
            # A replica that speaks TLS shows what clients sent to nobody who does not; and the other way nobody could be known.
            raise Unavailable(
                "PeerUnreachable", f"{peer.address} speaks TLS and this replica does not, or the other way"
            )
        try:
            host, port = split_port(peer.address)
        except Invalid as error:
            raise Unavailable("PeerUnreachable", error.message) from error
        return await asyncio.open_connection(host, port, ssl=self._trust, server_hostname=peer.tls_name or None)

    async def _exchange(
        self, peer: ShadowPeer, connection: _Connection, parts: tuple[bytes, ...], most_bytes: int
    ) -> PeerReply:
        reader, writer = connection
        whole = False
        try:
            for part in parts:
                writer.write(part)
            await writer.drain()
            answer = _Answer(most_bytes)
            while not answer.complete:
                data = await reader.read(_READ_BYTES)
                if not data:
                    raise Unavailable("PeerUnreachable", f"{peer.address} closed the connection before it had answered")
                answer.feed(data)
            whole = answer.keeps_alive
            return answer.reply()
        finally:
            kept = self._idle.setdefault(peer, [])
            if whole and len(kept) < _MOST_KEPT:
                kept.append(connection)
            else:
                writer.close()


class _Answer:
    """One answer as it comes."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes + _MOST_HEADER_BYTES
        self._came = 0
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        self._json_length: int | None = None
        self.complete = False
        self.keeps_alive = False

    def feed(self, data: bytes) -> None:
        """Take what came.

        Raises:
            Invalid: it is no HTTP, or too much.
        """
        self._came += len(data)
        if self._came > self._most_bytes:
            raise Invalid("PeerAnswer", f"its answer is over {self._most_bytes} bytes")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise Invalid("PeerAnswer", f"it does not answer in HTTP: {error}") from error

    def reply(self) -> PeerReply:
        """The whole of it. The parser knows this object, and would keep the body until cycles are looked for."""
        body, self._body = self._body, bytearray()
        return PeerReply(self._parser.get_status_code(), bytes(body), self._json_length)

    # Called by the parser.

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; most are of no interest."""
        if name.lower() == _LENGTH_HEADER and value.isdigit() and len(value) <= _MOST_DIGITS:
            self._json_length = int(value)

    def on_body(self, chunk: bytes) -> None:
        """A part of the body."""
        self._body += chunk

    def on_message_complete(self) -> None:
        """All has come."""
        self.complete = True
        self.keeps_alive = self._parser.should_keep_alive()
