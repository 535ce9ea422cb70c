"""Sends images to a served model, in a process of its own: as fast as answers come, or at a rate whatever they do.

    python -m tests.benchmarks.models.image_load LOAD

LOAD is `Load` as JSON; it prints one JSON line: `Served`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import uvloop
from numpy.typing import NDArray
from tests.benchmarks import processes
from tests.benchmarks.load import Client, drive

_CONNECTIONS = 64
"""Of an open loop. Requests that find none free wait here, and that counts."""
_DRAIN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Load:
    """What to send, where to, and whose CPU time to read."""

    url: str
    requests: str
    """A file of whole HTTP requests, one behind the other, all of one length."""
    request_bytes: int
    seconds: float
    replica: tuple[int, ...]
    gateway: tuple[int, ...]
    connections: int = _CONNECTIONS
    per_second: float | None = None
    """Poisson arrivals at this rate; None: each connection sends when it has its answer."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Served:
    """What came back. Latencies are from when a request was due; CPU is that of an answer."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """Of replica and gateway."""
    replica_cpu_us: float
    errors: int = 0

    def towards(self, other: Served, share: float) -> Served:
        """The point at that share of the way to another one."""
        mine, its = asdict(self), asdict(other)
        return Served(**{name: mine[name] + share * (its[name] - mine[name]) for name in mine})


def image_request(url: str, tensor: str, image: NDArray[np.float32]) -> bytes:
    """One image in binary, with its answer asked for in binary."""
    shape = [1, *image.shape]
    document = {
        "inputs": [
            {"name": tensor, "shape": shape, "datatype": "FP32", "parameters": {"binary_data_size": image.nbytes}}
        ],
        "parameters": {"binary_data_output": True},
    }
    head, target = json.dumps(document).encode(), urlsplit(url)
    lines = [
        f"POST {target.path} HTTP/1.1", f"Host: {target.netloc}", "Content-Type: application/octet-stream",
        f"Inference-Header-Content-Length: {len(head)}", f"Content-Length: {len(head) + image.nbytes}", "", "",
    ]  # fmt: skip
    return "\r\n".join(lines).encode() + head + np.ascontiguousarray(image, np.float32).tobytes()


def run_load(load: Load, cpus: str) -> Served:
    """Be served in a process of its own, on some CPUs (as taskset's list)."""
    command = ["taskset", "-c", cpus, sys.executable, "-m", __name__, json.dumps(asdict(load))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=load.seconds + 60)
    return Served(**json.loads(done.stdout))


class _Cpu:
    """CPU time of replica and gateway since it was made."""

    def __init__(self, load: Load) -> None:
        self._groups = (load.replica, load.gateway)
        self._before = self._read()

    def _read(self) -> list[float]:
        return [processes.cpu_seconds(pids) for pids in self._groups]

    def per_answer(self, answers: int) -> tuple[float, float]:
        """Microseconds of both, and of the replica alone."""
        replica, gateway = (now - then for now, then in zip(self._read(), self._before, strict=True))
        return (replica + gateway) / max(answers, 1) * 1e6, replica / max(answers, 1) * 1e6


async def closed(load: Load, requests: Iterator[bytes]) -> Served:
    """Each connection sends its next request when it has its answer."""
    sent = itertools.count()

    def next_request() -> bytes:
        next(sent)
        return next(requests)

    cpu = _Cpu(load)
    found = await drive(
        load.url, b"", connections=load.connections, seconds=load.seconds, next_request=next_request
    )  # fmt: skip
    both, replica = cpu.per_answer(next(sent))
    return Served(found.requests_per_second, found.p50_ms, found.p99_ms, both, replica, found.errors)


class _Waiting(Client):
    """A connection that waits to be given its request."""

    def __init__(self, arrivals: Arrivals) -> None:
        super().__init__(bytes, arrivals.latencies, arrivals.errors)
        self._arrivals = arrivals

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._arrivals.free(self)

    def ask(self, request: bytes, due: float) -> None:
        self._sent = due
        self._transport.write(request)

    def close(self) -> None:
        self.stopping = True
        self._transport.close()


class Arrivals:
    """Gives requests that are due to free connections, in order."""

    def __init__(self, next_request: Callable[[], bytes]) -> None:
        self.latencies: list[float] = []
        self.errors: list[str] = []
        self.asked = 0
        self._next_request = next_request
        self._free: list[_Waiting] = []
        self._late: deque[float] = deque()

    def free(self, client: _Waiting) -> None:
        """A connection has its answer."""
        if self._late:
            client.ask(self._next_request(), self._late.popleft())
        else:
            self._free.append(client)

    def due(self, when: float) -> None:
        """A request is due since then."""
        self.asked += 1
        if self._free:
            self._free.pop().ask(self._next_request(), when)
        else:
            self._late.append(when)

    async def send(self, times: Sequence[float], start: float) -> None:
        """Send at so many seconds after the start. It turns all the time: a loop's timers are too coarse for this."""
        for offset in times:
            while time.perf_counter() < start + offset:  # noqa: ASYNC110 -- a time is awaited, not an event
                await asyncio.sleep(0)
            self.due(start + offset)

    async def drain(self, seconds: float) -> None:
        """Wait for the answers that are not there yet; those that do not come at all took so long at least."""
        for _ in range(int(seconds * 1000)):
            if len(self.latencies) == self.asked:
                return
            await asyncio.sleep(0.001)
        self.latencies += [seconds] * (self.asked - len(self.latencies))


def poisson(per_second: float, seconds: float, seed: int) -> list[float]:
    """Arrival times in seconds, of a Poisson process."""
    draw = random.Random(seed)
    gaps = (draw.expovariate(per_second) for _ in itertools.count())
    return list(itertools.takewhile(lambda when: when < seconds, itertools.accumulate(gaps)))


async def opened(load: Load, requests: Iterator[bytes], per_second: float) -> Served:
    """Requests come at a rate, whatever the answers do. A quarter as long before that does not count."""
    loop, target = asyncio.get_running_loop(), urlsplit(load.url)
    arrivals = Arrivals(lambda: next(requests))
    clients = [
        (await loop.create_connection(lambda: _Waiting(arrivals), target.hostname or "", target.port or 80))[1]
        for _ in range(load.connections)
    ]
    await arrivals.send(poisson(per_second, load.seconds / 4, load.seed), time.perf_counter())
    await arrivals.drain(_DRAIN_SECONDS)
    arrivals.latencies.clear()
    arrivals.asked = 0
    cpu, start = _Cpu(load), time.perf_counter()
    await arrivals.send(poisson(per_second, load.seconds, load.seed + 1), start)
    await arrivals.drain(_DRAIN_SECONDS)
    elapsed = time.perf_counter() - start
    both, replica = cpu.per_answer(len(arrivals.latencies))
    for client in clients:
        client.close()
    cuts = statistics.quantiles(arrivals.latencies, n=100)
    rate = len(arrivals.latencies) / elapsed
    return Served(rate, cuts[49] * 1000, cuts[98] * 1000, both, replica, len(arrivals.errors))


def main() -> None:
    """Be the client of one run."""
    given = json.loads(sys.argv[1])
    load = Load(**given)
    body = Path(load.requests).read_bytes()
    size = load.request_bytes
    requests = itertools.cycle([body[at : at + size] for at in range(0, len(body), size)])
    served = opened(load, requests, load.per_second) if load.per_second else closed(load, requests)
    print(json.dumps(asdict(uvloop.run(served))))


if __name__ == "__main__":
    main()
