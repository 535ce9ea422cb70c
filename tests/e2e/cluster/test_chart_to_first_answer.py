"""From an installed chart to a model's first answer, what others get, what reaches its pods, and the traces of it all."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from onnxruntime import InferenceSession
from tests.benchmarks.parts import dense_model
from tests.chart.helm import NAMESPACE, helm
from tests.e2e.cluster.collected import REQUEST, START, parent, start_in, until_whole
from tests.e2e.cluster.installation import (
    GATEWAY,
    RELEASE,
    Installation,
    Object,
    Tenant,
    condition,
    deployment,
    tenant,
    until,
)
from tests.e2e.cluster.model_store import ModelStore
from tests.e2e.cluster.probing import Place, listening, opened, prober

from penstock.telemetry import names

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]


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
            answer = until("the Service leads to the head", partial(_answer, f"{url}{path}", headers), 60)
            assert answer.status_code in {401, 403}, f"{path}: {answer.status_code} {answer.text}"


def _answer(url: str, headers: dict[str, str]) -> httpx.Response | None:
    """None while a fresh Service leads nowhere yet."""
    try:
        return httpx.get(url, headers=headers, timeout=30)
    except httpx.TransportError:
        return None


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


_METRICS = {"head": 8080, "worker": 8080, "gateway": 8083, "operator": 8082}
_AGENTS = (8081, 8084)


@pytest.fixture(scope="module")
def pods(served: Tenant) -> dict[str, Object]:
    """A pod of each kind: the tenant's and the platform's."""
    if not served.installation.cluster.enforces_policies:
        pytest.skip("nothing enforces NetworkPolicies in this cluster")
    here, system = served.namespace, NAMESPACE
    where = {
        "head": (here, "ray.io/node-type=head"), "worker": (here, "ray.io/node-type=worker"),
        "gateway": (system, "app.kubernetes.io/component=gateway"),
        "operator": (system, "app.kubernetes.io/component=operator"),
    }  # fmt: skip
    return {kind: served.installation.list("pod", *place)[0] for kind, place in where.items()}


def _at(pods: dict[str, Object], kind: str, port: int) -> Place:
    return pods[kind]["status"]["podIP"], port


def test_no_packet_of_another_namespace_reaches_head_replicas_or_agents_but_by_leave_of_a_policy(
    served: Tenant, pods: dict[str, Object]
) -> None:
    installation = served.installation
    rays = [listening(installation, served.namespace, pods[kind]) for kind in ("head", "worker")]
    assert all(rays), rays
    assert _at(pods, "head", 8265) in rays[0]
    closed = [*rays[0], *rays[1], *(_at(pods, "gateway", port) for port in (*_AGENTS, _METRICS["gateway"]))]
    front = _at(pods, "gateway", 8080)
    with prober(installation) as other:
        until("what all may reach answers", lambda: other.answered([front]) or None, 60)
        assert other.answered([front, *closed]) == {front}
        # The control: the same packets arrive once a policy lets them.
        with opened(installation, served.namespace, NAMESPACE):
            until("all answer that are let", lambda: other.answered(closed) == set(closed) or None, 60)
        until("nothing answers any more", lambda: other.answered([front, *closed]) == {front} or None, 60)


def test_a_namespace_that_collects_metrics_reaches_those_alone(served: Tenant, pods: dict[str, Object]) -> None:
    metrics = {_at(pods, kind, port) for kind, port in _METRICS.items()}
    dashboard = _at(pods, "head", 8265)
    with prober(served.installation, **{"collects-metrics": "true"}) as scraper:
        until("all metrics answer", lambda: scraper.answered([*metrics, dashboard]) >= metrics or None, 60)
        assert scraper.answered([*metrics, dashboard]) == metrics


def test_a_start_and_a_request_arrive_as_one_trace_each(served: Tenant, gateway: httpx.Client, body: Path) -> None:
    status = served.installation.get("infdep", served.namespace, "dense")["status"]
    trace, caller = secrets.randbits(128) | 1, secrets.randbits(64) | 1
    headers = served.headers | {"traceparent": f"00-{trace:032x}-{caller:016x}-01"}
    answer = gateway.post(served.path("dense"), content=body.read_bytes(), headers=headers)
    assert answer.status_code == 200, answer.text
    cluster = served.installation.cluster
    start = until_whole(cluster, lambda spans: start_in(spans, served.namespace), START)
    request = until_whole(cluster, lambda _: trace, REQUEST)

    root = start.pop(names.SPAN_START).span
    assert root.parent is None
    assert root.attributes[names.ATTR_REVISION] == status["activeRevision"]
    assert {name: each.span.parent for name, each in start.items()} == dict.fromkeys(start, root.context)
    assert start[names.SPAN_RESOLVE].span.attributes == {
        names.ATTR_FORMAT: "onnx",
        names.ATTR_DIGEST: status["digest"],
    }
    assert {name: parent(each) for name, each in request.items() if name in set().union(*REQUEST.values())} == {
        names.SPAN_GATEWAY: caller,
        names.SPAN_REQUEST: request[names.SPAN_GATEWAY].span.context.span_id,
        names.SPAN_QUEUE: request[names.SPAN_REQUEST].span.context.span_id,
        names.SPAN_EXECUTE: request[names.SPAN_REQUEST].span.context.span_id,
    }
