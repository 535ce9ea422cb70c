"""Objects that a newer release wrote, whose CRDs stay after a rollback: their unknown fields change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.owners import owner_reference
from tests.telling import assert_tells, telling

from penstock import names
from penstock.api.access import Authentication
from penstock.api.reading import read
from penstock.api.v1alpha1 import InferenceDeployment
from penstock.errors import Invalid
from penstock_operator.deployment.observe import Observer
from penstock_operator.deployment.reconcile import DeploymentReconciler
from penstock_operator.deployment.routes import RouteWriter
from penstock_operator.gateway.fleet import Fleet
from penstock_operator.keys.directory import KeyDirectory
from penstock_operator.keys.reconcile import KeyReconciler
from penstock_operator.kinds import (
    API_KEY,
    INFERENCE_DEPLOYMENT,
    OPTIMIZATION_PROFILE,
    OPTIMIZATION_RUN,
    SERVING_POOL,
    TENANT_QUOTA,
)
from penstock_operator.optimization.directory import OptimizationDirectory
from penstock_operator.optimization.job import JobSettings
from penstock_operator.optimization.keys import RunKeys
from penstock_operator.optimization.observe import RunObserver
from penstock_operator.optimization.reconcile import RunReconciler
from penstock_operator.pool.clusters import RayClusters
from penstock_operator.pool.defaults import DefaultPools
from penstock_operator.pool.directory import PoolDirectory
from penstock_operator.pool.managed import ManagedPools
from penstock_operator.pool.reconcile import PoolReconciler
from penstock_operator.pool.release import PoolRelease
from penstock_operator.quota.directory import QuotaDirectory
from penstock_operator.quota.reconcile import QuotaReconciler
from penstock_operator.runtime.cluster import JOB, EventType, Key, Manifest, ResourceKind
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
from penstock_operator.runtime.cluster.storage import Storage, Stored
from penstock_operator.runtime.loop.controller import Reconcile
from penstock_operator.runtime.loop.news import News
from penstock_operator.runtime.loop.reconciler import AnyReconciler, Runner
from penstock_runtime.storage import Store

KEY = Key("default", "one")
MODEL = {"storageUri": "file:///m", "modelFormat": "onnx"}
GROUP = {"name": "cpu", "cpu": "1", "memory": "2Gi"}
NEWER: Manifest = {"fresh": {"of": ["a", "newer", "release"]}}
NEWER_FORMAT = {"model": {**MODEL, "modelFormat": "of-a-newer-release"}}


class Operator:
    """All reconcilers on one store, without gateways, Ray or Kubernetes."""

    def __init__(self, cluster: EmbeddedCluster, store: Path) -> None:
        self.recorded: list[tuple[str, str]] = []

        def record(about: Manifest, news: News) -> None:
            self.recorded.append((about["kind"], news.reason))

        rays = RayClusters(cluster, None, "a-secret")
        pools, keys = PoolDirectory(cluster, rays), KeyDirectory(cluster)
        optimization, quotas = OptimizationDirectory(cluster, available=True), QuotaDirectory(cluster)
        fleet = Fleet((), "")
        observer = Observer(
            pools, optimization, fleet, quotas, keys,
            gateway_secret="a-secret", replica_host=None, trusted_keys=(), artifact_secret=None,
            default_authentication=Authentication.ANONYMOUS, max_body_bytes=1 << 20,
        )  # fmt: skip
        jobs = JobSettings(store=store.as_uri(), signing_key="/key.pem", image="optimizer:1", signing_key_secret="key")
        run_keys = RunKeys("a-secret", "key")
        runs = RunObserver(cluster, optimization, jobs, Store, pools, keys=run_keys.public_keys)
        reconcilers: tuple[AnyReconciler, ...] = (
            DeploymentReconciler(cluster, observer, fleet, RouteWriter(fleet)),
            PoolReconciler(
                cluster, pools, ManagedPools(cluster, rays, pools),
                defaults=DefaultPools(cluster, None), release=PoolRelease(cluster, rays),
            ),
            RunReconciler(cluster, runs, run_keys),
            KeyReconciler(keys),
            QuotaReconciler(quotas),
        )  # fmt: skip
        self.reconcile: dict[ResourceKind, Reconcile] = {
            each.kind: Runner(cluster, each, record).reconcile for each in reconcilers
        }


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EmbeddedCluster]:
    made = EmbeddedCluster(tmp_path / "cluster.sqlite")
    yield made
    made.close()


@pytest.fixture
def operator(cluster: EmbeddedCluster, tmp_path: Path) -> Operator:
    return Operator(cluster, tmp_path / "store")


def add(cluster: EmbeddedCluster, kind: ResourceKind, spec: Manifest, name: str = KEY.name, **metadata: Any) -> None:
    about = {"name": name, "namespace": KEY.namespace, **metadata}
    cluster.apply(kind, {"metadata": about, "spec": spec}, "test")


@dataclass(frozen=True)
class Written:
    """An object with fields that only a newer release knows, and what this one is to say of it."""

    kind: ResourceKind
    spec: Manifest
    manager: str
    condition: str
    reason: str


WRITTEN = [
    pytest.param(
        Written(
            INFERENCE_DEPLOYMENT,
            {"model": MODEL | NEWER, "scaling": {"maxReplicas": 2} | NEWER},
            names.DEPLOYMENT_MANAGER,
            "PoolReady",
            "PoolNotFound",
        ),
        id="a deployment",
    ),
    pytest.param(
        Written(
            SERVING_POOL,
            {"managed": {"workerGroups": [GROUP | NEWER]} | NEWER},
            names.POOL_MANAGER,
            "Ready",
            "KubeRayMissing",
        ),
        id="a pool",
    ),
    pytest.param(
        Written(
            OPTIMIZATION_RUN,
            {"model": MODEL | NEWER, "profileRef": {"kind": "OptimizationProfile", "name": "own"} | NEWER},
            names.RUN_MANAGER,
            "Complete",
            "Pending",
        ),
        id="a run",
    ),
    pytest.param(Written(API_KEY, {"sha256": "a" * 64}, names.KEY_MANAGER, "Ready", "KeyAccepted"), id="an API key"),
    pytest.param(
        Written(TENANT_QUOTA, {"hard": {"replicas": 3} | NEWER}, names.QUOTA_MANAGER, "Exceeded", "WithinQuota"),
        id="a quota",
    ),
]


@pytest.mark.parametrize("written", WRITTEN)
def test_fields_of_a_newer_release_change_nothing(
    cluster: EmbeddedCluster, operator: Operator, written: Written
) -> None:
    add(cluster, OPTIMIZATION_PROFILE, {"search": {"budgetMinutes": 5}}, "own")
    add(cluster, written.kind, written.spec | NEWER)
    said = {"type": written.condition, "status": "False", "reason": "OfANewerRelease", **NEWER}
    status = {"conditions": [said], "observedGeneration": 1, **NEWER}
    about = {"name": KEY.name, "namespace": KEY.namespace}
    cluster.apply_status(written.kind, {"metadata": about, "status": status}, written.manager)

    operator.reconcile[written.kind](KEY)

    found = cluster.get(written.kind, KEY)
    assert found is not None
    reasons = {each["type"]: each["reason"] for each in found["status"]["conditions"]}
    assert reasons[written.condition] == written.reason
    assert found["spec"]["fresh"] == NEWER["fresh"], "what others wrote is theirs"


def test_a_run_and_a_profile_with_fields_of_a_newer_release_are_used(
    cluster: EmbeddedCluster, operator: Operator
) -> None:
    add(cluster, OPTIMIZATION_PROFILE, {"search": {"budgetMinutes": 5} | NEWER, **NEWER}, "own")
    profile = {"optimizationProfileRef": {"kind": "OptimizationProfile", "name": "own"}}
    add(cluster, INFERENCE_DEPLOYMENT, {"model": MODEL, **profile})
    operator.reconcile[INFERENCE_DEPLOYMENT](KEY)
    (run,) = cluster.list(OPTIMIZATION_RUN, KEY.namespace).items
    operator.reconcile[OPTIMIZATION_RUN](Key(KEY.namespace, run["metadata"]["name"]))
    assert len(cluster.list(JOB, KEY.namespace).items) == 1
    about = {"name": run["metadata"]["name"], "namespace": KEY.namespace}
    cluster.apply_status(OPTIMIZATION_RUN, {"metadata": about, "status": NEWER}, "of-a-newer-release")

    operator.reconcile[INFERENCE_DEPLOYMENT](KEY)

    found = cluster.get(INFERENCE_DEPLOYMENT, KEY)
    assert found is not None
    assert found["status"]["optimizationRun"] == run["metadata"]["name"]


UNREADABLE = [
    pytest.param(INFERENCE_DEPLOYMENT, NEWER_FORMAT, ("Ready", "spec.model.modelFormat: "), id="a deployment"),
    pytest.param(
        SERVING_POOL, {"managed": {"workerGroups": [GROUP | {"cpu": [1]}]}}, ("Ready", "spec.managed."), id="a pool"
    ),
    pytest.param(
        OPTIMIZATION_RUN,
        {"model": MODEL, "profileRef": {"name": [1]}},
        ("Complete", "spec.profileRef.name: "),
        id="a run",
    ),
    pytest.param(API_KEY, {"sha256": 5}, ("Ready", "spec.sha256: "), id="an API key"),
    pytest.param(TENANT_QUOTA, {"hard": {"replicas": "many"}}, ("Ready", "spec.hard.replicas: "), id="a quota"),
]


@pytest.mark.parametrize(("kind", "spec", "expected"), UNREADABLE)
def test_of_what_this_release_cannot_read_its_status_says_so_and_all_else_stays(
    cluster: EmbeddedCluster, operator: Operator, kind: ResourceKind, spec: Manifest, expected: tuple[str, str]
) -> None:
    condition, said = expected
    add(cluster, kind, spec, finalizers=[names.FINALIZER])
    about = {"name": KEY.name, "namespace": KEY.namespace}
    other = {"type": "Other", "status": "True", "reason": "OfANewerRelease"}
    cluster.apply_status(kind, {"metadata": about, "status": {"url": "http://x", "conditions": [other]}}, "newer")
    before = cluster.get(kind, KEY)
    assert before is not None
    for _ in range(2):
        with pytest.raises(Invalid, match=telling(f"{kind.kind} default/one", said)):
            operator.reconcile[kind](KEY)
    found = cluster.get(kind, KEY)
    assert found is not None
    kept, told = found["status"].pop("conditions")
    assert kept == other
    assert (told["type"], told["status"], told["reason"]) == (condition, "False", "InvalidSpec")
    assert_tells(told["message"], said)
    assert found["spec"] == before["spec"]
    assert found["status"] == {"url": "http://x"}
    assert operator.recorded == [(kind.kind, "InvalidSpec")], "it is told once"


def test_labels_that_a_former_store_took_are_said_to_be_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "former.sqlite"
    EmbeddedCluster(path).close()
    storage = Storage(path, 10)
    metadata = {"name": "one", "namespace": "default", "labels": {"version": 2}, "uid": "u", "generation": 1}
    about = {"apiVersion": "penstock.dev/v1alpha1", "kind": "InferenceDeployment", "metadata": metadata}
    with storage.write_transaction():
        broken = Stored("inferencedeployments.penstock.dev", {**about, "spec": {"model": MODEL}}, {})
        storage.save(EventType.ADDED, broken)
    storage.close()
    cluster = EmbeddedCluster(path)
    with pytest.raises(Invalid):
        Operator(cluster, tmp_path / "store").reconcile[INFERENCE_DEPLOYMENT](KEY)
    found = cluster.get(INFERENCE_DEPLOYMENT, KEY)
    assert found is not None
    (told,) = found["status"]["conditions"]
    assert "metadata.labels.version" in told["message"]
    cluster.close()


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(NEWER_FORMAT | {"scaling": {"replicas": 2}}, id="whose model is of a newer release"),
        pytest.param(
            {"model": MODEL, "scaling": {"replicas": 2}, "resources": {"memory": "much"}}, id="of no quantity"
        ),
        pytest.param({"model": MODEL, "scaling": {"replicas": 2}, "resources": []}, id="whose resources are a list"),
        pytest.param({"scaling": {"replicas": 2}}, id="without a model"),
    ],
)
def test_a_deployment_that_cannot_be_read_is_counted_as_far_as_it_can_and_keeps_no_other_waiting(
    cluster: EmbeddedCluster, operator: Operator, spec: Manifest
) -> None:
    add(cluster, TENANT_QUOTA, {"hard": {"replicas": 3}}, "quota")
    add(cluster, INFERENCE_DEPLOYMENT, spec, "a-broken-one")
    add(cluster, INFERENCE_DEPLOYMENT, {"model": MODEL})
    operator.reconcile[INFERENCE_DEPLOYMENT](KEY)
    operator.reconcile[TENANT_QUOTA](Key("default", "quota"))
    found, quota = cluster.get(INFERENCE_DEPLOYMENT, KEY), cluster.get(TENANT_QUOTA, Key("default", "quota"))
    assert found is not None
    assert quota is not None
    assert {each["type"] for each in found["status"]["conditions"]} >= {"Ready", "PoolReady"}
    assert quota["status"]["used"]["replicas"] == 3


def test_a_quota_that_cannot_be_read_leaves_no_room_and_the_deployment_says_so(cluster: EmbeddedCluster) -> None:
    add(cluster, TENANT_QUOTA, {"hard": {"replicas": "many"}})
    add(cluster, INFERENCE_DEPLOYMENT, {"model": MODEL})
    deployment = read(InferenceDeployment, cluster.get(INFERENCE_DEPLOYMENT, KEY) or {})
    excess = QuotaDirectory(cluster).excess(deployment)
    assert excess is not None
    assert excess.replicas == 0
    assert_tells(excess.message, "TenantQuota default/one spec.hard.replicas")


def test_a_run_that_cannot_be_read_is_said_where_its_model_is_deployed(
    cluster: EmbeddedCluster, operator: Operator
) -> None:
    add(cluster, OPTIMIZATION_PROFILE, {}, "own")
    profile = {"kind": "OptimizationProfile", "name": "own"}
    add(cluster, INFERENCE_DEPLOYMENT, {"model": MODEL, "optimizationProfileRef": profile})
    owner = owner_reference(cluster.get(INFERENCE_DEPLOYMENT, KEY) or {})
    add(cluster, OPTIMIZATION_RUN, {"model": MODEL, "profileRef": {"name": [1]}}, "broken", ownerReferences=[owner])
    operator.reconcile[INFERENCE_DEPLOYMENT](KEY)
    found = cluster.get(INFERENCE_DEPLOYMENT, KEY)
    assert found is not None
    (told,) = [each for each in found["status"]["conditions"] if each["type"] == "ProfileApplied"]
    assert_tells(told["message"], "OptimizationRun default/broken")


DELETED = [
    pytest.param(INFERENCE_DEPLOYMENT, NEWER_FORMAT, id="a deployment"),
    pytest.param(SERVING_POOL, {"managed": {"workerGroups": [GROUP | {"cpu": [1]}]}}, id="a pool"),
]


@pytest.mark.parametrize(("kind", "spec"), DELETED)
def test_what_this_release_cannot_read_can_be_deleted(
    cluster: EmbeddedCluster, operator: Operator, kind: ResourceKind, spec: Manifest
) -> None:
    add(cluster, kind, spec, finalizers=[names.FINALIZER])
    cluster.delete(kind, KEY)
    assert cluster.get(kind, KEY) is not None, "its finalizer holds it"
    operator.reconcile[kind](KEY)
    assert cluster.get(kind, KEY) is None


def test_a_deployment_can_be_deleted_beside_one_that_this_release_cannot_read(
    cluster: EmbeddedCluster, operator: Operator
) -> None:
    add(cluster, TENANT_QUOTA, {"hard": {"replicas": 3}})
    add(cluster, INFERENCE_DEPLOYMENT, NEWER_FORMAT, "other")
    add(cluster, INFERENCE_DEPLOYMENT, {"model": MODEL}, finalizers=[names.FINALIZER])
    cluster.delete(INFERENCE_DEPLOYMENT, KEY)
    operator.reconcile[INFERENCE_DEPLOYMENT](KEY)
    assert cluster.get(INFERENCE_DEPLOYMENT, KEY) is None


def test_only_unknown_fields_are_left_out_and_at_every_depth() -> None:
    manifest = {
        "metadata": {"name": "one", "namespace": "default", "managedFields": []},
        "spec": {"model": MODEL | NEWER, "access": {"jwt": [], **NEWER}, **NEWER},
        "status": {"replicas": {"ready": 2} | NEWER, **NEWER},
        **NEWER,
    }
    assert read(InferenceDeployment, manifest) == read(
        InferenceDeployment,
        {"metadata": manifest["metadata"], "spec": {"model": MODEL}, "status": {"replicas": {"ready": 2}}},
    )
    with pytest.raises(Invalid, match=r"status\.replicas\.ready: "):
        read(InferenceDeployment, manifest | {"status": {"replicas": {"ready": "two"}}})
