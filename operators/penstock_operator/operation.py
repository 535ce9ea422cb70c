"""The operator put together: controllers on a cluster, with what they need."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from penstock.planning.job import JobSettings
from penstock.routing.tokens import admin_token
from penstock.telemetry.spans import SpanRecord
from penstock_operator.deployment.observe import Observer
from penstock_operator.deployment.reconcile import DeploymentReconciler, Record
from penstock_operator.gateway.fleet import Fleet
from penstock_operator.gateway.keeper import GatewayKeeper, Models
from penstock_operator.nodes.view import ClusterView
from penstock_operator.optimization.directory import (
    CLUSTER_OPTIMIZATION_PROFILE,
    OPTIMIZATION_PROFILE,
    OPTIMIZATION_RUN,
    OptimizationDirectory,
    users_of,
)
from penstock_operator.optimization.observe import RunObserver
from penstock_operator.optimization.reconcile import RunReconciler
from penstock_operator.pool.clusters import RayClusters
from penstock_operator.pool.defaults import DefaultPools
from penstock_operator.pool.directory import INFERENCE_DEPLOYMENT, SERVING_POOL, PoolDirectory
from penstock_operator.pool.kinds import OWNED_RAY_CLUSTER
from penstock_operator.pool.managed import ManagedPools
from penstock_operator.pool.reconcile import PoolReconciler
from penstock_operator.pool.users import deployments_of, pool_of
from penstock_operator.quota.directory import TENANT_QUOTA, Mirrored, QuotaDirectory
from penstock_operator.quota.reconcile import QuotaReconciler
from penstock_operator.quota.sources import DeploymentsOfQuota, QuotasOfDeployment
from penstock_operator.runtime.cluster import JOB, Cluster, Key, Manifest, ResourceKind, key_of, owner_keys
from penstock_operator.runtime.controller import Controller, ControllerSettings, Source
from penstock_operator.runtime.jobs import JobRunner
from penstock_operator.settings import Settings
from penstock_runtime.storage import Store

_PROFILES = (OPTIMIZATION_PROFILE, CLUSTER_OPTIMIZATION_PROFILE)
_NO_JOBS = JobSettings(store="", signing_key="")
"""Where this operator has no artifact store: runs are told so, and no Job is made."""


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
        # One machine has no Kubernetes nodes.
        self._nodes = None if settings.standalone is not None else ClusterView(cluster)
        ray_clusters = RayClusters(cluster, settings.pools, settings.gateway_secret)
        self._pools = PoolDirectory(cluster, ray_clusters, may_act)
        token = admin_token(settings.gateway_secret)
        self._fleet = Fleet(settings.gateways, token)
        models = Models(
            known=self._known,
            exists=lambda key: cluster.get(INFERENCE_DEPLOYMENT, key) is not None,
            reconcile=self._reconcile,
            namespaces=settings.namespaces,
        )
        self._keeper = GatewayKeeper(self._fleet, models, may_act) if settings.gateways else None
        optimization = OptimizationDirectory(cluster, available=settings.jobs is not None)
        observer = Observer(
            self._pools,
            optimization,
            self._fleet,
            QuotaDirectory(cluster, self._mirrored(INFERENCE_DEPLOYMENT)),
            gateway_secret=settings.gateway_secret,
            replica_host=settings.replica_host,
            trusted_keys=settings.trusted_keys,
        )
        deployments = DeploymentReconciler(cluster, observer, self._fleet, record=record, tried=self._tried, tell=tell)
        managed = ManagedPools(cluster, ray_clusters, self._pools, self._nodes.nodes if self._nodes else lambda: None)
        defaults = DefaultPools(cluster, settings.default_pool)
        pools = PoolReconciler(cluster, self._pools, managed, record, defaults=defaults)
        runs = RunReconciler(cluster, RunObserver(cluster, optimization, settings.jobs or _NO_JOBS, Store), record)
        quotas = QuotaReconciler(cluster, QuotaDirectory(cluster, self._mirrored(TENANT_QUOTA)), record)
        self._runner = None if settings.job_folder is None else JobRunner(cluster, settings.job_folder, may_act)
        self.controllers: list[Controller] = [] if self._runner is None else [self._runner.controller]
        for namespace in settings.namespaces or (None,):
            primary = ControllerSettings(workers=settings.workers, namespace=namespace)
            secondary = ControllerSettings(workers=2, namespace=namespace)
            self.controllers += [
                Controller(
                    INFERENCE_DEPLOYMENT,
                    deployments.reconcile,
                    cluster,
                    sources=[
                        Source(SERVING_POOL, _Users(lambda: self._seen(INFERENCE_DEPLOYMENT)), namespace),
                        Source(OPTIMIZATION_RUN, _Owners(), namespace),
                        Source(TENANT_QUOTA, DeploymentsOfQuota(lambda: self._seen(INFERENCE_DEPLOYMENT)), namespace),
                        *self._profiles(INFERENCE_DEPLOYMENT, "optimizationProfileRef", namespace),
                    ],
                    settings=primary,
                    may_act=may_act,
                ),
                Controller(
                    SERVING_POOL,
                    pools.reconcile,
                    cluster,
                    sources=[Source(INFERENCE_DEPLOYMENT, _Pools(), namespace), *_ray_clusters(settings, namespace)],
                    settings=secondary,
                    may_act=may_act,
                ),
                Controller(
                    OPTIMIZATION_RUN,
                    runs.reconcile,
                    cluster,
                    sources=[
                        Source(JOB, lambda job: owner_keys(job, OPTIMIZATION_RUN), namespace),
                        *self._profiles(OPTIMIZATION_RUN, "profileRef", namespace),
                    ],
                    settings=secondary,
                    may_act=may_act,
                ),
                Controller(
                    TENANT_QUOTA,
                    quotas.reconcile,
                    cluster,
                    sources=[
                        Source(
                            INFERENCE_DEPLOYMENT,
                            QuotasOfDeployment(lambda: self._seen(TENANT_QUOTA), self._counted),
                            namespace,
                        )
                    ],
                    settings=secondary,
                    may_act=may_act,
                ),
            ]

    def _profiles(self, users: ResourceKind, field: str, namespace: str | None) -> list[Source]:
        """Both kinds of profiles, whose appearance and going make their users look again."""

        def keys(profile: Manifest) -> Iterable[Key]:
            return users_of(profile, self._seen(users), field)

        return [Source(kind, keys, namespace if kind.namespaced else None) for kind in _PROFILES]

    def _seen(self, kind: ResourceKind) -> list[Manifest]:
        """All objects of a primary kind, as last seen."""
        found: list[Manifest] = []
        for controller in self.controllers:
            if controller.kind is kind:
                found += controller.informers[kind].mirror.items()
        return found

    def _mirrored(self, of: ResourceKind) -> Mirrored:
        """What the controllers of one kind have last seen of any kind that they follow."""

        def mirrored(kind: ResourceKind, namespace: str) -> list[Manifest] | None:
            informers = [each.informers[kind] for each in self.controllers if each.kind is of]
            if not all(each.wait_synced(0.0) for each in informers):
                return None
            items = (item for each in informers for item in each.mirror.items())
            return [item for item in items if key_of(item).namespace == namespace]

        return mirrored

    def _counted(self, deployment: Key) -> bool:
        """Whether a deployment is there, as those who count them see it."""
        counting = (each for each in self.controllers if each.kind is TENANT_QUOTA)
        return any(each.informers[INFERENCE_DEPLOYMENT].mirror.get(deployment) for each in counting)

    def _known(self) -> set[Key] | None:
        """All deployments, as last seen; None where they have not been listed yet."""
        if self.unready() is not None:
            return None
        return {key_of(each) for each in self._seen(INFERENCE_DEPLOYMENT)}

    def _reconcile(self, deployment: Key) -> None:
        """Look at a deployment now, whichever controller it is of."""
        for controller in self.controllers:
            if controller.kind is INFERENCE_DEPLOYMENT and controller.informers[controller.kind].mirror.get(deployment):
                controller.enqueue(deployment)

    def _tried(self, address: str, instance: str, deployment: Key) -> None:
        if self._keeper is not None:
            self._keeper.tried(address, instance, deployment)

    def start(self) -> None:
        """Start all controllers."""
        if self._runner is not None:
            self._runner.prepare()
        if self._nodes is not None:
            self._nodes.start()
        for controller in self.controllers:
            controller.start()
        if self._keeper is not None:
            self._keeper.start()

    def unready(self) -> str | None:
        """Why this is not ready: something has not been listed yet."""
        if all(controller.wait_synced(0.0) for controller in self.controllers):
            return None
        return "the resources have not been listed yet"

    def unhealthy(self) -> str | None:
        """What is wrong with a controller, or with what looks after the gateways."""
        complaints = (each.complaint() for each in (*self.controllers, self._keeper) if each is not None)
        return next(filter(None, complaints), None)

    def stop(self, timeout: float) -> bool:
        """End all controllers and give connections back; whether all had ended after `timeout` seconds."""
        if self._keeper is not None:
            self._keeper.stop()
        for controller in self.controllers:
            controller.take_no_more()
        deadline = time.monotonic() + timeout
        ended = [controller.stop(max(0.0, deadline - time.monotonic())) for controller in self.controllers]
        if self._runner is not None:
            self._runner.end()
        if self._nodes is not None:
            self._nodes.stop()
        self._pools.close()
        self._fleet.close()
        return all(ended)


def _ray_clusters(settings: Settings, namespace: str | None) -> list[Source]:
    """RayClusters, whose changes make their pools look again. KubeRay may be installed later, or never."""
    if settings.pools is None:
        return []
    return [Source(OWNED_RAY_CLUSTER, lambda each: owner_keys(each, SERVING_POOL), namespace, optional=True)]


class _Aspect:
    """Whether what matters of an object changed since it was last seen. Missing one costs a resync's delay, no more."""

    def __init__(self) -> None:
        self._seen: dict[Key, object] = {}

    def changed(self, manifest: Manifest, aspect: object) -> bool:
        key = key_of(manifest)
        before = self._seen.get(key)
        self._seen[key] = aspect
        return aspect != before


class _Users:
    """The deployments of a pool, where its spec or its readiness changed: its counts are nothing to them."""

    def __init__(self, deployments: Callable[[], list[Manifest]]) -> None:
        self._deployments = deployments
        self._aspect = _Aspect()

    def __call__(self, pool: Manifest) -> Iterable[Key]:
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
        return deployments_of(key_of(pool), self._deployments()) if self._aspect.changed(pool, aspect) else ()


class _Owners:
    """The deployment of a run, where its verdict or what it says changed: its progress is nothing to it."""

    def __init__(self) -> None:
        self._aspect = _Aspect()

    def __call__(self, run: Manifest) -> Iterable[Key]:
        status, metadata = run.get("status") or {}, run["metadata"]
        conditions = [(each.get("status"), each.get("reason")) for each in status.get("conditions") or ()]
        aspect = (metadata.get("uid"), metadata.get("deletionTimestamp"), status.get("verdict"), conditions)
        return owner_keys(run, INFERENCE_DEPLOYMENT) if self._aspect.changed(run, aspect) else ()


class _Pools:
    """The pool of a deployment, where it is new, going, or names another pool."""

    def __init__(self) -> None:
        self._aspect = _Aspect()

    def __call__(self, deployment: Manifest) -> Iterable[Key]:
        pool, metadata = pool_of(deployment), deployment["metadata"]
        going = metadata.get("deletionTimestamp")
        return (pool,) if self._aspect.changed(deployment, (pool, metadata.get("uid"), going)) else ()
