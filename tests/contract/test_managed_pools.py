"""Managed pools against a real API server with KubeRay's own CRDs. KubeRay itself is played where its status is needed."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.binary import module_folder
from tests.cluster.controlplane import ControlPlane
from tests.cluster.tools import KUBERAY_MODULE, PROGRAMS
from tests.contract.ray_rest_standin import RayStandIn
from tests.waiting import eventually

from penstock.api.pool import ServingPool, ServingPoolSpec
from penstock.errors import Conflict
from penstock_operator.kinds import INFERENCE_DEPLOYMENT, SERVING_POOL
from penstock_operator.operation import Operation
from penstock_operator.pool.clusters import Addresses, RayClusters
from penstock_operator.pool.defaults import DefaultPools
from penstock_operator.pool.directory import PoolDirectory
from penstock_operator.pool.kinds import NETWORK_POLICY, RAY_CLUSTER
from penstock_operator.pool.managed import ManagedPools
from penstock_operator.pool.names import ray_token
from penstock_operator.pool.network import policies
from penstock_operator.pool.raycluster import build
from penstock_operator.pool.raypods import PoolSettings
from penstock_operator.pool.reconcile import PoolReconciler
from penstock_operator.pool.release import PATIENCE_SECONDS, REDIS_FINALIZER, PoolRelease
from penstock_operator.runtime.cluster import NAMESPACE, SECRET, Cluster, Key, Manifest, key_of
from penstock_operator.runtime.cluster.kubernetes import KubernetesCluster
from penstock_operator.runtime.loop.reconciler import Runner
from penstock_operator.settings import Settings

pytestmark = pytest.mark.apiserver

CRDS = Path(__file__).parents[2] / "manifests" / "crds"
SETTINGS = PoolSettings(image="penstock/runtime:1.0.0")
SPEC: Manifest = {
    "managed": {
        "workerGroups": [
            {"name": "cpu", "cpu": "1", "memory": "2Gi", "minWorkers": 1, "maxWorkers": 4},
            {
                "name": "l4",
                "cpu": "8",
                "memory": "32Gi",
                "accelerator": {"type": "nvidia-l4", "count": 2},
                "tolerations": [{"key": "nvidia.com/gpu"}],
                "topologySpreadKey": "topology.kubernetes.io/zone",
            },
        ]
    }
}
FULL: Manifest = {
    "managed": SPEC["managed"]
    | {
        "imagePullSecrets": [{"name": "registry"}],
        "gcsFaultTolerance": {
            "redisAddress": "rediss://redis:6379",
            "usernameSecretRef": {"name": "redis", "key": "user"},
            "passwordSecretRef": {"name": "redis"},
            "caSecretRef": {"name": "redis-ca"},
        },
        "priorityClassName": "high",
        "modelClaims": [{"name": "models"}],
        "cache": {"hostPath": "/var/cache/models"},
        "podTemplate": {
            "metadata": {"labels": {"cost": "42"}, "annotations": {"a/b": "c"}},
            "spec": {
                "runtimeClassName": "nvidia",
                "serviceAccountName": "models",
                "securityContext": {"supplementalGroups": [5]},
                "idsFromCluster": True,
                "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
                "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
                "topologySpreadConstraints": [
                    {"maxSkew": 1, "topologyKey": "host", "whenUnsatisfiable": "DoNotSchedule"}
                ],
                "volumes": [{"name": "temporary", "emptyDir": {"sizeLimit": "1Gi"}}],
                "hostAliases": [{"ip": "192.0.2.1", "hostnames": ["a"]}],
                "initContainers": [{"name": "first", "image": "i", "restartPolicy": "Always"}],
                "containers": [
                    {
                        "name": "ray-worker",
                        "resources": {"limits": {"cpu": 8}},
                        "envFrom": [{"secretRef": {"name": "s"}}],
                    },
                    {
                        "name": "autoscaler",
                        "resources": {"limits": {"cpu": "500m"}},
                        "env": [{"name": "A", "value": "b"}],
                    },
                    {"name": "proxy", "image": "p", "volumeMounts": [{"name": "temporary", "mountPath": "/tmp"}]},
                ],
            },
        },
    }
}


@pytest.fixture(scope="module")
def plane(control_plane_binary: Path) -> Iterator[ControlPlane]:
    """An API server of its own, since others' must not change what it serves."""
    with ControlPlane(control_plane_binary) as made:
        made.serve(CRDS)
        yield made


def serve_ray_clusters(plane: ControlPlane) -> None:
    folder = module_folder(PROGRAMS["kuberay"], KUBERAY_MODULE)
    plane.serve(folder / "config" / "crd" / "bases" / "ray.io_rayclusters.yaml")


@pytest.fixture(scope="module")
def kuberay(plane: ControlPlane) -> ControlPlane:
    """The same, once it serves RayClusters."""
    serve_ray_clusters(plane)
    return plane


@pytest.fixture
def cluster(plane: ControlPlane) -> Iterator[KubernetesCluster]:
    made = KubernetesCluster.connect(plane.kubeconfig)
    yield made
    made.close()


@pytest.fixture
def space(plane: ControlPlane) -> str:
    name = f"pools-{secrets.token_hex(4)}"
    plane.kubectl("create", "namespace", name)
    return name


def pool(space: str, spec: Manifest = SPEC, name: str = "default") -> Manifest:
    return {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "ServingPool",
        "metadata": {"name": name, "namespace": space},
        "spec": spec,
    }


def deployment(space: str, name: str = "digits") -> Manifest:
    return {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "InferenceDeployment",
        "metadata": {"name": name, "namespace": space},
        "spec": {"model": {"storageUri": "file:///models/1", "modelFormat": "onnx"}},
    }


@contextmanager
def operation(plane: ControlPlane, space: str | None, *, default: Manifest | None = None) -> Iterator[None]:
    """A whole operator, of one namespace or all."""
    cluster = KubernetesCluster.connect(plane.kubeconfig)
    settings = Settings(
        gateway_secret="a-secret",
        pools=SETTINGS,
        default_pool=None if default is None else ServingPoolSpec.model_validate(default),
        namespaces=() if space is None else (space,),
        workers=4,
    )
    running = Operation(cluster, settings, lambda *_: None, lambda: True)
    running.start()
    eventually(lambda: running.why_unready() is None, "the operator is ready, with KubeRay or without")
    try:
        yield
    finally:
        running.stop(10)
        cluster.close()


def told(cluster: Cluster, space: str, kind: str = "Ready") -> tuple[str, str]:
    found = cluster.get(SERVING_POOL, Key(space, "default")) or {}
    for each in (found.get("status") or {}).get("conditions", ()):
        if each["type"] == kind:
            return each["reason"], each["message"]
    return "", ""


def test_without_kuberay_a_pool_says_so_and_goes_on_once_it_is_there(
    plane: ControlPlane, cluster: KubernetesCluster, space: str
) -> None:
    plane.kubectl("delete", "crd", "rayclusters.ray.io", "--ignore-not-found")
    with operation(plane, space):
        cluster.apply(SERVING_POOL, pool(space), "test")
        eventually(lambda: told(cluster, space)[0] == "KubeRayMissing", "the pool says what is missing")
        assert "install KubeRay" in told(cluster, space)[1]
        serve_ray_clusters(plane)
        eventually(lambda: told(cluster, space)[0] == "StartingPool", "the pool starts")
        assert cluster.get(RAY_CLUSTER, Key(space, "penstock-default")) is not None


@pytest.mark.parametrize("spec", [SPEC, FULL], ids=["a plain pool", "a pool with everything"])
def test_all_that_a_pool_is_made_of_passes_strict_validation(kuberay: ControlPlane, space: str, spec: Manifest) -> None:
    manifest = pool(space, spec)
    manifest["metadata"]["uid"] = "00000000-0000-0000-0000-000000000001"
    parsed = ServingPool.model_validate(manifest)
    made = build(parsed, SETTINGS, "token", "penstock-default", took_over=1.0)
    for each in (made, *policies(parsed, "penstock-system")):
        answer = kuberay.kubectl(
            "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", input=json.dumps(each)
        )
        assert "serverside-applied" in answer.stdout


def test_the_first_deployment_of_a_namespace_makes_the_default_pool_and_again_when_it_was_deleted(
    kuberay: ControlPlane, cluster: KubernetesCluster, space: str
) -> None:
    with operation(kuberay, space, default=SPEC):
        cluster.apply(INFERENCE_DEPLOYMENT, deployment(space), "test")
        made = eventually(lambda: cluster.get(SERVING_POOL, Key(space, "default")), "the pool is there")
        assert made["metadata"]["labels"]["penstock.dev/made-by-default"] == "true"
        eventually(lambda: cluster.get(RAY_CLUSTER, Key(space, "penstock-default")), "its RayCluster")
        cluster.delete(SERVING_POOL, Key(space, "default"))

        def another() -> bool:
            found = cluster.get(SERVING_POOL, Key(space, "default"))
            return found is not None and found["metadata"]["uid"] != made["metadata"]["uid"]

        eventually(another, "it is made again")


def pool_ready(cluster: Cluster, space: str) -> Manifest:
    status = (cluster.get(INFERENCE_DEPLOYMENT, Key(space, "digits")) or {}).get("status") or {}
    return next((each for each in status.get("conditions", ()) if each["type"] == "PoolReady"), {})


@contextmanager
def policy(plane: ControlPlane, space: str, group: str, resource: str) -> Iterator[str]:
    """A platform's own, without a reason as most are; what it says. It holds from when it refuses."""
    name, says = f"team-{resource}-{space}", f"{resource} need the label team"
    rule = {"apiGroups": [group], "apiVersions": ["*"], "operations": ["CREATE"], "resources": [resource]}
    match = {"resourceRules": [rule], "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space}}}
    admission = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
    validation = {"expression": "'team' in object.metadata.?labels.orValue({})", "message": says}
    for each in (
        {"kind": "ValidatingAdmissionPolicy", "spec": {"matchConstraints": match, "validations": [validation]}},
        {"kind": "ValidatingAdmissionPolicyBinding", "spec": {"policyName": name, "validationActions": ["Deny"]}},
    ):
        plane.kubectl("apply", "-f", "-", input=json.dumps(admission | each))
    of_another = pool(space, SPEC, "probe") | {"metadata": {"name": "probe", "namespace": space, "uid": "1"}}
    parsed = ServingPool.model_validate(of_another)
    probe = of_another if resource == "servingpools" else build(parsed, SETTINGS, "t", "probe", took_over=1.0)
    probe["metadata"] = {"name": "probe", "namespace": space}

    def refuses() -> bool:
        tried = plane.kubectl("create", "--dry-run=server", "-f", "-", input=json.dumps(probe), check=False)
        return says in tried.stderr

    eventually(refuses, "the policy holds")
    yield says
    plane.kubectl("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", name)


def test_a_raycluster_that_a_policy_refuses_is_told_in_its_words_and_made_once_that_is_gone(
    kuberay: ControlPlane, cluster: KubernetesCluster, space: str
) -> None:
    with operation(kuberay, space):
        with policy(kuberay, space, "ray.io", "rayclusters") as says:
            cluster.apply(SERVING_POOL, pool(space), "test")
            eventually(lambda: told(cluster, space)[0] == "ApiRefused", "the pool says what refuses it")
            assert says in told(cluster, space)[1]
        eventually(lambda: cluster.get(RAY_CLUSTER, Key(space, "penstock-default")), "its RayCluster")


def test_a_default_pool_that_a_policy_refuses_is_told_by_the_deployment_and_made_once_that_is_gone(
    kuberay: ControlPlane, cluster: KubernetesCluster, space: str
) -> None:
    with operation(kuberay, space, default=SPEC):
        with policy(kuberay, space, "penstock.dev", "servingpools") as says:
            cluster.apply(INFERENCE_DEPLOYMENT, deployment(space), "test")
            eventually(lambda: says in pool_ready(cluster, space).get("message", ""), "the policy's words")
            assert pool_ready(cluster, space)["reason"] == "ApiRefused"
        eventually(lambda: cluster.get(SERVING_POOL, Key(space, "default")), "the pool is there")


def test_no_pool_is_made_where_there_is_no_default(
    kuberay: ControlPlane, cluster: KubernetesCluster, space: str
) -> None:
    with operation(kuberay, space):
        cluster.apply(INFERENCE_DEPLOYMENT, deployment(space), "test")
        eventually(lambda: pool_ready(cluster, space).get("reason") == "PoolNotFound", "the missing pool is told")
        assert cluster.get(SERVING_POOL, Key(space, "default")) is None


class Played:
    """Reconciles one pool by hand, with KubeRay played and Ray stood in for, one for each RayCluster."""

    def __init__(self, cluster: KubernetesCluster, space: str, spec: Manifest = SPEC) -> None:
        self.cluster, self.space = cluster, space
        self.rays: dict[str, RayStandIn] = {}
        uid = cluster.apply(SERVING_POOL, pool(space, spec), "test")["metadata"]["uid"]
        self.token = ray_token("a-secret", uid)
        self.now = 1_000_000.0
        rays = RayClusters(cluster, SETTINGS, "a-secret", self._addresses)
        self.directory = PoolDirectory(cluster, rays, clock=lambda: self.now)
        managed = ManagedPools(cluster, rays, self.directory)
        reconciler = PoolReconciler(
            cluster,
            self.directory,
            managed,
            defaults=DefaultPools(cluster, None),
            release=PoolRelease(cluster, rays, lambda: self.now),
        )
        self.reconciler = Runner(cluster, reconciler, lambda *_: None, lambda: self.now)

    def _addresses(self, name: str, _: str) -> Addresses:
        if name not in self.rays:
            self.rays[name] = RayStandIn(token=self.token, deploy_seconds=0.0).__enter__()
        return Addresses(self.rays[name].url, self.rays[name].url)

    def close(self) -> None:
        for each in self.rays.values():
            each.__exit__()

    def change(self, **managed: Any) -> None:
        self.cluster.apply(SERVING_POOL, pool(self.space, {"managed": {**SPEC["managed"], **managed}}), "test")

    def step(self, seconds: float = 3.0) -> None:
        self.now += seconds
        threading.Event().wait(0.55)  # what a Ray cluster runs is read twice a second at most
        try:
            self.reconciler.reconcile(Key(self.space, "default"))
        except Conflict:
            self.reconciler.reconcile(Key(self.space, "default"))  # as the queue would

    def heads_run(self) -> None:
        """KubeRay says that all heads are ready."""
        for each in self.cluster.list(RAY_CLUSTER, self.space).items:
            conditions = [
                {"type": kind, "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": _TIME}
                for kind in ("HeadPodReady", "RayClusterProvisioned")
            ]
            self.cluster.apply_status(RAY_CLUSTER, {**each, "status": {"conditions": conditions}}, "kuberay")

    def names(self) -> list[str]:
        return [each["metadata"]["name"] for each in self.cluster.list(RAY_CLUSTER, self.space).items]

    def status(self) -> Manifest:
        found = self.cluster.get(SERVING_POOL, Key(self.space, "default")) or {}
        status: Manifest = found["status"]
        return status


_TIME = "1970-01-01T00:00:00Z"
"""Long before what the clock of `Played` says."""


@pytest.fixture
def played(kuberay: ControlPlane, cluster: KubernetesCluster, space: str) -> Iterator[Played]:
    del kuberay  # it must be there
    made = Played(cluster, space)
    yield made
    made.close()


def test_a_pool_becomes_ready_with_a_secret_that_holds_its_token_and_its_policies(played: Played) -> None:
    played.step()
    assert told(played.cluster, played.space)[0] == "StartingPool"
    played.heads_run()
    played.step()
    assert told(played.cluster, played.space)[0] == "Ready"
    assert played.status()["rayCluster"] == "penstock-default"
    ray_cluster = played.cluster.get(RAY_CLUSTER, Key(played.space, "penstock-default"))
    assert ray_cluster is not None
    secret = played.cluster.get(SECRET, Key(played.space, ray_cluster["spec"]["authOptions"]["secretName"]))
    assert secret is not None
    assert secret["immutable"]
    assert len(played.cluster.list(NETWORK_POLICY, played.space).items) == 2


def test_what_the_autoscaler_writes_stays_whatever_changes_in_place(played: Played) -> None:
    played.step()
    played.heads_run()
    played.step()
    seen = played.cluster.get(RAY_CLUSTER, Key(played.space, "penstock-default"))
    assert seen is not None
    seen["spec"]["workerGroupSpecs"][0] |= {"replicas": 3, "scaleStrategy": {"workersToDelete": ["w-1"]}}
    played.cluster.update(RAY_CLUSTER, seen)
    played.change(idleTimeoutSeconds=60)
    played.step()
    played.step()
    found = played.cluster.get(RAY_CLUSTER, Key(played.space, "penstock-default"))
    assert found is not None
    assert found["spec"]["autoscalerOptions"]["idleTimeoutSeconds"] == 60
    group = found["spec"]["workerGroupSpecs"][0]
    assert (group["replicas"], group["scaleStrategy"]) == (3, {"workersToDelete": ["w-1"]})
    assert played.status()["change"] == "InPlace"


def test_what_is_changed_by_hand_is_put_right_and_what_is_not_is_left_alone(played: Played) -> None:
    played.step()
    played.heads_run()
    played.step()
    key = Key(played.space, "penstock-default")
    seen = played.cluster.get(RAY_CLUSTER, key)
    assert seen is not None
    played.step()
    assert played.cluster.get(RAY_CLUSTER, key) == seen, "what the API added is nobody's change"
    (policy_, _) = played.cluster.list(NETWORK_POLICY, played.space).items
    group = seen["spec"]["workerGroupSpecs"][0]
    group["maxReplicas"] = 1
    group["template"]["spec"]["containers"][0]["image"] = "registry.example.com/mistyped:1"
    played.cluster.update(RAY_CLUSTER, seen)
    played.cluster.update(NETWORK_POLICY, policy_ | {"spec": policy_["spec"] | {"ingress": [{}]}})
    played.step()
    assert "was changed by another hand" in told(played.cluster, played.space, "Progressing")[1]
    found = played.cluster.get(RAY_CLUSTER, key)
    assert found is not None
    group = found["spec"]["workerGroupSpecs"][0]
    assert (group["maxReplicas"], group["template"]["spec"]["containers"][0]["image"]) == (4, SETTINGS.image)
    assert played.cluster.get(NETWORK_POLICY, key_of(policy_))["spec"] == policy_["spec"]  # type: ignore[index]  # it is there
    played.step()
    assert told(played.cluster, played.space, "Progressing")[0] == "RolledOut"


@pytest.fixture
def deleted_with_redis(played: Played) -> Played:
    """A pool with a Redis, which is being deleted, and whose RayCluster KubeRay keeps until its Job has emptied that."""
    played.change(gcsFaultTolerance={"redisAddress": "redis:6379"})
    played.step()
    found = played.cluster.get(RAY_CLUSTER, Key(played.space, "penstock-default"))
    assert found is not None
    played.cluster.add_finalizer(RAY_CLUSTER, found, REDIS_FINALIZER)
    played.cluster.delete(SERVING_POOL, Key(played.space, "default"))
    played.now = time.time()
    played.step()
    return played


def test_a_pool_with_a_redis_keeps_its_secret_until_that_is_emptied(deleted_with_redis: Played) -> None:
    cluster, space = deleted_with_redis.cluster, deleted_with_redis.space
    found = cluster.get(RAY_CLUSTER, Key(space, "penstock-default"))
    assert found is not None
    assert found["metadata"]["deletionTimestamp"]
    assert cluster.get(SECRET, Key(space, found["spec"]["authOptions"]["secretName"])) is not None
    cluster.remove_finalizer(RAY_CLUSTER, found, REDIS_FINALIZER)
    deleted_with_redis.step()
    assert cluster.get(SERVING_POOL, Key(space, "default")) is None


def test_a_redis_that_cannot_be_emptied_keeps_no_pool_for_ever(deleted_with_redis: Played) -> None:
    deleted_with_redis.step(PATIENCE_SECONDS + 10)
    deleted_with_redis.step()
    assert deleted_with_redis.names() == []
    assert deleted_with_redis.cluster.get(SERVING_POOL, Key(deleted_with_redis.space, "default")) is None


def test_at_rest_nothing_is_written(played: Played) -> None:
    played.step()
    played.heads_run()
    played.step()
    played.step()
    before = [each["metadata"]["resourceVersion"] for each in played.cluster.list(RAY_CLUSTER, played.space).items]
    pools = played.cluster.get(SERVING_POOL, Key(played.space, "default"))
    for _ in range(3):
        played.step(60.0)
    after = [each["metadata"]["resourceVersion"] for each in played.cluster.list(RAY_CLUSTER, played.space).items]
    assert after == before
    assert played.cluster.get(SERVING_POOL, Key(played.space, "default")) == pools


def test_a_replacement_moves_all_that_runs_and_then_the_old_one_goes(played: Played) -> None:
    played.step()
    played.heads_run()
    played.step()
    theirs = {"name": "theirs", "import_path": "their.app:app", "args": {"k": 1}, "deployments": []}
    played.rays["penstock-default"].put({"applications": [theirs]})
    played.change(image="mine:2")
    played.step()
    (candidate,) = [name for name in played.names() if name != "penstock-default"]
    assert played.status()["candidateRayCluster"] == candidate
    assert played.status()["rayCluster"] == "penstock-default"
    played.heads_run()
    played.step()
    played.step()
    assert set(played.rays[candidate].details()["applications"]) == {"theirs"}
    played.step()
    assert played.status()["rayCluster"] == candidate
    assert set(played.rays["penstock-default"].details()["applications"]) == {"theirs"}, "routes move first"
    played.step(60.0)
    assert not played.rays["penstock-default"].details()["applications"]
    played.step()
    played.step()
    assert played.names() == [candidate]
    assert told(played.cluster, played.space, "Progressing")[0] == "RolledOut"


def test_forty_deployments_and_their_pools_are_gone_though_the_operator_restarts(
    kuberay: ControlPlane, cluster: KubernetesCluster
) -> None:
    spaces = [f"going-{number}" for number in range(4)]
    for each in spaces:
        cluster.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": each}})
    keys = [Key(each, f"model-{number}") for each in spaces for number in range(10)]

    def left() -> list[Key]:
        kinds = (INFERENCE_DEPLOYMENT, SERVING_POOL, RAY_CLUSTER, SECRET, NETWORK_POLICY)
        return [key_of(item) for kind in kinds for item in cluster.list(kind).items if key_of(item).namespace in spaces]

    def released() -> bool:
        items = cluster.list(INFERENCE_DEPLOYMENT).items
        return sum("finalizers" in each["metadata"] for each in items if key_of(each) in keys) == len(keys)

    with operation(kuberay, None, default=SPEC):
        for key in keys:
            cluster.apply(INFERENCE_DEPLOYMENT, deployment(*key), "test")
        eventually(released, "all have been taken up", pause=0.5)
        eventually(
            lambda: len(left()) == 60, "each namespace has a pool, a RayCluster, a token and two policies", pause=0.5
        )
    deleting = threading.Thread(target=_delete_all, args=(kuberay, keys, spaces))
    deleting.start()
    with operation(kuberay, None, default=SPEC):
        deleting.join()
    with operation(kuberay, None, default=SPEC):
        eventually(lambda: not left(), f"nothing is left, nothing is stuck: {left()[:3]}", pause=0.5)


def _delete_all(plane: ControlPlane, keys: list[Key], spaces: list[str]) -> None:
    cluster = KubernetesCluster.connect(plane.kubeconfig)
    for key in keys:
        cluster.delete(INFERENCE_DEPLOYMENT, key)
    for each in spaces:
        cluster.delete(SERVING_POOL, Key(each, "default"))
    cluster.close()
