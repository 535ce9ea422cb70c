"""A hundred InferenceDeployments on a real API server, against the stand-in for Ray's REST API: the control plane's cost.

The stand-in passes the contract tests that a real Ray passes (tests/contract/test_serve_rest_contract.py); with a real one,
replicas would be measured and not the operator. No gateway: readiness is what Serve says.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.benchmarks import parts, processes, report
from tests.chart.helm import grant_operator_rights
from tests.cluster.binary import build
from tests.cluster.controlplane import ControlPlane
from tests.contract.ray_rest_standin import RayStandIn
from tests.e2e.stack import MANIFESTS, deployment
from tests.ports import free_ports

_SAMPLE = re.compile(r"^apiserver_request_total\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_OURS = {"inferencedeployments", "servingpools", "events", "leases", "secrets"}


def main(count: int = 100, rest_seconds: float = 60.0) -> None:
    """Measure, and publish `hundred-deployments`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pbench")))
        report.progress("booting the API server")
        api = stack.enter_context(ControlPlane(build(report.progress)))
        ray = stack.enter_context(RayStandIn())
        pid = _start(stack, api, ray, folder)
        model = parts.dense_model(folder / "model.onnx", (64, 10))
        items = [deployment("default", f"m{number:03d}", model) for number in range(count)]
        before, memory, cpu = _requests(api), processes.memory_mib(pid), processes.cpu_seconds([pid])
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        report.progress(f"creating {count} deployments")
        began = time.monotonic()
        api.kubectl("create", "-f", "-", input=text)
        created = time.monotonic() - began
        parts.until("all Ready", lambda: _ready(api) == count, 600, pause=1.0)
        ready = time.monotonic() - began
        used = processes.cpu_seconds([pid]) - cpu
        calls = _requests(api) - before
        row = {
            "deployments": count,
            "kubectl create s": round(created, 1),
            "all Ready s": round(ready, 1),
            "operator MiB before": round(memory),
            "operator MiB after": round(processes.memory_mib(pid)),
            "operator CPU s": round(used, 1),
            "API calls each": round(_by_operator(calls) / count, 1),
            "PUTs to Ray": ray.requests.get("PUT", 0),
        }
        report.progress(f"at rest for {rest_seconds:g} s")
        before, cpu, gets = _requests(api), processes.cpu_seconds([pid]), dict(ray.requests)
        time.sleep(rest_seconds)
        resting = _requests(api) - before
        row["calls/min at rest"] = round(_by_operator(resting) * 60 / rest_seconds)
        row["Ray calls/min at rest"] = round((sum(ray.requests.values()) - sum(gets.values())) * 60 / rest_seconds)
        row["core at rest"] = round((processes.cpu_seconds([pid]) - cpu) / rest_seconds, 3)
        split = ", ".join(f"{verb} {what} {number}" for (verb, what), number in sorted(calls.items()) if number)
        report.publish("hundred-deployments", "A hundred deployments, one pool", [row], [f"until Ready: {split}"])


def _start(stack: ExitStack, api: ControlPlane, ray: RayStandIn, folder: Path) -> int:
    api.serve(MANIFESTS / "crds")
    grant_operator_rights(api)
    rights = (MANIFESTS / "rbac" / "pool-token.example.yaml").read_text()
    api.kubectl("apply", "-f", "-", input=rights)
    api.kubectl("create", "secret", "generic", "ray-token", f"--from-literal=token={ray.token}")
    pool = {
        "apiVersion": "penstock.dev/v1alpha1", "kind": "ServingPool", "metadata": {"name": "default"},
        "spec": {"existing": {"address": ray.url, "tokenSecretRef": {"name": "ray-token", "key": "token"}}},
    }  # fmt: skip
    api.kubectl("apply", "-f", "-", input=json.dumps(pool))
    kubeconfig = api.kubeconfig_for("penstock-operator", "penstock-system")
    (health,) = free_ports(1)
    command = [
        sys.executable, "-m", "penstock_operator.main", "--kubeconfig", str(kubeconfig), "--health-port", str(health),
    ]  # fmt: skip
    child = stack.enter_context(parts.process(command, folder / "operator.log"))
    parts.until("the operator leads", lambda: _leads(api), 60)
    time.sleep(2.0)
    return child.pid


def _leads(api: ControlPlane) -> bool:
    found = api.kubectl("get", "lease", "penstock-operator", "-n", "penstock-system", "-o", "json", check=False)
    return found.returncode == 0 and bool(json.loads(found.stdout)["spec"].get("holderIdentity"))


def _ready(api: ControlPlane) -> int:
    items: list[dict[str, Any]] = json.loads(api.kubectl("get", "infdep", "-o", "json").stdout)["items"]
    return sum(
        any(c["type"] == "Ready" and c["status"] == "True" for c in item.get("status", {}).get("conditions", []))
        for item in items
    )


def _requests(api: ControlPlane) -> Counter[tuple[str, str]]:
    """Requests so far by verb and resource (with subresource), of the resources that the operator uses."""
    found: Counter[tuple[str, str]] = Counter()
    for labels, value in _SAMPLE.findall(api.kubectl("get", "--raw", "/metrics").stdout):
        label = dict(_LABEL.findall(labels))
        if label["resource"] in _OURS:
            name = f"{label['resource']}/{label['subresource']}" if label["subresource"] else label["resource"]
            found[label["verb"], name] += int(float(value))
    return found


def _by_operator(calls: Counter[tuple[str, str]]) -> int:
    """Without what this benchmark asked itself: its creates, and its lists while it waited."""
    return sum(
        number
        for (verb, name), number in calls.items()
        if (verb, name) not in {("POST", "inferencedeployments"), ("LIST", "inferencedeployments")}
    )


if __name__ == "__main__":
    main()
