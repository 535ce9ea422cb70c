"""One tenant's end stops nobody: an operator with rights in some namespaces alone, on a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.chart.helm import grant_operator_rights
from tests.cluster.controlplane import ControlPlane
from tests.contract.test_managed_pools import CRDS, SETTINGS, deployment, serve_ray_clusters
from tests.contract.test_operator_rights import OPERATOR
from tests.waiting import eventually

from penstock.api.meta import Manifest
from penstock.names import FINALIZER
from penstock_operator.kinds import INFERENCE_DEPLOYMENT, SERVING_POOL
from penstock_operator.operation import Operation
from penstock_operator.pool.kinds import RAY_CLUSTER
from penstock_operator.runtime.cluster import NAMESPACE, Key
from penstock_operator.runtime.cluster.kubernetes import KubernetesCluster
from penstock_operator.runtime.copies.mirrored import MirroredCluster
from penstock_operator.runtime.leading.accession import Accession
from penstock_operator.settings import Settings

pytestmark = pytest.mark.apiserver

_WATCHED = ("audio", "later", "vision")
_SPEC: Manifest = {"managed": {"workerGroups": [{"name": "cpu", "cpu": "1", "memory": "1Gi", "maxWorkers": 1}]}}
_SECONDS = 60


@pytest.fixture(scope="module")
def plane(control_plane_binary: Path) -> Iterator[ControlPlane]:
    """An API server of its own, on which the operator has the chart's rights in two namespaces."""
    with ControlPlane(control_plane_binary) as made:
        made.serve(CRDS)
        serve_ray_clusters(made)
        for name in ("audio", "vision"):
            made.kubectl("create", "namespace", name)
        grant_operator_rights(made, {"operator": {"watchNamespaces": ["audio", "vision"]}})
        yield made


class Process:
    """An operator's process, without gateways."""

    def __init__(self, kubeconfig: Path) -> None:
        self.cluster = KubernetesCluster.connect(kubeconfig)
        self.copies = MirroredCluster(self.cluster)
        self.accession = Accession(lambda patient: self.copies.refresh(patient=patient))
        settings = Settings(gateway_secret="a-secret", pools=SETTINGS, namespaces=_WATCHED, workers=4)
        self.operation = Operation(self.copies, settings, lambda *_: None, lambda: self.accession.complete)
        self.operation.start()

    def lead(self) -> None:
        eventually(lambda: self.operation.why_unready() is None, self.operation.why_unready, _SECONDS)
        self.accession.begin()
        eventually(lambda: self.accession.complete, "it may act", _SECONDS)

    def end(self) -> None:
        self.operation.stop(10)
        self.cluster.close()


@contextmanager
def process(plane: ControlPlane) -> Iterator[Process]:
    made = Process(plane.kubeconfig_for("penstock-operator", "penstock-system"))
    try:
        made.lead()
        yield made
    finally:
        made.end()


@pytest.fixture
def admin(plane: ControlPlane) -> Iterator[KubernetesCluster]:
    made = KubernetesCluster.connect(plane.kubeconfig)
    yield made
    made.close()


def is_seen(cluster: KubernetesCluster, namespace: str) -> bool:
    """Whether the operator has looked at a deployment as it is now."""
    found = cluster.get(INFERENCE_DEPLOYMENT, Key(namespace, "digits")) or {"metadata": {"generation": 0}}
    looked = (found.get("status") or {}).get("observedGeneration") == found["metadata"]["generation"]
    return looked and FINALIZER in found["metadata"].get("finalizers", ())


def serve(cluster: KubernetesCluster, namespace: str) -> None:
    spec = (
        _SPEC
        if namespace != "audio"
        else {"managed": _SPEC["managed"] | {"gcsFaultTolerance": {"redisAddress": "redis:6379"}}}
    )
    pool = {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "ServingPool",
        "metadata": {"name": "default", "namespace": namespace},
    }
    cluster.apply(SERVING_POOL, pool | {"spec": spec}, "test")
    cluster.apply(INFERENCE_DEPLOYMENT, deployment(namespace), "test")
    eventually(lambda: is_seen(cluster, namespace), f"the deployment of {namespace} is looked at", _SECONDS)
    eventually(lambda: cluster.get(RAY_CLUSTER, Key(namespace, "penstock-default")), "its Ray cluster", _SECONDS)


def change(cluster: KubernetesCluster, namespace: str, replicas: int) -> None:
    """Change a deployment, and wait until the operator has looked at it."""
    changed = deployment(namespace)
    changed["spec"]["scaling"] = {"minReplicas": replicas, "maxReplicas": replicas}
    cluster.apply(INFERENCE_DEPLOYMENT, changed, "test")
    eventually(lambda: is_seen(cluster, namespace), f"the change in {namespace} is looked at", _SECONDS)


def test_a_watched_namespace_that_is_deleted_goes_and_keeps_nobody(
    plane: ControlPlane, admin: KubernetesCluster
) -> None:
    with process(plane) as first, process(plane) as second:
        second.accession.end()  # it stands by
        for each in ("vision", "audio"):
            serve(admin, each)
        admin.delete(NAMESPACE, Key("", "audio"))
        eventually(lambda: admin.get(NAMESPACE, Key("", "audio")) is None, "the namespace goes by itself", 120)
        change(admin, "vision", 2)
        assert first.operation.why_unready() is None
        first.accession.end()
        second.lead()
        change(admin, "vision", 3)
    with process(plane) as fresh:
        change(admin, "vision", 4)
        assert fresh.operation.why_unhealthy() is None
        plane.kubectl("create", "namespace", "later")
        grant_operator_rights(plane, {"operator": {"watchNamespaces": ["vision", "later"]}})
        serve(admin, "later")


_GOING: Manifest = {"finalizers": ["testing.penstock.dev/hold", FINALIZER]}
_PATCHES = [
    ("takes no finalizer off what stays", "stays", [{"op": "remove", "path": "/metadata/finalizers/1"}], False),
    ("takes its finalizer off what goes", "goes", [{"op": "remove", "path": "/metadata/finalizers/1"}], True),
    (
        "changes nothing of what goes",
        "goes",
        [{"op": "replace", "path": "/spec/model/storageUri", "value": "file:///b"}],
        False,
    ),
]


@pytest.fixture(scope="module")
def elsewhere(plane: ControlPlane) -> str:
    """A namespace in which the operator has no RoleBinding."""
    plane.kubectl("create", "namespace", "elsewhere")
    for name in ("stays", "goes"):
        made = deployment("elsewhere", name)
        made["metadata"] |= _GOING
        plane.kubectl("apply", "-f", "-", input=json.dumps(made))
    plane.kubectl("delete", "infdep", "goes", "-n", "elsewhere", "--wait=false")
    return "elsewhere"


@pytest.mark.parametrize(("name", "patch", "allowed"), [row[1:] for row in _PATCHES], ids=[row[0] for row in _PATCHES])
def test_where_it_is_not_bound_the_operator(
    plane: ControlPlane, elsewhere: str, name: str, patch: list[Manifest], *, allowed: bool
) -> None:
    asked = (
        "patch",
        "infdep",
        name,
        "-n",
        elsewhere,
        "--type=json",
        "-p",
        json.dumps(patch),
        "--dry-run=server",
        f"--as={OPERATOR}",
    )

    def answered() -> bool:
        done = plane.kubectl(*asked, check=False)
        return (done.returncode == 0) if allowed else "Penstock's operator may" in done.stderr

    eventually(answered, "the policy answers", _SECONDS)
