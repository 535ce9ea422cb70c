"""Builds the KubeRay `RayCluster` of a managed pool, and says what of it can change while it runs.

Of a running cluster KubeRay and Ray's autoscaler take up other numbers of workers, new groups, another idle time, and
suspension. A changed pod template would reach only pods that start later, the head never: that is for a replacement.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from penstock.addresses import any_address
from penstock.api.conditions import Reason
from penstock.api.meta import Manifest
from penstock.api.pool import ManagedRayCluster, ServingPool, WorkerGroup
from penstock.errors import Invalid
from penstock.names import owner_reference
from penstock_operator.architectures import keep_to
from penstock_operator.pool import raypods, redis
from penstock_operator.pool.names import (
    APPLIED,
    GROUP_KINDS,
    KIND_OF,
    POOL_LABEL,
    TOOK_OVER,
    digest,
    label,
    ray_cluster,
)
from penstock_operator.pool.raypods import PoolSettings

RAY_VERSION: Final = "2.60.0"
"""Of the runtime image. KubeRay derives from it how to probe and to authenticate."""
_RULE: Final = "v1"
"""Versions what is hashed. A better builder does not by itself replace what runs."""


@dataclass(frozen=True, slots=True)
class GroupCount:
    """What Ray's autoscaler wrote into a group, which an apply must not undo."""

    replicas: int = 0
    leaving: tuple[str, ...] = ()
    """Names of pods that are to be deleted."""
    kind: str = ""
    """Its hash, by `group_hashes`, of what it was built from."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """The whole group as it is, for one that is no longer in the spec and still has workers."""


def build(
    pool: ServingPool,
    settings: PoolSettings,
    secret: str,
    name: str,
    *,
    groups: Mapping[str, GroupCount] | None = None,
    took_over: float | None = None,
    resource_version: str = "",
) -> Manifest:
    """The RayCluster of a managed pool.

    Args:
        pool: a managed one.
        settings: of the operator.
        secret: the Secret with Ray's token.
        name: of the RayCluster.
        groups: what its groups are now, in their order; None: there is none yet. The autoscaler names groups by their
            place, so present groups keep theirs.
        took_over: since when it serves, in epoch seconds; None: it is a candidate.
        resource_version: of what `groups` was read from: an apply fails where the autoscaler wrote since.

    Raises:
        Invalid: there is no image to run.
    """
    spec = managed_spec(pool)
    if not raypods.image(spec, settings):
        raise Invalid(
            Reason.INVALID_SPEC,
            "The pool names no image, and this operator was started without --runtime-image: set spec.managed.image",
        )
    body = _spec(pool, spec, settings, secret, groups or {})
    metadata = pool.metadata
    annotations = {
        KIND_OF: replacement_hash(spec, settings, secret),
        GROUP_KINDS: json.dumps(_kinds(spec, settings, groups or {}), sort_keys=True),
        APPLIED: _applied_hash(body),
    }
    if took_over is not None:
        annotations[TOOK_OVER] = str(int(took_over))
    manifest: Manifest = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {
            "name": name,
            "namespace": metadata.namespace,
            "labels": {POOL_LABEL: label(metadata.name), "app.kubernetes.io/managed-by": "penstock"},
            "annotations": annotations,
            "ownerReferences": [owner_reference(pool.api_version, pool.kind, metadata)],
        },
        "spec": body,
    }
    if resource_version:
        manifest["metadata"]["resourceVersion"] = resource_version
    return manifest


def replacement_hash(spec: ManagedRayCluster, settings: PoolSettings, secret: str) -> str:
    """A hash of all but the groups that cannot change while the cluster runs."""
    fixed = spec.model_dump(mode="json", exclude={"worker_groups", "idle_timeout_seconds"}, exclude_none=True)
    # What an earlier release had no word for must not change the hash where it is not said.
    template = {"template": settings.template.model_dump(mode="json", exclude_none=True)} if settings.template else {}
    trusted = {"trusted": [settings.trusted.config_map, settings.trusted.key]} if settings.trusted else {}
    return digest(
        {
            "rule": _RULE,
            "ray": RAY_VERSION,
            "image": raypods.image(spec, settings),
            "environment": sorted(settings.environment),
            "artifact_secret": settings.artifact_secret,
            "secret": secret,
            "spec": fixed,
            **template,
            **trusted,
        }
    )


def group_hashes(spec: ManagedRayCluster, settings: PoolSettings) -> dict[str, str]:
    """By the group's name, a hash of all of it that cannot change while its workers run."""
    return {each.name: _group_hash(each, spec, settings) for each in spec.worker_groups}


def _group_hash(group: WorkerGroup, spec: ManagedRayCluster, settings: PoolSettings) -> str:
    fixed = group.model_dump(mode="json", exclude={"min_workers", "max_workers"}, exclude_none=True)
    image = raypods.image(spec, settings, group)
    # The head's is in the hash of the whole.
    own = {"image": image} if image != raypods.image(spec, settings) else {}
    return digest({"rule": _RULE, "group": fixed, **own})


def replacement_name(pool: ServingPool, settings: PoolSettings, secret: str, serving: str) -> str:
    """The RayCluster that is to take over from the one named `serving`.

    Each change has another, a change of a group too; and none has the name of the one that serves, which may itself be a
    replacement for another change.
    """
    spec = managed_spec(pool)
    groups = group_hashes(spec, settings)
    change = digest({"kind": replacement_hash(spec, settings, secret), "groups": groups, "serving": serving})
    return ray_cluster(pool.metadata.name, change)


def _kinds(spec: ManagedRayCluster, settings: PoolSettings, present: Mapping[str, GroupCount]) -> dict[str, str]:
    """Also of groups that left the spec, for as long as they have workers: they may come back as something else."""
    wanted = group_hashes(spec, settings)
    return {name: count.kind for name, count in present.items() if name not in wanted and count.replicas} | wanted


def managed_spec(pool: ServingPool) -> ManagedRayCluster:
    """What a managed pool asks for. Raises `Invalid` for one that is not."""
    if pool.spec.managed is None:
        raise Invalid(Reason.INVALID_SPEC, f"The pool {pool.metadata.name} is not managed: it has no RayCluster.")
    return pool.spec.managed


def _spec(
    pool: ServingPool, spec: ManagedRayCluster, settings: PoolSettings, secret: str, groups: Mapping[str, GroupCount]
) -> Manifest:
    name = pool.metadata.name
    body: Manifest = {
        "rayVersion": RAY_VERSION,
        "suspend": pool.spec.suspend,
        "authOptions": {"mode": "token", "secretName": secret},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": raypods.autoscaler(spec, settings),
        "headGroupSpec": {
            "serviceType": "ClusterIP",
            # The pool's NetworkPolicy and token guard it.
            "rayStartParams": {
                "dashboard-host": any_address(ipv6=settings.ipv6),
                "object-store-memory": raypods.object_store_bytes(),
            },
            # No core for replicas: what runs beside the head would take it down with itself.
            "resources": {"CPU": "0"},
            "template": raypods.head(name, spec, settings),
        },
        "workerGroupSpecs": _groups(pool, spec, settings, groups),
    }
    if spec.gcs_fault_tolerance is not None:
        body["gcsFaultToleranceOptions"] = redis.options(spec.gcs_fault_tolerance)
    if not spec.image:
        body["headGroupSpec"], *body["workerGroupSpecs"] = (
            _keep_to(settings.architectures, each) for each in (body["headGroupSpec"], *body["workerGroupSpecs"])
        )
    return body


def _keep_to(architectures: tuple[str, ...], group: Manifest) -> Manifest:
    template = group["template"]
    return {**group, "template": {**template, "spec": keep_to(architectures, template["spec"])}}


def _groups(
    pool: ServingPool, spec: ManagedRayCluster, settings: PoolSettings, present: Mapping[str, GroupCount]
) -> list[Manifest]:
    """Present groups first, in their order. One that left the spec stays while it has workers, and gets no more."""
    wanted = {each.name: each for each in spec.worker_groups}
    built = []
    for name in (*present, *(each for each in wanted if each not in present)):
        count = present.get(name, GroupCount())
        if name in wanted:
            built.append(_group(pool, spec, wanted[name], settings, count if name in present else None))
        elif count.replicas:
            built.append({**count.template, "minReplicas": 0, "maxReplicas": count.replicas})
    return built


def _group(
    pool: ServingPool, spec: ManagedRayCluster, group: WorkerGroup, settings: PoolSettings, count: GroupCount | None
) -> Manifest:
    """A group. Its greatest number is never below what runs: Ray would end workers without asking who is on them."""
    replicas = group.min_workers if count is None else max(count.replicas, group.min_workers)
    built: Manifest = {
        "groupName": group.name,
        "replicas": replicas,
        "minReplicas": group.min_workers,
        "maxReplicas": max(group.max_workers, replicas),
        "numOfHosts": 1,
        "rayStartParams": {"object-store-memory": raypods.object_store_bytes()},
        "resources": raypods.ray_resources(group),
        "template": raypods.worker(pool.metadata, spec, group, settings),
    }
    labels = raypods.ray_labels(group)
    if labels:
        built["labels"] = labels
    if count is not None and count.leaving:
        built["scaleStrategy"] = {"workersToDelete": list(count.leaving)}
    return built


def _applied_hash(body: Manifest) -> str:
    """Over what was built, without what Ray's autoscaler writes."""
    groups = [
        {key: value for key, value in each.items() if key not in {"replicas", "scaleStrategy"}}
        for each in body["workerGroupSpecs"]
    ]
    return digest({**body, "workerGroupSpecs": groups})
