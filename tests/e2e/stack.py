"""The whole platform on real parts: an API server, a Ray, a gateway, operators. For end-to-end tests and benchmarks."""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from tests.benchmarks import parts, processes
from tests.chart.helm import grant_operator_rights
from tests.cluster.controlplane import ControlPlane
from tests.integration.local_ray import LocalRay
from tests.ports import free_ports

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"


@dataclass
class Operator:
    """An operator process; `kill` and `start` again as often as wanted."""

    command: list[str]
    log: Path
    environment: Mapping[str, str]
    child: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        """Start it; returns at once."""
        with self.log.open("ab") as output:
            self.child = subprocess.Popen(
                self.command, stdout=output, stderr=output, env=os.environ | dict(self.environment),
                start_new_session=True,
            )  # fmt: skip

    def kill(self) -> None:
        """SIGKILL."""
        assert self.child is not None
        self.child.kill()
        self.child.wait(10)

    def stop(self) -> None:
        """SIGTERM and wait."""
        if self.child is not None:
            parts.end(self.child)


@dataclass
class Platform:
    """Everything that runs, and how to reach it."""

    api: ControlPlane
    ray: LocalRay
    gateway: parts.GatewayProcess
    folder: Path
    environment: Mapping[str, str]
    client: httpx.Client
    operators: list[Operator] = field(default_factory=list)
    others: tuple[parts.GatewayProcess, ...] = ()
    """Gateways beside the first, with the same secret."""

    def operator(self, identity: str) -> Operator:
        """Another operator with the least-privilege identity of the chart."""
        (health,) = free_ports(1)
        kubeconfig = self.api.kubeconfig_for("penstock-operator", "penstock-system")
        command = [
            sys.executable, "-m", "penstock_operator.main", "--kubeconfig", str(kubeconfig),
            *(word for each in (self.gateway, *self.others) for word in ("--gateway", each.control_url)),
            "--gateway-secret-file", str(self.gateway.secret_file), "--replica-host", "127.0.0.1", "--identity", identity, "--health-port", str(health),
        ]  # fmt: skip
        found = Operator(command, self.folder / f"{identity}.log", self.environment)
        self.operators.append(found)
        return found

    def kubectl(self, *arguments: str, manifest: object = None, check: bool = True) -> str:
        """Run kubectl as admin; its standard output (and standard error where it may fail)."""
        text = None if manifest is None else json.dumps(manifest)
        done = self.api.kubectl(*arguments, input=text, check=check)
        return done.stdout if check else done.stdout + done.stderr

    def add_tenant(self, namespace: str) -> None:
        """A namespace with a pool, its token, and the right of the operator to read that one Secret."""
        token = base64.b64encode(self.ray.token.encode()).decode()
        secret = {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ray-token", "namespace": namespace},
            "data": {"token": token},
        }  # fmt: skip
        pool = {
            "apiVersion": "penstock.dev/v1alpha1", "kind": "ServingPool",
            "metadata": {"name": "default", "namespace": namespace},
            "spec": {"existing": {
                "address": self.ray.dashboard_url, "serveAddress": self.ray.serve_url,
                "tokenSecretRef": {"name": "ray-token", "key": "token"},
            }},
        }  # fmt: skip
        rights = list(yaml.safe_load_all((MANIFESTS / "rbac" / "pool-token.example.yaml").read_text()))
        for each in rights:
            each["metadata"]["namespace"] = namespace
            for rule in each.get("rules", ()):
                rule["resourceNames"] = ["ray-token"]
        items = [secret, pool, *rights]
        self.kubectl("apply", "-f", "-", manifest={"apiVersion": "v1", "kind": "List", "items": items})

    @contextmanager
    def tenant(self) -> Iterator[str]:
        """A namespace with a pool; its deployments are taken down afterwards."""
        name = f"tenant-{secrets.token_hex(3)}"
        self.kubectl("create", "namespace", name)
        self.add_tenant(name)
        yield name
        self.kubectl("delete", "infdep", "--all", "-n", name, "--timeout=120s")
        self.kubectl("delete", "namespace", name, "--wait=false")

    def read(self, path: str) -> dict[str, Any]:
        """An object of the API as it is. Tests ask for some again and again: a process of kubectl each would take a core."""
        found: dict[str, Any] = self.client.get(path).raise_for_status().json()
        return found

    def get(self, namespace: str, name: str) -> dict[str, Any]:
        """An InferenceDeployment as it is."""
        return self.read(f"/apis/penstock.dev/v1alpha1/namespaces/{namespace}/inferencedeployments/{name}")

    def condition(self, namespace: str, name: str, kind: str) -> dict[str, Any]:
        """One of its conditions; empty while it has none."""
        conditions = self.get(namespace, name).get("status", {}).get("conditions", [])
        return next((each for each in conditions if each["type"] == kind), {})

    def until_ready(self, namespace: str, name: str, seconds: float = 180.0) -> dict[str, Any]:
        """Wait until it is Ready for its present generation, and return it."""

        def ready() -> dict[str, Any] | None:
            found = self.get(namespace, name)
            status = found.get("status", {})
            current = status.get("observedGeneration") == found["metadata"]["generation"]
            good = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))
            return found if current and good else None

        result: dict[str, Any] = parts.until(f"{namespace}/{name} Ready", ready, seconds, pause=0.3)
        return result

    def serve_applications(self) -> dict[str, Any]:
        """What Serve runs."""
        url = f"{self.ray.dashboard_url}/api/serve/applications/"
        found: dict[str, Any] = parts.http_json(url, token=self.ray.token)["applications"]
        return found

    def replica_processes(self, namespace: str, name: str, revision: str = "") -> list[int]:
        """The replica servers (not their actors) of one model, or of one of its revisions."""
        family = processes.descendants(self.ray.pid)
        which = f"{revision}:" if revision else ""
        actors = processes.matching(f"ServeReplica:penstock-{namespace}-{name}-{which}", family)
        servers = [pid for actor in actors for pid in processes.descendants(actor) if pid != actor]
        return processes.matching("penstock_serving.replica", servers)


def deployment(namespace: str, name: str, model: Path, **spec: Any) -> dict[str, Any]:
    """An InferenceDeployment of an ONNX model."""
    return {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "InferenceDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"model": {"storageUri": model.as_uri(), "modelFormat": "onnx"}, "resources": {"cpu": "100m"}} | spec,
    }


@contextmanager
def platform(
    api: ControlPlane, ray: LocalRay, folder: Path, environment: Mapping[str, str] | None = None, gateways: int = 1
) -> Iterator[Platform]:
    """CRDs, rights, gateways and one operator on an API server and a Ray that are up."""
    env = dict(environment or {})
    api.serve_once(MANIFESTS / "crds")
    grant_operator_rights(api)
    with ExitStack() as stack:
        edge = stack.enter_context(parts.gateway(folder / "gateway", env))
        others = [
            stack.enter_context(parts.gateway(folder / f"gateway-{each}", env)) for each in range(2, gateways + 1)
        ]
        built = Platform(api, ray, edge, folder, env, stack.enter_context(api.client()), others=tuple(others))
        stack.callback(lambda: [each.stop() for each in built.operators])
        built.operator("operator-a").start()
        yield built
