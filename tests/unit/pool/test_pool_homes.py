"""Managed pools where there is no Kubernetes, pools made by default, and the command line that says how."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.telling import telling

from penstock.api.pool import ServingPool, ServingPoolSpec
from penstock.errors import Invalid
from penstock_operator.command_line import read
from penstock_operator.deployment.observed import PoolProblem
from penstock_operator.kinds import INFERENCE_DEPLOYMENT, SERVING_POOL
from penstock_operator.pool.clusters import RayClusters
from penstock_operator.pool.defaults import DefaultPools
from penstock_operator.pool.directory import PoolDirectory
from penstock_operator.pool.kinds import RAY_CLUSTER
from penstock_operator.pool.managed import ManagedPools
from penstock_operator.pool.raypods import PoolSettings
from penstock_operator.pool.reconcile import PoolReconciler
from penstock_operator.pool.release import PoolRelease
from penstock_operator.runtime.cluster import Cluster, Key, Manifest
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
from penstock_operator.runtime.loop.reconciler import Runner
from penstock_operator.settings import Settings

SPEC: Manifest = {"managed": {"workerGroups": [{"name": "cpu", "cpu": "1", "memory": "2Gi"}]}}
KEY = Key("default", "default")
IMAGE = PoolSettings(image="penstock/runtime:1.0.0")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EmbeddedCluster]:
    made = EmbeddedCluster(tmp_path / "cluster.sqlite")
    yield made
    made.close()


def reconciler(
    cluster: Cluster, settings: PoolSettings | None, *, secret: str = "s", default: Manifest | None = None
) -> Runner:
    rays = RayClusters(cluster, settings, secret)
    directory = PoolDirectory(cluster, rays)
    defaults = DefaultPools(cluster, None if default is None else ServingPoolSpec.model_validate(default))
    managed, release = ManagedPools(cluster, rays, directory), PoolRelease(cluster, rays)
    made = PoolReconciler(cluster, directory, managed, defaults=defaults, release=release)
    return Runner(cluster, made, lambda *_: None)


def add_pool(cluster: Cluster, spec: Manifest = SPEC) -> None:
    cluster.apply(SERVING_POOL, {"metadata": {"name": KEY.name, "namespace": KEY.namespace}, "spec": spec}, "test")


def told(cluster: Cluster) -> tuple[str, str]:
    found = cluster.get(SERVING_POOL, KEY)
    assert found is not None
    ready = next(each for each in found["status"]["conditions"] if each["type"] == "Ready")
    return ready["reason"], ready["message"]


def test_without_kubernetes_a_managed_pool_says_what_it_needs(cluster: EmbeddedCluster) -> None:
    add_pool(cluster)
    reconciler(cluster, None).reconcile(KEY)
    reason, message = told(cluster)
    assert reason == "KubeRayMissing"
    assert "spec.existing" in message
    assert not cluster.list(RAY_CLUSTER).items


def test_without_a_secret_no_token_is_derived_that_anybody_could_guess(cluster: EmbeddedCluster) -> None:
    add_pool(cluster)
    reconciler(cluster, IMAGE, secret="").reconcile(KEY)
    assert "--gateway-secret-file" in told(cluster)[1]
    assert not cluster.list(RAY_CLUSTER).items


def test_without_any_image_the_spec_is_refused_and_says_so(cluster: EmbeddedCluster) -> None:
    add_pool(cluster)
    with pytest.raises(Invalid, match=r"spec\.managed\.image"):
        reconciler(cluster, PoolSettings()).reconcile(KEY)
    assert told(cluster)[0] == "InvalidSpec"


def test_a_raycluster_of_somebody_elses_is_not_taken_over(cluster: EmbeddedCluster) -> None:
    theirs = {"metadata": {"name": "penstock-default", "namespace": "default"}, "spec": {"rayVersion": "1"}}
    cluster.create(RAY_CLUSTER, theirs)
    add_pool(cluster)
    reconciler(cluster, IMAGE).reconcile(KEY)
    assert told(cluster)[0] == "NameConflict"
    left = cluster.get(RAY_CLUSTER, Key("default", "penstock-default"))
    assert left is not None
    assert left["spec"] == {"rayVersion": "1"}


HEADLESS = [
    ("one that is only starting runs nothing", {}, True),
    ("one whose workers have started may run something", {"availableWorkerReplicas": 1}, False),
]


@pytest.mark.parametrize(("status", "empty"), [row[1:] for row in HEADLESS], ids=[row[0] for row in HEADLESS])
def test_of_a_pool_without_a_head(cluster: EmbeddedCluster, status: Manifest, empty: bool) -> None:  # noqa: FBT001  # a column of the table
    add_pool(cluster)
    reconciler(cluster, IMAGE).reconcile(KEY)
    (made,) = cluster.list(RAY_CLUSTER).items
    conditions = [{"type": kind, "status": "False"} for kind in ("HeadPodReady", "RayClusterProvisioned")]
    cluster.apply_status(RAY_CLUSTER, {**made, "status": {"conditions": conditions, **status}}, "kuberay")
    directory = PoolDirectory(cluster, RayClusters(cluster, IMAGE, "s"))
    pool = directory.pool(KEY)
    assert isinstance(pool, ServingPool)
    problem = directory.writer(pool)
    assert isinstance(problem, PoolProblem)
    assert problem.empty is empty


def deploy(cluster: Cluster, pool: str | None = None) -> Manifest:
    spec: Manifest = {"model": {"storageUri": "file:///m", "modelFormat": "onnx"}}
    if pool is not None:
        spec["poolRef"] = {"name": pool}
    return cluster.apply(
        INFERENCE_DEPLOYMENT, {"metadata": {"name": "digits", "namespace": KEY.namespace}, "spec": spec}, "test"
    )


def test_the_first_deployment_gets_the_default_pool_at_once(cluster: EmbeddedCluster) -> None:
    deploy(cluster)
    assert reconciler(cluster, IMAGE, default=SPEC).reconcile(KEY) is None
    made = cluster.get(SERVING_POOL, KEY)
    assert made is not None
    assert made["metadata"]["labels"]["penstock.dev/made-by-default"] == "true"


NOT_MADE = [("nobody wants it", None), ("they name another pool", "gpus")]


@pytest.mark.parametrize("pool", [row[1] for row in NOT_MADE], ids=[row[0] for row in NOT_MADE])
def test_no_pool_is_made_where(cluster: EmbeddedCluster, pool: str | None) -> None:
    if pool is not None:
        deploy(cluster, pool)
    reconciler(cluster, IMAGE, default=SPEC).reconcile(KEY)
    assert cluster.get(SERVING_POOL, KEY) is None


def test_a_pool_that_was_deleted_comes_back_unless_its_deployments_go_too(cluster: EmbeddedCluster) -> None:
    deploy(cluster)
    now = [4e9]  # long after the deployment was made
    defaults = DefaultPools(cluster, ServingPoolSpec.model_validate(SPEC), clock=lambda: now[0])
    wait = defaults.make(KEY)
    assert wait is not None
    assert cluster.get(SERVING_POOL, KEY) is None
    now[0] += wait + 0.1
    assert defaults.make(KEY) is None
    assert cluster.get(SERVING_POOL, KEY) is not None


def test_the_command_line_says_how_pools_are_made(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("managed:\n  workerGroups:\n  - {name: cpu, cpu: 1, memory: 2Gi}\n")
    settings = read(
        [
            "--runtime-image",
            "r:1",
            "--runtime-gpu-image",
            "g:1",
            "--pool-env",
            "OTEL_X=1",
            "--lease-namespace",
            "ns",
            "--default-pool-file",
            str(spec),
        ]
    )
    assert settings.pools == PoolSettings("r:1", "g:1", "ns", (("OTEL_X", "1"),))
    assert settings.default_pool is not None
    assert settings.default_pool.managed is not None
    assert settings.default_pool.managed.worker_groups[0].cpu == "1"


def test_on_one_machine_no_pool_is_made() -> None:
    assert read(["--standalone", "store"]).pools is None
    assert Settings().pools is None


NO_POOLS = [
    ("no worker group", "managed: {workers: 3}\n"),
    ("a field that is unknown", "managed: {workerGroups: [{name: cpu, cpu: 1, memory: 2Gi, workers: 3}]}\n"),
]


@pytest.mark.parametrize("text", [row[1] for row in NO_POOLS], ids=[row[0] for row in NO_POOLS])
def test_a_default_pool_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(text)
    with pytest.raises(Invalid, match=telling("ServingPool spec.yaml")):
        read(["--default-pool-file", str(spec)])
