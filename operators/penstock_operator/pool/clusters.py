"""The RayClusters of managed pools: which there are, where they are, and their token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from penstock.api.conditions import Reason
from penstock.api.meta import ObjectMeta
from penstock.api.pool import ServingPool
from penstock.planning.observed import PoolProblem
from penstock.planning.pool_names import (
    CLUSTER_LABEL,
    POOL_LABEL,
    dashboard_url,
    label,
    ray_token,
    serve_url,
    token_secret,
)
from penstock.planning.pool_observed import PodView, RayClusterView, pod_view, view
from penstock.planning.raypods import PoolSettings
from penstock_operator.pool.kinds import POD, RAY_CLUSTER
from penstock_operator.runtime.cluster import Cluster, NotFound

_MISSING: Final = (
    "A managed pool becomes a RayCluster of KubeRay, and this Kubernetes serves none: install KubeRay 1.6 with its CRDs, "
    "or give the pool spec.existing. The pool goes on by itself once RayClusters are served."
)
_STANDALONE: Final = (
    "A managed pool needs Kubernetes and KubeRay, and Penstock runs here without them: give the pool spec.existing with "
    "the address of a Ray cluster's dashboard."
)
_UNSIGNED: Final = (
    "Ray's token is derived from the gateways' secret, and this operator was started without --gateway-secret-file: "
    "start it with that, or give the pool spec.existing."
)


class Addresses(NamedTuple):
    """Base URLs of a RayCluster."""

    dashboard: str
    serve: str


def by_service(name: str, namespace: str) -> Addresses:
    """By the Service of the head, as pods find it."""
    return Addresses(dashboard_url(name, namespace), serve_url(name, namespace))


class RayClusters:
    """Reads what managed pools are made of.

    Args:
        cluster: where RayClusters and pods are.
        settings: of managed pools; None: this home has no Kubernetes.
        secret: from which tokens are derived.
        addresses: where a RayCluster of this name and namespace is.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: PoolSettings | None,
        secret: str,
        addresses: Callable[[str, str], Addresses] = by_service,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._secret = secret
        self._addresses = addresses

    def settings(self) -> PoolSettings | PoolProblem:
        """How pools are made, or why none can be."""
        if self._settings is None:
            return PoolProblem(Reason.KUBERAY_MISSING, _STANDALONE, empty=True)
        if not self._secret:
            return PoolProblem(Reason.PENDING, _UNSIGNED, empty=True)
        return self._settings

    def of(self, pool: ObjectMeta) -> tuple[RayClusterView, ...] | PoolProblem:
        """All of a pool's, also those that are going. Raises `Unavailable`."""
        settings = self.settings()
        if isinstance(settings, PoolProblem):
            return settings
        try:
            listing = self._cluster.list(RAY_CLUSTER, pool.namespace, {POOL_LABEL: label(pool.name)})
        except NotFound:
            return PoolProblem(Reason.KUBERAY_MISSING, _MISSING, empty=True)
        return tuple(view(each) for each in listing.items)

    def pods(self, namespace: str, name: str) -> tuple[PodView, ...]:
        """A RayCluster's pods. Raises `Unavailable`."""
        return tuple(pod_view(each) for each in self._cluster.list(POD, namespace, {CLUSTER_LABEL: name}).items)

    def token(self, pool: ServingPool) -> str:
        """Ray's token of a pool."""
        return ray_token(self._secret, pool.metadata.uid)

    def secret_name(self, pool: ServingPool) -> str:
        """The Secret with that token."""
        return token_secret(pool.metadata.name, self.token(pool))

    def addresses(self, pool: ServingPool, name: str) -> Addresses:
        """Where a RayCluster is."""
        return self._addresses(name, pool.metadata.namespace)
