"""What the admission policies let a tenant apply, asked of a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.controlplane import ControlPlane
from tests.telling import assert_tells
from tests.waiting import eventually

from penstock.api.meta import Manifest

POLICIES = Path(__file__).parents[2] / "manifests" / "policies"
TENANT = "tenant"
QUOTA: dict[str, Any] = {"replicas": 6, "accelerators": 3, "memory": "8Gi", "deployments": 3}
TAKEN: dict[str, Any] = {
    "used": {"deployments": 1, "replicas": 2, "accelerators": 1, "memory": "2Gi"},
    "acceleratorShares": "1",
}
"""By the deployment `there`."""


def deployment(
    name: str, replicas: int = 1, *, count: str | None = None, memory: str | None = "1Gi", fixed: bool = False
) -> Manifest:
    resources: dict[str, Any] = {"cpu": "1"}
    resources |= {"memory": memory} if memory else {}
    resources |= {"accelerator": {"type": "nvidia-l4", "count": count}} if count else {}
    return {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "InferenceDeployment",
        "metadata": {"name": name},
        "spec": {
            "model": {"storageUri": "file:///models/digits/1", "modelFormat": "onnx"},
            "resources": resources,
            "scaling": {"replicas": replicas} if fixed else {"maxReplicas": replicas},
        },
    }


def numbered(manifest: Manifest, number: int, mark: str | None = None) -> Manifest:
    annotations = {} if mark is None else {"penstock.dev/replicas": mark}
    metadata = {**manifest["metadata"], "annotations": annotations}
    return {**manifest, "metadata": metadata, "spec": {**manifest["spec"], "replicas": number}}


def pool(name: str, spec: dict[str, Any]) -> Manifest:
    return {"apiVersion": "penstock.dev/v1alpha1", "kind": "ServingPool", "metadata": {"name": name}, "spec": spec}


def managed(host_path: str | None) -> dict[str, Any]:
    group = {"name": "cpu", "cpu": "1", "memory": "1Gi"}
    return {"managed": {"workerGroups": [group], "cache": {"hostPath": host_path} if host_path else {}}}


def templated(*, of: str = "head", **spec: Any) -> dict[str, Any]:
    made = managed(None)
    made["managed"]["workerGroups"][0]["podTemplate"] = {"spec": spec if of == "group" else {}}
    made["managed"] |= {"podTemplate": {"spec": spec if of == "all" else {}}}
    return {"managed": made["managed"] | {"head": {"podTemplate": {"spec": spec if of == "head" else {}}}}}


def contained(**context: Any) -> dict[str, Any]:
    return templated(of="group", containers=[{"name": "ray-worker", "securityContext": context}])


THERE = deployment("there", 2, count="0.5")


@pytest.fixture(scope="module")
def policed(crds: ControlPlane) -> ControlPlane:
    """The API server with the policies in force, and a user who may edit pools."""
    crds.kubectl("apply", "-f", str(POLICIES))
    rules = [
        {"apiGroups": ["penstock.dev"], "resources": ["servingpools"], "verbs": ["get", "create", "patch", "update"]},
        {"apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": ["models"], "verbs": ["use"]},
    ]
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": TENANT},
        "rules": rules,
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": TENANT},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": TENANT},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": TENANT}],
    }
    crds.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": [role, binding]}))
    return crds


@pytest.fixture
def bounded(policed: ControlPlane, namespace: str) -> ControlPlane:
    """A namespace with a deployment, and a quota of which that one takes a part."""
    _bound(policed, namespace)
    return policed


@pytest.fixture(scope="module")
def bounded_namespace(policed: ControlPlane) -> Iterator[str]:
    """Another one, for tests that change nothing."""
    with policed.namespace() as name:
        _bound(policed, name)
        yield name


def _bound(policed: ControlPlane, namespace: str) -> None:
    apply(policed, namespace, THERE)
    quota = {"apiVersion": "penstock.dev/v1alpha1", "kind": "TenantQuota", "metadata": {"name": "team"}}
    policed.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps({**quota, "spec": {"hard": QUOTA}}))
    patch = ("--subresource=status", "--type=merge", "-p", json.dumps({"status": TAKEN}))
    policed.kubectl("patch", "tenantquota/team", "-n", namespace, *patch)
    until_refused(policed, namespace, deployment("far-too-many", 99))


def apply(plane: ControlPlane, namespace: str, manifest: Manifest, *options: str, check: bool = True) -> str:
    done = plane.kubectl("apply", "-n", namespace, "-f", "-", *options, input=json.dumps(manifest), check=check)
    return done.stdout + done.stderr


def until_refused(plane: ControlPlane, namespace: str, manifest: Manifest, *options: str) -> None:
    """A policy, or what it goes by, is in force a moment after it was written."""

    def refused() -> bool:
        return "ValidatingAdmissionPolicy" in apply(
            plane, namespace, manifest, "--dry-run=server", *options, check=False
        )

    eventually(refused, f"{manifest['metadata']['name']} is refused")


@pytest.mark.apiserver
@pytest.mark.parametrize(
    ("manifest", "facts"),
    [
        pytest.param(deployment("new", 4), "", id="what just fits is taken"),
        pytest.param(
            deployment("new", 5),
            "TenantQuota team 6 replicas 2 5 spec.scaling",
            id="too many replicas",
        ),
        pytest.param(deployment("new", 5, fixed=True), "replicas 6 2 5", id="too many replicas in a fixed number"),
        pytest.param(
            deployment("new", 2, count="2"),
            "TenantQuota team 3 accelerators 1 4 spec.scaling",
            id="too many accelerators over its replicas",
        ),
        pytest.param(deployment("new", 4, count="0.5"), "", id="shares are added up"),
        pytest.param(
            deployment("new", 4, memory="2Gi"),
            "TenantQuota team memory 8Gi 2048Mi 8192Mi 2Gi 4 spec.resources.memory",
            id="too much memory over its replicas",
        ),
        pytest.param(deployment("new", memory=None), "TenantQuota team spec.resources.memory 1Gi", id="no memory given"),
        pytest.param(THERE, "", id="the same once more is taken"),
        pytest.param(deployment("there", 6, count="0.5"), "", id="growing to what the quota leaves, its own part included"),
        pytest.param(deployment("there", 7, count="0.5"), "replicas 6 0 7", id="growing beyond"),
        pytest.param(deployment("there", 1), "", id="shrinking is taken"),
        pytest.param(deployment("new", 99), "replicas 6 2 99", id="far beyond"),
        pytest.param(numbered(deployment("new", 2), 5), "replicas 6 2 5", id="a number set by scaling counts"),
        pytest.param(numbered(deployment("new", 2), 5, "5"), "", id="one that Penstock wrote does not"),
        pytest.param(numbered(deployment("new", 5), 2, "2"), "replicas 6 2 5", id="the greatest that load may ask for counts then"),
    ],
)  # fmt: skip
def test_a_deployment_is_held_to_the_quota(
    manifest: Manifest, facts: str, policed: ControlPlane, bounded_namespace: str
) -> None:
    said = apply(policed, bounded_namespace, manifest, "--dry-run=server", check=False)
    assert ("denied request" in said) is bool(facts), said
    assert_tells(said, facts)


@pytest.mark.apiserver
def test_lowering_a_quota_refuses_growth_and_nothing_else(bounded: ControlPlane, namespace: str) -> None:
    bounded.kubectl("patch", "tenantquota/team", "-n", namespace, "--type=merge",
                    "-p", json.dumps({"spec": {"hard": {"replicas": 1, "deployments": 1}}}))  # fmt: skip
    until_refused(bounded, namespace, deployment("new"))
    said = {
        name: apply(bounded, namespace, manifest, "--dry-run=server", check=False)
        for name, manifest in {
            "another model": {**THERE, "spec": {**THERE["spec"], "model": {**THERE["spec"]["model"], "version": "2"}}},
            "a finalizer": {**THERE, "metadata": {"name": "there", "finalizers": ["penstock.dev/release"]}},
            "growth": deployment("there", 3),
            "another deployment": deployment("new", 0, fixed=True),
        }.items()
    }
    assert {name for name, answer in said.items() if "denied request" in answer} == {"growth", "another deployment"}
    assert_tells(said["another deployment"], "TenantQuota team 1 deployments delete")


@pytest.mark.apiserver
@pytest.mark.parametrize(
    ("others", "replicas", "facts"),
    [
        pytest.param(0, 6, "", id="to what the quota leaves"),
        pytest.param(0, 7, "TenantQuota team 6 replicas 2 7", id="beyond it"),
        pytest.param(3, 3, "", id="what fits beside others is taken, whatever it might have had"),
        pytest.param(3, 7, "TenantQuota team 6 replicas 5 7", id="what fits in no case is not"),
    ],
)
def test_scaling_by_hand_is_held_to_the_quota(
    others: int, replicas: int, facts: str, bounded: ControlPlane, namespace: str
) -> None:
    taken = {"used": {**TAKEN["used"], "deployments": 2, "replicas": 2 + others}} if others else TAKEN
    patch = ("--subresource=status", "--type=merge", "-p", json.dumps({"status": taken}))
    bounded.kubectl("patch", "tenantquota/team", "-n", namespace, *patch)
    until_refused(bounded, namespace, deployment("new", 6 - 2 - others + 1))
    done = bounded.kubectl("scale", "infdep/there", "-n", namespace, f"--replicas={replicas}", check=False)
    assert (done.returncode != 0) is bool(facts), done.stderr
    assert_tells(done.stderr, facts)


@pytest.fixture(scope="module")
def pools_policed(policed: ControlPlane) -> ControlPlane:
    """The same, once the policies on pools are seen to hold: the API server takes them up some time after they are there."""
    for probe in (OUTSIDE[0], PRIVILEGED[0]):
        until_refused(policed, "default", pool("probe", probe), f"--as={TENANT}")
    return policed


@pytest.mark.apiserver
def test_a_token_is_mounted_only_where_it_is_said_whose_it_is(pools_policed: ControlPlane, namespace: str) -> None:
    said = apply(pools_policed, namespace, pool("own", templated(volumes=[TOKEN])), "--dry-run=server", check=False)
    assert_tells(said, "podTemplate token only beside serviceAccountName")


@pytest.mark.apiserver
def test_a_namespace_without_a_quota_is_not_bounded(policed: ControlPlane, namespace: str) -> None:
    assert "created" in apply(policed, namespace, deployment("new", 500, memory=None), "--dry-run=server")


OUTSIDE = (
    {"existing": {"address": "http://ray-head.other.svc:8265"}},
    "spec.existing.address serveAddress use-foreign-address",
)


PRIVILEGED = (
    templated(containers=[{"name": "x", "securityContext": {"privileged": True}}]),
    "podTemplate use-privileged-pods",
)
TOKEN = {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}


@pytest.mark.apiserver
@pytest.mark.parametrize(
    ("spec", "facts"),
    [
        pytest.param(*PRIVILEGED, id="a privileged container beside the head"),
        pytest.param(contained(allowPrivilegeEscalation=True), PRIVILEGED[1], id="a confinement taken away"),
        pytest.param(contained(capabilities={"add": ["SYS_ADMIN"]}), PRIVILEGED[1], id="a capability"),
        pytest.param(contained(capabilities={"drop": []}), PRIVILEGED[1], id="capabilities that are kept"),
        pytest.param(contained(seccompProfile={"type": "Unconfined"}), PRIVILEGED[1], id="no seccomp"),
        pytest.param(contained(runAsUser=0), PRIVILEGED[1], id="root in a container"),
        pytest.param(contained(runAsUser=2000, readOnlyRootFilesystem=False), "", id="another user, and a root to write to"),
        pytest.param(templated(of="all", securityContext={"runAsNonRoot": False}), PRIVILEGED[1], id="root in all pods"),
        pytest.param(templated(of="all", securityContext={"sysctls": []}), PRIVILEGED[1], id="sysctls"),
        pytest.param(
            templated(of="all", idsFromCluster=True, securityContext={"supplementalGroups": [5]}), "",
            id="ids that are left to the cluster",
        ),
        pytest.param(
            templated(containers=[{"name": "x", "ports": [{"containerPort": 1, "hostPort": 1}]}]), PRIVILEGED[1],
            id="a port of the node",
        ),
        pytest.param(
            templated(of="group", volumes=[{"name": "v", "hostPath": {"path": "/"}}]), "podTemplate use-any-host-path",
            id="a folder of the node by a template",
        ),
        pytest.param(templated(of="all", serviceAccountName="models"), "", id="a service account that the tenant may use"),
        pytest.param(
            templated(of="all", serviceAccountName="admin"), "podTemplate service accounts admin right use",
            id="another service account",
        ),
        pytest.param(
            templated(of="group", serviceAccountName="models", volumes=[TOKEN]), "", id="a token of one's own service account",
        ),
        pytest.param(
            templated(of="all", runtimeClassName="nvidia", priorityClassName="high",
                      volumes=[{"name": "v", "emptyDir": {}}], containers=[{"name": "x", "image": "x"}]), "",
            id="what clusters ask for",
        ),
        pytest.param({"existing": {"address": "http://ray-head.NS.svc:8265"}}, "", id="a Service of its own"),
        pytest.param({"existing": {"address": "http://ray-head.NS.svc.cluster.local:8265"}}, "", id="in full"),
        pytest.param(*OUTSIDE, id="another namespace's Service"),
        pytest.param({"existing": {"address": "http://169.254.169.254"}}, OUTSIDE[1], id="an address"),
        pytest.param({"existing": {"address": "http://ray-head.NS.svc.example.org"}}, OUTSIDE[1], id="a name that looks like one"),
        pytest.param(
            {"existing": {"address": "http://ray-head.NS.svc:8265", "serveAddress": "http://ray-head.other.svc:8000"}},
            OUTSIDE[1],
            id="another namespace's proxy",
        ),
        pytest.param(managed(None), "", id="a managed pool"),
        pytest.param(managed("/var/cache/penstock"), "", id="the nodes' cache"),
        pytest.param(managed("/var/cache/penstock/speech"), "spec.managed.cache.hostPath use-any-host-path", id="another's part of it"),
        pytest.param(managed("/var/cache"), "spec.managed.cache.hostPath use-any-host-path", id="a folder above it"),
        pytest.param(managed("/etc"), "spec.managed.cache.hostPath use-any-host-path", id="another folder of the nodes"),
        pytest.param(managed("/var/cache/penstock-other"), "spec.managed.cache.hostPath use-any-host-path", id="a folder beside it"),
    ],
)  # fmt: skip
def test_a_tenants_pool_is_kept_to_its_own(
    spec: dict[str, Any], facts: str, pools_policed: ControlPlane, namespace: str
) -> None:
    policed = pools_policed
    manifest = json.loads(json.dumps(pool("own", spec)).replace(".NS.", f".{namespace}."))
    said = apply(policed, namespace, manifest, "--dry-run=server", f"--as={TENANT}", check=False)
    assert ("denied request" in said) is bool(facts), said
    assert_tells(said, facts)
    assert "created" in apply(policed, namespace, manifest, "--dry-run=server"), "who runs the cluster may do more"
