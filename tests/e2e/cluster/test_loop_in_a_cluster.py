"""The loop in a cluster: a Job measures a model on the kind of node that serves it, and the faster one takes over."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import pytest
from tests.benchmarks.parts import dense_model, request_body
from tests.e2e.cluster.extras import secret
from tests.e2e.cluster.installation import (
    GATEWAY,
    Installation,
    Object,
    Tenant,
    condition,
    deployment,
    pool,
    tenant,
    until,
)  # fmt: skip
from tests.e2e.cluster.model_store import ModelStore
from tests.e2e.cluster.steady_load import steady_load

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

ROWS = 256
LAYERS = (ROWS, 1024, 1024, 1024, 16)
"""16 MB of weights, which one request must read: a quarter of that, in int8, is read faster on any machine."""
GROUP = {
    "name": "cpu", "cpu": "1", "memory": "2Gi", "minWorkers": 1, "maxWorkers": 2,
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
}  # fmt: skip
PROFILE: Object = {
    "apiVersion": "penstock.dev/v1alpha1",
    "kind": "OptimizationProfile",
    "metadata": {"name": "int8"},
    "spec": {
        "steps": {"quantize": {"methods": ["Dynamic"]}},
        "engines": ["ONNXRuntime"],
        "workload": {"scenario": "SingleStream", "batchSizes": [1], "maxBatchSize": 4},
        "constraints": {"accuracy": {"minValue": "0.95"}},
        "search": {"budgetMinutes": 5, "finalists": 1},
    },
}
_PATIENCE = 420.0


def test_a_job_finds_a_faster_model_and_it_serves_without_a_failed_request(
    installation: Installation, store: ModelStore, tmp_path: Path
) -> None:
    uri = store.upload(dense_model(tmp_path / "model.onnx", LAYERS, 0), "wide")
    body = tmp_path / "body.json"
    body.write_bytes(request_body(ROWS))
    with tenant(installation, store.credentials()) as made:
        made.apply(
            secret("store-writer", store), secret("store-reader", store),
            PROFILE, pool(workerGroups=[GROUP]),
            deployment(
                "wide", uri, resources={"cpu": "500m", "memory": "512Mi"},
                optimizationProfileRef={"kind": "OptimizationProfile", "name": "int8"}, rollout={"type": "Immediate"},
            ),
        )  # fmt: skip
        before = installation.until_ready("infdep", made.namespace, "wide")
        expected = _answer(made, body)
        with steady_load(
            installation.cluster, GATEWAY, made.path("wide"), body, per_second=5, headers=made.headers
        ) as load:
            job = _job(made)
            _until_optimized(made)
        after = installation.until_ready("infdep", made.namespace, "wide")
        (run,) = installation.list("optimizationrun", made.namespace)

        assert load.report.failed == 0, load.report
        assert run["status"]["verdict"] == "Accepted", run["status"]
        assert run["status"]["reportUri"].startswith(run["status"]["artifact"]["storageUri"].partition("://")[0])
        assert after["status"]["digest"] == run["status"]["artifact"]["digest"] != before["status"]["digest"]
        assert after["status"]["activeRevision"] != before["status"]["activeRevision"]
        # The status tells of the change that gateways are told in the same breath, and one may be slow to hear it.
        (given,) = until("the faster one answers", lambda: _other_than(expected, _answer(made, body)))
        assert float(np.corrcoef(given, expected)[0, 1]) > 0.95
        spec = job["spec"]["template"]["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["nodeSelector"] == GROUP["nodeSelector"]
        (policy,) = [
            each
            for each in installation.list("networkpolicy", made.namespace)
            if run["metadata"]["name"] in str(each["spec"])
        ]
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]


def _answer(made: Tenant, body: Path) -> np.ndarray:
    namespace, name, port = GATEWAY
    with (
        made.installation.cluster.forward(name, namespace, port) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        answer = client.post(made.path("wide"), content=body.read_bytes(), headers=made.headers)
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["outputs"][0]["data"])


def _other_than(expected: np.ndarray, given: np.ndarray) -> list[np.ndarray]:
    return [] if np.array_equal(given, expected) else [given]


def _job(made: Tenant) -> Object:
    """The Job, once there is one: it goes as soon as its result is noted."""
    return until("there is a Job", lambda: next(iter(made.installation.list("job", made.namespace)), None))


def _until_optimized(made: Tenant) -> None:
    def settled() -> Object | None:
        found = made.installation.get("infdep", made.namespace, "wide")
        said = condition(found, "ProfileApplied")
        return said if said.get("status") in {"True", "False"} else None

    try:
        said = until("the profile is applied, or is not to be", settled, _PATIENCE, pause=1.0)
    except TimeoutError as error:
        jobs = made.installation.cluster.logs(made.namespace, "penstock.dev/run")
        raise AssertionError(f"{error}\n{made.installation.explain(made.namespace)}\n{jobs}") from None
    assert said["status"] == "True", f"{said}\n{json.dumps(made.installation.list('optimizationrun', made.namespace))}"
