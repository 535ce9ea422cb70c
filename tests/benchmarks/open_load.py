"""Requests at fixed times, cheaply: an open-loop load generator in a process of its own.

`tests.benchmarks.open_loop` has a task for each request, which costs more than many a server's answer does. This has a callback
protocol for each connection, and knows of HTTP only the status, the length, `Retry-After` and whether the connection ends.

    python tests/benchmarks/open_load.py URL SECONDS BODY_FILE RATE [RATE ...]

offers each rate (requests a second) for so many seconds, one after the other without a pause, and prints one JSON line:
`OpenLoad`. Latencies count from when a request was due, not from when it was sent.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

_LINGER_SECONDS = 15.0


@dataclasses.dataclass(frozen=True)
class OpenLoad:
    """Each request that was due, in order: when (seconds from the start), how long it took, its status, its `Retry-After`."""

    due: list[float]
    seconds: list[float]
    """-1: without an answer at the end."""
    statuses: list[int]
    """0: the connection failed."""
    retry_after: list[int]
    """Seconds; -1: none was said."""
    late_p99: float
    """How late, in seconds, the generator itself sent a request at the 99th percentile: large, it measures itself."""


class OpenClient(asyncio.Protocol):
    """One connection, which has one request at a time."""

    def __init__(self, load: Generator) -> None:
        self._load = load
        self._buffer = b""
        self.number = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._load.release(self)

    def send(self, number: int, request: bytes) -> None:
        self.number = number
        self.transport.write(request)  # type: ignore[attr-defined]  # uvloop's transports have no common base

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        if len(self._buffer) < end + 4 + _number(head, b"content-length:", 0):
            return
        self._buffer = b""
        self._load.answered(self.number, int(head[9:12]), _number(head, b"retry-after:", -1))
        self.number = -1
        if b"connection: close" in head:
            self.transport.close()
        else:
            self._load.release(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._load.lost(self)


class Generator:
    """Sends what is due on a connection that is idle, or on a new one."""

    def __init__(self, url: str, body: bytes, times: Sequence[float], most_connections: int = 8000) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        self._request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        self._times = times
        self._idle: list[OpenClient] = []
        self._waiting: deque[int] = deque()
        self._connections = 0
        self._most = most_connections
        self._open = 0
        self._seconds = [-1.0] * len(times)
        self._statuses = [0] * len(times)
        self._retry = [-1] * len(times)
        self._late: list[float] = []
        self._start = 0.0

    def release(self, client: OpenClient) -> None:
        """A connection is free."""
        if self._waiting:
            self._send(client, self._waiting.popleft())
        else:
            self._idle.append(client)

    def answered(self, number: int, status: int, retry_after: int) -> None:
        """A request has its answer."""
        self._seconds[number] = time.monotonic() - self._start - self._times[number]
        self._statuses[number] = status
        self._retry[number] = retry_after
        self._open -= 1

    def lost(self, client: OpenClient) -> None:
        """A connection has ended."""
        self._connections -= 1
        if client in self._idle:
            self._idle.remove(client)
        if client.number >= 0:
            self.answered(client.number, 0, -1)

    def _send(self, client: OpenClient, number: int) -> None:
        self._late.append(time.monotonic() - self._start - self._times[number])
        client.send(number, self._request)

    def _dispatch(self, number: int) -> None:
        self._open += 1
        while self._idle:
            client = self._idle.pop()
            if not client.transport.is_closing():
                self._send(client, number)
                return
        self._waiting.append(number)
        if self._connections < self._most:
            self._connections += 1
            task = asyncio.get_running_loop().create_task(self._connect())
            task.add_done_callback(lambda _: None)

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: OpenClient(self), self._host, self._port)
        except OSError:
            self._connections -= 1
            if self._waiting:
                self.answered(self._waiting.popleft(), 0, -1)

    async def run(self) -> OpenLoad:
        """Send all, and wait some seconds for the last answers."""
        self._start = time.monotonic() + 0.05
        for number, due in enumerate(self._times):
            ahead = self._start + due - time.monotonic()
            if ahead > 0:
                await asyncio.sleep(ahead)
            elif number % 32 == 0:
                await asyncio.sleep(0)
            self._dispatch(number)
        until = time.monotonic() + _LINGER_SECONDS
        while self._open and time.monotonic() < until:  # noqa: ASYNC110 -- an event would be set for each answer
            await asyncio.sleep(0.02)
        late = sorted(self._late)
        return OpenLoad(
            list(self._times), self._seconds, self._statuses, self._retry, late[int(0.99 * (len(late) - 1))]
        )


def arrivals(rates: Sequence[float], seconds: float, seed: int = 1) -> list[float]:
    """Poisson arrivals at each rate for so many seconds, one rate after the other."""
    source = random.Random(seed)
    times, start = [], 0.0
    for rate in rates:
        now = start
        while (now := now + source.expovariate(rate)) < start + seconds:
            times.append(now)
        start += seconds
    return times


def run_open(url: str, body_file: Path, rates: Sequence[float], seconds: float, cpus: str | None = None) -> OpenLoad:
    """Run the generator in a process of its own, on some CPUs if told so."""
    command = [sys.executable, __file__, url, str(seconds), str(body_file), *map(str, rates)]
    if cpus is not None:
        command = ["taskset", "-c", cpus, *command]
    limit = seconds * len(rates) + _LINGER_SECONDS + 60
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=limit)
    return OpenLoad(**json.loads(done.stdout))


def _number(head: bytes, name: bytes, otherwise: int) -> int:
    at = head.find(name)
    return otherwise if at < 0 else int(head[at + len(name) :].split(b"\r\n", 1)[0])


def main() -> None:
    url, seconds, body_file, *rates = sys.argv[1:]
    times = arrivals([float(rate) for rate in rates], float(seconds))
    result = uvloop.run(Generator(url, Path(body_file).read_bytes(), times).run())
    print(json.dumps(dataclasses.asdict(result)))


if __name__ == "__main__":
    main()
