"""One tenant's end stops nobody: an operator with rights in some namespaces alone, on a real API server."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from tests.chart.helm import CHART, grant_operator_rights
from tests.cluster.controlplane import ControlPlane
from tests.contract.test_managed_pools import CRDS, SETTINGS, deployment, serve_ray_clusters
from tests.contract.test_operator_rights import OPERATOR
from tests.telling import assert_tells
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


def guard(plane: ControlPlane, folder: Path, *namespaces: str) -> subprocess.CompletedProcess[str]:
    """What the hook before `helm uninstall` runs, by the operator's own token."""
    config = yaml.safe_load(plane.kubeconfig_for("penstock-operator", "penstock-system").read_text())
    (folder / "token").write_text(config["users"][0]["user"]["token"])
    authority = config["clusters"][0]["cluster"]["certificate-authority-data"]
    (folder / "ca.crt").write_bytes(base64.b64decode(authority))
    arguments = [plane.url, str(folder), "penstock", "penstock-system", *namespaces]
    script = CHART / "files" / "uninstall_guard.py"
    return subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_helm_uninstall_is_refused_while_there_is_what_the_operator_must_end(
    plane: ControlPlane, tmp_path: Path
) -> None:
    plane.kubectl("create", "namespace", "guarded")
    assert guard(plane, tmp_path, "guarded").returncode == 0, "with nothing there, it goes on"
    plane.kubectl("apply", "-f", "-", input=json.dumps(deployment("guarded")))
    refused = guard(plane, tmp_path, "guarded")
    assert refused.returncode == 1
    assert_tells(refused.stdout, "guarded/digits finalizers kubectl delete infdep,servingpool --no-hooks")
    plane.kubectl("delete", "infdep", "digits", "-n", "guarded")


def test_the_way_out_where_the_operator_went_first(plane: ControlPlane, tmp_path: Path) -> None:
    """By the documented commands, with the namespace and the CRDs told to go already. The last test: no kind of ours is left."""
    plane.kubectl("create", "namespace", "stranded")
    held = {"finalizers": [FINALIZER]}
    pool = {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "ServingPool",
        "metadata": {"name": "default"},
        "spec": _SPEC,
    }
    for made in (deployment("stranded"), pool):
        made["metadata"] |= {"namespace": "stranded"} | held
        plane.kubectl("apply", "-f", "-", input=json.dumps(made))
    crds = [each for each in plane.kubectl("get", "crd", "-o", "name").stdout.split() if each.endswith(".penstock.dev")]
    plane.kubectl("delete", "namespace", "stranded", "--wait=false")
    plane.kubectl("delete", *crds, "--wait=false")
    script = (
        (CHART.parents[1] / "docs" / "install.md")
        .read_text()
        .partition("runs this -->\n```sh\n")[2]
        .partition("```")[0]
    )

    def is_gone() -> bool:
        plane.run_with_kubectl(script, tmp_path)
        left = plane.kubectl("get", "crd", "-o", "name").stdout
        return "penstock.dev" not in left and "stranded" not in plane.kubectl("get", "namespace", "-o", "name").stdout

    eventually(is_gone, "the namespace and the kinds are gone", 120, pause=1.0)
