"""Small replicas that say who they are, clients that count who answered, and how far a share is from what it should be."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from tests.integration.gateway_parts import Gateway

STABLE, BASELINE, CANDIDATE = "v1", "v1-b", "v2"


@asynccontextmanager
async def named_replica(name: str, seconds: float) -> AsyncIterator[str]:
    """The address of one that answers each request with its name, after so long. It reads no body. At the end it dies."""
    open_now: set[asyncio.WriteTransport] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_now.add(writer.transport)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await asyncio.sleep(seconds)
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(name)}\r\n\r\n{name}".encode())
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"
        server.close()
        for each in open_now:
            each.abort()


@asynccontextmanager
async def fleet(
    gw: Gateway, seconds: Mapping[str, float], replicas: Mapping[str, int], model: str = "default/m"
) -> AsyncIterator[None]:
    """Replicas of revisions of a model, each revision with its own time to answer."""
    async with AsyncExitStack() as stack:
        for revision, count in replicas.items():
            for number in range(count):
                address = await stack.enter_async_context(named_replica(revision, seconds.get(revision, 0.0)))
                await gw.lease(f"{revision}.{number}", address, model, revision=revision)
        yield


class Client:
    """A client with one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @staticmethod
    async def connect(gw: Gateway) -> Client:
        return Client(*await asyncio.open_connection(gw.address, gw.port))

    async def ask(self, path: str, headers: str = "") -> str:
        """By whom a request was answered; or its status, where that is not 200."""
        self._writer.write(f"POST {path} HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n{headers}\r\n".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = next(int(line[15:]) for line in head.splitlines() if line.startswith("content-length:"))
        body = (await self._reader.readexactly(length)).decode()
        status = head.split(" ", 2)[1]
        return body if status == "200" else status

    def close(self) -> None:
        self._writer.close()


async def count(
    gw: Gateway, requests: int, clients: int = 1, path: str = "/v2/models/m/infer", headers: str = ""
) -> Counter[str]:
    """Who answered so many requests of so many clients, each of which waits for its answer."""
    counts: Counter[str] = Counter()

    async def go() -> None:
        client = await Client.connect(gw)
        for _ in range(requests // clients):
            counts[await client.ask(path, headers)] += 1
        client.close()

    await asyncio.gather(*(go() for _ in range(clients)))
    return counts


def deviations(counts: Counter[str], name: str, share: float) -> float:
    """By how many standard deviations a share differs from what it should be."""
    total = counts.total()
    return (counts[name] - total * share) / math.sqrt(total * share * (1 - share))
