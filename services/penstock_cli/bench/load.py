"""Drives a load: a closed loop of connections, or an open loop by a schedule."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from time import monotonic, process_time
from typing import Final

from penstock_cli.bench.connection import LoadConnection, LoadTarget
from penstock_cli.bench.figures import NO_ANSWER, OK, Exchange, LoadFigures, summarize

_LOOK_SECONDS: Final = 0.5
_MOST_IN_A_ROW: Final = 8

Watcher = Callable[[int, int], None]
"""Is told now and then how many requests were answered and how many failed so far."""


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """What all loads of a run share. Times in seconds."""

    server: LoadTarget
    requests: Sequence[bytes]
    """Whole HTTP requests, sent in turn."""
    seconds: float
    warmup: float
    """Before the first request that counts."""
    timeout: float
    """A request without an answer by then has failed."""
    most_connections: int
    """Of an open loop. What is due while all are busy waits in the client, and its latency runs."""


@dataclass
class DrivenLoad:
    """The figures, and how each kind of failure read first."""

    figures: LoadFigures
    excerpts: dict[int, str]


@dataclass
class _Load(ABC):
    """A load that runs."""

    settings: LoadSettings
    watcher: Watcher
    exchanges: list[Exchange] = field(default_factory=list)
    excerpts: dict[int, str] = field(default_factory=dict)
    connections: list[LoadConnection] = field(default_factory=list)
    failed: int = 0

    def __post_init__(self) -> None:
        self._bodies = cycle(self.settings.requests)

    def next_request(self) -> bytes:
        return next(self._bodies)

    def connect(self) -> LoadConnection:
        connection = LoadConnection(self.settings.server, self)
        self.connections.append(connection)
        return connection

    def take_answer(self, connection: LoadConnection, exchange: Exchange, excerpt: bytes) -> None:
        self.exchanges.append(exchange)
        if exchange.status != OK:
            self.failed += 1
            self.excerpts.setdefault(exchange.status, excerpt.decode(errors="replace"))
        self.go_on(connection)

    @abstractmethod
    def go_on(self, connection: LoadConnection) -> None:
        """A connection is free."""

    async def watch(self, until: float) -> None:
        """Tell the watcher, and end what waits too long, until a time."""
        while (left := until - monotonic()) > 0:
            await asyncio.sleep(min(_LOOK_SECONDS, left))
            self.end_overdue(monotonic() - self.settings.timeout)
            self.watcher(len(self.exchanges) - self.failed, self.failed)

    def end_overdue(self, sent_before: float) -> None:
        for connection in self.connections:
            if connection.sent_at is not None and connection.sent_at < sent_before:
                connection.close()

    async def drain(self) -> None:
        """Wait for answers that are still to come, at most for the time limit; then close all connections."""
        end = monotonic() + self.settings.timeout
        while any(each.sent_at is not None for each in self.connections) and monotonic() < end:
            await asyncio.sleep(0.01)
            self.end_overdue(monotonic() - self.settings.timeout)
        for each in self.connections:
            each.close()


class _ClosedLoop(_Load):
    ending = False

    def go_on(self, connection: LoadConnection) -> None:
        if not self.ending:
            # A failure may come back at once, again and again: no recursion, and no more of them than the loop can take.
            asyncio.get_running_loop().call_soon(self._send, connection)

    def _send(self, connection: LoadConnection) -> None:
        if not self.ending:
            connection.send(self.next_request(), monotonic())


async def run_closed_loop(settings: LoadSettings, connections: int, watcher: Watcher) -> DrivenLoad:
    """Each connection sends its next request when it has its answer (MLPerf's SingleStream is one with one connection)."""
    load = _ClosedLoop(settings, watcher)
    for _ in range(connections):
        load.go_on(load.connect())
    await load.watch(monotonic() + settings.warmup)
    began, cpu = monotonic(), process_time()
    await load.watch(began + settings.seconds)
    ended, used = monotonic(), process_time() - cpu
    load.ending = True
    await load.drain()
    # An answer that comes later is of no load; that none comes is a failure of this one.
    counted = [
        each for each in load.exchanges if began <= each.done and (each.done <= ended or each.status == NO_ANSWER)
    ]
    figures = summarize(counted, client_cpu=used / (ended - began), elapsed=ended - began, connections=connections)
    return DrivenLoad(figures, load.excerpts)


class _OpenLoop(_Load):
    def __post_init__(self) -> None:
        super().__post_init__()
        self._idle: list[LoadConnection] = []
        self._waiting: deque[float] = deque()

    def go_on(self, connection: LoadConnection) -> None:
        if self._waiting:
            connection.send(self.next_request(), self._waiting.popleft())
        else:
            self._idle.append(connection)

    def send(self, due: float) -> None:
        """Send a request now, or as soon as a connection is free."""
        if self._idle:
            self._idle.pop().send(self.next_request(), due)
        elif len(self.connections) < self.settings.most_connections:
            self.connect().send(self.next_request(), due)
        else:
            self._waiting.append(due)

    @property
    def is_waiting(self) -> bool:
        """Whether requests are due that no connection was free for."""
        return bool(self._waiting)

    def give_up_waiting(self) -> None:
        """What was never sent has failed."""
        now = monotonic()
        for due in self._waiting:
            self.exchanges.append(Exchange(due, now, now, NO_ANSWER))
            self.excerpts.setdefault(NO_ANSWER, "never sent: all connections were busy")
        self._waiting.clear()


async def run_open_loop(settings: LoadSettings, times: Sequence[float], rate: float, watcher: Watcher) -> DrivenLoad:
    """Send requests at their times, whatever the answers do (MLPerf's scenario Server).

    Args:
        settings: of the load; `times` go over warm-up and measurement.
        times: seconds since the start, in order.
        rate: that the times were made for.
        watcher: is told how it gets on.
    """
    load = _OpenLoop(settings, watcher)
    start = monotonic()
    watching = asyncio.ensure_future(load.watch(start + settings.warmup + settings.seconds))
    cpu = process_time()
    behind = await keep_schedule(load.send, start, times)
    await watching
    used = (process_time() - cpu) / (monotonic() - start)
    end = monotonic() + settings.timeout
    while load.is_waiting and monotonic() < end:
        await asyncio.sleep(0.01)
        load.end_overdue(monotonic() - settings.timeout)
    load.give_up_waiting()
    await load.drain()
    counted = [each for each in load.exchanges if each.due >= start + settings.warmup]
    # Answers that came after the last request was due belong to a rate that was not kept up with.
    elapsed = max([settings.seconds, *(each.done - start - settings.warmup for each in counted)])
    late = [lag for at, lag in zip(times, behind, strict=True) if at >= settings.warmup]
    figures = summarize(counted, client_cpu=used, elapsed=elapsed, rate=rate, behind=late)
    return DrivenLoad(figures, load.excerpts)


async def keep_schedule(send: Callable[[float], None], start: float, times: Sequence[float]) -> list[float]:
    """Send each request at its time, or as soon after it as can be.

    Args:
        send: is given the time on the monotonic clock at which a request is due.
        start: on that clock.
        times: seconds since then, in order.

    Returns:
        By how many seconds each was late.
    """
    behind: list[float] = []
    for number, at in enumerate(times):
        left = start + at - monotonic()
        if left > 0:
            await asyncio.sleep(left)
        elif number % _MOST_IN_A_ROW == 0:
            # Else no answer would be read for as long as the schedule is behind.
            await asyncio.sleep(0)
        behind.append(max(0.0, monotonic() - start - at))
        send(start + at)
    return behind
