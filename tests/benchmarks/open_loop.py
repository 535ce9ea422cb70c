"""Requests at fixed times, whatever the answers do: what users send, rather than what a closed loop allows."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass
class Answer:
    """One request's fate: times in seconds on the monotonic clock."""

    sent: float
    seconds: float
    status: int
    """HTTP status; 0 where the connection failed."""
    detail: str = ""


@dataclass
class Outcome:
    """All answers of a run."""

    answers: list[Answer] = field(default_factory=list)

    def failed(self) -> list[Answer]:
        """Those that were not a 200."""
        return [answer for answer in self.answers if answer.status != 200]

    def statuses(self) -> dict[int, int]:
        """How many answers had each status."""
        return dict(Counter(answer.status for answer in self.answers))

    def quantile(self, share: float) -> float:
        """Latency in seconds below which the share of answers came."""
        ordered = sorted(answer.seconds for answer in self.answers)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Connections:
    """Keep-alive HTTP/1.1 connections to one address; a request takes an idle one or opens another."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, request: bytes, timeout: float) -> tuple[int, bytes]:
        """Send a whole request; the status and body of its answer.

        A kept connection that the server closed while idle gives no answer at all: HTTP lets a client send again on
        another then, and every client library does.
        """
        while self._idle:
            reader, writer = self._idle.pop()
            if reader.at_eof() or writer.is_closing():
                writer.close()
                continue
            try:
                return await asyncio.wait_for(self._exchange(reader, writer, request), timeout)
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                writer.close()
                if isinstance(error, asyncio.IncompleteReadError) and error.partial:
                    raise
        reader, writer = await asyncio.open_connection(self._host, self._port)
        return await asyncio.wait_for(self._exchange(reader, writer, request), timeout)

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
    ) -> tuple[int, bytes]:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0] or 0)
        body = await reader.readexactly(length)
        if b"connection: close" in head:
            writer.close()
        else:
            self._idle.append((reader, writer))
        return int(head[9:12]), body

    def close(self) -> None:
        """Close the idle connections."""
        for _, writer in self._idle:
            writer.close()


def http_request(host: str, path: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """A POST of JSON as it goes over the wire."""
    extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{extra}"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def send_at(
    connections: Connections, requests: Sequence[bytes], times: Sequence[float], timeout: float = 120.0,
    check: Callable[[bytes], str] | None = None,
) -> Outcome:  # fmt: skip
    """Send `requests[i % n]` at `times[i]` seconds from now; `check` names what is wrong with a body, or ''."""
    outcome = Outcome()
    start = time.monotonic()

    async def one(number: int) -> None:
        sent = time.monotonic()
        try:
            status, body = await connections.post(requests[number % len(requests)], timeout)
            detail = body[:200].decode(errors="replace") if status != 200 else check(body) if check else ""
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            status, detail = 0, repr(error)
        outcome.answers.append(Answer(sent - start, time.monotonic() - sent, status, detail))

    async with asyncio.TaskGroup() as tasks:
        for number, when in enumerate(times):
            await asyncio.sleep(max(0.0, start + when - time.monotonic()))
            tasks.create_task(one(number))
    return outcome


def infer_at(url: str, body: bytes, times: Sequence[float], headers: dict[str, str] | None = None) -> Outcome:
    """POST the body to a model's URL (`…/v2/models/NAME`) at each of the times."""
    host, _, path = url.removeprefix("http://").partition("/")
    address, _, port = host.partition(":")

    async def run() -> Outcome:
        connections = Connections(address, int(port))
        try:
            return await send_at(connections, [http_request(host, f"/{path}/infer", body, headers)], times)
        finally:
            connections.close()

    return asyncio.run(run())


def steady(url: str, body: bytes, per_second: float, seconds: float) -> Outcome:
    """A steady load on a model's URL."""
    return infer_at(url, body, [number / per_second for number in range(int(per_second * seconds))])
