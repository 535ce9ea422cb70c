"""What Kubernetes must know of each kind beside its fields: names, columns, subresources.

The CRDs, the resources of the operator and the CLI, and the checks of the chart's rights derive from `KINDS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel

from penstock.api.access import APIKey, APIKeyStatus
from penstock.api.optimization import (
    ClusterOptimizationProfile,
    OptimizationProfile,
    OptimizationRun,
    OptimizationRunStatus,
)
from penstock.api.pool import ServingPool, ServingPoolStatus
from penstock.api.quota import TenantQuota, TenantQuotaStatus
from penstock.api.v1alpha1 import InferenceDeployment, InferenceDeploymentStatus


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`. Priority above 0 shows only with `-o wide`."""

    name: str
    json_path: str
    type: str = "string"
    description: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Scale:
    """Where the scale subresource finds its figures."""

    spec_replicas_path: str
    status_replicas_path: str
    label_selector_path: str


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of resource."""

    model: type[BaseModel]
    status: type[BaseModel] | None
    """None: nothing is ever observed of it."""
    plural: str
    short_names: tuple[str, ...]
    columns: tuple[Column, ...]
    scale: Scale | None = None
    namespaced: bool = True

    @property
    def name(self) -> str:
        """The kind in CamelCase."""
        return self.model.__name__

    @property
    def singular(self) -> str:
        """The kind as users write it."""
        return self.name.lower()


_READY: Final = Column(
    "Ready", '.status.conditions[?(@.type=="Ready")].status', description="Whether requests are answered."
)
_REASON: Final = Column(
    "Reason", '.status.conditions[?(@.type=="Ready")].reason', description="Why Ready is what it is.", priority=1
)
_AGE: Final = Column("Age", ".metadata.creationTimestamp", type="date", description="Time since creation.")

INFERENCE_DEPLOYMENT: Final = Kind(
    model=InferenceDeployment,
    status=InferenceDeploymentStatus,
    plural="inferencedeployments",
    short_names=("infdep",),
    columns=(
        _READY,
        Column("Model", ".spec.model.storageUri", description="Where the model is."),
        Column("Replicas", ".status.replicas.ready", type="integer", description="How many replicas answer."),
        Column("URL", ".status.url", description="Where clients send their requests."),
        _AGE,
        _REASON,
        Column("Desired", ".status.replicas.desired", type="integer", description="Replicas wanted now.", priority=1),
        Column("Pool", ".spec.poolRef.name", description="Where the replicas run.", priority=1),
        Column("Profile", ".spec.optimizationProfileRef.name", description="What is to make it faster.", priority=1),
        Column("Speedup", ".status.speedup", description="Of the model that serves, by measurement.", priority=1),
        Column("Rollout", ".status.rollout.phase", description="How its newest revision takes over.", priority=1),
    ),
    # `ready`, not `desired`: an HPA multiplies the count by a metric averaged over the replicas that answer.
    scale=Scale(".spec.replicas", ".status.replicas.ready", ".status.selector"),
)
SERVING_POOL: Final = Kind(
    model=ServingPool,
    status=ServingPoolStatus,
    plural="servingpools",
    short_names=("spool",),
    columns=(
        _READY,
        Column("Change", ".status.change", description="What the change under way or the last one was.", priority=1),
        Column("Address", ".status.address", description="The Ray dashboard.", priority=1),
        Column("Nodes", ".status.capacity.nodes", type="integer", description="Nodes that are alive."),
        Column("CPU", ".status.capacity.cpu", description="Cores in all."),
        Column("Deployments", ".status.deployments", type="integer", description="Deployments that run here."),
        _AGE,
        _REASON,
        Column("Ray", ".status.rayVersion", description="The cluster's Ray version.", priority=1),
    ),
)

API_KEY: Final = Kind(
    model=APIKey,
    status=APIKeyStatus,
    plural="apikeys",
    short_names=("apik",),
    columns=(
        _READY,
        Column("Deployments", ".spec.deployments", description="What it opens; all where empty."),
        Column("Limit", ".spec.requestsPerSecond", type="integer", description="Requests a second."),
        Column("Expires", ".spec.expiresAt", description="When it ends."),
        _AGE,
        _REASON,
    ),
)
TENANT_QUOTA: Final = Kind(
    model=TenantQuota,
    status=TenantQuotaStatus,
    plural="tenantquotas",
    short_names=("tquota",),
    columns=(
        Column("Deployments", ".status.used.deployments", type="integer", description="Taken."),
        Column("Replicas", ".status.used.replicas", type="integer", description="Taken."),
        Column("Of", ".spec.hard.replicas", type="integer", description="Replicas allowed."),
        Column("Accelerators", ".status.used.accelerators", type="integer", description="Taken."),
        Column("Memory", ".status.used.memory", description="Taken."),
        Column(
            "Exceeded",
            '.status.conditions[?(@.type=="Exceeded")].status',
            description="Whether deployments are kept from serving by it.",
        ),
        _AGE,
    ),
)

_PROFILE_COLUMNS: Final = (
    Column("Objective", ".spec.objective", description="What is to become better."),
    Column("Strategy", ".spec.search.strategy", description="How hard to look."),
    Column("Minutes", ".spec.search.budgetMinutes", type="integer", description="After which no trial begins."),
    Column("Minimum", ".spec.constraints.minSpeedup", description="Least speed-up against ONNX Runtime fp32."),
    _AGE,
    Column("Engines", ".spec.engines", description="What may run the result.", priority=1),
    Column("Scenario", ".spec.workload.scenario", description="How requests come.", priority=1),
)
OPTIMIZATION_PROFILE: Final = Kind(
    model=OptimizationProfile,
    status=None,
    plural="optimizationprofiles",
    short_names=("optprof",),
    columns=_PROFILE_COLUMNS,
)
CLUSTER_OPTIMIZATION_PROFILE: Final = Kind(
    model=ClusterOptimizationProfile,
    status=None,
    plural="clusteroptimizationprofiles",
    short_names=("coptprof",),
    columns=_PROFILE_COLUMNS,
    namespaced=False,
)
OPTIMIZATION_RUN: Final = Kind(
    model=OptimizationRun,
    status=OptimizationRunStatus,
    plural="optimizationruns",
    short_names=("optrun",),
    columns=(
        Column("Verdict", ".status.verdict", description="Accepted, Rejected or NoDecision."),
        Column("Speedup", ".status.figures.speedup", description="Against the baseline, in CPU time."),
        Column("Stage", ".status.progress.stage", description="Where the search stands."),
        Column("Accuracy", ".status.figures.accuracy", description="Before and after."),
        _AGE,
        Column("Progress", ".status.progress.message", description="What it does now.", priority=1),
        Column("Recipe", ".status.recipe", description="What was chosen.", priority=1),
        Column("Size", ".status.figures.size", description="Before and after.", priority=1),
        Column("p99", ".status.figures.latencyP99", description="Under load, before and after.", priority=1),
        Column(
            "Reason",
            '.status.conditions[?(@.type=="Complete")].reason',
            description="Why Complete is what it is.",
            priority=1,
        ),
    ),
)

KINDS: Final[Mapping[str, Kind]] = {
    kind.name: kind
    for kind in (
        INFERENCE_DEPLOYMENT, SERVING_POOL, OPTIMIZATION_PROFILE, CLUSTER_OPTIMIZATION_PROFILE, OPTIMIZATION_RUN,
        API_KEY, TENANT_QUOTA,
    )
}  # fmt: skip
"""Every kind of this group, by name."""
