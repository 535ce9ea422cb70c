"""Penstock's own kinds as the API serves them. A further kind is told in `penstock.api.kinds`; those that code names have a name here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from penstock.api import GROUP, VERSION
from penstock.api.kinds import KINDS
from penstock_operator.runtime.cluster import ResourceKind

OURS: Final[Mapping[str, ResourceKind]] = {
    name: ResourceKind(
        GROUP, VERSION, name, kind.plural, namespaced=kind.namespaced, has_status=kind.status is not None
    )
    for name, kind in KINDS.items()
}
"""By name."""

API_KEY: Final = OURS["APIKey"]
CLUSTER_OPTIMIZATION_PROFILE: Final = OURS["ClusterOptimizationProfile"]
INFERENCE_DEPLOYMENT: Final = OURS["InferenceDeployment"]
OPTIMIZATION_PROFILE: Final = OURS["OptimizationProfile"]
OPTIMIZATION_RUN: Final = OURS["OptimizationRun"]
SERVING_POOL: Final = OURS["ServingPool"]
TENANT_QUOTA: Final = OURS["TenantQuota"]
