"""Which objects look again when another one changes, and what of that one matters to them."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.api.conditions import Reason
from penstock_operator.kinds import INFERENCE_DEPLOYMENT, OPTIMIZATION_RUN, TENANT_QUOTA
from penstock_operator.optimization.directory import users_of
from penstock_operator.pool.users import deployments_of, pool_of
from penstock_operator.runtime.cluster import Key, Manifest, key_of, owner_keys
from penstock_operator.runtime.copies.mirrored import Seen


def spec_aspect(manifest: Manifest) -> object:
    """Its spec, and that it is going."""
    metadata = manifest["metadata"]
    return metadata.get("uid"), metadata.get("generation"), metadata.get("deletionTimestamp")


def readiness_aspect(pool: Manifest) -> object:
    """Of a pool: its spec, what serves, and its readiness. Its counts are nothing to its deployments."""
    status = pool.get("status") or {}
    conditions = [(each.get("status"), each.get("reason")) for each in status.get("conditions") or ()]
    return spec_aspect(pool), status.get("rayCluster"), conditions


def verdict_aspect(run: Manifest) -> object:
    """Of a run: its verdict and what it says. Its progress is nothing to its deployment."""
    status, metadata = run.get("status") or {}, run["metadata"]
    conditions = [(each.get("status"), each.get("reason")) for each in status.get("conditions") or ()]
    return metadata.get("uid"), metadata.get("deletionTimestamp"), status.get("verdict"), conditions


def pool_aspect(deployment: Manifest) -> object:
    """Of a deployment: which pool it names, and that it is going."""
    metadata = deployment["metadata"]
    return pool_of(deployment), metadata.get("uid"), metadata.get("deletionTimestamp")


def size_aspect(deployment: Manifest) -> object:
    """Of a deployment: its spec, by which it is counted until it is gone."""
    return deployment["metadata"].get("uid"), deployment["metadata"].get("generation")


def used_aspect(quota: Manifest) -> object:
    """Of a quota: what is taken of it."""
    return (quota.get("status") or {}).get("used")


def deployments_of_pool(pool: Manifest, seen: Seen) -> Iterable[Key]:
    """Those that name it."""
    key = key_of(pool)
    return deployments_of(key, seen(INFERENCE_DEPLOYMENT, key.namespace))


def deployments_in_namespace(manifest: Manifest, seen: Seen) -> Iterable[Key]:
    """All of its namespace."""
    return [key_of(each) for each in seen(INFERENCE_DEPLOYMENT, key_of(manifest).namespace)]


def deployments_that_wait(quota: Manifest, seen: Seen) -> Iterable[Key]:
    """Those of its namespace that a quota keeps from having new replicas."""
    return [key_of(each) for each in seen(INFERENCE_DEPLOYMENT, key_of(quota).namespace) if _waits(each)]


def deployments_of_profile(profile: Manifest, seen: Seen) -> Iterable[Key]:
    """Those that name it."""
    return users_of(profile, seen(INFERENCE_DEPLOYMENT, profile["metadata"].get("namespace")), "optimizationProfileRef")


def runs_of_profile(profile: Manifest, seen: Seen) -> Iterable[Key]:
    """Those that name it."""
    return users_of(profile, seen(OPTIMIZATION_RUN, profile["metadata"].get("namespace")), "profileRef")


def deployment_of_run(run: Manifest, _: Seen) -> Iterable[Key]:
    """The one that it belongs to."""
    return owner_keys(run, INFERENCE_DEPLOYMENT)


def pool_of_deployment(deployment: Manifest, _: Seen) -> Iterable[Key]:
    """The one that it names."""
    return (pool_of(deployment),)


def quotas_in_namespace(deployment: Manifest, seen: Seen) -> Iterable[Key]:
    """All of its namespace."""
    return [key_of(each) for each in seen(TENANT_QUOTA, key_of(deployment).namespace)]


def _waits(deployment: Manifest) -> bool:
    conditions = (deployment.get("status") or {}).get("conditions") or ()
    return any(each.get("reason") == Reason.QUOTA_EXCEEDED for each in conditions)
