"""The operator put together: what its controllers share, what each of them is, and how they run."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from penstock.addresses import is_ipv6
from penstock.routing.tokens import admin_token, former_admin_token
from penstock.telemetry.spans import SpanRecord
from penstock_operator import sources
from penstock_operator.deployment.observe import Observer
from penstock_operator.deployment.observed import GatewayProblem
from penstock_operator.deployment.reconcile import DeploymentReconciler
from penstock_operator.deployment.routes import RouteWriter
from penstock_operator.gateway.fleet import Fleet
from penstock_operator.gateway.keeper import GatewayKeeper, KnownDeployments
from penstock_operator.gateway.view import GatewayView
from penstock_operator.keys.directory import KeyDirectory
from penstock_operator.keys.reconcile import KeyReconciler
from penstock_operator.keys.telling import KeyTeller
from penstock_operator.kinds import (
    API_KEY,
    CLUSTER_OPTIMIZATION_PROFILE,
    INFERENCE_DEPLOYMENT,
    OPTIMIZATION_PROFILE,
    OPTIMIZATION_RUN,
    SERVING_POOL,
    TENANT_QUOTA,
)
from penstock_operator.nodes.view import ClusterView
from penstock_operator.optimization.directory import OptimizationDirectory
from penstock_operator.optimization.job import JobSettings
from penstock_operator.optimization.keys import RunKeys
from penstock_operator.optimization.observe import RunObserver
from penstock_operator.optimization.reconcile import RunReconciler
from penstock_operator.pool.clusters import RayClusters
from penstock_operator.pool.defaults import DefaultPools
from penstock_operator.pool.directory import PoolDirectory
from penstock_operator.pool.kinds import NETWORK_POLICY, RAY_CLUSTER
from penstock_operator.pool.managed import ManagedPools
from penstock_operator.pool.reconcile import PoolReconciler
from penstock_operator.pool.release import PoolRelease
from penstock_operator.quota.directory import QuotaDirectory
from penstock_operator.quota.reconcile import QuotaReconciler
from penstock_operator.runtime.cluster import JOB, Cluster, Key
from penstock_operator.runtime.copies.mirrored import MirroredCluster
from penstock_operator.runtime.jobs.runner import JobRunner
from penstock_operator.runtime.loop.controller import Controller, ControllerSettings, Watch
from penstock_operator.runtime.loop.news import Record
from penstock_operator.runtime.loop.reconciler import AnyReconciler, Runner
from penstock_operator.settings import Settings
from penstock_runtime.authority import PlatformAuthority, client_context
from penstock_runtime.storage import Store

_SECONDARY_WORKERS: Final = 4
"""For kinds of which there are few: so many that one namespace's slow ones leave some for others."""
_NO_JOBS: Final = JobSettings(store="", signing_key="")
"""Where this operator has no artifact store: runs are told so, and no Job is made."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A controller: what it brings to its kind's objects, what else it follows, and how many threads it has."""

    reconciler: AnyReconciler
    watches: tuple[Watch, ...] = ()
    workers: int = _SECONDARY_WORKERS


class Parts:
    """What the controllers share.

    Args:
        cluster: where the resources are.
        settings: how the operator runs.
        may_act: whether this process holds the lease.
    """

    def __init__(self, cluster: MirroredCluster, settings: Settings, may_act: Callable[[], bool]) -> None:
        secret = settings.gateway_secret
        self.cluster = cluster
        self.settings = settings
        self.namespaces: tuple[str | None, ...] = settings.namespaces or (None,)
        # One machine has no Kubernetes nodes.
        self.nodes = None if settings.standalone is not None else ClusterView(cluster)
        self.ray_clusters = RayClusters(cluster, settings.pools, secret, namespaces=self.namespaces)
        self.defaults = DefaultPools(cluster, settings.default_pool)
        ipv6 = is_ipv6(settings.pod_address)
        self.pools = PoolDirectory(
            cluster, self.ray_clusters, may_act, why_missing=self.defaults.why_refused, ipv6=ipv6
        )
        self.authority = PlatformAuthority(secret).pem if settings.gateways_over_tls else ""
        # Without a way in the clear, the operator goes the replicas' way.
        trust = client_context(self.authority) if settings.gateways_over_tls and not settings.gateways else None
        urls = settings.gateways or settings.gateways_over_tls
        self.fleet = Fleet(urls, admin_token(secret), former=former_admin_token(secret), trust=trust)
        self.optimization = OptimizationDirectory(cluster, available=settings.jobs is not None)
        self.quotas = QuotaDirectory(cluster)
        self.keys = KeyDirectory(cluster)
        self._key_teller = KeyTeller(self.fleet, self.keys)

    def tell_keys(self, namespace: str) -> Sequence[GatewayProblem]:
        """Tell all gateways the keys of a namespace that has deployments; those that have not taken them."""
        used = self.cluster.seen_keys(INFERENCE_DEPLOYMENT, namespace)
        return self._key_teller.tell(namespace) if used else ()

    def look_at_keys(self, view: GatewayView, namespaces: Collection[str]) -> bool:
        """Tell a gateway the keys that it lacks; whether it has all of these namespaces."""
        return self._key_teller.look(view, namespaces, self.settings.namespaces or None)

    def known_deployments(self) -> set[Key] | None:
        """All of them, as last seen; None where they have not been listed yet."""
        return self.cluster.seen_keys(INFERENCE_DEPLOYMENT) if self.cluster.has_listed(INFERENCE_DEPLOYMENT) else None

    def has_deployment(self, key: Key) -> bool:
        """Whether there is such a deployment, by the API's own word. Raises `Unavailable`."""
        return self.cluster.get(INFERENCE_DEPLOYMENT, key) is not None

    def close(self) -> None:
        """Give all connections back."""
        self.pools.close()
        self.fleet.close()


def declare_deployments(
    parts: Parts, tried: Callable[[str, str, Key], None], tell: Callable[[Sequence[SpanRecord]], None]
) -> Declared:
    """The controller of deployments."""
    settings = parts.settings
    observer = Observer(
        parts.pools, parts.optimization, parts.fleet, parts.quotas, parts.keys,
        gateway_secret=settings.gateway_secret,
        replica_host=settings.replica_host,
        trusted_keys=settings.trusted_keys,
        artifact_secret=settings.artifact_secret,
        default_authentication=settings.default_authentication,
        max_body_bytes=settings.max_body_bytes,
        gateways_over_tls=settings.gateways_over_tls,
        gateways_in_the_clear=settings.gateways,
        authority=parts.authority,
        **({} if parts.nodes is None else {"place_of": parts.nodes.place_of}),
    )  # fmt: skip
    routes = RouteWriter(parts.fleet, parts.tell_keys)
    return Declared(
        DeploymentReconciler(parts.cluster, observer, parts.fleet, routes, tried=tried, tell=tell),
        (
            Watch(SERVING_POOL, sources.deployments_of_pool, sources.readiness_aspect),
            Watch(OPTIMIZATION_RUN, sources.deployment_of_run, sources.verdict_aspect),
            Watch(TENANT_QUOTA, sources.deployments_in_namespace, sources.spec_aspect),
            Watch(TENANT_QUOTA, sources.deployments_that_wait, sources.used_aspect),
            Watch(API_KEY, sources.deployments_in_namespace, sources.spec_aspect),
            Watch(OPTIMIZATION_PROFILE, sources.deployments_of_profile),
            Watch(CLUSTER_OPTIMIZATION_PROFILE, sources.deployments_of_profile),
        ),
        settings.workers,
    )


def declare_pools(parts: Parts) -> Declared:
    """The controller of pools."""
    seen = (parts.nodes.nodes, parts.nodes.expected_nodes) if parts.nodes is not None else ()
    owned = (
        # KubeRay may come later, or never.
        Watch.owned_by(RAY_CLUSTER, SERVING_POOL, optional=True),
        Watch.owned_by(NETWORK_POLICY, SERVING_POOL, optional=True),
    )
    return Declared(
        PoolReconciler(
            parts.cluster,
            parts.pools,
            ManagedPools(parts.cluster, parts.ray_clusters, parts.pools, *seen),
            defaults=parts.defaults,
            release=PoolRelease(parts.cluster, parts.ray_clusters),
        ),
        (
            Watch(INFERENCE_DEPLOYMENT, sources.pool_of_deployment, sources.pool_aspect),
            *(owned if parts.settings.pools is not None else ()),
        ),
    )


def declare_runs(parts: Parts) -> Declared:
    """The controller of optimization runs."""
    jobs = parts.settings.jobs or _NO_JOBS
    keys = RunKeys(parts.settings.gateway_secret, jobs.signing_key_secret, parts.settings.trusted_keys)
    observer = RunObserver(parts.cluster, parts.optimization, jobs, Store, parts.pools, keys=keys.public_keys)
    return Declared(
        RunReconciler(parts.cluster, observer, keys),
        (
            Watch.owned_by(JOB, OPTIMIZATION_RUN),
            Watch(OPTIMIZATION_PROFILE, sources.runs_of_profile),
            Watch(CLUSTER_OPTIMIZATION_PROFILE, sources.runs_of_profile),
        ),
    )


def declare_keys(parts: Parts) -> Declared:
    """The controller of API keys."""
    return Declared(KeyReconciler(parts.keys, parts.tell_keys))


def declare_quotas(parts: Parts) -> Declared:
    """The controller of quotas."""
    counted = Watch(INFERENCE_DEPLOYMENT, sources.quotas_in_namespace, sources.size_aspect)
    return Declared(QuotaReconciler(parts.quotas), (counted,))


class Operation:
    """All controllers of one operator process.

    Args:
        cluster: where the resources are.
        settings: how it runs.
        record: takes events.
        may_act: whether this process holds the lease.
        tell: takes the spans of deployments' starts.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        record: Record,
        may_act: Callable[[], bool],
        tell: Callable[[Sequence[SpanRecord]], None] = lambda _: None,
    ) -> None:
        copies = MirroredCluster.from_cluster(cluster)
        parts = self._parts = Parts(copies, settings, may_act)
        models = KnownDeployments(
            known=parts.known_deployments,
            exists=parts.has_deployment,
            reconcile=self.look_at,
            namespaces=settings.namespaces,
            unreadable=partial(copies.unreadable_namespaces, INFERENCE_DEPLOYMENT),
            tell_keys=parts.look_at_keys,
        )
        self._keeper = GatewayKeeper(parts.fleet, models, may_act)
        self._keeps = bool(settings.gateways or settings.gateways_over_tls)
        self._jobs = None if settings.job_folder is None else JobRunner(copies, settings.job_folder, may_act)
        declared = (
            declare_deployments(parts, self._keeper.note_tried, tell),
            declare_pools(parts),
            declare_runs(parts),
            declare_keys(parts),
            declare_quotas(parts),
        )
        of_ours = [
            Controller(
                each.reconciler.kind,
                Runner(copies, each.reconciler, record).reconcile,
                copies,
                watches=each.watches,
                settings=ControllerSettings(workers=each.workers, namespaces=parts.namespaces),
                may_act=may_act,
            )
            for each in declared
        ]
        self._deployments = of_ours[0]
        self.controllers = [*of_ours, *([] if self._jobs is None else [self._jobs.controller])]

    def look_at(self, deployment: Key) -> None:
        """Look at a deployment now, where it is there."""
        if self._parts.cluster.has_seen(INFERENCE_DEPLOYMENT, deployment):
            self._deployments.enqueue(deployment)

    def start(self) -> None:
        """Start all controllers."""
        if self._jobs is not None:
            self._jobs.prepare()
        if self._parts.nodes is not None:
            self._parts.nodes.start()
        for controller in self.controllers:
            controller.start()
        if self._keeps:
            self._keeper.start()

    def why_unready(self) -> str | None:
        """Why this is not ready: something has not been listed yet, or nothing may be.

        One namespace that may not be read is not all: it is in the log and in `penstock_operator_unreadable`.
        """
        if not all(controller.wait_synced(0.0) for controller in self.controllers):
            return "the resources have not been listed yet"
        refusals = self._deployments.refusals()
        if refusals and refusals.keys() >= set(self._parts.settings.namespaces):
            return f"none of the namespaces may be read: {next(iter(refusals.values()))}"
        return None

    def why_unhealthy(self) -> str | None:
        """What is wrong with a controller, or with what looks after the gateways."""
        complaints = (*(each.complaint() for each in self.controllers), self._keeper.complaint())
        return next(filter(None, complaints), None)

    def stop(self, timeout: float) -> bool:
        """End all controllers and give connections back; whether all had ended after `timeout` seconds."""
        self._keeper.stop()
        for controller in self.controllers:
            controller.take_no_more()
        deadline = time.monotonic() + timeout
        ended = [controller.stop(max(0.0, deadline - time.monotonic())) for controller in self.controllers]
        if self._jobs is not None:
            self._jobs.end()
        if self._parts.nodes is not None:
            self._parts.nodes.stop()
        self._parts.close()
        return all(ended)
