"""The operator put together: controllers on a cluster, with what they need."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from penstock.routing.tokens import admin_token, former_admin_token
from penstock.telemetry.spans import SpanRecord
from penstock_operator.deployment.observe import Observer
from penstock_operator.deployment.observed import GatewayProblem
from penstock_operator.deployment.reconcile import DeploymentReconciler, Record
from penstock_operator.gateway.fleet import Fleet
from penstock_operator.gateway.keeper import GatewayKeeper, Models
from penstock_operator.keys.directory import API_KEY, DeploymentsOfKey, KeyDirectory
from penstock_operator.keys.reconcile import KeyReconciler
from penstock_operator.keys.telling import KeyTeller
from penstock_operator.nodes.view import ClusterView
from penstock_operator.optimization.directory import (
    CLUSTER_OPTIMIZATION_PROFILE,
    OPTIMIZATION_PROFILE,
    OPTIMIZATION_RUN,
    OptimizationDirectory,
    users_of,
)
from penstock_operator.optimization.job import JobSettings
from penstock_operator.optimization.keys import RunKeys
from penstock_operator.optimization.observe import RunObserver
from penstock_operator.optimization.reconcile import RunReconciler
from penstock_operator.pool.clusters import RayClusters
from penstock_operator.pool.defaults import DefaultPools
from penstock_operator.pool.directory import INFERENCE_DEPLOYMENT, SERVING_POOL, PoolDirectory
from penstock_operator.pool.kinds import NETWORK_POLICY, RAY_CLUSTER
from penstock_operator.pool.managed import ManagedPools
from penstock_operator.pool.reconcile import PoolReconciler
from penstock_operator.pool.release import PoolRelease
from penstock_operator.quota.directory import TENANT_QUOTA, Mirrored, QuotaDirectory
from penstock_operator.quota.reconcile import QuotaReconciler
from penstock_operator.quota.sources import DeploymentsOfQuota, QuotasOfDeployment
from penstock_operator.runtime.cluster import JOB, Cluster, Key, Manifest, ResourceKind, owner_keys
from penstock_operator.runtime.controller import Controller, ControllerSettings, Source
from penstock_operator.runtime.jobs import JobRunner
from penstock_operator.runtime.mirror import Mirror
from penstock_operator.runtime.mirrored import MirroredCluster
from penstock_operator.settings import Settings
from penstock_operator.sources import OwnersOfRun, PoolOfDeployment, UsersOfPool
from penstock_runtime.storage import Store

_PROFILES = (OPTIMIZATION_PROFILE, CLUSTER_OPTIMIZATION_PROFILE)
_SECONDARY_WORKERS = 4
"""For kinds of which there are few: so many that one namespace's slow ones leave some for others."""
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
        cluster = self._copies = MirroredCluster(cluster)
        namespaces = settings.namespaces or (None,)
        ray_clusters = RayClusters(cluster, settings.pools, settings.gateway_secret, namespaces=namespaces)
        self._pools = PoolDirectory(cluster, ray_clusters, may_act)
        token = admin_token(settings.gateway_secret)
        self._fleet = Fleet(settings.gateways, token, former=former_admin_token(settings.gateway_secret))
        models = Models(
            known=self._known,
            exists=lambda key: cluster.get(INFERENCE_DEPLOYMENT, key) is not None,
            reconcile=self._reconcile,
            namespaces=settings.namespaces,
            tell_keys=lambda view, namespaces: self._keys.look(view, namespaces, settings.namespaces or None),
        )
        self._keeper = GatewayKeeper(self._fleet, models, may_act) if settings.gateways else None
        optimization = OptimizationDirectory(cluster, available=settings.jobs is not None)
        keys = KeyDirectory(cluster)
        self._keys = KeyTeller(self._fleet, keys)
        observer = Observer(
            self._pools,
            optimization,
            self._fleet,
            QuotaDirectory(cluster, self._mirrored(INFERENCE_DEPLOYMENT)),
            keys,
            gateway_secret=settings.gateway_secret,
            replica_host=settings.replica_host,
            trusted_keys=settings.trusted_keys,
            artifact_secret=settings.artifact_secret,
            default_authentication=settings.default_authentication,
        )
        deployments = DeploymentReconciler(
            cluster, observer, self._fleet, record=record, tried=self._tried, tell=tell, tell_keys=self._tell_keys
        )
        seen = (self._nodes.nodes, self._nodes.expected) if self._nodes is not None else ()
        managed = ManagedPools(cluster, ray_clusters, self._pools, *seen)
        defaults = DefaultPools(cluster, settings.default_pool)
        pools = PoolReconciler(
            cluster, self._pools, managed, record, defaults=defaults, release=PoolRelease(cluster, ray_clusters)
        )
        jobs = settings.jobs or _NO_JOBS
        run_keys = RunKeys(settings.gateway_secret, jobs.signing_key_secret, settings.trusted_keys)
        seen_runs = RunObserver(cluster, optimization, jobs, Store, self._pools, keys=run_keys.public)
        runs = RunReconciler(cluster, seen_runs, record, run_keys)
        quotas = QuotaReconciler(cluster, QuotaDirectory(cluster, self._mirrored(TENANT_QUOTA)), record)
        key_states = KeyReconciler(cluster, keys, record, tell=self._tell_keys)
        self._runner = None if settings.job_folder is None else JobRunner(cluster, settings.job_folder, may_act)
        self.controllers: list[Controller] = [] if self._runner is None else [self._runner.controller]
        reconciles = {
            INFERENCE_DEPLOYMENT: deployments.reconcile,
            SERVING_POOL: pools.reconcile,
            OPTIMIZATION_RUN: runs.reconcile,
            API_KEY: key_states.reconcile,
            TENANT_QUOTA: quotas.reconcile,
        }
        for namespace in namespaces:
            for kind, reconcile in reconciles.items():
                workers = settings.workers if kind is INFERENCE_DEPLOYMENT else _SECONDARY_WORKERS
                how = ControllerSettings(workers=workers, namespace=namespace)
                sources = self._sources(kind, settings, namespace)
                self.controllers.append(
                    Controller(kind, reconcile, cluster, sources=sources, settings=how, may_act=may_act)
                )

    def _sources(self, kind: ResourceKind, settings: Settings, namespace: str | None) -> list[Source]:
        """What else makes objects of a primary kind be looked at again."""
        if kind is INFERENCE_DEPLOYMENT:
            all_of_them = partial(self._seen, INFERENCE_DEPLOYMENT)
            return [
                Source(SERVING_POOL, UsersOfPool(self._deployments_in, self._there(SERVING_POOL)), namespace),
                Source(OPTIMIZATION_RUN, OwnersOfRun(self._there(OPTIMIZATION_RUN)), namespace),
                Source(TENANT_QUOTA, DeploymentsOfQuota(all_of_them, self._there(TENANT_QUOTA)), namespace),
                Source(API_KEY, DeploymentsOfKey(self._deployments_in, self._there(API_KEY)), namespace),
                *self._profiles(INFERENCE_DEPLOYMENT, "optimizationProfileRef", namespace),
            ]
        if kind is SERVING_POOL:
            users = PoolOfDeployment(self._there(INFERENCE_DEPLOYMENT))
            return [Source(INFERENCE_DEPLOYMENT, users, namespace), *_ray_clusters(settings, namespace)]
        if kind is OPTIMIZATION_RUN:
            return [
                Source(JOB, lambda job: owner_keys(job, OPTIMIZATION_RUN), namespace),
                *self._profiles(OPTIMIZATION_RUN, "profileRef", namespace),
            ]
        if kind is TENANT_QUOTA:
            counted = QuotasOfDeployment(lambda: self._seen(TENANT_QUOTA), self._counted)
            return [Source(INFERENCE_DEPLOYMENT, counted, namespace)]
        return []

    def _profiles(self, users: ResourceKind, field: str, namespace: str | None) -> list[Source]:
        """Both kinds of profiles, whose appearance and going make their users look again."""

        def keys(profile: Manifest) -> Iterable[Key]:
            return users_of(profile, self._seen(users, profile["metadata"].get("namespace")), field)

        return [Source(kind, keys, namespace if kind.namespaced else None) for kind in _PROFILES]

    def _mirrors(self, kind: ResourceKind) -> list[Mirror]:
        """What was last seen of a primary kind."""
        return [each.informers[kind].mirror for each in self.controllers if each.kind is kind]

    def _seen(self, kind: ResourceKind, namespace: str | None = None) -> list[Manifest]:
        """All objects of a primary kind, or one namespace's, as last seen."""
        return [each for mirror in self._mirrors(kind) for each in mirror.items(namespace)]

    def _deployments_in(self, namespace: str) -> list[Manifest]:
        return self._seen(INFERENCE_DEPLOYMENT, namespace)

    def _tell_keys(self, namespace: str) -> Sequence[GatewayProblem]:
        """Tell all gateways the keys of a namespace that has deployments; those that have not taken them."""
        return self._keys.tell(namespace) if self._deployments_in(namespace) else ()

    def _there(self, kind: ResourceKind) -> Callable[[Key], bool]:
        """Whether an object of a primary kind is there, as its controllers see it."""
        return lambda key: any(mirror.has(key) for mirror in self._mirrors(kind))

    def _mirrored(self, of: ResourceKind) -> Mirrored:
        """What the controllers of one kind have last seen of any kind that they follow."""

        def mirrored(kind: ResourceKind, namespace: str) -> list[Manifest] | None:
            informers = [each.informers[kind] for each in self.controllers if each.kind is of]
            if not all(each.wait_synced(0.0) for each in informers):
                return None
            return [item for each in informers for item in each.mirror.items(namespace)]

        return mirrored

    def _counted(self, deployment: Key) -> bool:
        """Whether a deployment is there, as those who count them see it."""
        counting = (each for each in self.controllers if each.kind is TENANT_QUOTA)
        return any(each.informers[INFERENCE_DEPLOYMENT].mirror.get(deployment) for each in counting)

    def _known(self) -> set[Key] | None:
        """All deployments, as last seen; None where they have not been listed yet."""
        if self.unready() is not None:
            return None
        return {key for mirror in self._mirrors(INFERENCE_DEPLOYMENT) for key in mirror.keys()}  # noqa: SIM118 -- a mirror is no mapping

    def _reconcile(self, deployment: Key) -> None:
        """Look at a deployment now, whichever controller it is of."""
        for controller in self.controllers:
            if controller.kind is INFERENCE_DEPLOYMENT and controller.informers[controller.kind].mirror.get(deployment):
                controller.enqueue(deployment)

    def _tried(self, address: str, instance: str, deployment: Key) -> None:
        if self._keeper is not None:
            self._keeper.tried(address, instance, deployment)

    def refresh(self) -> None:
        """See what another process wrote until now. Raises `Unavailable` where the API does not answer."""
        self._copies.refresh()

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
    """What managed pools are made of, whose changes make their pools look again. KubeRay may come later, or never."""
    if settings.pools is None:
        return []

    def pool(manifest: Manifest) -> Iterable[Key]:
        return owner_keys(manifest, SERVING_POOL)

    return [Source(kind, pool, namespace, optional=True) for kind in (RAY_CLUSTER, NETWORK_POLICY)]
