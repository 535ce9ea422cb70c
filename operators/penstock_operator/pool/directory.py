"""Finds a pool's Ray cluster: its address and token from the API, its client and writer kept for as long as they fit."""

from __future__ import annotations

import base64
import binascii
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from penstock.addresses import join_port
from penstock.api.conditions import PoolCondition, Reason, facts_of
from penstock.api.meta import SecretKeyReference
from penstock.api.pool import ServingPool
from penstock.api.reading import read
from penstock.errors import Invalid, Unavailable
from penstock_operator.clients.ray import RayClient
from penstock_operator.deployment.observed import PoolProblem
from penstock_operator.kinds import SERVING_POOL
from penstock_operator.pool.budget import MemoryBudget
from penstock_operator.pool.clusters import RayClusters
from penstock_operator.pool.observed import RayClusterView
from penstock_operator.pool.plan import sort_clusters
from penstock_operator.pool.writer import PoolWriter
from penstock_operator.runtime.cluster import FORBIDDEN, SECRET, Cluster, Key, Manifest, ResourceKind
from penstock_operator.runtime.copies.cache import Recent

_FRESH_SECONDS: Final = 2.0
"""A pool and its Secret are read at most this often, however many deployments use them."""
_IDLE_SECONDS: Final = 600.0
"""A writer that nobody asked for in this time is of a Ray cluster that is gone: each pool asks for its own every minute.

It is longer than a reconcile takes, so that nobody has it still, and a Ray cluster never has two.
"""


@dataclass(frozen=True, slots=True)
class _Access:
    address: str
    serve_address: str
    token: str | None


class PoolDirectory:
    """Pools by key. There is one writer for each Ray cluster, whichever pools point to it.

    Args:
        cluster: where pools are.
        ray_clusters: of managed pools.
        may_write: asked before each change of what a Ray cluster runs.
        clock: monotonic seconds.
        why_missing: of a pool that is not there, why the API let none be made; None: nothing against it.
        ipv6: whether Services have IPv6 addresses here, where nothing else is said.
    """

    def __init__(
        self,
        cluster: Cluster,
        ray_clusters: RayClusters,
        may_write: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
        *,
        why_missing: Callable[[Key], str | None] = lambda _: None,
        ipv6: bool = False,
    ) -> None:
        self._why_missing = why_missing
        self._cluster = cluster
        self._ipv6 = ipv6
        self._ray_clusters = ray_clusters
        self._may_write = may_write
        self._clock = clock
        self._seen: Recent[tuple[ResourceKind, Key], Manifest] = Recent(_FRESH_SECONDS, clock)
        self._serving: Recent[str, RayClusterView | PoolProblem] = Recent(_FRESH_SECONDS, clock)
        self._lock = threading.Lock()
        self._budget = MemoryBudget()
        self._writers: Recent[_Access, PoolWriter] = Recent(_IDLE_SECONDS, clock, lambda each: each.client.close())

    def pool(self, key: Key) -> ServingPool | PoolProblem:
        """The pool object. Raises `Unavailable` where the API does not answer."""
        manifest = self._get(SERVING_POOL, key)
        if manifest is None and (refused := self._why_missing(key)) is not None:
            said = f"The namespace's pool {key.name} could not be made: {refused}"
            return PoolProblem(Reason.API_REFUSED, said, exists=False)
        if manifest is None:
            return PoolProblem(
                Reason.POOL_NOT_FOUND,
                f"There is no ServingPool {key.name} in namespace {key.namespace}; create one with "
                "spec.existing.address set to a Ray cluster's dashboard, or name another in spec.poolRef.",
                exists=False,
            )
        return parse_pool(manifest)

    def writer(self, pool: ServingPool) -> PoolWriter | PoolProblem:
        """The writer of the pool's Ray cluster. Raises `Unavailable` where the API does not answer."""
        existing = pool.spec.existing
        if existing is None:
            # As it was two seconds ago at most.
            serving = self._serving.obtain(pool.metadata.uid, partial(self._find_serving, pool))
            return serving if isinstance(serving, PoolProblem) else self.writer_at(pool, serving.name)
        token: str | None = None
        if existing.token_secret_ref is not None:
            found = self._token(pool.metadata.namespace, existing.token_secret_ref)
            if isinstance(found, PoolProblem):
                return found
            token = found
        address, serve = existing.address.rstrip("/"), existing.serve_address
        return self._writer(_Access(address, serve or _default_serve(existing.address), token))

    def writer_at(self, pool: ServingPool, ray_cluster: str) -> PoolWriter:
        """The writer of one RayCluster of a managed pool."""
        addresses = self._ray_clusters.addresses(pool, ray_cluster)
        return self._writer(_Access(addresses.dashboard, addresses.serve, self._ray_clusters.token(pool)))

    def _writer(self, access: _Access) -> PoolWriter:
        with self._lock:
            writer = self._writers.get(access)
            if writer is None:
                client = RayClient(access.address, access.token)
                writer = PoolWriter(
                    client, access.serve_address, may_write=self._may_write, budget=self._budget, ipv6=self._ipv6
                )
            return self._writers.keep(access, writer, self._clock())

    def _find_serving(self, pool: ServingPool) -> RayClusterView | PoolProblem:
        clusters = self._ray_clusters.list_of(pool.metadata)
        return clusters if isinstance(clusters, PoolProblem) else _serving_cluster(pool, clusters)

    def _get(self, kind: ResourceKind, key: Key) -> Manifest | None:
        """What the API has, at most two seconds old. What is absent is asked for each time."""
        seen = self._seen.get((kind, key))
        if seen is not None:
            return seen
        started = self._clock()
        manifest = self._cluster.get(kind, key)
        return None if manifest is None else self._seen.keep((kind, key), manifest, started)

    def close(self) -> None:
        """Give all connections back."""
        with self._lock:
            self._writers.clear()

    def _token(self, namespace: str, reference: SecretKeyReference) -> str | PoolProblem:
        try:
            secret = self._get(SECRET, Key(namespace, reference.name))
        except Unavailable as error:
            if error.reason != FORBIDDEN:
                raise
            secret = None  # whether there is one is not for us to know
        if secret is None:
            return PoolProblem(
                Reason.SECRET_NOT_FOUND,
                f"There is no Secret {reference.name} in namespace {namespace} that the operator may read; create it "
                f"with the key {reference.key}, and a Role that lets the operator get it.",
            )
        encoded = (secret.get("data") or {}).get(reference.key)
        plain = (secret.get("stringData") or {}).get(reference.key)
        if encoded is None and plain is None:
            return PoolProblem(
                Reason.SECRET_NOT_FOUND, f"The Secret {reference.name} has no key {reference.key}; add it."
            )
        if encoded is None:
            return str(plain).strip()
        try:
            return base64.b64decode(encoded, validate=True).decode().strip()
        except (binascii.Error, UnicodeDecodeError):
            return PoolProblem(
                Reason.SECRET_NOT_FOUND, f"The key {reference.key} of Secret {reference.name} is not base64 text."
            )


def _serving_cluster(pool: ServingPool, clusters: Sequence[RayClusterView]) -> RayClusterView | PoolProblem:
    serving = sort_clusters(pool.metadata.uid, clusters).serving
    if pool.metadata.deletion_timestamp is not None:
        return PoolProblem(Reason.POOL_NOT_FOUND, "The pool is being deleted.", empty=True)
    if pool.spec.suspend:
        said = "The pool is suspended: its nodes are given back. It starts again once its spec.suspend is false."
        return PoolProblem(Reason.SUSPENDED, said, empty=True)
    if serving is not None and serving.head_ready and not serving.suspended:
        return serving
    told = next((each for each in pool.status.conditions if each.type == PoolCondition.READY), None)
    hindered = told is not None and (told.reason == Reason.STARTING_POOL or facts_of(told.reason).warns)
    said = told.message if told is not None and hindered else "The pool's Ray cluster is starting."
    reason = Reason.UNSCHEDULABLE if told and told.reason == Reason.UNSCHEDULABLE else Reason.STARTING_POOL
    # Without Redis a head that starts knows of nothing that ran before.
    return PoolProblem(reason, said, empty=serving is None or serving.never_ran)


def parse_pool(manifest: Manifest) -> ServingPool | PoolProblem:
    """The pool as a type."""
    try:
        return read(ServingPool, manifest)
    except Invalid as error:
        return PoolProblem(Reason.INVALID_SPEC, error.message)


def _default_serve(address: str) -> str:
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, join_port(parts.hostname or "", 8000), "", "", ""))
