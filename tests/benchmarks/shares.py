"""Which shares of a model's requests its revisions get of the real HAProxy, and what drawing a lot costs it."""

from __future__ import annotations

import asyncio
import os
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks import report
from tests.integration.gateway_parts import Gateway, gateway
from tests.integration.share_parts import CANDIDATE, STABLE, count, deviations, fleet

_PERCENTS = (1, 5, 25, 50)
_CASES: Mapping[str, tuple[int, Mapping[str, float], int]] = {
    "one client, idle": (1, {}, 10_000),
    "64 clients, alike": (64, {STABLE: 0.003, CANDIDATE: 0.003}, 20_000),
    "64 clients, the new one takes twice as long": (64, {STABLE: 0.003, CANDIDATE: 0.006}, 20_000),
    "64 clients, the new one takes half as long": (64, {STABLE: 0.006, CANDIDATE: 0.003}, 20_000),
}
"""Clients, seconds by revision, and requests."""
_ROUNDS, _REQUESTS, _CLIENTS = 5, 16_000, 16
_REPLICAS = {STABLE: 4, CANDIDATE: 1}


def main() -> None:
    """Measure, and publish `shares` and `shares-price`."""
    asyncio.run(_main())


async def _main() -> None:
    async with gateway() as gw:
        report.publish("shares", "One replica of a new revision beside four of the other", await _shares(gw))
        notes = [f"Medians of {_ROUNDS} interleaved rounds of {_REQUESTS} requests of {_CLIENTS} clients; no body."]
        report.publish("shares-price", "HAProxy's CPU a request", await _price(gw), notes)


async def _shares(gw: Gateway) -> list[dict[str, Any]]:
    rows = []
    for percent in _PERCENTS:
        for name, (clients, seconds, requests) in _CASES.items():
            model = f"m{len(rows)}"
            report.progress(f"shares: {percent} %, {name}")
            await gw.declare(f"default/{model}", revisions={STABLE: 100 - percent, CANDIDATE: percent})
            async with fleet(gw, seconds, _REPLICAS, f"default/{model}"):
                counts = await count(gw, requests, clients, f"/v2/models/{model}/infer")
            rows.append(
                {
                    "load": name,
                    "declared %": percent,
                    "requests": counts.total(),
                    "got %": round(100 * counts[CANDIDATE] / counts.total(), 3),
                    "standard deviations": round(deviations(counts, CANDIDATE, percent / 100), 2),
                    "answered by others": counts.total() - counts[CANDIDATE] - counts[STABLE],
                }
            )
    return rows


async def _price(gw: Gateway) -> list[dict[str, Any]]:
    compared = {"candidate": CANDIDATE, "stable": STABLE, "sticky": True}
    half = {STABLE: 50, CANDIDATE: 50}
    models: dict[str, dict[str, Any]] = {
        "alone": {"revisions": {STABLE: 100}},
        "lots by chance": {"revisions": half},
        "lots by caller": {"revisions": half, "comparison": compared},
    }
    _, (worker, *_) = gw.haproxy_pids()
    spent: dict[str, list[float]] = {name: [] for name in models}
    for number, fields in enumerate(models.values()):
        await gw.declare(f"default/p{number}", **fields)
    replicas = dict.fromkeys(_REPLICAS, 1)
    async with (
        fleet(gw, {}, replicas, "default/p0"),
        fleet(gw, {}, replicas, "default/p1"),
        fleet(gw, {}, replicas, "default/p2"),
    ):
        for _ in range(_ROUNDS):
            for number, name in enumerate(models):
                before = _cpu_seconds(worker)
                await count(gw, _REQUESTS, _CLIENTS, f"/v2/models/p{number}/infer")
                spent[name].append((_cpu_seconds(worker) - before) / _REQUESTS * 1e6)
    return [{"a model's revisions": name, "µs": round(statistics.median(each), 1)} for name, each in spent.items()]


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process: fields 14 and 15 of `/proc/PID/stat` (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
