"""What clients that hold connections and give nothing cost the others: p99 of a usual load with them and without, interleaved.

A gateway with room for their connections, and a replica's server; all of them on the first core, clients on the second.
"Nobody" runs twice under two names: what differs between the two is noise.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.benchmarks import parts, processes, report
from tests.benchmarks.access import declare, renew
from tests.benchmarks.hostile import small_body
from tests.benchmarks.load import LoadResult, run_load
from tests.integration.replica_process import fresh_replica as replica

from penstock.routing.tokens import admin_token

CONNECTIONS = 16
NOBODY = "nobody"
CASES = {NOBODY: 0, "nobody, once more": 0, "idle": 5000, "slow-writers": 500, "slow-readers": 100, "half-open": 1000}


_MOST = 1.2
"""Times the p99 without them."""


def main(arguments: Sequence[str] = ()) -> int:
    """Measure, and publish `hostile-clients`; 1 where some move the p99 by more than they may."""
    parser = argparse.ArgumentParser(prog="hostile-clients", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    given = parser.parse_args(list(arguments))
    seconds, rounds = given.seconds, given.rounds
    with tempfile.TemporaryDirectory(prefix="pbench") as folder:
        home = Path(folder)
        body = home / "body.json"
        body.write_bytes(small_body())
        model = parts.dense_model(home / "tiny" / "model.onnx", (64, 10))
        room = ("--max-connections", "8192", "--max-connections-per-client", "8192")
        with parts.gateway(home / "gateway", {"OTEL_SDK_DISABLED": "true"}, room) as edge, replica(model) as started:
            declare(edge, admin_token(edge.secret), "default", {"required": False}, "tiny")
            renew(edge, "default", started.address, "tiny")
            url = f"{edge.url}/v2/models/tiny/infer"
            parts.until("the first answer", lambda: parts.http_json(url, "POST", json.loads(small_body())))
            pids = [*processes.descendants(edge.pid), *processes.descendants(started.process.pid)]
            processes.pin(pids)
            results = _measure(
                lambda: renew(edge, "default", started.address, "tiny"), url, body, pids, seconds=seconds, rounds=rounds
            )
    return _publish(results, seconds, rounds)


def _measure(
    renewed: Callable[[], None], url: str, body: Path, pids: list[int], *, seconds: float, rounds: int
) -> dict[str, list[LoadResult]]:
    results: dict[str, list[LoadResult]] = {name: [] for name in CASES}
    cases = list(CASES.items())
    client = str(max(os.sched_getaffinity(0)))
    for turn in range(rounds):
        random.shuffle(cases)
        for name, count in cases:
            report.progress(f"round {turn + 1} of {rounds}: {name}")
            renewed()
            with _hostile(name, count, url, client):
                found = run_load(url, body, connections=CONNECTIONS, seconds=seconds, pids=pids, cpus=client)
            results[name].append(found)
    return results


@contextmanager
def _hostile(kind: str, count: int, url: str, cpus: str) -> Iterator[None]:
    if not count:
        yield
        return
    parsed = urlsplit(url)
    command = ["taskset", "-c", cpus, sys.executable, "-m", "tests.benchmarks.hostile"]
    command += [kind, str(count), str(parsed.hostname), str(parsed.port), parsed.path]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        if child.stdout.readline().strip() != b"ready":
            raise RuntimeError(f"{count} clients of kind {kind} could not connect")
        yield
    finally:
        child.stdin.close()
        child.wait(60)


def _publish(results: dict[str, list[LoadResult]], seconds: float, rounds: int) -> int:
    def median(name: str, field: str) -> float:
        return float(statistics.median(getattr(each, field) for each in results[name]))

    def moved(name: str) -> float:
        """Within each round: what else the machine does changes from round to round."""
        pairs = zip(results[name], results[NOBODY], strict=True)
        return statistics.median(each.p99_ms / beside.p99_ms for each, beside in pairs)

    rows: list[dict[str, Any]] = [
        {
            "beside": name,
            "of them": CASES[name],
            "errors": sum(each.errors for each in results[name]),
            "requests/s": round(median(name, "requests_per_second")),
            "p50 ms": round(median(name, "p50_ms"), 3),
            "p99 ms": round(median(name, "p99_ms"), 3),
            "p99, × nobody": round(moved(name), 3),
            "CPU µs/answer": round(median(name, "cpu_us_per_answer"), 1),
        }
        for name in CASES
    ]
    title = f"A usual load of {CONNECTIONS} connections beside hostile clients (medians of {rounds} rounds of {seconds:g} s)"
    report.publish("hostile-clients", title, rows)
    return 1 if any(moved(name) > _MOST for name, count in CASES.items() if count) else 0


if __name__ == "__main__":
    main()
