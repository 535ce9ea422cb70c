"""Writes of each `TenantQuota` how much of it is taken."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from penstock.api.conditions import QuotaCondition
from penstock.api.meta import ConditionStatus
from penstock.api.quota import TenantQuota
from penstock.api.reading import read
from penstock.api.verdicts import transitions
from penstock.errors import Invalid
from penstock.names import QUOTA_MANAGER
from penstock_operator.quota.directory import TENANT_QUOTA, QuotaDirectory
from penstock_operator.quota.plan import quota_status
from penstock_operator.runtime.cluster import Cluster, Key, Manifest, NotFound
from penstock_operator.runtime.controller import Result
from penstock_operator.runtime.unreadable import tell_unreadable

_RESYNC_SECONDS: Final = 300.0

Record = Callable[[Manifest, bool, str, str], None]
"""Records an event: on which object, whether it is a warning, reason, message."""


class QuotaReconciler:
    """Count, one status write.

    Args:
        cluster: where the objects are.
        directory: finds the deployments that a quota counts.
        record: takes events.
        clock: seconds since the Unix epoch.
    """

    def __init__(
        self, cluster: Cluster, directory: QuotaDirectory, record: Record, clock: Callable[[], float] = time.time
    ) -> None:
        self._cluster = cluster
        self._directory = directory
        self._record = record
        self._clock = clock

    def reconcile(self, key: Key) -> Result:
        """See `penstock_operator.runtime.controller.Reconcile`."""
        manifest = self._cluster.get(TENANT_QUOTA, key)
        if manifest is None:
            return Result()
        try:
            quota = read(TenantQuota, manifest)
            status = quota_status(quota, self._directory.deployments(key.namespace), self._clock())
        except Invalid as error:
            tell_unreadable(
                self._cluster,
                TENANT_QUOTA,
                manifest,
                error,
                condition=QuotaCondition.READY,
                manager=QUOTA_MANAGER,
                now=self._clock(),
                record=self._record,
            )
            raise
        if status != quota.status:
            body = {
                "apiVersion": quota.api_version,
                "kind": quota.kind,
                "metadata": {"name": key.name, "namespace": key.namespace},
                "status": status.model_dump(mode="json", exclude_none=True),
            }
            try:
                self._cluster.apply_status(TENANT_QUOTA, body, QUOTA_MANAGER)
            except NotFound:
                return Result()  # deleted meanwhile
            for each in transitions(quota.status.conditions, status.conditions):
                if each.type == QuotaCondition.EXCEEDED:
                    exceeded = each.status is ConditionStatus.TRUE
                    self._record(manifest, exceeded, each.reason, f"{each.type}: {each.message}")
        return Result(_RESYNC_SECONDS, "a deployment's change may have been missed")
