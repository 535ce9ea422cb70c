"""The pool that a namespace gets at its first deployment, where it has none."""

from __future__ import annotations

import logging
from typing import Final

from penstock.api.pool import ServingPoolSpec
from penstock.planning.pool_names import DEFAULT_POOL_LABEL
from penstock_operator.pool.directory import INFERENCE_DEPLOYMENT, SERVING_POOL
from penstock_operator.pool.users import pool_of
from penstock_operator.runtime.cluster import Cluster, Key, create_unless_there

log = logging.getLogger(__name__)

DEFAULT_POOL: Final = "default"
"""What deployments name that name no pool."""


class DefaultPools:
    """Makes the pool `default` where a deployment wants it and there is none.

    What was made is the namespace's own: a later change of the default changes no pool that is there.

    Args:
        cluster: where pools are.
        spec: of such a pool; None: none is made.
    """

    def __init__(self, cluster: Cluster, spec: ServingPoolSpec | None) -> None:
        self._cluster = cluster
        self._spec = spec

    def make(self, key: Key) -> bool:
        """Make the pool of this key, if it is one to be made; whether it was. Raises `Unavailable`, `Invalid`."""
        if self._spec is None or key.name != DEFAULT_POOL or not self._wanted(key):
            return False
        manifest = {
            "apiVersion": SERVING_POOL.api_version,
            "kind": SERVING_POOL.kind,
            "metadata": {
                "name": key.name,
                "namespace": key.namespace,
                "labels": {DEFAULT_POOL_LABEL: "true", "app.kubernetes.io/managed-by": "penstock"},
            },
            "spec": self._spec.model_dump(mode="json", exclude_none=True),
        }
        create_unless_there(self._cluster, SERVING_POOL, manifest)
        log.info("made the default pool of namespace %s", key.namespace)
        return True

    def _wanted(self, key: Key) -> bool:
        """A deployment that is going needs no pool."""
        deployments = self._cluster.list(INFERENCE_DEPLOYMENT, key.namespace).items
        return any(pool_of(each) == key for each in deployments if not each["metadata"].get("deletionTimestamp"))
