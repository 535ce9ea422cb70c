"""What manifests/rbac grants the operator, asked of a real API server."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.cluster.controlplane import ControlPlane

RBAC = Path(__file__).parents[2] / "manifests" / "rbac"
OPERATOR = "system:serviceaccount:penstock-system:penstock-operator"


@pytest.fixture(scope="module")
def with_rights(crds: ControlPlane) -> ControlPlane:
    crds.kubectl("apply", "-f", str(RBAC / "operator.yaml"))
    crds.kubectl("apply", "-f", str(RBAC / "pool-token.example.yaml"))
    # A resource is served a moment before discovery tells of it, which `auth can-i` goes by.
    deadline = time.monotonic() + 30
    while "optimizationruns" not in (found := crds.kubectl("api-resources", "--api-group=penstock.dev").stdout):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return crds


@pytest.mark.apiserver
@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        pytest.param("list infdep -A", "yes", id="sees the deployments of every namespace"),
        pytest.param("watch servingpools -A", "yes", id="watches the pools of every namespace"),
        pytest.param("patch infdep -n vision", "yes", id="puts its finalizer on a deployment"),
        pytest.param("patch infdep --subresource=status -n vision", "yes", id="writes a deployment's status"),
        pytest.param("patch servingpools --subresource=status -n vision", "yes", id="writes a pool's status"),
        pytest.param("create events.events.k8s.io -n vision", "yes", id="tells what happened"),
        pytest.param("create leases.coordination.k8s.io -n penstock-system", "yes", id="makes its lease"),
        pytest.param(
            "update leases.coordination.k8s.io/penstock-operator -n penstock-system", "yes", id="renews its lease"
        ),
        pytest.param("get secrets/ray-token -n default", "yes", id="reads the one Secret that was granted"),
        pytest.param("get secrets/other -n default", "no", id="reads no other Secret beside it"),
        pytest.param("list secrets -n default", "no", id="lists no Secret"),
        pytest.param("get secrets/ray-token -n vision", "no", id="reads no Secret of another namespace"),
        pytest.param("get secrets -n penstock-system", "no", id="reads no Secret of its own namespace"),
        pytest.param("create infdep -n vision", "no", id="creates no deployment"),
        pytest.param("delete infdep -n vision", "no", id="deletes no deployment"),
        pytest.param("patch servingpools -n vision", "no", id="changes no pool"),
        pytest.param("update leases.coordination.k8s.io/another -n penstock-system", "no", id="takes no other lease"),
        pytest.param("get leases.coordination.k8s.io -n kube-system", "no", id="sees no lease elsewhere"),
        pytest.param("get pods -n vision", "no", id="sees no pod"),
        pytest.param("create optimizationruns -n vision", "yes", id="makes a run"),
        pytest.param("delete optimizationruns -n vision", "yes", id="takes a superseded run away"),
        pytest.param("patch optimizationruns --subresource=status -n vision", "yes", id="writes a run's status"),
        pytest.param("patch optimizationruns -n vision", "no", id="changes no run's spec"),
        pytest.param("list clusteroptimizationprofiles", "yes", id="sees the cluster's profiles"),
        pytest.param("create optimizationprofiles -n vision", "no", id="makes no profile"),
        pytest.param("create jobs.batch -n vision", "yes", id="starts a search"),
        pytest.param("delete jobs.batch -n vision", "yes", id="ends a search"),
        pytest.param("patch jobs.batch -n vision", "no", id="changes no running search"),
        pytest.param("patch jobs.batch --subresource=status -n vision", "no", id="says of no Job how it ended"),
        pytest.param("impersonate users", "no", id="is nobody else"),
    ],
)
def test_the_operator(request_: str, answer: str, with_rights: ControlPlane) -> None:
    done = with_rights.kubectl("auth", "can-i", *request_.split(), f"--as={OPERATOR}", check=False)
    assert done.stdout.strip().split()[:1] == [answer], done.stderr
