"""Kinds that a managed pool is made of."""

from __future__ import annotations

from typing import Final

from penstock_operator.runtime.cluster import ResourceKind

RAY_CLUSTER: Final = ResourceKind("ray.io", "v1", "RayCluster", "rayclusters", has_status=True)
NETWORK_POLICY: Final = ResourceKind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
POD: Final = ResourceKind("", "v1", "Pod", "pods", has_status=True)
