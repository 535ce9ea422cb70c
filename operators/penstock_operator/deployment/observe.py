"""Reads all that decides what happens to an `InferenceDeployment`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from penstock.api.conditions import Reason
from penstock.api.v1alpha1 import InferenceDeployment
from penstock.errors import Unavailable
from penstock.planning.application import ReplicaNetwork
from penstock.planning.observed import Application, Gateway, GatewayProblem, Node, Observed, Pool, PoolProblem
from penstock.routing.leases import RouteList, RouteStatus
from penstock.routing.tokens import replica_token
from penstock_operator.clients.gateway import GatewayClient
from penstock_operator.optimization.directory import OptimizationDirectory
from penstock_operator.pool.directory import PoolDirectory
from penstock_operator.pool.writer import PoolWriter
from penstock_operator.runtime.cluster import Key

_FRESH_SECONDS: Final = 0.5
_SILENT_SECONDS: Final = 2.0
"""A gateway that did not answer is not asked again for so long: its deployments would each wait out a timeout."""


class GatewayView:
    """One gateway's routes, at most half a second old. Safe for several threads."""

    def __init__(self, client: GatewayClient, clock: Callable[[], float] = time.monotonic) -> None:
        self.client = client
        self._clock = clock
        self._lock = threading.Lock()
        self._failed: tuple[float, str] | None = None
        self._seen: tuple[float, str, dict[tuple[str, str], RouteStatus]] | None = None

    def look(self, namespace: str, model: str) -> Gateway | GatewayProblem:
        """What it knows of one model."""
        try:
            with self._lock:
                if self._failed is not None and self._clock() - self._failed[0] < _SILENT_SECONDS:
                    return GatewayProblem(self.client.address, self._failed[1])
                if self._seen is None or self._clock() - self._seen[0] > _FRESH_SECONDS:
                    started = self._clock()
                    routes: RouteList = self.client.routes()
                    self._seen = (started, routes.url, {(each.namespace, each.model): each for each in routes.routes})
                _, url, by_model = self._seen
        except Unavailable as error:
            self._failed = self._clock(), error.message
            return GatewayProblem(self.client.address, error.message)
        return Gateway(self.client.address, url, by_model.get((namespace, model)))

    def forget(self) -> None:
        """Something was changed: the next look asks."""
        with self._lock:
            self._seen = None


class Observer:
    """Observes deployments.

    Args:
        pools: where pools are found.
        optimization: where profiles and runs are found.
        gateways: every gateway that requests may come through.
        gateway_secret: from which replicas' tokens are derived.
        replica_host: address for replicas to listen on; None: their node's.
        trusted_keys: public keys in PEM that optimized models may be signed by.
    """

    def __init__(
        self,
        pools: PoolDirectory,
        optimization: OptimizationDirectory,
        gateways: Sequence[GatewayView],
        *,
        gateway_secret: str,
        replica_host: str | None,
        trusted_keys: tuple[str, ...],
    ) -> None:
        self._pools = pools
        self._optimization = optimization
        self._gateways = tuple(gateways)
        self._secret = gateway_secret
        self._replica_host = replica_host
        self._trusted_keys = trusted_keys

    def observe(self, deployment: InferenceDeployment) -> tuple[Observed, PoolWriter | None]:
        """The observation, and the writer of the pool where it has one. Raises `Unavailable` for the API itself."""
        metadata = deployment.metadata
        gateways = tuple(each.look(metadata.namespace, metadata.name) for each in self._gateways)
        network = ReplicaNetwork(
            gateways=tuple(each.client.address for each in self._gateways),
            registration_token=replica_token(self._secret, metadata.namespace, metadata.name),
            host=self._replica_host,
            trusted_keys=self._trusted_keys,
        )
        reference = deployment.spec.optimization_profile_ref
        optimization = self._optimization.view(metadata.namespace, metadata.uid, reference)
        pool, writer = self._pool(Key(metadata.namespace, deployment.spec.pool_ref.name))
        return Observed(deployment, pool, gateways, network, optimization), writer

    def _pool(self, key: Key) -> tuple[Pool | PoolProblem, PoolWriter | None]:
        pool = self._pools.pool(key)
        if isinstance(pool, PoolProblem):
            return pool, None
        writer = self._pools.writer(pool)
        if isinstance(writer, PoolProblem):
            return writer, None
        try:
            applications = writer.applications()
            return Pool(writer.serve_address, applications, _nodes(writer, applications)), writer
        except Unavailable as error:
            return problem(error), None


def problem(error: Unavailable) -> PoolProblem:
    """Why a pool did not answer."""
    return PoolProblem(Reason(error.reason), error.message)


def _nodes(writer: PoolWriter, applications: Sequence[Application]) -> tuple[Node, ...]:
    """Nodes are asked for only where some replica waits for one."""
    if all(each.waiting_since is None for each in applications):
        return ()
    return writer.client.nodes()
