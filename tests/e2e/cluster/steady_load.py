"""A steady load on a model from a process of its own, until it is told to stop.

    python -m tests.e2e.cluster.steady_load URL PER_SECOND BODY_FILE [HEADER=VALUE ...]

It sends at fixed times, whatever the answers do, over kept connections. Where one that was kept turns out to be closed,
with no answer begun, it sends on another, as HTTP clients do. Where a fresh one is refused or lost, it tries again as well,
as clients with retries do, and counts that apart. When its standard input closes, it waits for the answers that are due
and prints one JSON line: a `LoadReport`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.benchmarks.open_loop import http_request
from tests.cluster.cluster import Cluster
from tests.cluster.supervise import python

_ANSWER_SECONDS = 30.0
_AGAIN_SECONDS = 0.05


@dataclasses.dataclass
class LoadReport:
    """What a load saw."""

    sent: int = 0
    failed: int = 0
    """Requests whose answer was not a 200, or that got none in time."""
    statuses: dict[str, int] = dataclasses.field(default_factory=dict)
    """How many answers had which status; 0 stands for none."""
    reconnects: int = 0
    """How often a kept connection was lost before an answer began, and the request sent on another."""
    refused: int = 0
    """How often a fresh one was refused, or lost before an answer began."""
    seconds: float = 0.0
    p50_milliseconds: float = 0.0
    p99_milliseconds: float = 0.0
    longest_milliseconds: float = 0.0
    longest_at_seconds: float = 0.0
    """When, after the start, the slowest request was sent."""
    details: list[str] = dataclasses.field(default_factory=list)
    """What the first failures said."""


class SteadyLoad:
    """A load that runs beside the test; `report` is there once it was stopped."""

    def __init__(self) -> None:
        self.report = LoadReport()
        self.whole_after_seconds = 0.0
        """How long what was done beside it took, where that was measured."""


@contextmanager
def steady_load(
    cluster: Cluster, service: tuple[str, str, int], path: str, body: Path, *, per_second: float = 100.0,
    headers: Mapping[str, str] | None = None,
) -> Iterator[SteadyLoad]:  # fmt: skip
    """Send to a path of a Service (namespace, name, port) for as long as the block runs."""
    namespace, name, port = service
    load = SteadyLoad()
    given = [f"{key}={value}" for key, value in (headers or {}).items()]
    with cluster.reach(name, namespace, port) as url:
        command = python("tests.e2e.cluster.steady_load", f"{url}{path}", str(per_second), str(body), *given)
        with cluster.start(command) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
            try:
                yield load
            finally:
                text, _ = process.communicate(timeout=_ANSWER_SECONDS * 2)
                load.report = LoadReport(**json.loads(text))


class _Sender:
    """Sends requests over kept connections."""

    def __init__(self, host: str, port: int, request: bytes) -> None:
        self._host, self._port, self._request = host, port, request
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.reconnects = 0
        self.refused = 0

    async def send(self) -> tuple[int, str]:
        """Send one request, within the time; its answer's status, and what was wrong."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                while True:
                    kept = bool(self._idle)
                    try:
                        return await self._try()
                    except asyncio.IncompleteReadError as error:
                        if error.partial:
                            return 0, f"an answer broke off after {len(error.partial)} bytes"
                    except ConnectionError:
                        pass
                    if kept:
                        self.reconnects += 1
                    else:
                        self.refused += 1
                        await asyncio.sleep(_AGAIN_SECONDS)
        except (TimeoutError, OSError) as error:
            return 0, repr(error)

    async def _try(self) -> tuple[int, str]:
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(self._request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0] or 0)
            body = await reader.readexactly(length)
        except BaseException:
            writer.close()
            raise
        if b"connection: close" in head.lower():
            writer.close()
        else:
            self._idle.append((reader, writer))
        status = int(head[9:12])
        return status, "" if status == 200 else body[:300].decode(errors="replace")


async def _run(url: str, per_second: float, body: bytes, headers: Mapping[str, str]) -> LoadReport:
    parts = urlsplit(url)
    assert parts.hostname is not None
    sender = _Sender(parts.hostname, parts.port or 80, http_request(parts.netloc, parts.path, body, dict(headers)))
    answers: list[tuple[float, float, int, str]] = []
    stopped = asyncio.Event()
    start = time.monotonic()

    async def one() -> None:
        sent = time.monotonic()
        status, detail = await sender.send()
        answers.append((sent - start, time.monotonic() - sent, status, detail))

    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), stopped.set)
    async with asyncio.TaskGroup() as tasks:
        number = 0
        while not stopped.is_set():
            tasks.create_task(one())
            number += 1
            await asyncio.sleep(max(0.0, start + number / per_second - time.monotonic()))
    return _summary(answers, sender, time.monotonic() - start)


def _summary(answers: list[tuple[float, float, int, str]], sender: _Sender, seconds: float) -> LoadReport:
    ordered = sorted(took for _, took, _, _ in answers)
    slowest = max(answers, key=lambda answer: answer[1])
    failures = [answer for answer in answers if answer[2] != 200]
    return LoadReport(
        sent=len(answers),
        failed=len(failures),
        statuses={str(status): count for status, count in Counter(answer[2] for answer in answers).items()},
        reconnects=sender.reconnects,
        refused=sender.refused,
        seconds=seconds,
        p50_milliseconds=ordered[len(ordered) // 2] * 1000,
        p99_milliseconds=ordered[len(ordered) * 99 // 100] * 1000,
        longest_milliseconds=slowest[1] * 1000,
        longest_at_seconds=slowest[0],
        details=[f"{when:.2f} s: {status} {detail}" for when, _, status, detail in failures[:5]],
    )


def main() -> None:
    """The command line."""
    url, per_second, body_file, *headers = sys.argv[1:]
    body = Path(body_file).read_bytes()
    print("started", flush=True)
    report = asyncio.run(_run(url, float(per_second), body, dict(each.split("=", 1) for each in headers)))
    print(json.dumps(dataclasses.asdict(report)))


if __name__ == "__main__":
    main()
