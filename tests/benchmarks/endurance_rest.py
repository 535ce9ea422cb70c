"""A client of `endurance` that speaks HTTP/1.1."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from tests.benchmarks.endurance_crowd import PATIENCE_SECONDS, Client, Crowd
from tests.benchmarks.endurance_judge import Scene


class RestClient(Client):
    """A connection of HTTP/1.1 with one request at a time."""

    def __init__(self, crowd: Crowd, kind: str) -> None:
        self._crowd, self._kind = crowd, kind
        self._requests = crowd.requests[kind]
        self._at = random.randrange(len(self._requests))
        self._buffer = b""
        self._head = b""
        self._wanted = 0
        self._sent = 0.0
        self._began: Scene | None = None
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._crowd.clients.add(self)
        self._send()

    def _send(self) -> None:
        if self._crowd.finishing:
            self._close()
            return
        # A step that has no divisor with the length in common visits all.
        self._at = (self._at + 27) % len(self._requests)
        self._began = self._crowd.judge.scene
        self._sent = time.perf_counter()
        self._transport.write(self._requests[self._at][1])

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer = self._buffer + data if self._buffer else data
        if not self._wanted:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._head = buffer[:end].lower()
            at = head.find(b"content-length:")
            # A header of ours has this in its name, too.
            while at > 0 and head[at - 1] != 10:
                at = head.find(b"content-length:", at + 1)
            self._wanted = end + 4 + (int(head[at + 15 :].split(b"\r\n", 1)[0]) if at > 0 else 0)
        if len(buffer) < self._wanted:
            return
        self._take(buffer[len(self._head) + 4 : self._wanted])

    def _take(self, body: bytes) -> None:
        judge, now, head, began = self._crowd.judge, time.perf_counter(), self._head, self._began
        self._buffer, self._wanted, self._began = b"", 0, None
        if began is None:
            judge.fail(self._kind, "an answer to no request", self._crowd.now(), repr(head[:80]))
        elif head.startswith(b"http/1.1 200"):
            number, took = self._requests[self._at][0], now - self._sent
            judge.answer(self._kind, number, began, head, body, now=self._crowd.now(), took=took)
        else:
            status = head[9:12].decode(errors="replace")
            judge.fail(self._kind, f"status {status}", self._crowd.now(), repr(body[:200]))
        if b"connection: close" in head:
            self._close()
            self._crowd.open(self._kind)
        else:
            self._send()

    def _close(self) -> None:
        self._crowd.clients.discard(self)
        self._transport.close()

    def leave(self) -> None:
        """Close once the answer is there."""
        if self._began is None:
            self._close()

    def lose_patience(self, now: float) -> None:
        """Give up what waits too long."""
        if self._began is not None and now - self._sent > PATIENCE_SECONDS:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self not in self._crowd.clients:
            return
        if self._began is not None:
            waited = time.perf_counter() - self._sent
            came = f"{exc or 'closed'} after {waited:.3f} s and {len(self._buffer)} bytes of the answer"
            what = "no answer in time" if waited > PATIENCE_SECONDS else "connection lost"
            self._crowd.judge.fail(self._kind, what, self._crowd.now(), came)
        self._crowd.lose(self, self._kind)
