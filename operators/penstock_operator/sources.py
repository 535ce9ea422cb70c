"""Which objects look again when another one changes. Missing a change costs a resync's delay, no more."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from penstock_operator.pool.directory import INFERENCE_DEPLOYMENT
from penstock_operator.pool.users import deployments_of, pool_of
from penstock_operator.runtime.aspects import Aspects
from penstock_operator.runtime.cluster import Key, Manifest, key_of, owner_keys


class UsersOfPool:
    """The deployments of a pool, where it came, went, or its spec or its readiness changed: its counts are nothing to them.

    Args:
        deployments: those of a namespace.
        there: whether a pool is still there.
    """

    def __init__(self, deployments: Callable[[str], list[Manifest]], there: Callable[[Key], bool]) -> None:
        self._deployments = deployments
        self._aspects = Aspects(there)

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
        return deployments_of(key, self._deployments(key.namespace)) if self._aspects.changed(pool, aspect) else ()


class OwnersOfRun:
    """The deployment of a run, where its verdict or what it says changed: its progress is nothing to it.

    Args:
        there: whether a run is still there.
    """

    def __init__(self, there: Callable[[Key], bool]) -> None:
        self._aspects = Aspects(there)

    def __call__(self, run: Manifest) -> Iterable[Key]:
        """The key of a deployment."""
        status, metadata = run.get("status") or {}, run["metadata"]
        conditions = [(each.get("status"), each.get("reason")) for each in status.get("conditions") or ()]
        aspect = (metadata.get("uid"), metadata.get("deletionTimestamp"), status.get("verdict"), conditions)
        return owner_keys(run, INFERENCE_DEPLOYMENT) if self._aspects.changed(run, aspect) else ()


class PoolOfDeployment:
    """The pool of a deployment, where it is new, going, gone, or names another pool.

    Args:
        there: whether a deployment is still there.
    """

    def __init__(self, there: Callable[[Key], bool]) -> None:
        self._aspects = Aspects(there)

    def __call__(self, deployment: Manifest) -> Iterable[Key]:
        """The key of a pool."""
        pool, metadata = pool_of(deployment), deployment["metadata"]
        going = metadata.get("deletionTimestamp")
        return (pool,) if self._aspects.changed(deployment, (pool, metadata.get("uid"), going)) else ()
