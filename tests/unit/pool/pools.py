"""Managed pools and their RayClusters, for the planner's tables."""

from __future__ import annotations

from typing import Any

from penstock.api.meta import Manifest
from penstock.api.pool import ServingPool
from penstock.api.verdicts import timestamp
from penstock_operator.pool.observed import PoolObserved, RayClusterView, view
from penstock_operator.pool.raycluster import GroupCount, build
from penstock_operator.pool.raypods import PoolSettings

NOW = 1_000_000.0
UID = "5e1f"
SECRET = "penstock-default-ray-0123456789"
SETTINGS = PoolSettings(image="penstock/runtime:1.0.0")
CPU = {"name": "cpu", "cpu": "4", "memory": "8Gi", "minWorkers": 1, "maxWorkers": 3}
GPU = {"name": "l4", "cpu": "8", "memory": "32Gi", "maxWorkers": 2, "accelerator": {"type": "nvidia-l4"}}


def pool(*groups: dict[str, Any], suspend: bool = False, name: str = "default", **managed: Any) -> ServingPool:
    spec = {"managed": {"workerGroups": list(groups or (CPU,)), **managed}, "suspend": suspend}
    metadata = {"name": name, "namespace": "vision", "uid": UID, "generation": 2}
    return ServingPool.model_validate({"metadata": metadata, "spec": spec})


def manifest_of(
    of: ServingPool,
    name: str = "penstock-default",
    *,
    took_over: float | None = NOW - 1000,
    counts: dict[str, GroupCount] | None = None,
    secret: str = SECRET,
) -> Manifest:
    """The RayCluster as it would stand in the API once a pool's spec was applied."""
    manifest = build(of, SETTINGS, secret, name, groups=counts, took_over=took_over)
    manifest["metadata"]["resourceVersion"] = "17"
    return manifest


def running(
    of: ServingPool,
    name: str = "penstock-default",
    *,
    took_over: float | None = NOW - 1000,
    ready: bool = True,
    ever: bool = True,
    started: int | None = None,
    since: float = NOW - 1000,
    counts: dict[str, GroupCount] | None = None,
    secret: str = SECRET,
) -> RayClusterView:
    """The same as the planner sees it, with its head ready or not since then, and so many workers started."""
    manifest = manifest_of(of, name, took_over=took_over, counts=counts, secret=secret)
    conditions = [
        {"type": "HeadPodReady", "status": str(ready), "lastTransitionTime": timestamp(since)},
        {"type": "RayClusterProvisioned", "status": str(ever)},
    ]
    workers = sum(each.get("replicas", 0) for each in manifest["spec"]["workerGroupSpecs"])
    answering = workers if ready else 0
    manifest["status"] = {
        "conditions": conditions,
        "desiredWorkerReplicas": workers,
        "readyWorkerReplicas": answering,
        "availableWorkerReplicas": answering if started is None else started,
    }
    return view(manifest)


def observed(of: ServingPool, *clusters: RayClusterView, **more: Any) -> PoolObserved:
    return PoolObserved(of, SETTINGS, SECRET, clusters, **more)
