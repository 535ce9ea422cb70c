"""The end of a pool whose state lies in a Redis: its Ray clusters go first, while what their clean-up needs is there.

KubeRay empties the Redis by a Job that runs with the pool's Secrets, and keeps the RayCluster until then. Without a
finalizer on the pool, Kubernetes would take the Secrets away meanwhile, and the Job could not start.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from penstock.api.meta import ObjectMeta
from penstock.api.pool import ServingPoolStatus
from penstock.api.verdicts import epoch
from penstock.names import FINALIZER
from penstock_operator.deployment.observed import PoolProblem
from penstock_operator.pool.clusters import RayClusters
from penstock_operator.pool.kinds import RAY_CLUSTER
from penstock_operator.runtime.cluster import Cluster, Key, Manifest
from penstock_operator.runtime.loop.reconciler import Applied
from penstock_operator.runtime.loop.requeue import Requeue

log = logging.getLogger(__name__)

REDIS_FINALIZER: Final = "ray.io/gcs-ft-redis-cleanup-finalizer"
"""KubeRay's: https://docs.ray.io/en/latest/cluster/kubernetes/user-guides/kuberay-gcs-ft.html"""
PATIENCE_SECONDS: Final = 90.0
"""In a namespace that is being deleted KubeRay's Job cannot be made at all, and the RayCluster would stay for ever."""
_LOOK_SECONDS: Final = 2.0


class PoolRelease:
    """Ends pools that hold a finalizer: those whose state lies in a Redis.

    Args:
        cluster: where the objects are.
        ray_clusters: reads RayClusters.
        clock: seconds since the Unix epoch.
    """

    def __init__(self, cluster: Cluster, ray_clusters: RayClusters, clock: Callable[[], float] = time.time) -> None:
        self._cluster = cluster
        self._ray_clusters = ray_clusters
        self._clock = clock

    def carry_out(self, manifest: Manifest) -> Applied[ServingPoolStatus]:
        """Bring the end of a pool that is being deleted one step on, also where this release cannot read its spec."""
        metadata = ObjectMeta.model_validate(manifest["metadata"])
        if FINALIZER not in metadata.finalizers:
            return Applied()
        clusters = self._ray_clusters.list_of(metadata)
        own = () if isinstance(clusters, PoolProblem) else [each for each in clusters if each.owner == metadata.uid]
        if not own:
            return Applied(release=True)
        overdue = self._clock() - epoch(metadata.deletion_timestamp or "") > PATIENCE_SECONDS
        for each in own:
            key = Key(metadata.namespace, each.name)
            if not each.deleting:
                self._cluster.delete(RAY_CLUSTER, key)
            elif overdue:
                self._give_up(key)
        return Applied(requeue=Requeue(_LOOK_SECONDS, "KubeRay empties the Redis"))

    def _give_up(self, key: Key) -> None:
        """Let a RayCluster go whose state in the Redis could not be removed."""
        found = self._cluster.get(RAY_CLUSTER, key)
        if found is not None:
            log.warning("RayCluster %s goes although its state in the Redis could not be removed", key)
            self._cluster.remove_finalizer(RAY_CLUSTER, found, REDIS_FINALIZER)
