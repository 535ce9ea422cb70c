"""How much a namespace may ask for: `TenantQuota`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from penstock.api.meta import Condition, Described, ObjectMeta, Quantity


class QuotaAmounts(Described):
    """Amounts over all deployments of a namespace, each counted at the most replicas that it may have."""

    deployments: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """InferenceDeployments."""
    replicas: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Replicas."""
    accelerators: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Accelerators of all types, a MIG slice as one; shares are added up and rounded up."""
    memory: Quantity | None = None
    """Bytes that replicas reserve. Where it is bounded, every deployment must give `resources.memory`."""


class TenantQuotaSpec(Described):
    """Bounds that hold when a deployment is applied, and while it runs."""

    hard: QuotaAmounts
    """What is left out is not bounded."""


class TenantQuotaStatus(Described):
    """How much of it is taken."""

    observed_generation: int = 0
    """The `metadata.generation` that this status is about."""
    conditions: tuple[Condition, ...] = ()
    """`Ready`: whether the figures are up to date. `Exceeded`: whether deployments are kept from serving by it."""
    used: QuotaAmounts = QuotaAmounts()
    """By the deployments that there are."""
    accelerator_shares: Annotated[str, Field(max_length=32)] = "0"
    """What `used.accelerators` is rounded up from, such as `1.5`."""


class TenantQuota(Described):
    """A bound on a namespace's deployments, set by those who run the cluster."""

    api_version: Literal["penstock.dev/v1alpha1"] = "penstock.dev/v1alpha1"
    kind: Literal["TenantQuota"] = "TenantQuota"
    metadata: ObjectMeta
    spec: TenantQuotaSpec
    status: TenantQuotaStatus = TenantQuotaStatus()
