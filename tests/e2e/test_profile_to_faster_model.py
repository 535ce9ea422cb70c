"""A profile named in a deployment: the model serves at once, a real search runs beside it, and the faster model takes over.

The standalone home's own parts: its gateway and its operator are processes, and the search is a process of the operator.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.benchmarks.parts import dense_model
from tests.integration.local_ray import LocalRay
from tests.ports import free_ports
from tests.waiting import eventually

from penstock.api.v1alpha1 import InferenceDeployment
from penstock.serving.manifest import MANIFEST_NAME, DataType, ModelManifest, TensorSpec
from penstock_cli.demo.load import request_body
from penstock_cli.demo.optimization import send_meanwhile, wait_for_verdict, wait_until_optimized
from penstock_cli.objects.readiness import wait_until_ready
from penstock_cli.objects.resources import FIELD_MANAGER, kind_of
from penstock_cli.standalone.declarations import declare_pool
from penstock_cli.standalone.gateway import GatewayProcess
from penstock_cli.standalone.operator import OperatorProcess
from penstock_cli.standalone.ray_head import RayAccess
from penstock_cli.standalone.state import StateFolder
from penstock_cli.target import open_embedded
from penstock_operator.kinds import INFERENCE_DEPLOYMENT
from penstock_operator.runtime.cluster import JOB, Cluster, Key
from penstock_runtime.signing import verify

pytestmark = [pytest.mark.ray, pytest.mark.alone, pytest.mark.timeout(900)]

KEY = Key("default", "dense")
PATIENCE = 400.0
ROWS = 256
LAYERS = (ROWS, 1024, 1024, 1024, 16)
"""16 MB of weights, which one request must read: a quarter of that, in int8, is read faster on any machine."""
PROFILE = {
    "apiVersion": "penstock.dev/v1alpha1",
    "kind": "OptimizationProfile",
    "metadata": {"name": "int8", "namespace": "default"},
    "spec": {
        "steps": {"quantize": {"methods": ["Dynamic"]}},
        "engines": ["ONNXRuntime"],
        "workload": {"scenario": "SingleStream", "batchSizes": [1], "maxBatchSize": 4},
        "constraints": {"accuracy": {"minValue": "0.95"}},
        "search": {"budgetMinutes": 5, "finalists": 1},
    },
}


@dataclass(frozen=True)
class StandalonePlatform:
    """A standalone platform."""

    cluster: Cluster
    gateway: GatewayProcess
    state: StateFolder


@pytest.fixture
def home(ray_head: LocalRay, tmp_path: Path) -> Iterator[StandalonePlatform]:
    state = StateFolder(tmp_path / "state")
    state.create()
    (port,) = free_ports(1)
    with ExitStack() as stack:
        gateway = GatewayProcess(state, os.environ, port)
        stack.callback(gateway.child.stop)
        cluster = open_embedded(state)
        stack.callback(cluster.close)
        gateway.wait_ready()
        operator = OperatorProcess(state, os.environ, gateway.agent_url, tmp_path / "workspace")
        stack.callback(operator.child.stop)
        operator.wait_ready()
        declare_pool(cluster, RayAccess(ray_head.dashboard_url, ray_head.serve_url, ray_head.token))
        yield StandalonePlatform(cluster, gateway, state)
        cluster.delete(INFERENCE_DEPLOYMENT, KEY)
        eventually(lambda: cluster.get(INFERENCE_DEPLOYMENT, KEY) is None, "the deployment is gone", 60)


def applied(home: StandalonePlatform) -> str | None:
    manifest = home.cluster.get(INFERENCE_DEPLOYMENT, KEY)
    assert manifest is not None
    conditions = InferenceDeployment.model_validate(manifest).status.conditions
    return next((each.status for each in conditions if each.type == "ProfileApplied"), None)


def test_a_profile_makes_a_faster_model_serve_and_no_request_fails(home: StandalonePlatform, tmp_path: Path) -> None:
    model = dense_model(tmp_path / "model" / "model.onnx", LAYERS, 0)
    deployment: dict[str, Any] = {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "InferenceDeployment",
        "metadata": {"name": KEY.name, "namespace": KEY.namespace},
        "spec": {
            "model": {"storageUri": model.as_uri(), "modelFormat": "onnx"},
            "optimizationProfileRef": {"kind": "OptimizationProfile", "name": "int8"},
        },
    }
    for manifest in (PROFILE, deployment):
        home.cluster.apply(kind_of(manifest), manifest, FIELD_MANAGER)
    said: list[str] = []
    ready = wait_until_ready(home.cluster, KEY, PATIENCE, said.append, lambda: None)
    baseline = ready.status
    assert applied(home) == "Unknown"

    tensor = TensorSpec(name="x", datatype=DataType.FP32, shape=(-1, ROWS))
    body = request_body(tensor, np.linspace(-1, 1, ROWS, dtype=np.float32))
    with send_meanwhile(f"{baseline.url}/infer", body) as exchange:
        run = wait_for_verdict(home.cluster, KEY, PATIENCE, said.append, lambda: None)
        assert run.status.verdict == "Accepted", run.status.summary
        optimized = wait_until_optimized(home.cluster, KEY, PATIENCE, said.append, lambda: None).status
    assert exchange.failed == 0, [each for each in exchange.answers if each.predicted is None][:3]
    assert len(exchange.answers) > 50
    assert len({each.predicted for each in exchange.answers}) == 1

    assert optimized.active_revision != baseline.active_revision
    assert run.status.artifact is not None
    assert optimized.digest == run.status.artifact.digest != baseline.digest
    folder = Path(run.status.artifact.storage_uri.removeprefix("file://"))
    verify(folder, [home.state.public_key_file.read_text()])
    manifest = ModelManifest.model_validate_json((folder / MANIFEST_NAME).read_bytes())
    assert manifest.optimization is not None
    assert manifest.optimization.profile == "OptimizationProfile/int8"
    assert (Path(str(run.status.report_uri).removeprefix("file://")) / "report.html").is_file()
    (job,) = home.cluster.list(JOB, "default").items
    assert job["status"]["succeeded"] == 1
