"""Observes what a managed pool is made of, and brings it to what was planned."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from penstock.api.conditions import Reason
from penstock.api.pool import ServingPool
from penstock.errors import Conflict, Unavailable
from penstock.names import POOL_MANAGER, owner_reference
from penstock_operator.deployment.observed import ObservedApplication, PoolProblem
from penstock_operator.nodes.forecast import KubernetesNode
from penstock_operator.pool.clusters import RayClusters
from penstock_operator.pool.directory import PoolDirectory
from penstock_operator.pool.drift import describe, differences, may_put_right, with_mark
from penstock_operator.pool.kinds import NETWORK_POLICY, RAY_CLUSTER
from penstock_operator.pool.names import APPLIED, POOL_LABEL, label
from penstock_operator.pool.network import policies
from penstock_operator.pool.observed import PoolObserved, RayClusterView, view
from penstock_operator.pool.plan import PoolPlan, begins, sort_clusters
from penstock_operator.pool.raypods import PoolSettings
from penstock_operator.pool.status import lacks_pods
from penstock_operator.runtime.cluster import SECRET, Cluster, Key, Manifest, create_if_absent, key_of

log = logging.getLogger(__name__)

SeeNodes = Callable[[], Sequence[KubernetesNode] | None]


class ManagedPools:
    """The edge of `penstock_operator.pool.plan`.

    Args:
        cluster: where the objects are.
        ray_clusters: reads RayClusters and pods.
        directory: finds what writes to a Ray cluster.
        nodes: Kubernetes' nodes; None where they cannot be seen.
        expected: the same, with the pods that wait for a node placed.
    """

    def __init__(
        self,
        cluster: Cluster,
        ray_clusters: RayClusters,
        directory: PoolDirectory,
        nodes: SeeNodes = lambda: None,
        expected: SeeNodes = lambda: None,
    ) -> None:
        self._cluster = cluster
        self._ray_clusters = ray_clusters
        self._directory = directory
        self._nodes = nodes
        self._expected = expected

    def observe(self, pool: ServingPool) -> PoolObserved | PoolProblem:
        """All that the planner is told. Raises `Unavailable`."""
        settings = self._ray_clusters.settings()
        clusters = self._ray_clusters.list_of(pool.metadata)
        if isinstance(settings, PoolProblem):
            return settings
        if isinstance(clusters, PoolProblem):
            return clusters
        standing = sort_clusters(pool.metadata.uid, clusters)
        moving = bool(standing.candidates or standing.retired)
        own = [each for each in (standing.serving, *standing.candidates, *standing.retired) if each is not None]
        observed = PoolObserved(
            pool=pool,
            settings=settings,
            secret=self._ray_clusters.secret_name(pool),
            clusters=clusters,
            pods=tuple(
                pod
                for each in own
                if lacks_pods(each)
                for pod in self._ray_clusters.pods(pool.metadata.namespace, each.name)
            ),
            nodes=_see(self._nodes),
            applications=self._applications(pool, own) if moving else {},
        )
        if not begins(observed):
            return observed
        return replace(observed, room=_see(self._expected), elsewhere=self._ray_clusters.candidates_elsewhere(pool))

    def apply(self, observed: PoolObserved, wanted: PoolPlan) -> PoolProblem | None:
        """In an order in which a kill at any line leaves nothing that the next run does not find.

        Returns:
            What kept it from doing so.

        Raises:
            Conflict: Ray's autoscaler wrote meanwhile.
            Unavailable, Invalid: as they say.
        """
        pool = observed.pool
        namespace = pool.metadata.namespace
        if wanted.apply or any(each.stuck for each in observed.pods):
            self._create_secret(pool, observed.secret)
        self._apply_policies(pool, observed.settings)
        for manifest in wanted.apply:
            problem = self._find_conflict(pool, manifest)
            if problem is not None:
                return problem
            log.info("applying RayCluster %s", key_of(manifest))
            self._cluster.apply(RAY_CLUSTER, manifest, POOL_MANAGER)
            self._ray_clusters.note_change()
        if wanted.mirror is not None and wanted.candidate is not None:
            self._directory.writer_at(pool, wanted.candidate).replace_all(wanted.mirror)
        for name in wanted.withdraw:
            self._withdraw(pool, name)
        for name in wanted.delete:
            log.info("deleting RayCluster %s/%s", namespace, name)
            self._cluster.delete(RAY_CLUSTER, Key(namespace, name))
        return None

    def _find_conflict(self, pool: ServingPool, manifest: Manifest) -> PoolProblem | None:
        """Whether a RayCluster of the name that a new one is to have is someone else's: an apply would take it over."""
        if "resourceVersion" in manifest["metadata"]:
            return None
        key = key_of(manifest)
        found = self._cluster.get(RAY_CLUSTER, key)
        if found is None:
            return None
        if view(found).owner == pool.metadata.uid:
            raise Conflict("Conflict", f"RayCluster {key} appeared meanwhile")
        said = f"There is a RayCluster {key.name} that is not this pool's: delete it, or give the pool another name."
        return PoolProblem(Reason.NAME_CONFLICT, said)

    def _withdraw(self, pool: ServingPool, name: str) -> None:
        """One that does not answer goes all the same, only later."""
        try:
            self._directory.writer_at(pool, name).replace_all(())
        except Unavailable as error:
            log.warning("%s", error.message)

    def _applications(
        self, pool: ServingPool, clusters: Sequence[RayClusterView]
    ) -> dict[str, tuple[ObservedApplication, ...]]:
        found: dict[str, tuple[ObservedApplication, ...]] = {}
        for each in clusters:
            if not each.head_ready:
                continue
            try:
                found[each.name] = self._directory.writer_at(pool, each.name).applications()
            except Unavailable as error:
                log.info("%s", error.message)
        return found

    def _create_secret(self, pool: ServingPool, name: str) -> None:
        """The operator may create Secrets, not read them: what it holds follows from the name."""
        token = base64.b64encode(self._ray_clusters.token(pool).encode()).decode()
        manifest = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": name,
                "namespace": pool.metadata.namespace,
                "labels": {POOL_LABEL: label(pool.metadata.name), "app.kubernetes.io/managed-by": "penstock"},
                "ownerReferences": [owner_reference(pool.api_version, pool.kind, pool.metadata)],
            },
            "immutable": True,
            "type": "Opaque",
            "data": {"auth_token": token},
        }
        create_if_absent(self._cluster, SECRET, manifest)

    def _apply_policies(self, pool: ServingPool, settings: PoolSettings) -> None:
        """Its NetworkPolicies, where they are not what they should be."""
        chosen = {POOL_LABEL: label(pool.metadata.name)}
        listed = self._cluster.list(NETWORK_POLICY, pool.metadata.namespace, chosen).items
        present = {each["metadata"]["name"]: each for each in listed}
        for manifest in policies(pool, settings.system_namespace, cloud_identity=settings.cloud_identity):
            found = present.get(manifest["metadata"]["name"])
            wanted = manifest if found is None else _put_right(manifest, found, time.time())
            if wanted is not None:
                self._cluster.apply(NETWORK_POLICY, wanted, POOL_MANAGER)


def _put_right(manifest: Manifest, found: Manifest, now: float) -> Manifest | None:
    """What to apply of a NetworkPolicy: None where it is what it should be, or is changed back again and again."""
    annotations = found["metadata"].get("annotations") or {}
    if annotations.get(APPLIED) != manifest["metadata"]["annotations"][APPLIED]:
        return manifest
    changed = differences(manifest["spec"], found["spec"], "spec")
    if not changed:
        return None
    if not may_put_right(annotations, changed, now):
        log.warning("NetworkPolicy %s is changed back as often as it is put right", key_of(manifest))
        return None
    log.warning("NetworkPolicy %s was changed by another hand: %s", key_of(manifest), describe(changed))
    return with_mark(manifest, changed, now)


def _see(see: SeeNodes) -> tuple[KubernetesNode, ...] | None:
    nodes = see()
    return None if nodes is None else tuple(nodes)
