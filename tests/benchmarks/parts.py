"""Real parts to measure: models, a gateway process, Serve applications."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tests.integration.local_ray import LocalRay
from tests.ports import free_ports

from penstock.routing.tokens import admin_token


def dense_model(path: Path, widths: tuple[int, ...], seed: int = 0) -> Path:
    """An ONNX model of dense layers with ReLU between, with a dynamic batch axis; input `x`, output `y`."""
    random = np.random.default_rng(seed)
    nodes, weights, name = [], [], "x"
    for layer, (before, after) in enumerate(itertools.pairwise(widths)):
        last = layer == len(widths) - 2
        for kind, shape in (("w", (before, after)), ("b", (after,))):
            array = (random.standard_normal(shape) / np.sqrt(before)).astype(np.float32)
            weights.append(numpy_helper.from_array(array, f"{kind}{layer}"))
        out = "y" if last else f"h{layer}"
        nodes.append(helper.make_node("Gemm", [name, f"w{layer}", f"b{layer}"], [out if last else f"g{layer}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"g{layer}"], [out]))
        name = out
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", widths[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", widths[-1]])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def request_body(width: int = 64, seed: int = 1) -> bytes:
    """A one-row FP32 request in JSON."""
    data = np.random.default_rng(seed).standard_normal(width).astype(np.float32)
    row = [round(float(value), 4) for value in data]
    return json.dumps({"inputs": [{"name": "x", "shape": [1, width], "datatype": "FP32", "data": row}]}).encode()


def http_json(url: str, method: str = "GET", body: object = None, token: str | None = None, timeout: float = 60) -> Any:
    """Call a JSON API; None where the answer is empty."""
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=timeout) as response:
        text = response.read()
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text.decode()


def until(what: str, condition: Callable[[], Any], seconds: float = 180.0, pause: float = 0.1) -> Any:
    """Wait until the condition gives something true, and return it; connection errors count as not yet."""
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = condition()
        except (urllib.error.URLError, OSError) as error:
            last = error
        else:
            if last:
                return last
        time.sleep(pause)
    raise TimeoutError(f"{what}: not within {seconds:.0f} s; last seen: {last!r}")


@contextmanager
def process(
    command: list[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A child in a session of its own, with its output in a file; ended on exit."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            command, stdout=output, stderr=output, env=os.environ | dict(environment or {}), start_new_session=True
        )
    try:
        yield child
    finally:
        end(child)
        # Some servers leave workers behind, which would take from what is measured next.
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def end(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(10)


@dataclass(frozen=True)
class GatewayProcess:
    """A running `penstock-gateway`."""

    url: str
    control_url: str
    secret: str
    secret_file: Path
    pid: int

    def routes(self) -> list[dict[str, Any]]:
        """`GET /v1/routes`."""
        listed: list[dict[str, Any]] = http_json(
            f"{self.control_url}/v1/routes", token=admin_token(self.secret)
        )["routes"]  # fmt: skip
        return listed

    def receiving(self, namespace: str, model: str) -> list[dict[str, Any]]:
        """The replicas that get a model's requests."""
        return [
            replica
            for route in self.routes()
            if (route["namespace"], route["model"]) == (namespace, model)
            for replica in route["replicas"]
            if replica["receiving"]
        ]


@contextmanager
def gateway(
    folder: Path,
    environment: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    host: str = "127.0.0.1",
    control_port: int | None = None,
    *,
    port: int | None = None,
) -> Iterator[GatewayProcess]:
    """A gateway on these ports, or free ones, of a loopback address."""
    free, other = free_ports(2)
    port, control = port or free, control_port or other
    folder.mkdir(parents=True, exist_ok=True)
    secret_file = folder / "secret"
    secret_file.write_text("benchmark-secret")
    command = [
        sys.executable, "-m", "penstock_serving.gateway.main", "--host", host, "--port", str(port),
        "--control-host", host, "--control-port", str(control), "--secret-file", str(secret_file), "--state-dir", str(folder / "state"), *arguments,
    ]  # fmt: skip
    with process(command, folder / "gateway.log", environment) as child:
        url = f"http://{host}:{port}"
        until("the gateway", lambda: http_json(f"{url}/v2/health/live", timeout=5) is not False)
        yield GatewayProcess(url, f"http://{host}:{control}", "benchmark-secret", secret_file, child.pid)


def put_applications(ray: LocalRay, applications: list[dict[str, Any]]) -> None:
    """Declare all of Serve's applications and wait until they run."""
    port = int(ray.serve_url.rpartition(":")[2])
    body = {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1", "port": port},
        "applications": applications,
    }
    url = f"{ray.dashboard_url}/api/serve/applications/"
    http_json(url, "PUT", body, ray.token, timeout=180)

    def running() -> bool:
        found = http_json(url, token=ray.token)["applications"]
        failed = {name: app["message"] for name, app in found.items() if app["status"] == "DEPLOY_FAILED"}
        if failed:
            raise RuntimeError(f"Serve could not deploy: {failed}")
        return all(found.get(app["name"], {}).get("status") == "RUNNING" for app in applications)

    until("Serve's applications", running, 240)
