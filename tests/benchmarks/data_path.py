"""What an answer costs: bare uvicorn, the replica's own socket, through the gateway, and plain Ray Serve, interleaved.

CPU is summed over every process that a request passes through or that supervises one: for the replica its server and its
Ray actor, for the gateway those and HAProxy and the agent, for plain Serve the proxy and the replica. Ray's own daemons
(GCS, raylet, dashboard, Serve's controller) run beside both and are noted apart.
"""

from __future__ import annotations

import hashlib
import os
import random
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks import parts, processes, report
from tests.benchmarks.load import LoadResult, run_load
from tests.integration.local_ray import LocalRay, local_ray
from tests.ports import free_ports

from penstock.api.v1alpha1 import InferenceDeployment
from penstock.routing.tokens import admin_token, former_replica_token
from penstock.serving.arguments import Attempt
from penstock_operator.deployment.application import ReplicaNetwork, build

CONNECTIONS = (1, 16, 64)
BASELINE = "bare uvicorn"
REPLICA, GATEWAY, SERVE = "replica's socket", "through the gateway", "plain Serve, default proxy"


@dataclass(frozen=True)
class Subject:
    """Something that answers."""

    name: str
    url: str
    pids: tuple[int, ...]
    headers: tuple[tuple[str, str], ...] = ()


def main(seconds: float = 4.0, rounds: int = 3) -> None:
    """Measure, and publish `data-path`."""
    with tempfile.TemporaryDirectory(prefix="pbench") as folder, ExitStack() as stack:
        home = Path(folder)
        model = parts.dense_model(home / "tiny" / "model.onnx", (64, 10))
        body = home / "body.json"
        body.write_bytes(parts.request_body())
        report.progress("starting Ray, the gateway and the servers")
        ray = stack.enter_context(local_ray(environment={"PYTHONPATH": str(Path.cwd())}))
        subjects, daemons = start(stack, ray, home, model)
        before, began = processes.cpu_seconds(daemons), time.monotonic()
        rows = []
        for pinned in (True, False):
            pin(subjects, pinned=pinned)
            results = measure(subjects, body, seconds, rounds, pinned=pinned)
            rows += _rows(results, pinned=pinned)
        idle = (processes.cpu_seconds(daemons) - before) / (time.monotonic() - began)
    report.publish(
        "data-path",
        "CPU and requests/s, model 64 → 10, JSON, one replica (medians of "
        f"{rounds} interleaved rounds of {seconds:g} s; client on the second core)",
        rows,
        [
            "pinned: all server processes on the first core. free: no pinning, the client on the second core.",
            f"Ray's daemons beside all of them used {idle:.2f} core on average over the whole run.",
        ],
    )


def start(
    stack: ExitStack, ray: LocalRay, home: Path, model: Path, key: str | None = None
) -> tuple[list[Subject], list[int]]:
    """Start all of them with a model of one input `x`; what answers, and Ray's other processes.

    With a key, the gateway asks for it.
    """
    edge = stack.enter_context(parts.gateway(home / "gateway", {"OTEL_SDK_DISABLED": "true"}))
    deployment = InferenceDeployment.model_validate(
        {
            "metadata": {"name": "tiny", "namespace": "default", "uid": "bench"},
            "spec": {"model": {"storageUri": model.as_uri(), "modelFormat": "onnx"}, "resources": {"cpu": "1"}},
        }
    )
    # With this token, the replica also answers who asks it without the gateway.
    network = ReplicaNetwork(
        (edge.control_url,), former_replica_token(edge.secret, "default", "tiny"), host="127.0.0.1"
    )
    ours = build(deployment, "v1bench", Attempt(), network)
    plain = {
        "name": "plain",
        "route_prefix": "/plain",
        "import_path": "tests.benchmarks.peers.plain_serve:app",
        "args": {"model": str(model)},
    }
    parts.put_applications(ray, [ours, plain])
    headers = require_key(edge, key) if key else ()
    address = parts.until("the replica's lease", lambda: edge.receiving("default", "tiny"))[0]["address"]
    (port,) = free_ports(1)
    uvicorn = [sys.executable, str(Path(__file__).parent / "peers" / "bare_uvicorn.py"), str(model), str(port)]
    bare = stack.enter_context(parts.process(uvicorn, home / "uvicorn.log"))
    parts.until("uvicorn", lambda: _listens(port))
    family = processes.descendants(ray.pid)
    actor = processes.matching(f"ServeReplica:{ours['name']}", family)
    replica = (*actor, *(pid for each in actor for pid in processes.descendants(each) if pid != each))
    proxy = processes.matching("ProxyActor", family) + processes.matching("ServeReplica:plain", family)
    edge_pids = tuple(processes.descendants(edge.pid))
    subjects = [
        Subject(BASELINE, f"http://127.0.0.1:{port}/", (bare.pid,)),
        Subject(REPLICA, f"http://{address}/v2/models/tiny/infer", replica),
        Subject(GATEWAY, f"{edge.url}/v2/models/tiny/infer", (*replica, *edge_pids), headers),
        Subject(SERVE, f"{ray.serve_url}/plain", tuple(proxy)),
    ]
    serving = {pid for subject in subjects for pid in subject.pids}
    return subjects, [pid for pid in family if pid not in serving]


def require_key(edge: parts.GatewayProcess, key: str) -> tuple[tuple[str, str], ...]:
    """Have the gateway ask for an API key; the header that shows it."""
    keys = [{"name": "bench", "sha256": hashlib.sha256(key.encode()).hexdigest()}]
    route = {"namespace": "default", "model": "tiny", "access": {"required": True, "keys": keys}}
    parts.http_json(f"{edge.control_url}/v1/routes/default/tiny", "PUT", route, admin_token(edge.secret))
    return (("Authorization", f"Bearer {key}"),)


def _listens(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        return True


def pin(subjects: Sequence[Subject], *, pinned: bool) -> None:
    """Bind them to the first core, or to none."""
    cores = sorted(os.sched_getaffinity(0))
    for pid in {pid for subject in subjects for pid in subject.pids}:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), cores[:1] if pinned else cores)


def measure(
    subjects: Sequence[Subject],
    body: Path,
    seconds: float,
    rounds: int,
    *,
    pinned: bool,
    connections: Sequence[int] = CONNECTIONS,
) -> dict[tuple[str, int], list[LoadResult]]:
    """Load each at each number of connections, in rounds whose order is drawn anew."""
    client = str(max(os.sched_getaffinity(0)))
    results: dict[tuple[str, int], list[LoadResult]] = {}
    cases = [(subject, count) for subject in subjects for count in connections]
    for number in range(rounds):
        random.shuffle(cases)
        report.progress(f"round {number + 1} of {rounds}, {'pinned' if pinned else 'free'}")
        for subject, count in cases:
            result = run_load(
                subject.url, body, connections=count, seconds=seconds, pids=subject.pids, cpus=client, headers=subject.headers
            )  # fmt: skip
            if result.errors:
                raise RuntimeError(f"{subject.name} at {count} connections: {result.errors} errors")
            results.setdefault((subject.name, count), []).append(result)
    return results


def _rows(results: dict[tuple[str, int], list[LoadResult]], *, pinned: bool) -> list[dict[str, Any]]:
    def median(name: str, count: int, field: str) -> float:
        return statistics.median(getattr(result, field) for result in results[name, count])

    rows = []
    for count in CONNECTIONS:
        for name in (BASELINE, REPLICA, GATEWAY, SERVE):
            cpu = median(name, count, "cpu_us_per_answer")
            rows.append(
                {
                    "cores": "pinned" if pinned else "free",
                    "connections": count,
                    "server": name,
                    "CPU µs/answer": round(cpu, 1),
                    "× bare uvicorn": round(cpu / median(BASELINE, count, "cpu_us_per_answer"), 2),
                    "× gateway": round(cpu / median(GATEWAY, count, "cpu_us_per_answer"), 2),
                    "requests/s": round(median(name, count, "requests_per_second")),
                    "p50 ms": round(median(name, count, "p50_ms"), 3),
                    "p99 ms": round(median(name, count, "p99_ms"), 3),
                }
            )
    return rows


if __name__ == "__main__":
    main()
