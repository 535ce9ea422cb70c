"""One keep-alive HTTP/1.1 connection of the load generator, with one request under way at a time.

A client library would measure itself: this is a callback protocol on the event loop, which parses by httptools.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import httptools

from penstock_cli.bench.figures import NO_ANSWER, Exchange

_KEPT_BYTES = 300
_INTERIM = range(100, 200)
"""Statuses that the answer is still to follow (RFC 9110, section 15.2)."""


@dataclass(frozen=True, slots=True)
class LoadTarget:
    """Where requests go."""

    host: str
    port: int
    trust: ssl.SSLContext | None = None
    """Whose certificate it has; None: it speaks plain HTTP."""


class ConnectionOwner(Protocol):
    """What is told of a connection."""

    def take_answer(self, connection: LoadConnection, exchange: Exchange, excerpt: bytes) -> None:
        """A request has its answer, or none will come; the connection may be used again if it is open."""


@dataclass(slots=True)
class _Request:
    content: bytes
    due: float
    sent: float
    may_be_sent_again: bool


class LoadConnection(asyncio.Protocol):
    """A connection that is opened at its first request, and again where the server ended it."""

    def __init__(self, server: LoadTarget, owner: ConnectionOwner) -> None:
        self._server, self._owner = server, owner
        self._transport: asyncio.Transport | None = None
        self._opening: asyncio.Task[None] | None = None
        self._request: _Request | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._excerpt = b""
        self._answers = 0

    @property
    def sent_at(self) -> float | None:
        """When the request that is under way was sent; None where none is."""
        return self._request.sent if self._request else None

    def send(self, content: bytes, due: float) -> None:
        """Send a whole request; `ConnectionOwner.take_answer` is called once for it."""
        self._request = _Request(content, due, monotonic(), may_be_sent_again=self._answers > 0)
        if self._transport is not None:
            self._transport.write(content)
        else:
            self._opening = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: self, self._server.host, self._server.port, ssl=self._server.trust
            )
        except OSError as error:
            self._finish(NO_ANSWER, str(error).encode())

    def close(self) -> None:
        """End it; a request that is under way gets no answer."""
        if self._opening is not None:
            self._opening.cancel()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        self._finish(NO_ANSWER, b"gave up waiting for the answer")

    # asyncio.Protocol
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send what waits."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports have no common base
        self._parser = httptools.HttpResponseParser(self)
        self._answers = 0
        if self._request is not None and self._transport is not None:
            self._transport.write(self._request.content)

    def data_received(self, data: bytes) -> None:
        """Parse."""
        if self._request is None:
            self._drop()
            return
        self._request.may_be_sent_again = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._drop()
            self._finish(NO_ANSWER, f"not HTTP: {error}".encode())

    def connection_lost(self, exc: Exception | None) -> None:
        """Send again what the server cannot have begun to answer: it ended a kept connection while it was idle.

        Every client library does (RFC 9112, section 9.3.1, for what may be repeated: an inference may).
        """
        self._transport = None
        request = self._request
        if request is not None and request.may_be_sent_again:
            request.may_be_sent_again = False
            self._opening = asyncio.get_running_loop().create_task(self._open())
        else:
            self._finish(NO_ANSWER, f"connection lost: {exc or 'closed by the server'}".encode())

    # httptools' callbacks
    def on_message_begin(self) -> None:
        """A fresh answer."""
        self._excerpt = b""

    def on_body(self, body: bytes) -> None:
        """Keep how it begins, for the message where it is a failure."""
        if len(self._excerpt) < _KEPT_BYTES:
            self._excerpt += body[:_KEPT_BYTES]

    def on_message_complete(self) -> None:
        """Tell the owner."""
        status = self._parser.get_status_code()
        if status in _INTERIM:
            return
        self._answers += 1
        if not self._parser.should_keep_alive():
            self._drop()
        self._finish(status, self._excerpt)

    def _drop(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def _finish(self, status: int, excerpt: bytes) -> None:
        request, self._request = self._request, None
        if request is not None:
            self._owner.take_answer(self, Exchange(request.due, request.sent, monotonic(), status), excerpt)
