"""Which objects look again when another one changes. Missing a change costs a resync's delay, no more."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from penstock_operator.pool.directory import INFERENCE_DEPLOYMENT
from penstock_operator.pool.users import deployments_of, pool_of
from penstock_operator.runtime.cluster import Key, Manifest, key_of, owner_keys


class _Aspect:
    """Whether what matters of an object changed since it was last seen."""

    def __init__(self) -> None:
        self._seen: dict[Key, object] = {}

    def changed(self, manifest: Manifest, aspect: object) -> bool:
        key = key_of(manifest)
        before = self._seen.get(key)
        self._seen[key] = aspect
        return aspect != before


class UsersOfPool:
    """The deployments of a pool, where its spec or its readiness changed: its counts are nothing to them.

    Args:
        deployments: those of a namespace.
    """

    def __init__(self, deployments: Callable[[str], list[Manifest]]) -> None:
        self._deployments = deployments
        self._aspect = _Aspect()

    def __call__(self, pool: Manifest) -> Iterable[Key]:
        """Keys of deployments."""
        status = pool.get("status") or {}
        conditions = status.get("conditions") or ()
        metadata = pool["metadata"]
        aspect = (
            status.get("rayCluster"),
            metadata.get("uid"),
            metadata.get("generation"),
            metadata.get("deletionTimestamp"),
            [(each.get("status"), each.get("reason")) for each in conditions],
        )
        key = key_of(pool)
        return deployments_of(key, self._deployments(key.namespace)) if self._aspect.changed(pool, aspect) else ()


class OwnersOfRun:
    """The deployment of a run, where its verdict or what it says changed: its progress is nothing to it."""

    def __init__(self) -> None:
        self._aspect = _Aspect()

    def __call__(self, run: Manifest) -> Iterable[Key]:
        """The key of a deployment."""
        status, metadata = run.get("status") or {}, run["metadata"]
        conditions = [(each.get("status"), each.get("reason")) for each in status.get("conditions") or ()]
        aspect = (metadata.get("uid"), metadata.get("deletionTimestamp"), status.get("verdict"), conditions)
        return owner_keys(run, INFERENCE_DEPLOYMENT) if self._aspect.changed(run, aspect) else ()


class PoolOfDeployment:
    """The pool of a deployment, where it is new, going, or names another pool."""

    def __init__(self) -> None:
        self._aspect = _Aspect()

    def __call__(self, deployment: Manifest) -> Iterable[Key]:
        """The key of a pool."""
        pool, metadata = pool_of(deployment), deployment["metadata"]
        going = metadata.get("deletionTimestamp")
        return (pool,) if self._aspect.changed(deployment, (pool, metadata.get("uid"), going)) else ()
