"""More than it carries: 1, 2 and 5 times the capacity, open loop, through the replica's socket and the gateway, beside bare uvicorn.

The capacity is what 64 clients in a closed loop get. Each rate is offered for some seconds, and half of the capacity after it, so
that the time to recover is seen. Other load of the machine takes processor time from all alike, so what is held against the
capacity is answers a second of the servers' CPU time, too: where that share falls, refusals or smaller batches cost it.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks import parts, processes, report
from tests.benchmarks.load import LoadResult, run_load
from tests.benchmarks.open_load import OpenLoad, run_open
from tests.integration.replica_process import fresh_replica as replica
from tests.ports import free_ports

from penstock.routing.tokens import replica_token

FACTORS = (1, 2, 5)
WIDTHS = (64, 4096, 4096, 4096, 10)
"""An MLP whose weights are read once a run, so that joining gains."""
OBJECTIVE_MILLISECONDS = 500
CONNECTIONS = 64
_SETTLED = 0.5
"""Seconds after a change of rate that do not count."""


@dataclass(frozen=True)
class Server:
    """Something that answers, and its processes."""

    name: str
    url: str
    pids: tuple[int, ...]
    beside_the_client: tuple[int, ...] = ()
    """Those of them that run on the second core."""


def main(seconds: float = 5.0) -> None:
    """Measure, and publish `overload`."""
    with tempfile.TemporaryDirectory(prefix="pbench") as folder, ExitStack() as stack:
        home = Path(folder)
        body = home / "body.json"
        body.write_bytes(parts.request_body(WIDTHS[0]))
        servers = _start(stack, home, body)
        cores = sorted(os.sched_getaffinity(0))
        rows = []
        for server in servers:
            _pin(server.pids, cores[:1])
            _pin(server.beside_the_client, cores[-1:])
            for factor in FACTORS:
                report.progress(f"{server.name}: {factor} × its capacity")
                closed = run_load(
                    server.url, body, connections=CONNECTIONS, seconds=2.0, pids=server.pids, cpus=str(cores[-1])
                )
                rates = [factor * closed.requests_per_second, 0.5 * closed.requests_per_second]
                before = processes.cpu_seconds(server.pids)
                seen = run_open(server.url, body, rates, seconds, cpus=str(cores[-1]))
                used = processes.cpu_seconds(server.pids) - before
                rows.append(_row(server.name, factor, closed, seen, seconds=seconds, cpu=used))
    report.publish(
        "overload",
        f"Open loop, MLP {'→'.join(map(str, WIDTHS))}, JSON, objective {OBJECTIVE_MILLISECONDS} ms, {seconds:g} s each; servers on "
        "the first core if nothing else is said, client on the second",
        rows,
        [
            "good/s: answers within the objective, a second. % of capacity: of what 64 closed-loop clients got just before.",
            "% by CPU: the same by the servers' CPU time, over this rate and the half that follows.",
            "recovered: seconds after the rate fell to half until the last answer that missed the objective or was refused.",
            "back in time: of the refused, the share that came when there was room Retry-After seconds later.",
        ],
    )


def _start(stack: ExitStack, home: Path, body: Path) -> list[Server]:
    model = parts.dense_model(home / "m" / "model.onnx", WIDTHS)
    edge = stack.enter_context(parts.gateway(home / "gateway", {"OTEL_SDK_DISABLED": "true"}))
    token = replica_token(edge.secret, "default", "m")
    common: dict[str, Any] = {"model": "m", "slo_milliseconds": OBJECTIVE_MILLISECONDS}
    own = stack.enter_context(replica(model, **common))
    behind = stack.enter_context(replica(model, gateways=(edge.control_url,), registration_token=token, **common))
    parts.until("the replica's lease", lambda: edge.receiving("default", "m"))
    proxied, gateways = f"{edge.url}/v2/models/m/infer", tuple(processes.descendants(edge.pid))
    servers = [
        Server("replica's socket", f"{own.url}/v2/models/m/infer", (own.process.pid,)),
        Server("through the gateway, both on one core", proxied, (behind.process.pid, *gateways)),
        Server("through the gateway, on the client's core", proxied, (behind.process.pid, *gateways), gateways),
    ]
    for name, file in (
        ("bare uvicorn, a batcher that never waits", "batching_uvicorn"),
        ("bare uvicorn", "bare_uvicorn"),
    ):
        (port,) = free_ports(1)
        command = [sys.executable, str(Path(__file__).parent / "peers" / f"{file}.py"), str(model), str(port)]
        child = stack.enter_context(parts.process(command, home / f"{file}.log"))
        url = f"http://127.0.0.1:{port}/"
        parts.until(name, lambda url=url: _answers(url, body))  # type: ignore[misc]  # a lambda's default
        servers.append(Server(name, url, (child.pid,)))
    return servers


def _answers(url: str, body: Path) -> bool:
    return bool(parts.http_json(url, "POST", json.loads(body.read_bytes())))


def _pin(pids: Sequence[int], cores: Sequence[int]) -> None:
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), cores)


def _row(name: str, factor: int, closed: LoadResult, seen: OpenLoad, *, seconds: float, cpu: float) -> dict[str, Any]:
    objective = OBJECTIVE_MILLISECONDS / 1000
    answers = list(zip(seen.due, seen.seconds, seen.statuses, seen.retry_after, strict=True))
    first = [each for each in answers if _SETTLED <= each[0] < seconds]
    accepted = sorted(took for _, took, status, _ in first if status == 200)
    good = sum(
        status == 200 and took <= objective and _SETTLED <= due + took < seconds for due, took, status, _ in answers
    )
    per_second = good / (seconds - _SETTLED)
    missed = [
        due - seconds for due, took, status, _ in answers if due >= seconds and (status != 200 or took > objective)
    ]
    refused = [(due, retry) for due, _, status, retry in first if status == 429]
    statuses = sorted({status for _, _, status, _ in answers})
    by_cpu = sum(status == 200 for _, _, status, _ in answers) / cpu * closed.cpu_us_per_answer / 1e6
    return {
        "server": name,
        "× capacity": factor,
        "capacity/s": round(closed.requests_per_second),
        "good/s": round(per_second),
        "% of capacity": round(100 * per_second / closed.requests_per_second),
        "% by CPU": round(100 * by_cpu),
        "p50 ms": _quantile(accepted, 0.5),
        "p99 ms": _quantile(accepted, 0.99),
        "refused %": round(100 * len(refused) / max(len(first), 1)),
        "refused p50 ms": _quantile(sorted(took for _, took, status, _ in first if status == 429), 0.5),
        "Retry-After s": statistics.median(retry for _, retry in refused) if refused else 0,
        "back in time": round(_true_share(refused, answers), 2) if refused else 1.0,
        "recovered s": round(max(missed, default=0.0), 2),
        "statuses": " ".join(map(str, statuses)),
        "client late ms": round(seen.late_p99 * 1000, 1),
    }


def _true_share(refused: Sequence[tuple[float, int]], answers: Sequence[tuple[float, float, int, int]]) -> float:
    """The share of refusals after whose Retry-After a request that came then was let in: one of the next twenty."""
    came = 0
    asked = 0
    for due, retry in refused[:: max(len(refused) // 200, 1)]:
        later = [status for when, _, status, _ in answers if when >= due + retry][:20]
        if later:
            asked += 1
            came += 200 in later
    return came / max(asked, 1)


def _quantile(ordered: Sequence[float], share: float) -> float:
    return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else 0.0


if __name__ == "__main__":
    main()
