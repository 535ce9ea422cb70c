"""Pools that a release replaces all at once: each is told whose turn it is, and looked at again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.telling import Telling

from penstock.api.verdicts import timestamp
from penstock_operator.kinds import SERVING_POOL
from penstock_operator.pool.clusters import Addresses, RayClusters
from penstock_operator.pool.defaults import DefaultPools
from penstock_operator.pool.directory import PoolDirectory
from penstock_operator.pool.kinds import RAY_CLUSTER
from penstock_operator.pool.managed import ManagedPools
from penstock_operator.pool.raypods import PoolSettings
from penstock_operator.pool.reconcile import PoolReconciler
from penstock_operator.pool.release import PoolRelease
from penstock_operator.pool.surge import AT_ONCE
from penstock_operator.runtime.cluster import NAMESPACE, Cluster, Key, Manifest
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
from penstock_operator.runtime.loop.reconciler import Runner
from penstock_operator.runtime.loop.requeue import Requeue

SPACES = [f"tenant-{number}" for number in range(AT_ONCE + 1)]
LAST = SPACES[-1]
NOBODY = Addresses("http://127.0.0.1:9", "http://127.0.0.1:9")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EmbeddedCluster]:
    """Pools of the release before, whose heads are ready."""
    made = EmbeddedCluster(tmp_path / "cluster.sqlite", now=lambda: NOW)
    spec = {"managed": {"workerGroups": [{"name": "cpu", "cpu": "1", "memory": "2Gi", "minWorkers": 1}]}}
    for each in SPACES:
        made.create(NAMESPACE, {"metadata": {"name": each}})
        made.apply(SERVING_POOL, {"metadata": {"name": "default", "namespace": each}, "spec": spec}, "test")
    release(made, "1", *SPACES)
    for each in made.list(RAY_CLUSTER).items:
        say(made, each, ready=True)
    yield made
    made.close()


def release(cluster: Cluster, version: str, *spaces: str) -> list[Requeue | None]:
    """One look at the pool of each namespace by the operator of a release, which is a new process each time."""
    rays = RayClusters(cluster, PoolSettings(image=f"runtime:{version}"), "s", lambda *_: NOBODY)
    directory = PoolDirectory(cluster, rays)
    managed = ManagedPools(cluster, rays, directory)
    defaults, ending = DefaultPools(cluster, None), PoolRelease(cluster, rays)
    reconciler = PoolReconciler(cluster, directory, managed, defaults=defaults, release=ending)
    pools = Runner(cluster, reconciler, lambda *_: None, lambda: NOW.timestamp() + 60)
    return [pools.reconcile(Key(each, "default")) for each in spaces]


def say(cluster: Cluster, ray_cluster: Manifest, *, ready: bool) -> None:
    """What KubeRay says of a RayCluster once it has made its pods."""
    condition = {"type": "HeadPodReady", "status": str(ready), "lastTransitionTime": timestamp(NOW.timestamp() - 1000)}
    status = {"conditions": [condition], "desiredWorkerReplicas": 1, "readyWorkerReplicas": int(ready)}
    cluster.apply_status(RAY_CLUSTER, {**ray_cluster, "status": status}, "kuberay")


def told(cluster: Cluster, space: str) -> tuple[str, str, str]:
    found = cluster.get(SERVING_POOL, Key(space, "default"))
    assert found is not None
    conditions = {each["type"]: each for each in found["status"]["conditions"]}
    return tuple(conditions["Progressing"][key] for key in ("status", "reason", "message"))  # type: ignore[return-value]  # three


def candidates(cluster: Cluster, *spaces: str) -> list[Manifest]:
    found = [each for space in spaces for each in cluster.list(RAY_CLUSTER, space).items]
    return [each for each in found if each["metadata"]["name"] != "penstock-default"]


def test_of_many_pools_a_few_are_replaced_at_once_and_the_next_is_told_and_looked_at_again(
    cluster: EmbeddedCluster,
) -> None:
    for each in SPACES[:-1]:
        release(cluster, "2", each)
        (made,) = candidates(cluster, each)
        say(cluster, made, ready=False)
    (result,) = release(cluster, "2", LAST)
    assert not candidates(cluster, LAST)
    assert told(cluster, LAST) == (
        "True", "Pending", Telling(f"{AT_ONCE} other pools")
    )  # fmt: skip
    assert result is not None
    say(cluster, candidates(cluster, SPACES[0])[0], ready=True)
    release(cluster, "2", LAST)
    assert len(candidates(cluster, LAST)) == 1


def test_two_that_one_process_looks_at_within_a_moment_begin_one_after_the_other(cluster: EmbeddedCluster) -> None:
    release(cluster, "2", *SPACES)
    assert len(candidates(cluster, *SPACES)) == 1
    assert "has just begun" in told(cluster, LAST)[2]
