"""Reads all that decides what happens to an `InferenceDeployment`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from penstock.api.access import Authentication
from penstock.api.v1alpha1 import InferenceDeployment
from penstock.api.verdicts import reason_of
from penstock.errors import Unavailable
from penstock.routing.tokens import former_replica_token, replica_token
from penstock_operator.deployment.application import ReplicaNetwork
from penstock_operator.deployment.moving import may_move
from penstock_operator.deployment.observed import (
    Node,
    Observed,
    ObservedApplication,
    Pool,
    PoolProblem,
    applications_of,
)
from penstock_operator.gateway.fleet import Fleet
from penstock_operator.keys.directory import KeyDirectory
from penstock_operator.optimization.directory import OptimizationDirectory
from penstock_operator.pool.directory import PoolDirectory
from penstock_operator.pool.writer import PoolBusy, PoolWriter
from penstock_operator.quota.directory import QuotaDirectory
from penstock_operator.runtime.cluster import Key, is_refusal


class Observer:
    """Observes deployments.

    Args:
        pools: where pools are found.
        optimization: where profiles and runs are found.
        fleet: the gateways that requests may come through.
        quotas: says what a namespace's quota leaves no room for.
        gateway_secret: from which replicas' tokens are derived.
        replica_host: address for replicas to listen on; None: their node's.
        trusted_keys: public keys in PEM that optimized models may be signed by.
        artifact_secret: in deployments' namespaces, by which replicas read optimized models; None: with none.
        keys: the API keys of namespaces.
        default_authentication: of deployments that say nothing of it.
        max_body_bytes: of requests, as the gateways are told.
        gateways_over_tls: the same gateways as replicas reach them that speak TLS; none: replicas speak none.
        gateways_in_the_clear: as those reach them that speak none, where that is taken, too.
        authority: certificate in PEM of the platform's own authority, for those that speak TLS.
        place_of: labels of the Kubernetes node that a namespace's pod of an address is on.
    """

    def __init__(
        self,
        pools: PoolDirectory,
        optimization: OptimizationDirectory,
        fleet: Fleet,
        quotas: QuotaDirectory,
        keys: KeyDirectory,
        *,
        gateway_secret: str,
        replica_host: str | None,
        trusted_keys: tuple[str, ...],
        artifact_secret: str | None,
        default_authentication: Authentication,
        max_body_bytes: int,
        gateways_over_tls: tuple[str, ...] = (),
        gateways_in_the_clear: tuple[str, ...] = (),
        authority: str = "",
        place_of: Callable[[str, str], Mapping[str, str]] = lambda _namespace, _address: {},
    ) -> None:
        self._place_of = place_of
        self._pools = pools
        self._optimization = optimization
        self._fleet = fleet
        self._quotas = quotas
        self._secret = gateway_secret
        self._replica_host = replica_host
        self._trusted_keys = trusted_keys
        self._artifact_secret = artifact_secret
        self._keys = keys
        self._default_authentication = default_authentication
        self._max_body_bytes = max_body_bytes
        self._over_tls = gateways_over_tls
        self._in_the_clear = gateways_in_the_clear
        self._authority = authority

    def observe(self, deployment: InferenceDeployment) -> tuple[Observed, PoolWriter | None]:
        """The observation, and the writer of the pool where it has one.

        Of a deployment that is going only what its end needs is read, so that no other object can keep it.

        Raises:
            Unavailable: the API itself does not answer.
            Invalid: a run or what the quota counts cannot be read.
        """
        metadata = deployment.metadata
        seen = self._fleet.look(metadata.namespace, metadata.name)
        network = ReplicaNetwork(
            gateways=self._over_tls or self._fleet.urls,
            former_token=former_replica_token(self._secret, metadata.namespace, metadata.name),
            registration_token=replica_token(self._secret, metadata.namespace, metadata.name, metadata.uid),
            host=self._replica_host,
            trusted_keys=self._trusted_keys,
            artifact_secret=self._artifact_secret,
            max_body_bytes=self._max_body_bytes,
            gateway_authority=self._authority if self._over_tls else "",
            plain_gateways=self._in_the_clear if self._over_tls else (),
        )
        going = metadata.deletion_timestamp is not None
        pool, writer = self._pool(deployment, going=going)
        observed = Observed(
            deployment,
            pool,
            seen.gateways,
            seen.joining,
            network,
            keys=() if going else self._keys.keys(metadata.namespace),
            default_authentication=self._default_authentication,
        )
        if going:
            return observed, writer
        reference = deployment.spec.optimization_profile_ref
        optimization = self._optimization.view(metadata.namespace, metadata.uid, reference)
        quota, spare = self._quotas.excess(deployment), self._quotas.spare(deployment)
        return replace(observed, optimization=optimization, quota=quota, spare_replicas=spare), writer

    def _pool(self, deployment: InferenceDeployment, *, going: bool) -> tuple[Pool | PoolProblem, PoolWriter | None]:
        """Where a namespace is deleted, the operator's rights in it may go first: that must not hold what is in it."""
        key = Key(deployment.metadata.namespace, deployment.spec.pool_ref.name)
        try:
            pool = self._pools.pool(key)
            if isinstance(pool, PoolProblem):
                return pool, None
            writer = self._pools.writer(pool)
        except Unavailable as error:
            if not (going and is_refusal(error)):
                raise
            return replace(problem(error), exists=False), None
        groups = pool.spec.managed.worker_groups if pool.spec.managed is not None else ()
        if isinstance(writer, PoolProblem):
            return replace(writer, groups=groups), None
        try:
            applications = writer.applications()
            seen = Pool(writer.serve_address, applications, _nodes(writer, applications), groups, pool.status.groups)
            return (seen if going else self._with_places(deployment, seen, writer)), writer
        except PoolBusy:
            raise  # it says nothing of the pool
        except Unavailable as error:
            return problem(error), None

    def _with_places(self, deployment: InferenceDeployment, pool: Pool, writer: PoolWriter) -> Pool:
        """With where the nodes are, if that may be asked for to have replicas apart."""
        if not may_move(deployment, applications_of(deployment, pool).values()):
            return pool
        try:
            nodes = pool.nodes or writer.nodes()
        except Unavailable:
            return pool  # it serves as well where it is
        namespace = deployment.metadata.namespace
        places = (replace(each, labels={**self._place_of(namespace, each.name), **each.labels}) for each in nodes)
        return replace(pool, nodes=tuple(places))


def problem(error: Unavailable) -> PoolProblem:
    """Why a pool did not answer."""
    return PoolProblem(reason_of(error), error.message)


def _nodes(writer: PoolWriter, applications: Sequence[ObservedApplication]) -> tuple[Node, ...]:
    """Nodes are asked for only where something waits for one."""
    if all(each.waiting_since is None and not each.building for each in applications):
        return ()
    return writer.client.nodes()
