"""The RayClusters of managed pools: which there are, where they are, and their token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from penstock.api.conditions import Reason
from penstock.api.meta import ObjectMeta
from penstock.api.pool import ServingPool
from penstock.errors import Unavailable
from penstock_operator.deployment.observed import PoolProblem
from penstock_operator.pool.kinds import POD, RAY_CLUSTER
from penstock_operator.pool.names import (
    CLUSTER_LABEL,
    POOL_LABEL,
    dashboard_url,
    label,
    ray_token,
    serve_url,
    token_secret,
)
from penstock_operator.pool.observed import PodView, RayClusterView, pod_view, view, with_warnings
from penstock_operator.pool.raypods import PoolSettings
from penstock_operator.pool.surge import starting_candidates
from penstock_operator.runtime.cluster import (
    CORE_EVENT,
    FORBIDDEN,
    NO_LABELS,
    OF_PODS,
    Cluster,
    Manifest,
    NotFound,
    ResourceKind,
    is_refusal,
)
from penstock_operator.runtime.copies.cache import Recent

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
_FRESH_SECONDS: Final = 1.0
"""All RayClusters are looked through at most this often, however many pools wait to be replaced."""


class Addresses(NamedTuple):
    """Base URLs of a RayCluster."""

    dashboard: str
    serve: str


def service_addresses(name: str, namespace: str) -> Addresses:
    """By the Service of the head, as pods find it."""
    return Addresses(dashboard_url(name, namespace), serve_url(name, namespace))


class RayClusters:
    """Reads what managed pools are made of.

    Args:
        cluster: where RayClusters and pods are.
        settings: of managed pools; None: this home has no Kubernetes.
        secret: from which tokens are derived.
        addresses: where a RayCluster of this name and namespace is.
        namespaces: in which there are pools; None: in all.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: PoolSettings | None,
        secret: str,
        addresses: Callable[[str, str], Addresses] = service_addresses,
        *,
        namespaces: Sequence[str | None] = (None,),
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._secret = secret
        self._addresses = addresses
        self._namespaces = namespaces
        self._starting: Recent[str, tuple[RayClusterView, ...]] = Recent(_FRESH_SECONDS)

    def settings(self) -> PoolSettings | PoolProblem:
        """How pools are made, or why none can be."""
        if self._settings is None:
            return PoolProblem(Reason.KUBERAY_MISSING, _STANDALONE, empty=True)
        if not self._secret:
            return PoolProblem(Reason.INVALID_SPEC, _UNSIGNED, empty=True)
        return self._settings

    def list_of(self, pool: ObjectMeta) -> tuple[RayClusterView, ...] | PoolProblem:
        """All of a pool's, also those that are going. Raises `Unavailable`."""
        settings = self.settings()
        if isinstance(settings, PoolProblem):
            return settings
        try:
            listing = self._cluster.list(RAY_CLUSTER, pool.namespace, {POOL_LABEL: label(pool.name)})
        except NotFound:
            return PoolProblem(Reason.KUBERAY_MISSING, _MISSING, empty=True)
        return tuple(view(each) for each in listing.items)

    def candidates_elsewhere(self, pool: ServingPool) -> tuple[RayClusterView, ...]:
        """Candidates of other pools that lack pods, as they were a second ago at most. Raises `Unavailable`.

        What this operator begins itself is seen at once (`note_change`), and no other acts; two pools that look at the very same
        moment may both begin.
        """
        found = self._starting.obtain("", lambda: starting_candidates(view(each) for each in self._manifests()))
        return tuple(each for each in found if each.owner != pool.metadata.uid)

    def note_change(self) -> None:
        """A RayCluster was made or changed: look again."""
        self._starting.outdate("")

    def _manifests(self) -> Iterator[Manifest]:
        """A namespace that may not be read keeps no other's pool from being replaced."""
        for namespace in self._namespaces:
            try:
                listed = self._cluster.list(RAY_CLUSTER, namespace, {"app.kubernetes.io/managed-by": "penstock"})
            except Unavailable as error:
                if namespace is None or not is_refusal(error):
                    raise
                continue
            yield from listed.items

    def pods(self, namespace: str, name: str) -> tuple[PodView, ...]:
        """A RayCluster's pods; none where they may not be seen, since all else goes without. Raises `Unavailable`.

        Of those that their nodes make ready, with what Kubernetes warned of, where that may be seen.
        """
        pods = tuple(pod_view(each) for each in self._list_visible(POD, namespace, labels={CLUSTER_LABEL: name}))
        if not any(each.is_prepared for each in pods):
            return pods
        return with_warnings(pods, self._list_visible(CORE_EVENT, namespace, fields=OF_PODS))

    def _list_visible(
        self,
        kind: ResourceKind,
        namespace: str,
        *,
        labels: Mapping[str, str] = NO_LABELS,
        fields: Mapping[str, str] = NO_LABELS,
    ) -> tuple[Manifest, ...]:
        """None where they may not be seen. Raises `Unavailable`."""
        try:
            return self._cluster.list(kind, namespace, labels, fields).items
        except Unavailable as error:
            if error.reason != FORBIDDEN:
                raise
            return ()

    def token(self, pool: ServingPool) -> str:
        """Ray's token of a pool."""
        return ray_token(self._secret, pool.metadata.uid)

    def secret_name(self, pool: ServingPool) -> str:
        """The Secret with that token."""
        return token_secret(pool.metadata.name, self.token(pool))

    def addresses(self, pool: ServingPool, name: str) -> Addresses:
        """Where a RayCluster is."""
        return self._addresses(name, pool.metadata.namespace)
