"""Kinds that a managed pool is made of."""

from __future__ import annotations

from typing import Final

from penstock_operator.runtime.cluster import Excerpt, Manifest, ResourceKind

RAY_CLUSTER: Final = ResourceKind("ray.io", "v1", "RayCluster", "rayclusters", has_status=True)
NETWORK_POLICY: Final = ResourceKind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
POD: Final = ResourceKind("", "v1", "Pod", "pods", has_status=True)


def _owned(manifest: Manifest) -> Manifest:
    """Whose it is: what it says is read anew by who reconciles."""
    metadata = manifest["metadata"]
    kept = {key: metadata[key] for key in ("name", "namespace", "ownerReferences") if key in metadata}
    return {"metadata": kept}


OWNED_RAY_CLUSTER: Final = Excerpt("ray.io", "v1", "RayCluster", "rayclusters", has_status=True, project=_owned)
"""For watching: with their pod templates, a thousand of them would be held for nothing."""
