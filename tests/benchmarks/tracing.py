"""What traces and metrics cost an answer: none, of 0 %, 1 % and all requests, and metrics that are read each second; interleaved.

Two gateways and replicas alike but that one pair exports traces, to a receiver in a process of its own, and a third pair that
exports none and shows by how much two processes differ by chance: by more than traces cost. So all are started anew in each
round, and what a share of traces costs is compared with the same processes at 0 %. CPU is that of the processes that serve, the exporters' threads
among it. Exporters send every five seconds, so each case runs for longer than that before it is measured.
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
from tests.benchmarks import parts, processes, report
from tests.benchmarks.load import drive_groups
from tests.benchmarks.tracing_parts import Helper, helper
from tests.integration.replica_process import fresh_replica as replica
from tests.ports import free_port

from penstock.routing.tokens import admin_token, replica_token

OFF = "no traces"
AGAIN = "no traces, other processes"
NOTHING_KEPT = "traces of 0 %"
ONE_OF_A_HUNDRED = "traces of 1 %"
ONE_OF_TEN = "traces of 10 %"
_MOST = 1.05
"""Times what the same processes cost where no trace is kept."""


@dataclass(frozen=True)
class Case:
    """One way to serve."""

    name: str
    pair: str
    ratio: float = 0.0
    scraped: bool = False


CASES = (
    Case(OFF, "off"),
    Case(AGAIN, "again"),
    Case(NOTHING_KEPT, "on", 0.0),
    Case(ONE_OF_A_HUNDRED, "on", 0.01),
    Case(ONE_OF_TEN, "on", 0.1),
    Case("traces of 100 %", "on", 1.0),
    Case("no traces, metrics read each second", "off", scraped=True),
)
_SAME = {"off": OFF, "again": AGAIN, "on": NOTHING_KEPT}
"""By pair, its case without traces and scrapes."""


@dataclass(frozen=True)
class Pair:
    """A gateway and its replica."""

    edge: parts.GatewayProcess
    probes: str
    gateway: tuple[int, ...]
    replica: tuple[int, ...]

    @property
    def metrics(self) -> list[str]:
        """Where Prometheus reads both: a replica's through the gateway."""
        return [f"{self.probes}/metrics", f"{self.probes}/replicas/default/tiny/replica-1/metrics"]


@contextmanager
def pair(folder: Path, model: Path, environment: Mapping[str, str]) -> Iterator[Pair]:
    """A gateway and its replica, on the first core."""
    port = free_port()
    with parts.gateway(folder, environment, ("--probe-port", str(port))) as edge:
        token = replica_token(edge.secret, "default", "tiny")
        with replica(model, environment, gateways=(edge.control_url,), registration_token=token) as started:
            parts.until("the replica's lease", lambda: edge.receiving("default", "tiny"))
            found = Pair(
                edge, f"http://127.0.0.1:{port}", tuple(processes.descendants(edge.pid)), (started.process.pid,)
            )
            for pid in (*found.gateway, *found.replica):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    os.sched_setaffinity(int(task.name), {min(os.sched_getaffinity(0))})
            yield found


def main(arguments: Sequence[str] = ()) -> int:
    """Measure, publish `tracing`; 1 where traces of 1 % cost more than they may."""
    parser = argparse.ArgumentParser(prog="tracing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--warm-seconds", type=float, default=5.5, help="of load before it")
    parser.add_argument("--connections", type=int, default=16)
    given = parser.parse_args(list(arguments))
    cpus = str(max(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory(prefix="pbench") as folder, ExitStack() as stack:
        home = Path(folder)
        body = home / "body.json"
        body.write_bytes(parts.request_body())
        model = parts.dense_model(home / "tiny" / "model.onnx", (64, 10))
        receiver = stack.enter_context(helper(cpus, "receive", folder))
        off = {"OTEL_SDK_DISABLED": "true"}
        on = {"OTEL_SDK_DISABLED": "false", "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.read()}
        rounds = []
        for number in range(given.rounds):
            report.progress(f"round {number + 1} of {given.rounds}")
            with ExitStack() as started:
                pairs = {
                    name: started.enter_context(pair(home / f"{name}{number}", model, environment))
                    for name, environment in (("off", off), ("again", off), ("on", on))
                }
                order = random.sample(CASES, len(CASES))
                rounds.append({each.name: _measure(each, pairs[each.pair], receiver, body, given) for each in order})
    return _publish(rounds, given)


def _measure(case: Case, serving: Pair, receiver: Helper, body: Path, given: argparse.Namespace) -> dict[str, float]:
    edge, cpus = serving.edge, str(max(os.sched_getaffinity(0)))
    route = {"namespace": "default", "model": "tiny", "samplingRatio": case.ratio, "access": {"required": False}}
    parts.http_json(f"{edge.control_url}/v1/routes/default/tiny", "PUT", route, admin_token(edge.secret))
    told = {
        "url": f"{edge.url}/v2/models/tiny/infer", "connections": given.connections, "body": str(body),
        "groups": [serving.gateway, serving.replica], "warm_seconds": given.warm_seconds, "seconds": given.seconds,
    }  # fmt: skip
    command = ["taskset", "-c", cpus, sys.executable, "-m", "tests.benchmarks.tracing", json.dumps(told)]
    spans = receiver.ask()
    with ExitStack() as stack:
        scraper = stack.enter_context(helper(cpus, "scrape", *serving.metrics)) if case.scraped else None
        limit = given.warm_seconds + given.seconds + 60
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=limit)
        if scraper is not None and scraper.end() < given.seconds:
            raise RuntimeError("metrics were read less than once a second")
    found: dict[str, float] = json.loads(done.stdout)
    answers = found["answers/s"] * (given.warm_seconds + given.seconds)
    return found | {"spans": (receiver.ask() - spans) / answers, "all": found["gateway"] + found["replica"]}


def _publish(rounds: list[dict[str, dict[str, float]]], given: argparse.Namespace) -> int:
    def median(name: str, field: str) -> float:
        return statistics.median(each[name][field] for each in rounds)

    def ratios(name: str, base: str, field: str = "all") -> list[float]:
        """In each round by itself: what the machine does otherwise changes from round to round."""
        return sorted(each[name][field] / each[base][field] for each in rounds)

    rows: list[dict[str, Any]] = []
    for case in CASES:
        same = ratios(case.name, _SAME[case.pair])
        rows.append(
            {
                "case": case.name,
                "gateway µs": round(median(case.name, "gateway"), 1),
                "× off": round(statistics.median(ratios(case.name, OFF, "gateway")), 3),
                "replica µs": round(median(case.name, "replica"), 1),
                "replica's × off": round(statistics.median(ratios(case.name, OFF, "replica")), 3),
                "both": round(median(case.name, "all"), 1),
                "both × off": round(statistics.median(ratios(case.name, OFF)), 3),
                "× the same processes": round(statistics.median(same), 3),
                "least to most": f"{same[0]:.3f} to {same[-1]:.3f}",
                "answers/s": round(median(case.name, "answers/s")),
                "spans an answer": round(median(case.name, "spans"), 3),
            }
        )
    title = (
        f"What traces and metrics cost an answer through the gateway (model 64 → 10, JSON, {given.connections} connections; "
        f"medians of {given.rounds} interleaved rounds of {given.seconds:g} s)"
    )
    notes = [
        "all server processes on the first core; clients, receiver and scraper on the last.",
        "ratios are those within a round; the same processes: those of a pair without traces kept and scrapes.",
        "spans are those that arrived: exporters drop what their queue has no room for.",
    ]
    tenth = (statistics.median(ratios(ONE_OF_TEN, NOTHING_KEPT)) - 1) / 10
    notes.append(
        f"a tenth of what traces of 10 % add, which is seen better beside chance than what 1 % add: {tenth:+.1%}."
    )
    report.publish("tracing", title, rows, notes)
    return 0 if statistics.median(ratios(ONE_OF_A_HUNDRED, NOTHING_KEPT)) <= _MOST else 1


async def _drive(told: dict[str, Any], body: bytes) -> dict[str, float]:
    (gateway, serving), answers = await drive_groups(
        told["url"],
        body,
        told["connections"],
        told["groups"],
        warm_seconds=told["warm_seconds"],
        seconds=told["seconds"],
    )
    return {"gateway": gateway, "replica": serving, "answers/s": answers}


if __name__ == "__main__":
    _told = json.loads(sys.argv[1])
    print(json.dumps(uvloop.run(_drive(_told, Path(_told["body"]).read_bytes()))))
