"""Where quotas are, and what they leave no room for."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from penstock.api.quota import TenantQuota
from penstock.api.reading import read
from penstock.api.v1alpha1 import InferenceDeployment
from penstock.errors import Invalid
from penstock_operator.kinds import INFERENCE_DEPLOYMENT, TENANT_QUOTA
from penstock_operator.quota.plan import Excess, excess, spare_replicas, usage
from penstock_operator.runtime.cluster import Cluster, Manifest

_IDENTITY: Final = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "generation")
_SOME_MODEL: Final = {"storageUri": "file:///unknown", "modelFormat": "onnx"}
_UNREADABLE: Final = "Until it can be read, no deployment of its namespace gets new replicas; what runs goes on. Whoever set it must correct it."


class QuotaDirectory:
    """Quotas and deployments by namespace.

    A watch tells of an older deployment before it tells of a younger one, so that going by the watches is enough for
    the younger to see the older. What they have not listed yet is asked of the API.

    Args:
        cluster: where the objects are.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def excess(self, deployment: InferenceDeployment) -> Excess | None:
        """Why the quotas leave no room for a deployment.

        Raises:
            Unavailable: the API does not answer.
            Invalid: a quantity of the deployment is none.
        """
        namespace = deployment.metadata.namespace
        quotas: list[TenantQuota] = []
        for manifest in self._cluster.list(TENANT_QUOTA, namespace).items:
            try:
                quotas.append(read(TenantQuota, manifest))
            except Invalid as error:
                # Nobody knows what it leaves room for, so it leaves none.
                return Excess(f"{error.message}. {_UNREADABLE}", 0) if usage(deployment).replicas else None
        asked = usage(deployment)  # its own quantities are told as its own
        if not quotas:
            return None
        try:
            return excess(deployment, self.deployments(namespace), quotas)
        except Invalid as error:
            named = " or ".join(each.metadata.name for each in quotas)
            return Excess(f"TenantQuota {named}: {error.message}. {_UNREADABLE}", 0) if asked.replicas else None

    def spare(self, deployment: InferenceDeployment) -> int | None:
        """How many replicas more than it may have the quotas leave room for; None: nothing bounds them.

        Raises `Unavailable` where the API does not answer.
        """
        namespace = deployment.metadata.namespace
        try:
            quotas = [read(TenantQuota, each) for each in self._cluster.list(TENANT_QUOTA, namespace).items]
            return spare_replicas(deployment, self.deployments(namespace), quotas) if quotas else None
        except Invalid:
            return 0

    def deployments(self, namespace: str) -> list[InferenceDeployment]:
        """All of a namespace, also those that are going, to be counted; what cannot be read of one counts as its default.

        Raises `Unavailable` where the API does not answer.
        """
        return [_read_leniently(each) for each in self._cluster.list(INFERENCE_DEPLOYMENT, namespace).items]


def _read_leniently(manifest: Manifest) -> InferenceDeployment:
    """A deployment as far as it can be read: none may keep the others of its namespace from being counted."""
    try:
        return _read_countable(manifest)
    except Invalid:
        metadata = {name: value for name, value in manifest["metadata"].items() if name in _IDENTITY}
    counted: Manifest = {"metadata": metadata, "spec": {"model": _SOME_MODEL}}
    written = manifest.get("spec")
    for field in ("scaling", "resources"):
        if isinstance(written, dict) and field in written:
            spec = {**counted["spec"], field: written[field]}
            with suppress(Invalid):
                _read_countable({"metadata": metadata, "spec": spec})
                counted = {"metadata": metadata, "spec": spec}
    return _read_countable(counted)


def _read_countable(manifest: Manifest) -> InferenceDeployment:
    """Raises `Invalid` where it cannot be read or counted."""
    deployment = read(InferenceDeployment, manifest)
    usage(deployment)
    return deployment
