"""What it costs that the gateway asks who calls: an open model, one with keys, one with a limit, and a token, interleaved.

The replica is a bare socket that answers at once, so that what is seen is the gateway's. CPU is HAProxy's alone: the
agent has no part in these requests, a token's first one excepted.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import uvloop
from tests.benchmarks import parts, processes, report
from tests.benchmarks.load import LoadResult, drive

from penstock.routing.tokens import admin_token, replica_token

SECONDS, ROUNDS, CONNECTIONS, KEYS = 2.5, 5, 16, 1000
OPEN = "open to anyone"
BODY = b"{}"


def key(number: int) -> str:
    """One of many keys."""
    return f"pk_{number:043d}"


CASES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    OPEN: ({"required": False}, {}),
    "an API key": ({"required": True}, {"Authorization": f"Bearer {key(7)}"}),
    "an API key that ends": ({"required": True, "expiresAt": 4102444800}, {"Authorization": f"Bearer {key(7)}"}),
    "an API key with a limit of its own": ({"required": True, "limit": 100_000}, {"Authorization": f"Bearer {key(7)}"}),
    "an API key, and the model's limit": (
        {"required": True, "requestsPerSecond": 100_000},
        {"Authorization": f"Bearer {key(7)}"},
    ),
}
"""By name: what is declared, and what is sent."""


class Replica(asyncio.Protocol):
    """Answers each request that came whole; the generator sends one at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if data.endswith(BODY):
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")  # type: ignore[attr-defined]  # uvloop's transports have no common base


@contextmanager
def replica() -> Iterator[str]:
    """A replica in a process of its own; its address."""
    child = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.access", "replica"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    try:
        yield child.stdout.readline().decode().strip()
    finally:
        parts.end(child)


def main() -> None:
    """Measure, and publish `access`."""
    with tempfile.TemporaryDirectory(prefix="pbench") as folder, ExitStack() as stack:
        edge = stack.enter_context(parts.gateway(Path(folder), {"OTEL_SDK_DISABLED": "true"}))
        address = stack.enter_context(replica())
        admin = admin_token(edge.secret)
        for number, (access, _) in enumerate(CASES.values()):
            declare(edge, admin, f"ns{number}", access)
        pids = [pid for pid in processes.descendants(edge.pid) if pid != edge.pid]
        results: dict[str, list[LoadResult]] = {name: [] for name in CASES}
        cases = list(enumerate(CASES.items()))
        for turn in range(ROUNDS):
            report.progress(f"round {turn + 1} of {ROUNDS}")
            for number in range(len(CASES)):
                renew(edge, f"ns{number}", address)
            random.shuffle(cases)
            for number, (name, (_, headers)) in cases:
                results[name].append(load(f"{edge.url}/ns{number}/v2/models/m/infer", headers, pids))
    publish(results)


def declare(edge: parts.GatewayProcess, admin: str, namespace: str, access: dict[str, Any], model: str = "m") -> None:
    """A namespace's model and, where it needs one, many keys."""
    told = dict(access)
    limit = told.pop("limit", None)
    ends = {"expiresAt": told.pop("expiresAt")} if "expiresAt" in told else {}
    if told["required"]:
        every = [(f"k{n}", hashlib.sha256(key(n).encode()).hexdigest()) for n in range(KEYS)]
        told["keys"] = [{"name": name, "sha256": digest, "requestsPerSecond": limit, **ends} for name, digest in every]
    route = {"namespace": namespace, "model": model, "access": told}
    parts.http_json(f"{edge.control_url}/v1/routes/{namespace}/{model}", "PUT", route, admin)


def renew(edge: parts.GatewayProcess, namespace: str, address: str, model: str = "m") -> None:
    """The replica's lease, longer than a round."""
    lease = {
        "namespace": namespace, "model": model, "version": "1", "revision": "r", "address": address, "leaseSeconds": 60,
    }  # fmt: skip
    token = replica_token(edge.secret, namespace, model)
    parts.http_json(f"{edge.control_url}/v1/replicas/{namespace}", "PUT", lease, token)


def load(url: str, headers: dict[str, str], pids: list[int]) -> LoadResult:
    """Load from a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.access", "load", url, json.dumps(headers), *map(str, pids)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=SECONDS + 60)
    result = LoadResult(**json.loads(done.stdout))
    if result.errors:
        raise RuntimeError(f"{url}: {result.errors} errors")
    return result


def publish(results: dict[str, list[LoadResult]]) -> None:
    """The medians, and their ratio to the open model's."""

    def median(name: str, field: str) -> float:
        return float(statistics.median(getattr(each, field) for each in results[name]))

    rows = [
        {
            "model": name,
            "requests/s": round(median(name, "requests_per_second")),
            "of the open one's": round(median(name, "requests_per_second") / median(OPEN, "requests_per_second"), 3),
            "HAProxy's CPU µs/answer": round(median(name, "cpu_us_per_answer"), 2),
            "× open": round(median(name, "cpu_us_per_answer") / median(OPEN, "cpu_us_per_answer"), 3),
            "p50 ms": round(median(name, "p50_ms"), 3),
            "p99 ms": round(median(name, "p99_ms"), 3),
        }
        for name in results
    ]
    title = f"What asking who calls costs at the gateway ({CONNECTIONS} connections, {KEYS} keys; medians of {ROUNDS})"
    report.publish("access", title, rows)


async def _serve_replica() -> None:
    server = await asyncio.get_running_loop().create_server(Replica, "127.0.0.1", 0)
    print(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def _child() -> None:
    if sys.argv[1] == "replica":
        uvloop.run(_serve_replica())
        return
    url, headers, *pids = sys.argv[2:]
    told = drive(
        url, BODY, CONNECTIONS, SECONDS, pids=[int(pid) for pid in pids], headers=list(json.loads(headers).items())
    )
    print(json.dumps(dataclasses.asdict(uvloop.run(told))))


if __name__ == "__main__":
    _child() if len(sys.argv) > 1 else main()
