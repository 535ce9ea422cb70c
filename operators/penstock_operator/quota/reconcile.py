"""Writes of each `TenantQuota` how much of it is taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from penstock.api.conditions import QuotaCondition
from penstock.api.meta import ConditionStatus
from penstock.api.quota import TenantQuota, TenantQuotaStatus
from penstock.api.v1alpha1 import InferenceDeployment
from penstock.api.verdicts import transitions
from penstock.names import QUOTA_MANAGER
from penstock_operator.kinds import TENANT_QUOTA
from penstock_operator.quota.directory import QuotaDirectory
from penstock_operator.quota.plan import quota_status
from penstock_operator.runtime.loop.news import News
from penstock_operator.runtime.loop.reconciler import Applied, Reconciler
from penstock_operator.runtime.loop.requeue import Requeue

_RESYNC: Final = Requeue(300.0, "a deployment's change may have been missed")

_Sight: TypeAlias = tuple[TenantQuota, Sequence[InferenceDeployment]]
"""A quota, and the deployments that it counts."""


class QuotaReconciler(Reconciler[TenantQuota, TenantQuotaStatus, _Sight, TenantQuotaStatus]):
    """See `Reconciler`.

    Args:
        directory: finds the deployments that a quota counts.
    """

    kind = TENANT_QUOTA
    model = TenantQuota
    condition = QuotaCondition.READY
    manager = QUOTA_MANAGER

    def __init__(self, directory: QuotaDirectory) -> None:
        self._directory = directory

    def observe(self, resource: TenantQuota) -> _Sight:
        """See `Reconciler`."""
        return resource, self._directory.deployments(resource.metadata.namespace)

    def plan(self, observed: _Sight, now: float) -> TenantQuotaStatus:
        """See `penstock_operator.quota.plan`."""
        return quota_status(*observed, now)

    def apply(self, observed: _Sight, plan: TenantQuotaStatus, now: float) -> Applied[TenantQuotaStatus]:
        """There is nothing but the status."""
        del observed, now
        return Applied(plan, _RESYNC)

    def announce(self, before: TenantQuotaStatus, after: TenantQuotaStatus) -> Iterator[News]:
        """That it is exceeded, and that it is no more."""
        for each in transitions(before.conditions, after.conditions):
            if each.type == QuotaCondition.EXCEEDED:
                yield News(each.status is ConditionStatus.TRUE, each.reason, f"{each.type}: {each.message}")
