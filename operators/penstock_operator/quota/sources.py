"""Who looks again when a deployment or a quota changes. Missing a change costs a resync's delay, no more."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from penstock.api.conditions import Reason
from penstock_operator.runtime.aspects import Aspects
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
        self._aspects = Aspects(there)

    def __call__(self, deployment: Manifest) -> Iterable[Key]:
        """Keys of quotas."""
        key, metadata = key_of(deployment), deployment["metadata"]
        if not self._aspects.changed(deployment, (metadata.get("uid"), metadata.get("generation"))):
            return ()
        return [each for quota in self._quotas() if (each := key_of(quota)).namespace == key.namespace]


class DeploymentsOfQuota:
    """The deployments that a quota counts: all where it went or its spec changed; where what is taken did, those that wait.

    Args:
        deployments: all that there are.
        there: whether a quota is still there.
    """

    def __init__(self, deployments: Listed, there: Callable[[Key], bool]) -> None:
        self._deployments = deployments
        self._specs = Aspects(there)
        self._taken = Aspects(there)

    def __call__(self, quota: Manifest) -> Iterable[Key]:
        """Keys of deployments."""
        key, metadata = key_of(quota), quota["metadata"]
        spec = (metadata.get("uid"), metadata.get("generation"), metadata.get("deletionTimestamp"))
        everyone = self._specs.changed(quota, spec)
        waiting = self._taken.changed(quota, (quota.get("status") or {}).get("used"))
        if not (everyone or waiting):
            return ()
        counted = [each for each in self._deployments() if key_of(each).namespace == key.namespace]
        return [key_of(each) for each in counted if everyone or _waits(each)]


def _waits(deployment: Manifest) -> bool:
    conditions = (deployment.get("status") or {}).get("conditions") or ()
    return any(each.get("reason") == Reason.QUOTA_EXCEEDED for each in conditions)
