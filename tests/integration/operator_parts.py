"""A tiny real model, a gateway process, and an operator on an embedded store, for tests of the whole path."""

from __future__ import annotations

import base64
import json
import logging
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tests import preloaded
from tests.integration.local_ray import LocalRay
from tests.ports import free_ports
from tests.waiting import eventually

from penstock.routing.tokens import admin_token
from penstock_operator.kinds import INFERENCE_DEPLOYMENT, SERVING_POOL
from penstock_operator.operation import Operation
from penstock_operator.runtime.cluster import SECRET, Key, Manifest
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
from penstock_operator.settings import Settings

GATEWAY_SECRET = "a-secret-of-the-tests"
_WIDTH = 2048


def scaling_model(path: Path, factor: float, *, idle_layers: int = 0) -> Path:
    """An ONNX model that multiplies rows of four numbers by a factor.

    Args:
        path: of the file.
        factor: by which.
        idle_layers: so many times it multiplies a row by 2048 x 2048 numbers besides, some milliseconds each, for nothing.
    """
    nodes = [helper.make_node("Mul", ["x", "k"], ["y" if not idle_layers else "scaled"])]
    weights = [helper.make_tensor("k", TensorProto.FLOAT, [1], [factor])]
    if idle_layers:
        shapes = {"wide": (4, _WIDTH), "layer": (_WIDTH, _WIDTH), "narrow": (_WIDTH, 4)}
        weights += [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in shapes.items()]
        chain = ["wide", *["layer"] * idle_layers, "narrow"]
        nodes += [
            helper.make_node("MatMul", ["x" if n == 0 else f"h{n - 1}", weight], [f"h{n}"])
            for n, weight in enumerate(chain)
        ]
        nodes.append(helper.make_node("Add", ["scaled", f"h{len(chain) - 1}"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "scale",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


@dataclass
class GatewayProcess:
    """Where a gateway process is."""

    url: str
    agent_url: str


@contextmanager
def gateway_process(folder: Path) -> Iterator[GatewayProcess]:
    """`penstock-gateway` as a child process."""
    secret = folder / "secret"
    secret.write_text(GATEWAY_SECRET)
    port, control = free_ports(2)
    arguments = ["--port", str(port), "--control-port", str(control), "--secret-file", str(secret)]
    arguments += ["--state-dir", str(folder / "state")]
    process = preloaded.start("penstock_serving.gateway.main", arguments, os.environ)
    try:
        yield GatewayProcess(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{control}")
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass
class Platform:
    """An operator on an embedded store, and what it works with."""

    cluster: EmbeddedCluster
    gateway: GatewayProcess
    ray: LocalRay
    events: list[tuple[str, str]] = field(default_factory=list)

    def apply(self, name: str, path: Path, *, digest: str | None = None, **spec: Any) -> None:
        """Apply an `InferenceDeployment`."""
        manifest = {
            "apiVersion": "penstock.dev/v1alpha1",
            "kind": "InferenceDeployment",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "model": {"storageUri": path.as_uri(), "modelFormat": "onnx", **({"digest": digest} if digest else {})},
                "resources": {"cpu": "100m"},
                **spec,
            },
        }
        self.cluster.apply(INFERENCE_DEPLOYMENT, manifest, "test")

    def get(self, name: str) -> Manifest | None:
        """The deployment."""
        return self.cluster.get(INFERENCE_DEPLOYMENT, Key("default", name))

    def condition(self, name: str, kind: str) -> tuple[str, str, str]:
        """Status, reason and message of a condition."""
        status = (self.get(name) or {}).get("status") or {}
        for each in status.get("conditions", ()):
            if each["type"] == kind:
                return each["status"], each["reason"], each.get("message", "")
        return "", "", ""

    def wait(self, name: str, kind: str, status: str, reason: str, patience: float = 120.0) -> str:
        """Wait for a condition; its message."""
        eventually(
            lambda: self.condition(name, kind)[:2] == (status, reason),
            lambda: f"{name}: {kind} {status} {reason}; it is {(self.get(name) or {}).get('status')}",
            patience,
        )
        return self.condition(name, kind)[2]

    def delete(self, name: str) -> None:
        """Delete the deployment."""
        self.cluster.delete(INFERENCE_DEPLOYMENT, Key("default", name))

    def infer(self, name: str, row: list[float]) -> tuple[int, list[float]]:
        """One answer through the gateway: status, and the output."""
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": row}
        request = urllib.request.Request(
            f"{self.gateway.url}/default/v2/models/{name}/infer",
            json.dumps({"inputs": [tensor]}).encode(),
            {"content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, json.load(response)["outputs"][0]["data"]
        except urllib.error.HTTPError as error:
            return error.code, []

    def receiving(self, name: str) -> int:
        """How many replicas the gateway sends requests to."""
        request = urllib.request.Request(
            f"{self.gateway.agent_url}/v1/routes",
            headers={"authorization": f"Bearer {admin_token(GATEWAY_SECRET)}"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            routes = json.load(response)["routes"]
        return sum(each["receiving"] for route in routes if route["model"] == name for each in route["replicas"])

    def applications(self) -> dict[str, str]:
        """Status of each Serve application by name."""
        listed = json.loads(self.ray.get("/api/serve/applications/"))["applications"]
        return {name: each["status"] for name, each in listed.items()}


@contextmanager
def platform(ray: LocalRay, folder: Path) -> Iterator[Platform]:
    """Gateway, store with a pool, and operator."""
    with gateway_process(folder) as gateway:
        cluster = EmbeddedCluster(folder / "cluster.sqlite")
        encoded = base64.b64encode(ray.token.encode()).decode()
        secret = {"metadata": {"name": "ray", "namespace": "default"}, "data": {"token": encoded}}
        cluster.apply(SECRET, secret, "test")
        existing = {
            "address": ray.dashboard_url,
            "serveAddress": ray.serve_url,
            "tokenSecretRef": {"name": "ray", "key": "token"},
        }
        pool = {
            "apiVersion": "penstock.dev/v1alpha1",
            "kind": "ServingPool",
            "metadata": {"name": "default", "namespace": "default"},
            "spec": {"existing": existing},
        }
        cluster.apply(SERVING_POOL, pool, "test")
        built = Platform(cluster, gateway, ray)
        settings = Settings(
            gateways=(gateway.agent_url,), gateway_secret=GATEWAY_SECRET, replica_host="127.0.0.1", workers=4
        )
        operation = Operation(
            cluster,
            settings,
            lambda _object, news: built.events.append((news.reason, news.message)),
            lambda: True,
        )
        operation.start()
        logging.getLogger("httpx").setLevel(logging.WARNING)
        try:
            yield built
        finally:
            for each in cluster.list(INFERENCE_DEPLOYMENT).items:
                built.delete(each["metadata"]["name"])
            eventually(lambda: not cluster.list(INFERENCE_DEPLOYMENT).items, "all deployments deleted")
            operation.stop(10)
            cluster.close()
