"""Who looks again when a deployment or a quota changes. Missing a change costs a resync's delay, no more."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from penstock.api.conditions import Reason
from penstock_operator.runtime.cluster import Key, Manifest, key_of

Listed = Callable[[], Iterable[Manifest]]


class QuotasOfDeployment:
    """The quotas of a deployment's namespace, where it came, went, or has another spec.

    Args:
        quotas: all that there are.
        there: whether a deployment is still there.
    """

    def __init__(self, quotas: Listed, there: Callable[[Key], bool]) -> None:
        self._quotas = quotas
        self._there = there
        self._seen: dict[Key, object] = {}

    def __call__(self, deployment: Manifest) -> Iterable[Key]:
        """Keys of quotas."""
        key, metadata = key_of(deployment), deployment["metadata"]
        aspect = (metadata.get("uid"), metadata.get("generation")) if self._there(key) else None
        if self._seen.get(key) == aspect:
            return ()
        if aspect is None:
            del self._seen[key]
        else:
            self._seen[key] = aspect
        return [each for quota in self._quotas() if (each := key_of(quota)).namespace == key.namespace]


class DeploymentsOfQuota:
    """The deployments that a quota counts: all where its spec changed; where what is taken did, those that wait.

    Args:
        deployments: all that there are.
    """

    def __init__(self, deployments: Listed) -> None:
        self._deployments = deployments
        self._specs: dict[Key, object] = {}
        self._taken: dict[Key, object] = {}

    def __call__(self, quota: Manifest) -> Iterable[Key]:
        """Keys of deployments."""
        key, metadata = key_of(quota), quota["metadata"]
        spec = (metadata.get("uid"), metadata.get("generation"), metadata.get("deletionTimestamp"))
        taken = (quota.get("status") or {}).get("used")
        everyone, waiting = self._specs.get(key) != spec, self._taken.get(key) != taken
        self._specs[key], self._taken[key] = spec, taken
        if not (everyone or waiting):
            return ()
        counted = [each for each in self._deployments() if key_of(each).namespace == key.namespace]
        return [key_of(each) for each in counted if everyone or _waits(each)]


def _waits(deployment: Manifest) -> bool:
    conditions = (deployment.get("status") or {}).get("conditions") or ()
    return any(each.get("reason") == Reason.QUOTA_EXCEEDED for each in conditions)
