"""From an installed chart to a model's first answer, and what others get."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from onnxruntime import InferenceSession
from tests.benchmarks.parts import dense_model
from tests.chart.helm import NAMESPACE, helm
from tests.e2e.cluster.installation import GATEWAY, RELEASE, Installation, Tenant, condition, deployment, tenant
from tests.e2e.cluster.model_store import ModelStore

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def gateway(installation: Installation) -> Iterator[httpx.Client]:
    """A client of the gateway's Service."""
    namespace, name, port = GATEWAY
    with installation.cluster.forward(name, namespace, port) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def served(installation: Installation, store: ModelStore, model_uri: str) -> Iterator[Tenant]:
    """A tenant with one model, and no pool of its own making."""
    with tenant(installation, store.credentials()) as made:
        made.apply(deployment("dense", model_uri))
        installation.until_ready("infdep", made.namespace, "dense")
        yield made


def test_the_chart_tests_itself(installation: Installation) -> None:
    assert "Phase:          Succeeded" in helm(
        "test", RELEASE, "-n", NAMESPACE, kubeconfig=installation.cluster.kubeconfig
    )


def test_a_namespace_without_a_pool_gets_the_default(served: Tenant) -> None:
    found = served.installation.get("servingpool", served.namespace, "default")
    assert condition(found, "Ready")["status"] == "True"
    assert found["status"]["rayCluster"] == "penstock-default"


def test_the_answer_is_the_models(served: Tenant, gateway: httpx.Client, body: Path, tmp_path: Path) -> None:
    answer = gateway.post(served.path("dense"), content=body.read_bytes(), headers=served.headers)
    assert answer.status_code == 200, answer.text
    session = InferenceSession(dense_model(tmp_path / "model.onnx", (64, 32, 10)))
    given = np.array(json.loads(body.read_bytes())["inputs"][0]["data"], np.float32).reshape(1, 64)
    (wanted,) = session.run(None, {"x": given})
    np.testing.assert_allclose(answer.json()["outputs"][0]["data"], wanted[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer not-a-token"}], ids=["no token", "another token"])
def test_ray_tells_nothing_to(served: Tenant, headers: dict[str, str]) -> None:
    # KubeRay's own Service of the head has no address, which a port could be forwarded to.
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "dashboard"},
        "spec": {"selector": {"ray.io/node-type": "head"}, "ports": [{"port": 8265, "targetPort": 8265}]},
    }
    served.apply(service)
    with served.installation.cluster.forward("dashboard", served.namespace, 8265) as url:
        for path in ("/api/serve/applications/", "/api/jobs/", "/nodes?view=summary"):
            answer = httpx.get(f"{url}{path}", headers=headers, timeout=30)
            assert answer.status_code in {401, 403}, f"{path}: {answer.status_code} {answer.text}"


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer not-a-key"}], ids=["no key", "a key that is none"])
def test_nobody_is_answered_with(served: Tenant, gateway: httpx.Client, body: Path, headers: dict[str, str]) -> None:
    answer = gateway.post(served.path("dense"), content=body.read_bytes(), headers=headers)
    assert answer.status_code == 401, answer.text
    assert "outputs" not in answer.text


def test_another_tenants_key_opens_nothing(
    served: Tenant, installation: Installation, store: ModelStore, gateway: httpx.Client, body: Path
) -> None:
    with tenant(installation, store.credentials()) as other:
        answer = gateway.post(served.path("dense"), content=body.read_bytes(), headers=other.headers)
        assert answer.status_code in {401, 403}, answer.text
