"""A closed-loop load generator for gRPC: one connection of HTTP/2, on which each call is followed by the next.

A client library would measure itself, so this is a callback protocol that knows frames and no headers: what it sends is the
same each time, and of what comes it looks at which call has ended, and whether that had a message. It runs in a process of its own:

    python tests/benchmarks/grpc_load.py HOST:PORT CALLS SECONDS MESSAGE_FILE [--pids PID ...]

and prints one JSON line: `tests.benchmarks.load.LoadResult`.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.benchmarks.load import LoadResult, cpu_seconds

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_WINDOW = (1 << 31) - 1
_PATH = b"/inference.GRPCInferenceService/ModelInfer"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def split_frames(data: bytes) -> tuple[list[tuple[int, int, int, bytes]], bytes]:
    """The whole frames in what came, each as kind, flags, stream and payload, and what is left of the next one."""
    frames, at, size = [], 0, len(data)
    while size - at >= 9:
        length = int.from_bytes(data[at : at + 3], "big")
        if size - at < 9 + length:
            break
        stream = int.from_bytes(data[at + 5 : at + 9], "big")
        frames.append((data[at + 3], data[at + 4], stream, data[at + 9 : at + 9 + length]))
        at += 9 + length
    return frames, data[at:]


def header_blocks(authority: str) -> tuple[bytes, bytes]:
    """The first call's header block, and that of all others, which refers to it (RFC 7541)."""

    def text(value: bytes) -> bytes:
        return bytes((len(value),)) + value

    first = (
        b"\x83\x86\x44" + text(_PATH) + b"\x41" + text(authority.encode())
        + b"\x5f" + text(b"application/grpc") + b"\x40" + text(b"te") + text(b"trailers")
    )  # fmt: skip
    return first, b"\x83\x86\xc1\xc0\xbf\xbe"


class Calls(asyncio.Protocol):
    """A connection with a number of calls at a time."""

    def __init__(self, authority: str, message: bytes, count: int) -> None:
        self._first, self._others = header_blocks(authority)
        framed = b"\0" + struct.pack(">I", len(message)) + message
        self._data = lambda stream: frame(_DATA, _END_STREAM, stream, framed)
        self._count = count
        self._next = 1
        self._began: dict[int, float] = {}
        self._answered: set[int] = set()
        self._buffer = b""
        self.latencies: list[float] = []
        self.errors: list[str] = []
        self.stopping = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        settings = struct.pack(">HI", 4, _WINDOW)
        self._write(_PREFACE + frame(_SETTINGS, 0, 0, settings) + frame(8, 0, 0, struct.pack(">I", _WINDOW - 65535)))
        for _ in range(self._count):
            self._call()

    def _write(self, data: bytes) -> None:
        self._transport.write(data)  # type: ignore[attr-defined]  # uvloop's transports have no common base

    def _call(self) -> None:
        stream, block = self._next, self._first if self._next == 1 else self._others
        self._next += 2
        self._began[stream] = time.perf_counter()
        self._write(frame(_HEADERS, _END_HEADERS, stream, block) + self._data(stream))

    def data_received(self, data: bytes) -> None:
        frames, self._buffer = split_frames(self._buffer + data if self._buffer else data)
        for each in frames:
            self._take(*each)

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA and payload:
            self._answered.add(stream)
        elif kind == _SETTINGS and not flags & _ACK:
            self._write(frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._write(frame(_PING, _ACK, 0, payload))
        elif kind in (_RESET, _GOAWAY):
            self.errors.append(f"frame {kind}: {payload!r}")
            return
        if stream and flags & _END_STREAM and kind in (_DATA, _HEADERS):
            self.latencies.append(time.perf_counter() - self._began.pop(stream))
            if stream in self._answered:
                self._answered.discard(stream)
            else:
                self.errors.append(f"no message: {payload!r}")
            if not self.stopping:
                self._call()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.stopping:
            self.errors.append(f"connection lost: {exc}")


async def drive(address: str, message: bytes, calls: int, seconds: float, *, pids: Sequence[int] = ()) -> LoadResult:
    """Load a server for some seconds after a short warm-up."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_connection(lambda: Calls(address, message, calls), host, int(port))
    await asyncio.sleep(min(0.5, seconds / 4))
    client.latencies.clear()
    cpu, began = cpu_seconds(pids), time.perf_counter()
    await asyncio.sleep(seconds)
    measured = list(client.latencies)
    elapsed, used = time.perf_counter() - began, cpu_seconds(pids) - cpu
    client.stopping = True
    transport.close()
    for line in client.errors[:3]:
        print(line, file=sys.stderr)
    cuts = statistics.quantiles(measured, n=100) if len(measured) > 1 else [0.0] * 99
    return LoadResult(
        connections=calls,
        seconds=elapsed,
        requests=len(measured),
        errors=len(client.errors),
        requests_per_second=len(measured) / elapsed,
        p50_ms=cuts[49] * 1000,
        p99_ms=cuts[98] * 1000,
        cpu_us_per_answer=used / max(len(measured), 1) * 1e6,
    )


def run_grpc_load(
    address: str, message_file: Path, *, calls: int, seconds: float, pids: Sequence[int] = (), cpus: str | None = None
) -> LoadResult:
    """Run the generator in a process of its own, on some CPUs if told so (as taskset's list, such as `1`)."""
    command = [
        sys.executable,
        __file__,
        address,
        str(calls),
        str(seconds),
        str(message_file),
        "--pids",
        *map(str, pids),
    ]
    if cpus is not None:
        command = ["taskset", "-c", cpus, *command]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=seconds + 60)
    return LoadResult(**json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("calls", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("message", type=Path)
    parser.add_argument("--pids", type=int, nargs="*", default=[])
    given = parser.parse_args()
    running = drive(given.address, given.message.read_bytes(), given.calls, given.seconds, pids=given.pids)
    print(json.dumps(dataclasses.asdict(uvloop.run(running))))


if __name__ == "__main__":
    main()
