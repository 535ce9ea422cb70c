"""Clients that take and give little, and cost a server what they can: run by `hostile_clients`, in a process of their own.

    python -m tests.benchmarks.hostile KIND COUNT HOST PORT PATH

It says `ready` once all are connected, and goes on until its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import sys
from collections.abc import Awaitable, Callable

import numpy as np

_PAUSE = 0.1
_ROWS = 5_000
_AT_ONCE = 64

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def post(path: str, body: bytes, length: int | None = None) -> bytes:
    """A POST whose head promises `length` bytes."""
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {length or len(body)}\r\n\r\n"
    return head.encode() + body


def small_body() -> bytes:
    """A request of one row of the tiny model."""
    return json.dumps({"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [0.5] * 64}]}).encode()


def large_request(path: str) -> bytes:
    """A request with a large answer, whose own tensors are bytes."""
    data = np.zeros((_ROWS, 64), np.float32).tobytes()
    head = {
        "inputs": [
            {"name": "x", "shape": [_ROWS, 64], "datatype": "FP32", "parameters": {"binary_data_size": len(data)}}
        ]
    }
    text = json.dumps(head).encode()
    lines = f"POST {path} HTTP/1.1\r\nHost: h\r\nInference-Header-Content-Length: {len(text)}\r\nContent-Length: {len(text) + len(data)}\r\n\r\n"
    return lines.encode() + text + data


async def stay_idle(streams: Streams, path: str, began: asyncio.Event) -> None:
    """One request, and then silence on a connection that is kept."""
    reader, writer = streams
    writer.write(post(path, small_body()))
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]))
    began.set()


async def write_slowly(streams: Streams, path: str, began: asyncio.Event) -> None:
    """A body that comes byte by byte, for ever."""
    _, writer = streams
    writer.write(post(path, b"{", 1_000_000))
    began.set()
    while True:
        await asyncio.sleep(_PAUSE)
        writer.write(b" ")
        await writer.drain()


async def read_slowly(streams: Streams, path: str, began: asyncio.Event) -> None:
    """A large answer that is read in small pieces."""
    reader, writer = streams
    request = large_request(path)
    writer.write(request)
    await reader.read(1024)
    began.set()
    while True:
        await asyncio.sleep(_PAUSE)
        await reader.read(1024)


async def say_nothing(streams: Streams, path: str, began: asyncio.Event) -> None:
    """A connection, half of it closed, without a word."""
    del path
    _, writer = streams
    writer.get_extra_info("socket").shutdown(socket.SHUT_WR)
    began.set()


KINDS: dict[str, Callable[[Streams, str, asyncio.Event], Awaitable[None]]] = {
    "idle": stay_idle, "slow-writers": write_slowly, "slow-readers": read_slowly, "half-open": say_nothing,
}  # fmt: skip


async def main(kind: str, count: int, host: str, port: int, path: str) -> None:
    """Connect all, behave, until told to end."""
    gate = asyncio.Semaphore(_AT_ONCE)
    kept: list[Streams] = []
    behaving: set[asyncio.Task[None]] = set()

    async def one() -> None:
        async with gate:
            # A small window: what is read slowly then waits in the server, not in this machine's buffers.
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, (host, port))
            streams = await asyncio.open_connection(sock=sock)
            kept.append(streams)
            began = asyncio.Event()
            behaving.add(asyncio.ensure_future(KINDS[kind](streams, path, began)))
            await began.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(one())
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for task in behaving:
        task.cancel()


if __name__ == "__main__":
    # What they take of the core that they share with the usual load's clients is not what is measured.
    os.nice(19)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5]))
