"""A control plane with many fake nodes, stand-ins for Ray and KubeRay, gateways, and the real operator as a process.

What is real: etcd, the API server and the controller manager, kwok, the gateways, the operator. What stands in: one process
answers for every Ray cluster (`many_rays`), and this one marks each RayCluster ready at once, as KubeRay would after its pods
run. So the figures are those of the operator, of its API requests and of the gateways, not of KubeRay or Ray.

Names are real too: the operator finds pools and gateways by name in an /etc/hosts of its own, in a mount namespace.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks import parts, report
from tests.chart.helm import grant_operator_rights
from tests.cluster.binary import build
from tests.cluster.controlplane import ControlPlane
from tests.cluster.kuberay import manifests as kuberay_manifests
from tests.cluster.kwok import fake_node, kwok
from tests.ports import free_ports

from penstock_operator.kinds import INFERENCE_DEPLOYMENT, SERVING_POOL
from penstock_operator.pool.kinds import RAY_CLUSTER
from penstock_operator.pool.names import head_service, ray_cluster
from penstock_operator.runtime.cluster import NAMESPACE, Key, Manifest, ResourceKind, key_of
from penstock_operator.runtime.cluster.kubernetes import KubernetesCluster
from penstock_operator.runtime.copies.change import Change
from penstock_operator.runtime.copies.informer import Informer

CRDS = Path(__file__).resolve().parents[2] / "manifests" / "crds"
POOL = "default"
GATEWAYS = "gateways.penstock.test"
GPUS = ("nvidia-l4", "nvidia-a100", "nvidia-h100")
_RAYS = "127.0.77.1"
_DASHBOARD_PORT = 8265
_NODE = ResourceKind("", "v1", "Node", "nodes", namespaced=False, has_status=True)
_SAMPLE = re.compile(r"^(\w+)\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    nodes: int = 1000
    namespaces: int = 100
    deployments: int = 1000
    gateways: int = 2


@dataclass
class World:
    """All that runs, and the operator that is started and killed."""

    scale: Scale
    plane: ControlPlane
    cluster: KubernetesCluster
    folder: Path
    gateway_port: int
    """Of gateways' control API."""
    front_port: int
    """Of their front door."""
    secret: str
    ready: set[Key] = field(default_factory=set)
    deployments: Informer | None = None
    operator: subprocess.Popen[bytes] | None = None
    health_port: int = 0
    operators: int = 0

    @property
    def spaces(self) -> list[str]:
        """The tenants' namespaces."""
        return [f"tenant-{number:03d}" for number in range(self.scale.namespaces)]

    @property
    def gateway_urls(self) -> list[str]:
        """The agents' own addresses."""
        return [f"http://{_gateway_host(index)}:{self.gateway_port}" for index in range(self.scale.gateways)]

    def create_tenants(self) -> None:
        """Pools, then deployments, as fast as the API takes them."""
        pools = [_pool(space) for space in self.spaces]
        models = [_deployment(self.spaces[n % len(self.spaces)], n) for n in range(self.scale.deployments)]

        _all(lambda each: self.cluster.create(SERVING_POOL, each), pools)
        _all(lambda each: self.cluster.create(INFERENCE_DEPLOYMENT, each), models)

    def start_operator(self) -> None:
        """A new operator process."""
        (self.health_port,) = free_ports(1)
        self.operators += 1
        log = self.folder / f"operator-{self.operators}.log"
        command = [
            sys.executable, "-m", "penstock_operator.main",
            "--kubeconfig", str(self.plane.kubeconfig_for("penstock-operator", "penstock-system")),
            "--gateway", f"http://{GATEWAYS}:{self.gateway_port}", "--gateway-secret-file", str(self.folder / "secret"),
            "--runtime-image", "penstock/runtime:bench", "--health-port", str(self.health_port),
        ]  # fmt: skip
        with log.open("ab") as output:
            self.operator = subprocess.Popen(
                _with_names(self.folder / "hosts", command), stdout=output, stderr=output, start_new_session=True
            )
        parts.until("the operator is ready", lambda: parts.http_json(f"{self._health}/readyz") == "ok", 120)

    @property
    def _health(self) -> str:
        return f"http://127.0.0.1:{self.health_port}"

    def end_operator(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, in whatever way."""
        if self.operator is not None:
            self.operator.send_signal(number)
            self.operator.wait(60)
            self.operator = None

    def metrics(self, name: str) -> Counter[tuple[str, ...]]:
        """A counter of the operator's, by its labels' values in the order of their names."""
        found: Counter[tuple[str, ...]] = Counter()
        for metric, labels, value in _SAMPLE.findall(str(parts.http_json(f"{self._health}/metrics"))):
            if metric == name:
                found[tuple(value for _, value in sorted(_LABEL.findall(labels)))] += int(float(value))
        return found

    def requests(self) -> Counter[str]:
        """What the operator has asked of the API, by `verb resource`."""
        found: Counter[str] = Counter()
        for (_, resource, verb), count in self.metrics("penstock_operator_api_requests_total").items():
            found[f"{verb} {resource}"] += count
        return found

    def follow(self) -> None:
        """Keep `ready` up to date."""
        self.deployments = Informer(self.cluster, INFERENCE_DEPLOYMENT, self._seen)
        self.deployments.start()

    def _seen(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self._note(change.objects[0])

    def _note(self, each: Manifest) -> None:
        conditions = (each.get("status") or {}).get("conditions") or ()
        good = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        (self.ready.add if good else self.ready.discard)(key_of(each))


@contextmanager
def world(scale: Scale, folder: Path) -> Iterator[World]:
    """Everything but tenants and operator."""
    with ExitStack() as stack:
        report.progress("booting the API server")
        plane = stack.enter_context(ControlPlane(build(report.progress)))
        for crds in (CRDS, kuberay_manifests(report.progress) / "crd" / "bases"):
            plane.serve(crds)
        grant_operator_rights(plane)
        cluster = KubernetesCluster.connect(plane.kubeconfig)
        stack.callback(cluster.close)
        made = World(scale, plane, cluster, folder, *free_ports(2), secrets.token_hex(16))
        (folder / "secret").write_text(made.secret)
        _write_names(made)
        if scale.nodes:
            report.progress(f"creating {scale.nodes} nodes")
            _all(lambda each: cluster.create(_NODE, each), [_node(number) for number in range(scale.nodes)])
            stack.enter_context(kwok(plane.kubeconfig, folder, report.progress))
        for space in made.spaces:
            cluster.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}})
        for index in range(scale.gateways):
            stack.enter_context(_gateway(made, index))
        rays = [sys.executable, "-m", "tests.benchmarks.many_rays", _RAYS, str(_DASHBOARD_PORT)]
        stack.enter_context(parts.process(_dies_with_us(_with_names(folder / "hosts", rays)), folder / "rays.log"))
        parts.until("the stand-ins for Ray answer", lambda: parts.http_json(f"{rays_url()}/standin/requests"), 60)
        marker = Informer(cluster, RAY_CLUSTER, _Marker(cluster))
        marker.start()
        stack.callback(marker.stop)
        made.follow()
        stack.callback(made.end_operator, signal.SIGKILL)
        yield made
        cluster.close()


class _Marker:
    """What KubeRay would say of a RayCluster whose pods run, and what goes with one that is deleted."""

    def __init__(self, cluster: KubernetesCluster) -> None:
        self._cluster = cluster
        self._lock = threading.Lock()

    def __call__(self, changes: Sequence[Change]) -> None:
        for key in {key_of(each.objects[0]) for each in changes}:
            found = self._cluster.get(RAY_CLUSTER, key)
            if found is None:
                parts.http_json(f"{rays_url()}/standin/{head_service(key.name)}.{key.namespace}.svc", "DELETE")
            elif not (found.get("status") or {}).get("conditions"):
                self._cluster.apply_status(RAY_CLUSTER, found | {"status": _running()}, "stand-in")


def rays_url() -> str:
    """The process that stands in for all Ray clusters."""
    return f"http://{_RAYS}:{_DASHBOARD_PORT}"


def _running() -> Manifest:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    conditions = [
        {"type": kind, "status": "True", "reason": "StandIn", "message": "", "lastTransitionTime": now}
        for kind in ("HeadPodReady", "RayClusterProvisioned")
    ]
    return {"conditions": conditions, "state": "ready", "desiredWorkerReplicas": 0, "readyWorkerReplicas": 0}


def _node(number: int) -> Manifest:
    kind = GPUS[number % len(GPUS)]
    return fake_node(f"gpu-{number:04d}", {"nvidia.com/gpu": "8"}, {"penstock.dev/accelerator-type": kind})


def _pool(space: str) -> Manifest:
    groups = [
        {
            "name": kind, "cpu": "8", "memory": "64Gi", "accelerator": {"type": kind, "count": 8},
            "minWorkers": 0, "maxWorkers": 4,
        }
        for kind in GPUS
    ]  # fmt: skip
    return {
        "apiVersion": "penstock.dev/v1alpha1", "kind": "ServingPool", "metadata": {"name": POOL, "namespace": space},
        "spec": {"managed": {"workerGroups": groups}},
    }  # fmt: skip


def _deployment(space: str, number: int) -> Manifest:
    return {
        "apiVersion": "penstock.dev/v1alpha1", "kind": "InferenceDeployment",
        "metadata": {"name": f"m{number:04d}", "namespace": space},
        "spec": {
            "model": {"storageUri": f"s3://models/m{number}/1", "modelFormat": "onnx"},
            "resources": {"cpu": "1", "accelerator": {"type": GPUS[number % len(GPUS)], "count": "1"}},
            "scaling": {"minReplicas": 1, "maxReplicas": 4},
        },
    }  # fmt: skip


def _all(what: object, manifests: Sequence[Manifest]) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(what, manifests))  # type: ignore[arg-type]


def _gateway_host(index: int) -> str:
    return f"127.0.77.{index + 10}"


@contextmanager
def _gateway(made: World, index: int) -> Iterator[None]:
    host = _gateway_host(index)
    command = [
        sys.executable, "-m", "penstock_serving.gateway.main", "--host", host, "--port", str(made.front_port),
        "--control-host", host, "--control-port", str(made.gateway_port),
        "--secret-file", str(made.folder / "secret"), "--state-dir", str(made.folder / f"g{index}"),
        "--await-operator-seconds", "60", "--drain-seconds", "0",
    ]  # fmt: skip
    log = made.folder / f"gateway-{index}.log"
    with parts.process(_dies_with_us(command), log) as started:
        url = f"http://{host}:{made.gateway_port}"

        def answers() -> bool:
            assert started.poll() is None, f"a gateway ended: {log.read_text()[-2000:]}"
            return bool(parts.http_json(f"{url}/healthz") == "ok")

        parts.until("a gateway answers", answers)
        yield


def _write_names(made: World) -> None:
    """Who is where, as a cluster's name server would tell."""
    lines = ["127.0.0.1 localhost"]
    lines += [f"{_RAYS} {head_service(ray_cluster(POOL))}.{space}.svc" for space in made.spaces]
    lines += [f"{_gateway_host(index)} {GATEWAYS}" for index in range(made.scale.gateways)]
    (made.folder / "hosts").write_text("\n".join(lines) + "\n")


def _with_names(hosts: Path, command: Sequence[str]) -> list[str]:
    """The command in a mount namespace with this /etc/hosts."""
    apart = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    script = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'
    return [*apart, "sh", "-c", script, "sh", str(hosts), *command]


def _dies_with_us(command: Sequence[str]) -> list[str]:
    """The command, killed by the kernel when the thread that starts it ends, however it does."""
    return ["setpriv", "--pdeathsig", "KILL", *command]


def dumped(counts: Counter[str]) -> str:
    """Counts in one line, most first."""
    return ", ".join(f"{name} {count}" for name, count in counts.most_common() if count) or "none"
