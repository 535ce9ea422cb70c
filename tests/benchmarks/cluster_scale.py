"""A thousand nodes, a hundred tenants, a thousand deployments: how long until all is reconciled, and what it costs.

    python -m tests.benchmarks.cluster_scale [DEPLOYMENTS [NAMESPACES [NODES [GATEWAYS]]]]

See `scale_world` for what is real. KubeRay's own published figure for a thousand RayClusters is 258 s (its pods included).
"""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks import parts, processes, report
from tests.benchmarks.scale_world import POOL, Scale, World, dumped, rays_url, world

from penstock.routing.tokens import admin_token
from penstock_operator.kinds import INFERENCE_DEPLOYMENT, SERVING_POOL
from penstock_operator.pool.kinds import NETWORK_POLICY, RAY_CLUSTER
from penstock_operator.runtime.cluster import SECRET, Key

_PATIENCE = 900.0
_RECONCILES = "penstock_operator_reconciles_total"


@dataclass
class Phase:
    """What one phase cost the operator."""

    name: str
    seconds: float
    cpu: float
    memory: float
    peak: float
    reads: int
    writes: int
    reconciles: int
    requests: Counter[str] = field(default_factory=Counter)
    ray: int = 0

    def row(self) -> dict[str, Any]:
        """As a row of the table."""
        return {
            "phase": self.name,
            "s": round(self.seconds, 1),
            "operator CPU s": round(self.cpu, 1),
            "RSS MiB": round(self.memory),
            "peak MiB": round(self.peak),
            "API reads": self.reads,
            "API writes": self.writes,
            "reconciles": self.reconciles,
            "Ray calls": self.ray,
        }


@dataclass
class Meter:
    """Measures a phase: from its making to `end`."""

    made: World
    name: str
    fresh: bool = False
    """The operator's process begins with the phase."""

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        pid = self._pid()
        self._cpu = 0.0 if self.fresh else processes.cpu_seconds([pid])
        self._requests = Counter() if self.fresh else self.made.requests()
        self._reconciles = 0 if self.fresh else sum(self.made.metrics(_RECONCILES).values())
        self._ray = ray_requests()

    def _pid(self) -> int:
        assert self.made.operator is not None
        return self.made.operator.pid

    def end(self) -> Phase:
        """What it cost."""
        seconds, pid = time.monotonic() - self._began, self._pid()
        requests = self.made.requests() - self._requests
        kinds: Counter[str] = Counter()
        for name, count in requests.items():
            verb, _, resource = name.partition(" ")
            if resource != "leases" and verb != "watch":
                kinds["read" if verb in {"get", "list"} else "write"] += count
        return Phase(
            self.name, seconds, processes.cpu_seconds([pid]) - self._cpu, _status(pid, "VmRSS"), _status(pid, "VmHWM"),
            kinds["read"], kinds["write"], sum(self.made.metrics(_RECONCILES).values()) - self._reconciles,
            requests, ray_requests() - self._ray,
        )  # fmt: skip


def ray_requests() -> int:
    """What all stand-ins for Ray were asked so far."""
    return int(parts.http_json(f"{rays_url()}/standin/requests")["requests"])


def _status(pid: int, name: str) -> float:
    """A line of /proc/PID/status, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def bring_up(made: World) -> Phase:
    """From the first object's creation to the last deployment's readiness."""
    made.start_operator()
    meter = Meter(made, "all Ready")
    made.create_tenants()
    report.progress(f"created in {time.monotonic() - meter._began:.1f} s")
    _until_ready(made, made.scale.deployments)
    return meter.end()


def _until_ready(made: World, count: int) -> None:
    shown = 0.0

    def all_ready() -> bool:
        nonlocal shown
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            report.progress(f"{len(made.ready)} of {count} ready")
        return len(made.ready) >= count

    parts.until("all deployments Ready", all_ready, _PATIENCE, pause=0.2)


def _until_quiet(made: World) -> None:
    """The last events are written behind all else."""

    def quiet() -> bool:
        before = made.requests()["patch events"]
        time.sleep(2.0)
        return made.requests()["patch events"] == before

    parts.until("all events are written", quiet, _PATIENCE)


def rest(made: World, seconds: float) -> Phase:
    """Nothing changes."""
    meter = Meter(made, "at rest")
    time.sleep(seconds)
    return meter.end()


def resync(made: World) -> Phase:
    """A new operator looks at everything once: the old one ends, this one has nothing but what it reads."""
    made.end_operator()
    began = time.monotonic()
    made.start_operator()
    meter = Meter(made, "new operator, all looked at", fresh=True)
    wanted = made.scale.deployments + made.scale.namespaces
    parts.until("all looked at", lambda: sum(made.metrics(_RECONCILES).values()) >= wanted, _PATIENCE, pause=0.2)
    phase = meter.end()
    phase.seconds = time.monotonic() - began
    return phase


def delete(made: World, spaces: list[str]) -> Phase:
    """All of some tenants is deleted while the operator is killed again and again."""
    began = time.monotonic()
    stop = threading.Event()
    killer = threading.Thread(target=_kill_again_and_again, args=(made, stop))
    killer.start()
    for kind in (SERVING_POOL, INFERENCE_DEPLOYMENT):
        for space in spaces:
            for each in made.cluster.list(kind, space).items:
                made.cluster.delete(kind, Key(space, each["metadata"]["name"]))
    killer.join()
    left: list[str] = []

    def gone() -> bool:
        left[:] = leftovers(made, spaces)
        return not left

    try:
        parts.until("nothing is left", gone, _PATIENCE, pause=0.5)
    except TimeoutError as error:
        raise TimeoutError(f"{error}: {left[:20]}") from error
    phase = Meter(made, f"{len(spaces)} pools deleted, 3 kills", fresh=True).end()
    phase.seconds = time.monotonic() - began
    return phase


def _kill_again_and_again(made: World, stop: threading.Event) -> None:
    for pause in (0.3, 1.5, 3.0):
        stop.wait(pause)
        made.end_operator(signal.SIGKILL)
        made.start_operator()


def leftovers(made: World, spaces: list[str]) -> list[str]:
    """What there still is of some tenants: objects, routes at gateways."""
    found = [
        f"{kind.kind} {space}/{each['metadata']['name']}"
        for kind in (INFERENCE_DEPLOYMENT, SERVING_POOL, RAY_CLUSTER, NETWORK_POLICY, SECRET)
        for space in spaces
        for each in made.cluster.list(kind, space).items
    ]
    for url in made.gateway_urls:
        routes = parts.http_json(f"{url}/v1/routes", token=admin_token(made.secret))["routes"]
        found += [
            f"route {each['namespace']}/{each['model']} at {url}" for each in routes if each["namespace"] in spaces
        ]
    return found


def run(scale: Scale, folder: Path, rest_seconds: float) -> list[Phase]:
    """All phases."""
    with world(scale, folder) as made:
        report.progress(f"creating {scale.namespaces} pools and {scale.deployments} deployments")
        phases = [bring_up(made)]
        report.progress(f"at rest for {rest_seconds:g} s")
        _until_quiet(made)
        phases.append(rest(made, rest_seconds))
        report.progress("a new operator")
        phases.append(resync(made))
        report.progress("deleting a tenth")
        phases.append(delete(made, made.spaces[: max(1, scale.namespaces // 10)]))
        assert made.cluster.get(SERVING_POOL, Key(made.spaces[-1], POOL)) is not None or scale.namespaces == 1
        return phases


def main(scale: Scale | None = None, rest_seconds: float = 60.0) -> None:
    """Measure, and publish `cluster-scale`."""
    scale = scale or Scale()
    # So that the operator, which no kernel ends with us, is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="pscale") as folder:
        phases = run(scale, Path(folder), rest_seconds)
    notes = [f"{each.name}: {dumped(each.requests)}" for each in phases]
    title = (
        f"{scale.deployments} deployments in {scale.namespaces} namespaces with a managed pool each, {scale.nodes} nodes "
        f"with 8 GPUs of three types, {scale.gateways} gateways"
    )
    notes.append(
        "etcd, API server, controller manager, kwok, gateways and operator are real and share this machine; one process "
        "stands in for all Ray clusters, and RayClusters are marked ready at once instead of by KubeRay. Reads and writes "
        "leave out watches and the lease."
    )
    report.publish("cluster-scale", title, [each.row() for each in phases], notes)


def _scale(arguments: list[str]) -> Scale:
    names = ("deployments", "namespaces", "nodes", "gateways")
    return Scale(**dict(zip(names, map(int, arguments), strict=False)))


if __name__ == "__main__":
    main(_scale(sys.argv[1:]))
