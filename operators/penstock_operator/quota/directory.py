"""Where quotas are, and what they leave no room for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.api.quota import TenantQuota
from penstock.api.reading import Model, read
from penstock.api.v1alpha1 import InferenceDeployment
from penstock.planning.quota import Excess, excess
from penstock_operator.pool.directory import INFERENCE_DEPLOYMENT
from penstock_operator.runtime.cluster import Cluster, Manifest, ResourceKind

TENANT_QUOTA = ResourceKind("penstock.dev", "v1alpha1", "TenantQuota", "tenantquotas", has_status=True)

Mirrored = Callable[[ResourceKind, str], Sequence[Manifest] | None]
"""The objects of a kind in a namespace as the watches last told, or None where they have not been listed yet."""


class QuotaDirectory:
    """Quotas and deployments by namespace.

    A watch tells of an older deployment before it tells of a younger one, so that going by the watches is enough for
    the younger to see the older. What they have not listed yet is asked of the API.

    Args:
        cluster: where the objects are.
        mirrored: what the watches told.
    """

    def __init__(self, cluster: Cluster, mirrored: Mirrored) -> None:
        self._cluster = cluster
        self._mirrored = mirrored

    def excess(self, deployment: InferenceDeployment) -> Excess | None:
        """Why the quotas leave no room for a deployment. Raises `Unavailable` where the API does not answer."""
        namespace = deployment.metadata.namespace
        quotas = self.quotas(namespace)
        return excess(deployment, self.deployments(namespace), quotas) if quotas else None

    def quotas(self, namespace: str) -> list[TenantQuota]:
        """All that hold in a namespace. Raises `Unavailable` where the API does not answer."""
        return self._all(TENANT_QUOTA, TenantQuota, namespace)

    def deployments(self, namespace: str) -> list[InferenceDeployment]:
        """All of a namespace, also those that are going. Raises `Unavailable` where the API does not answer."""
        return self._all(INFERENCE_DEPLOYMENT, InferenceDeployment, namespace)

    def _all(self, kind: ResourceKind, model: type[Model], namespace: str) -> list[Model]:
        manifests = self._mirrored(kind, namespace)
        if manifests is None:
            manifests = self._cluster.list(kind, namespace).items
        return [read(model, each) for each in manifests]
