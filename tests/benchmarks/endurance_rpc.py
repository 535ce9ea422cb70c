"""A client of `endurance` that speaks gRPC: frames of HTTP/2, and no headers but one."""

from __future__ import annotations

import asyncio
import random
import struct
import time
from collections.abc import Sequence
from typing import Any, Final

from tests.benchmarks.endurance_cases import GRPC
from tests.benchmarks.endurance_crowd import PATIENCE_SECONDS, Client, Crowd
from tests.benchmarks.endurance_judge import Scene
from tests.benchmarks.grpc_load import frame, header_blocks, split_frames

_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_WINDOW: Final = (1 << 31) - 1
_REFUSED_STREAM: Final = 7
_WELL: Final = b"grpc-status\x010"
"""As HAProxy writes it: a header in full, of one character."""
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class RpcClient(Client):
    """A connection of HTTP/2 with some calls at a time."""

    def __init__(self, crowd: Crowd, calls: int, first: Sequence[int]) -> None:
        self._crowd, self._calls, self._first_calls = crowd, calls, first
        self._opening, self._others = header_blocks("tiny.test")
        self._requests = crowd.requests[GRPC]
        self._at = random.randrange(len(self._requests))
        self._next = 1
        self._open: dict[int, tuple[int, Scene, float]] = {}
        """By stream: the request's place, how things stood, when it was sent."""
        self._messages: dict[int, bytes] = {}
        self._buffer = b""
        self._leaving = False
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._crowd.clients.add(self)
        settings = frame(_SETTINGS, 0, 0, struct.pack(">HI", 4, _WINDOW))
        transport.write(_PREFACE + settings + frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW - 65535)))  # type: ignore[attr-defined]  # uvloop's transports have no common base
        for at in self._first_calls:
            self._call(at)
        while len(self._open) < self._calls and not self._crowd.finishing:
            self._call_next()
        self._close_if_done()

    def _call_next(self) -> None:
        self._at = (self._at + 10) % len(self._requests)
        self._call(self._at)

    def _call(self, at: int) -> None:
        stream, block = self._next, self._opening if self._next == 1 else self._others
        self._next += 2
        message = self._requests[at][1]
        self._open[stream] = at, self._crowd.judge.scene, time.perf_counter()
        framed = frame(_DATA, _END_STREAM, stream, b"\0" + struct.pack(">I", len(message)) + message)
        self._transport.write(frame(_HEADERS, _END_HEADERS, stream, block) + framed)

    def data_received(self, data: bytes) -> None:
        frames, self._buffer = split_frames(self._buffer + data if self._buffer else data)
        for each in frames:
            self._take(*each)
        self._close_if_done()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA and payload:
            before = self._messages.get(stream)
            self._messages[stream] = payload if before is None else before + payload
        elif kind == _SETTINGS and not flags & _ACK:
            self._transport.write(frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._transport.write(frame(_PING, _ACK, 0, payload))
        elif kind == _GOAWAY:
            self._move(int.from_bytes(payload[:4], "big") & _WINDOW)
        elif kind == _RESET:
            self._reset(stream, int.from_bytes(payload, "big"))
        if flags & _END_STREAM and kind in (_DATA, _HEADERS):
            self._end(stream, payload if kind == _HEADERS else b"")

    def _end(self, stream: int, trailers: bytes) -> None:
        called = self._open.pop(stream, None)
        message = self._messages.pop(stream, b"")
        if called is None:
            return
        at, began, sent = called
        judge, now = self._crowd.judge, self._crowd.now()
        if _WELL not in trailers:
            judge.fail(GRPC, "status other than 0", now, repr(trailers[:200]))
        elif len(message) < 5 or len(message) != 5 + int.from_bytes(message[1:5], "big"):
            judge.fail(GRPC, "no whole message", now, repr(message[:80]))
        else:
            took = time.perf_counter() - sent
            judge.answer(GRPC, self._requests[at][0], began, b"", message[5:], now=now, took=took)
        if not self._leaving and not self._crowd.finishing:
            self._call_next()

    def _move(self, last: int) -> None:
        """The gateway takes no more calls here: those after `last` were not begun."""
        moved = [at for stream, (at, _, _) in self._open.items() if stream > last]
        self._open = {stream: each for stream, each in self._open.items() if stream <= last}
        self._crowd.judge.moved += len(moved)
        if not self._leaving or moved:
            self._crowd.open(GRPC, moved)
        self._leaving = True

    def _reset(self, stream: int, code: int) -> None:
        called = self._open.pop(stream, None)
        self._messages.pop(stream, None)
        if called is None:
            return
        if code == _REFUSED_STREAM:
            self._crowd.judge.moved += 1
            if self._leaving:
                self._crowd.open(GRPC, [called[0]])
            else:
                self._call(called[0])
            return
        self._crowd.judge.fail(GRPC, f"reset with code {code}", self._crowd.now())
        if not self._leaving and not self._crowd.finishing:
            self._call_next()

    def _close_if_done(self) -> None:
        if (self._leaving or self._crowd.finishing) and not self._open:
            self._crowd.clients.discard(self)
            self._transport.close()

    def leave(self) -> None:
        """Close once the answers are there."""
        self._close_if_done()

    def lose_patience(self, now: float) -> None:
        """Give up what waits too long."""
        if any(now - sent > PATIENCE_SECONDS for _, _, sent in self._open.values()):
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self not in self._crowd.clients:
            return
        now = time.perf_counter()
        for _, _, sent in self._open.values():
            waited = now - sent
            what = "no answer in time" if waited > PATIENCE_SECONDS else "connection lost"
            self._crowd.judge.fail(GRPC, what, self._crowd.now(), f"{exc or 'closed'} after {waited:.3f} s")
        self._open.clear()
        if self._leaving:
            self._crowd.clients.discard(self)
        else:
            self._crowd.lose(self, GRPC)
