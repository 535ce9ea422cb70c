"""From `kubectl apply` to an answer, on a real API server, a real Ray, a real gateway and a real collector."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import yaml
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tests.at_once import AtOnce
from tests.benchmarks import parts
from tests.benchmarks.open_loop import Outcome, infer_at, steady
from tests.e2e.stack import MANIFESTS, Platform, deployment
from tests.integration.replica_collector import Collector

pytestmark = [pytest.mark.apiserver, pytest.mark.ray, pytest.mark.timeout(420)]

AT_ONCE = AtOnce()


@pytest.fixture(scope="module")
def begun(
    request: pytest.FixtureRequest,
    penstock: Platform,
    models: dict[str, Path],
    collector: Collector,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Future[None]]]:
    """Those that share all but the namespace. The others kill operators, or write the list of applications themselves."""

    def given(stack: ExitStack) -> dict[str, Any]:
        tenant, folder = stack.enter_context(penstock.tenant()), tmp_path_factory.mktemp("at-once")
        return {"penstock": penstock, "tenant": tenant, "models": models, "collector": collector, "tmp_path": folder}

    with AT_ONCE.begin(request, given) as begun:
        yield begun


def direct(model: Path, body: bytes) -> list[float]:
    """The model's own output for a request of ours."""
    tensor = json.loads(body)["inputs"][0]
    array = np.asarray(tensor["data"], np.float32).reshape(tensor["shape"])
    (out,) = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"]).run(None, {"x": array})
    values: list[float] = np.asarray(out).ravel().tolist()
    return values


def infer(url: str, body: bytes) -> list[float]:
    """The platform's output for it."""
    values: list[float] = parts.http_json(f"{url}/infer", "POST", json.loads(body))["outputs"][0]["data"]
    return values


def under_load(url: str, body: bytes, act: Callable[[], None]) -> Outcome:
    """Send 50 requests a second from before something happens until after it."""
    answers = steady(url, body, 50, 1.0).answers
    with ThreadPoolExecutor(1) as pool:
        acting = pool.submit(act)
        while not acting.done():
            answers += steady(url, body, 50, 2.0).answers
        acting.result()
    return Outcome(answers + steady(url, body, 50, 1.0).answers)


@AT_ONCE
def test_the_sample_is_applied_becomes_ready_and_answers_as_the_model_itself(
    penstock: Platform, tenant: str, tmp_path: Path
) -> None:
    sample = yaml.safe_load((MANIFESTS / "samples" / "digits.yaml").read_text())
    model = parts.dense_model(tmp_path / "model.onnx", (64, 16, 10))
    sample["metadata"]["namespace"] = tenant
    sample["spec"]["model"]["storageUri"] = model.as_uri()
    sample["spec"]["resources"] = {"cpu": "100m"}
    assert "created" in penstock.kubectl("apply", "-f", "-", manifest=sample)
    status = penstock.until_ready(tenant, "digits")["status"]
    body = parts.request_body()
    np.testing.assert_allclose(infer(status["url"], body), direct(model, body), rtol=1e-5, atol=1e-6)
    header, row = penstock.kubectl("get", "infdep", "-n", tenant).splitlines()
    for column in ("NAME", "READY", "MODEL", "REPLICAS", "URL", "AGE"):
        assert column in header
    assert row.split()[:2] == ["digits", "True"]
    assert model.as_uri() in row
    assert status["url"] in row
    # An event is written once the condition that it tells of has been.
    asked = ("events", "-n", tenant, "--for", "inferencedeployment/digits")
    parts.until("the event", lambda: "Ready" in penstock.kubectl(*asked))
    penstock.kubectl("delete", "infdep", "digits", "-n", tenant, "--timeout=120s")
    assert not [name for name in penstock.serve_applications() if tenant in name]
    assert not [route for route in penstock.gateway.routes() if route["namespace"] == tenant]
    with pytest.raises(urllib.error.HTTPError) as caught:
        infer(status["url"], body)
    assert caught.value.code == 404
    assert "digits" in json.loads(caught.value.read())["error"]


@AT_ONCE
def test_one_trace_has_every_phase_from_the_gateway_to_the_batch(
    penstock: Platform, tenant: str, models: dict[str, Path], collector: Collector
) -> None:
    penstock.kubectl("apply", "-f", "-", manifest=deployment(tenant, "traced", models["a"]))
    url = penstock.until_ready(tenant, "traced")["status"]["url"]
    trace, caller = os.urandom(16), os.urandom(8)
    headers = {"traceparent": f"00-{trace.hex()}-{caller.hex()}-01"}
    assert infer_at(url, parts.request_body(), [0.0], headers).statuses() == {200: 1}

    def whole() -> dict[str, tuple[dict[str, Any], Span]] | None:
        found = {span.name: (resource, span) for resource, span in list(collector.spans) if span.trace_id == trace}
        return found if {"gateway", "request", "queue", "execute"} <= set(found) else None

    found = parts.until("the trace", whole, 30)
    resources = {name: resource for name, (resource, _) in found.items()}
    gateway, request, queue, execute = (found[name][1] for name in ("gateway", "request", "queue", "execute"))
    assert gateway.parent_span_id == caller
    assert request.parent_span_id == gateway.span_id
    assert queue.parent_span_id == execute.parent_span_id == request.span_id
    assert resources["gateway"]["service.name"] == "penstock-gateway"
    assert resources["request"]["service.name"] == "penstock-replica"
    assert resources["request"]["penstock.model.name"] == "traced"

    def batch_of(member: Span) -> Span | None:
        batches = [span for _, span in list(collector.spans) if span.name == "batch"]
        wanted = (member.trace_id, member.span_id)
        return next((b for b in batches if wanted in {(link.trace_id, link.span_id) for link in b.links}), None)

    batch = parts.until("the batch span", lambda: batch_of(execute), 30)
    assert (batch.trace_id, batch.span_id) in {(link.trace_id, link.span_id) for link in execute.links}
    times = [gateway.start_time_unix_nano, request.start_time_unix_nano, execute.start_time_unix_nano]
    assert times == sorted(times)


@AT_ONCE
def test_kubectl_scale_sets_the_number_of_replicas_and_the_status_says_why(
    penstock: Platform, tenant: str, models: dict[str, Path]
) -> None:
    penstock.kubectl("apply", "-f", "-", manifest=deployment(tenant, "scaled", models["a"]))
    penstock.until_ready(tenant, "scaled")
    for count in (3, 1):
        penstock.kubectl("scale", "infdep", "scaled", "-n", tenant, f"--replicas={count}")
        parts.until(
            f"{count} replicas", lambda n=count: len(penstock.gateway.receiving(tenant, "scaled")) == n
        )  # fmt: skip
        parts.until(
            "the status", lambda n=count: penstock.get(tenant, "scaled")["status"]["replicas"].get("ready") == n, 90
        )
    assert "spec.replicas was set" in penstock.get(tenant, "scaled")["status"]["replicas"]["reason"]


@AT_ONCE
def test_a_change_of_model_and_a_killed_replica_fail_no_request(
    penstock: Platform, tenant: str, models: dict[str, Path]
) -> None:
    manifest = deployment(tenant, "rolled", models["a"], scaling={"replicas": 2})
    penstock.kubectl("apply", "-f", "-", manifest=manifest)
    url = penstock.until_ready(tenant, "rolled")["status"]["url"]
    parts.until("two replicas", lambda: len(penstock.gateway.receiving(tenant, "rolled")) == 2)
    body = parts.request_body()
    np.testing.assert_allclose(infer(url, body), direct(models["a"], body), rtol=1e-5, atol=1e-6)

    def kill_then_roll() -> None:
        os.kill(penstock.replica_processes(tenant, "rolled")[0], signal.SIGKILL)
        changed = deployment(tenant, "rolled", models["b"], scaling={"replicas": 2})
        penstock.kubectl("apply", "-f", "-", manifest=changed)
        penstock.until_ready(tenant, "rolled")

    outcome = under_load(url, body, kill_then_roll)
    assert outcome.failed() == []
    assert penstock.until_ready(tenant, "rolled")["status"].get("candidateRevision") is None
    np.testing.assert_allclose(infer(url, body), direct(models["b"], body), rtol=1e-5, atol=1e-6)


@AT_ONCE
def test_at_zero_replicas_requests_are_held_and_all_are_answered(
    penstock: Platform, tenant: str, models: dict[str, Path]
) -> None:
    scaling = {"minReplicas": 0, "maxReplicas": 1, "scaleToZeroAfterSeconds": 3, "stabilizationWindowSeconds": 1}
    penstock.kubectl("apply", "-f", "-", manifest=deployment(tenant, "sleepy", models["a"], scaling=scaling))
    url = penstock.until_ready(tenant, "sleepy")["status"]["url"]
    infer(url, parts.request_body())
    parts.until("no replica", lambda: not penstock.gateway.receiving(tenant, "sleepy"), 120)
    outcome = steady(url, parts.request_body(), 50, 1.0)
    assert outcome.statuses() == {200: 50}


@AT_ONCE
def test_what_is_wrong_reaches_a_condition_and_heals_once_the_cause_is_gone(
    penstock: Platform, tenant: str, models: dict[str, Path], tmp_path: Path
) -> None:
    """A missing file, a digest that differs, and a replica that no node can hold: together, since each waits alone."""
    late, path = tmp_path / "late" / "model.onnx", models["a"]
    differing = deployment(tenant, "differing", path)
    differing["spec"]["model"]["digest"] = "sha256:" + "0" * 64
    large = deployment(tenant, "large", path, resources={"cpu": "64"})
    for manifest in (deployment(tenant, "late", late), differing, large):
        penstock.kubectl("apply", "-f", "-", manifest=manifest)

    def told(name: str, condition: str, reason: str) -> str:
        found = parts.until(
            f"{name}: {reason}",
            lambda: (c := penstock.condition(tenant, name, condition)).get("reason") == reason and c,
        )
        assert found["status"] == "False"
        assert penstock.condition(tenant, name, "Ready")["status"] == "False"
        return str(found["message"])

    # What fails is tried after twice as long each time, so it is mended at once.
    assert str(late) in told("late", "ModelResolved", "ModelNotFound")
    parts.dense_model(late, (64, 32, 10))
    assert str(path) in told("differing", "ModelResolved", "DigestMismatch")
    del differing["spec"]["model"]["digest"]
    penstock.kubectl("apply", "-f", "-", manifest=differing)
    message = told("large", "Progressing", "Unschedulable")
    assert "64" in message
    assert "CPU" in message
    # Serve waits half a minute for a replica that never started to stop.
    penstock.kubectl("delete", "infdep", "large", "-n", tenant, "--wait=false")
    for name in ("late", "differing"):
        penstock.until_ready(tenant, name)


def test_killing_the_operator_changes_nothing_that_serves_and_the_next_one_goes_on(
    penstock: Platform, tenant: str, models: dict[str, Path]
) -> None:
    penstock.kubectl("apply", "-f", "-", manifest=deployment(tenant, "steady", models["a"]))
    url = penstock.until_ready(tenant, "steady")["status"]["url"]
    before = (
        penstock.replica_processes(tenant, "steady"),
        penstock.gateway.receiving(tenant, "steady")[0]["replicaId"],
    )
    operator = penstock.operators[0]

    def restart() -> None:
        for _ in range(2):
            operator.kill()
            operator.start()

    outcome = under_load(url, parts.request_body(), restart)
    assert outcome.failed() == []
    patch = '{"spec":{"batching":{"maxBatchSize":4}}}'
    penstock.kubectl("patch", "infdep", "steady", "-n", tenant, "--type=merge", "-p", patch)
    generation = penstock.get(tenant, "steady")["metadata"]["generation"]
    assert penstock.until_ready(tenant, "steady")["status"]["observedGeneration"] == generation
    after = (penstock.replica_processes(tenant, "steady"), penstock.gateway.receiving(tenant, "steady")[0]["replicaId"])
    assert after == before


def test_of_two_operators_one_acts_and_the_other_takes_over_when_it_is_killed(
    penstock: Platform, tenant: str, models: dict[str, Path]
) -> None:
    def holder() -> str:
        lease = penstock.read("/apis/coordination.k8s.io/v1/namespaces/penstock-system/leases/penstock-operator")
        return str(lease["spec"]["holderIdentity"])

    first = penstock.operators[0]
    second = penstock.operator("operator-b")
    parts.until("operator-a leads", lambda: holder() == "operator-a", 60)
    second.start()
    try:
        penstock.kubectl("apply", "-f", "-", manifest=deployment(tenant, "handed", models["a"]))
        penstock.until_ready(tenant, "handed")
        assert holder() == "operator-a"
        first.kill()
        parts.until("operator-b leads", lambda: holder() == "operator-b", 60)
        penstock.kubectl("scale", "infdep", "handed", "-n", tenant, "--replicas=2")
        parts.until("two replicas", lambda: len(penstock.gateway.receiving(tenant, "handed")) == 2)
    finally:
        first.start()
        second.stop()  # it gives its lease back
        parts.until("operator-a leads again", lambda: holder() == "operator-a", 60)


def test_an_application_that_is_not_ours_survives(penstock: Platform, tenant: str, models: dict[str, Path]) -> None:
    url = f"{penstock.ray.dashboard_url}/api/serve/applications/"
    present = parts.http_json(url, token=penstock.ray.token)
    ours = [app["deployed_app_config"] for app in present["applications"].values()]
    foreign = {
        "name": f"foreign-{tenant}", "route_prefix": f"/foreign-{tenant}",
        "import_path": "tests.benchmarks.peers.plain_serve:app", "args": {"model": str(models["a"])},
        "deployments": [{"name": "plain", "ray_actor_options": {"num_cpus": 0.1}}],
    }  # fmt: skip
    parts.put_applications(penstock.ray, [*ours, foreign])
    penstock.kubectl("apply", "-f", "-", manifest=deployment(tenant, "beside", models["a"]))
    penstock.until_ready(tenant, "beside")
    penstock.kubectl("delete", "infdep", "beside", "-n", tenant, "--timeout=120s")
    found = penstock.serve_applications()[foreign["name"]]
    assert found["status"] == "RUNNING"
    rest = [
        app["deployed_app_config"] for name, app in penstock.serve_applications().items() if name != foreign["name"]
    ]  # fmt: skip
    parts.put_applications(penstock.ray, rest)
