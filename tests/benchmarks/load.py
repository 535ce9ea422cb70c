"""A closed-loop load generator over keep-alive connections: each sends its next request when it has its answer.

Blocking sockets on threads would contend for one GIL, and a client library would measure itself; so this is one event loop
with a callback protocol that looks for nothing but the status and the length. It runs in a process of its own:

    python tests/benchmarks/load.py URL CONNECTIONS SECONDS BODY_FILE [--header NAME:VALUE ...] [--pids PID ...]

and prints one JSON line: `LoadResult`.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.benchmarks import processes


@dataclasses.dataclass(frozen=True)
class LoadResult:
    """What a run saw. Latencies in milliseconds; CPU in microseconds an answer, over all of the given processes."""

    connections: int
    seconds: float
    requests: int
    errors: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us_per_answer: float


class Client(asyncio.Protocol):
    """One connection: its next request goes out when the answer is there."""

    def __init__(self, next_request: Callable[[], bytes], latencies: list[float], errors: list[str]) -> None:
        self._next_request = next_request
        self._latencies = latencies
        self._errors = errors
        self._buffer = b""
        self._wanted = 0
        self._sent = 0.0
        self.stopping = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport
        self._send()

    def _send(self) -> None:
        request = self._next_request()
        self._sent = time.perf_counter()
        self._transport.write(request)  # type: ignore[attr-defined]  # uvloop's transports have no common base

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if not self._wanted:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end].lower()
            at = head.find(b"content-length:")
            if at < 0:  # chunked: the body ends with an empty chunk
                if not self._buffer.endswith(b"\r\n0\r\n\r\n"):
                    return
                self._wanted = len(self._buffer)
            else:
                self._wanted = end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(self._buffer) < self._wanted:
            return
        self._latencies.append(time.perf_counter() - self._sent)
        if not self._buffer.startswith(b"HTTP/1.1 200"):
            self._errors.append(self._buffer[:200].decode(errors="replace"))
        self._buffer = b""
        self._wanted = 0
        if self.stopping:
            self._transport.close()
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.stopping:
            self._errors.append(f"connection lost: {exc}")
        if not self.ended.done():
            self.ended.set_result(None)


def render_request(url: str, body: bytes, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """A POST of JSON as bytes."""
    parts = urlsplit(url)
    lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode() + body


async def drive(
    url: str,
    body: bytes,
    connections: int,
    seconds: float,
    *,
    pids: Sequence[int] = (),
    headers: Sequence[tuple[str, str]] = (),
    next_request: Callable[[], bytes] | None = None,
) -> LoadResult:
    """Load a server for some seconds after a short warm-up.

    Every request is a POST of `body`, unless `next_request` gives whole ones.
    """
    loop = asyncio.get_running_loop()
    parts = urlsplit(url)
    latencies: list[float] = []
    errors: list[str] = []
    request = render_request(url, body, headers)
    clients: list[Client] = []
    for _ in range(connections):
        _, client = await loop.create_connection(
            lambda: Client(next_request or (lambda: request), latencies, errors), parts.hostname, parts.port or 80
        )
        clients.append(client)
    await asyncio.sleep(min(0.5, seconds / 4))
    latencies.clear()
    cpu, began = cpu_seconds(pids), time.perf_counter()
    await asyncio.sleep(seconds)
    measured = list(latencies)
    elapsed, used = time.perf_counter() - began, cpu_seconds(pids) - cpu
    for client in clients:
        client.stopping = True
    await asyncio.wait([client.ended for client in clients], timeout=30)
    for line in errors[:3]:
        print(line, file=sys.stderr)
    cuts = statistics.quantiles(measured, n=100) if len(measured) > 1 else [0.0] * 99
    return LoadResult(
        connections=connections,
        seconds=elapsed,
        requests=len(measured),
        errors=len(errors),
        requests_per_second=len(measured) / elapsed,
        p50_ms=cuts[49] * 1000,
        p99_ms=cuts[98] * 1000,
        cpu_us_per_answer=used / max(len(measured), 1) * 1e6,
    )


async def drive_groups(
    url: str,
    body: bytes,
    connections: int,
    groups: Sequence[Sequence[int]],
    *,
    headers: Sequence[tuple[str, str]] = (),
    warm_seconds: float,
    seconds: float,
) -> tuple[list[float], float]:
    """Closed-loop load, and what several groups of processes used for it over the same time.

    Args:
        url: what is asked.
        body: of each request.
        connections: how many.
        groups: ids of processes.
        headers: of each request.
        warm_seconds: of load before the measurement.
        seconds: how long to measure.

    Returns:
        CPU in microseconds an answer of each group, and answers a second.

    Raises:
        RuntimeError: a request failed.
    """
    request = render_request(url, body, headers)
    address = urlsplit(url)
    latencies: list[float] = []
    errors: list[str] = []
    loop = asyncio.get_running_loop()
    clients = [
        (
            await loop.create_connection(
                lambda: Client(lambda: request, latencies, errors), address.hostname, address.port
            )
        )[1]
        for _ in range(connections)
    ]
    await asyncio.sleep(warm_seconds)
    before, answers, began = [processes.cpu_seconds(each) for each in groups], len(latencies), time.perf_counter()
    await asyncio.sleep(seconds)
    used = [processes.cpu_seconds(each) - start for each, start in zip(groups, before, strict=True)]
    answers, took = len(latencies) - answers, time.perf_counter() - began
    for client in clients:
        client.stopping = True
    await asyncio.wait([client.ended for client in clients], timeout=30)
    if errors:
        raise RuntimeError(f"{url}: {errors[0]}")
    return [each / max(answers, 1) * 1e6 for each in used], answers / took


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of some processes, in seconds, from /proc."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def run_load(
    url: str,
    body_file: Path,
    *,
    connections: int,
    seconds: float,
    pids: Sequence[int] = (),
    cpus: str | None = None,
    headers: Sequence[tuple[str, str]] = (),
) -> LoadResult:
    """Run the generator in a process of its own, on some CPUs if told so (as taskset's list, such as `1`)."""
    told = [part for name, value in headers for part in ("--header", f"{name}:{value}")]
    command = [sys.executable, __file__, url, str(connections), str(seconds), str(body_file), *told]
    command += ["--pids", *map(str, pids)]
    if cpus is not None:
        command = ["taskset", "-c", cpus, *command]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=seconds + 60)
    return LoadResult(**json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("connections", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("body", type=Path)
    parser.add_argument("--header", action="append", default=[])
    parser.add_argument("--pids", type=int, nargs="*", default=[])
    given = parser.parse_args()
    headers = [(name, value) for name, _, value in (each.partition(":") for each in given.header)]
    running = drive(
        given.url, given.body.read_bytes(), given.connections, given.seconds, pids=given.pids, headers=headers
    )
    print(json.dumps(dataclasses.asdict(uvloop.run(running))))


if __name__ == "__main__":
    main()
