"""The pool that a namespace gets at its first deployment, where it has none."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from penstock.api.pool import ServingPoolSpec
from penstock.api.verdicts import epoch
from penstock.errors import PenstockError
from penstock_operator.kinds import INFERENCE_DEPLOYMENT, SERVING_POOL
from penstock_operator.pool.names import DEFAULT_POOL_LABEL
from penstock_operator.pool.users import pool_of
from penstock_operator.runtime.cluster import Cluster, Key, Manifest, create_if_absent

log = logging.getLogger(__name__)

DEFAULT_POOL: Final = "default"
"""What deployments name that name no pool."""
_NEW_SECONDS: Final = 30.0
_PATIENCE_SECONDS: Final = 10.0
"""For those who delete a pool and then its deployments. Forgotten by a restart, it only delays."""


class DefaultPools:
    """Makes the pool `default` where a deployment wants it and there is none.

    What was made is the namespace's own: a later change of the default changes no pool that is there.

    Args:
        cluster: where pools are.
        spec: of such a pool; None: none is made.
        clock: seconds since the Unix epoch.
    """

    def __init__(self, cluster: Cluster, spec: ServingPoolSpec | None, clock: Callable[[], float] = time.time) -> None:
        self._cluster = cluster
        self._spec = spec
        self._clock = clock
        self._missed: dict[Key, float] = {}
        self._refused: dict[Key, str] = {}
        """Only to be told: after a restart it is tried again at once."""

    def why_refused(self, key: Key) -> str | None:
        """What the API said last where such a pool was to be made and is not there; None: nothing against it."""
        return self._refused.get(key)

    def make(self, key: Key) -> float | None:
        """Make the pool of this key, if it is one to be made; seconds after which to see about it again.

        For a new deployment that is at once. Where all have been there for longer, somebody deleted their pool, and may
        be about to delete them.

        Raises:
            Unavailable, Invalid: as `Cluster.create` says.
        """
        users = self._users(key) if self._spec is not None and key.name == DEFAULT_POOL else []
        if self._spec is None or not users:
            self._missed.pop(key, None)
            self._refused.pop(key, None)
            return None
        now = self._clock()
        if not any(now - epoch(each["metadata"]["creationTimestamp"]) < _NEW_SECONDS for each in users):
            left = self._missed.setdefault(key, now) + _PATIENCE_SECONDS - now
            if left > 0:
                return left
        self._missed.pop(key, None)
        try:
            create_if_absent(self._cluster, SERVING_POOL, _pool(key, self._spec))
        except PenstockError as error:
            self._refused[key] = error.message
            raise
        self._refused.pop(key, None)
        log.info("made the default pool of namespace %s", key.namespace)
        return None

    def _users(self, key: Key) -> list[Manifest]:
        """A deployment that is going needs no pool."""
        listed = self._cluster.list(INFERENCE_DEPLOYMENT, key.namespace).items
        return [each for each in listed if pool_of(each) == key and not each["metadata"].get("deletionTimestamp")]


def _pool(key: Key, spec: ServingPoolSpec) -> Manifest:
    return {
        "apiVersion": SERVING_POOL.api_version,
        "kind": SERVING_POOL.kind,
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "labels": {DEFAULT_POOL_LABEL: "true", "app.kubernetes.io/managed-by": "penstock"},
        },
        "spec": spec.model_dump(mode="json", exclude_none=True),
    }
