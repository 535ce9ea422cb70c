"""The resources of `penstock.dev/v1alpha1` as types. The CRDs are generated from them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from penstock.models import Frozen
from penstock.serving.settings import ModelFormat

Quantity = str
"""A Kubernetes resource quantity, such as `500m` or `1Gi`."""


class ObjectMeta(Frozen):
    """The part of `metadata` that Penstock reads. Kubernetes owns the rest, so unknown fields pass."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True, serialize_by_alias=True
    )

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    finalizers: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class ConditionStatus(StrEnum):
    """`metav1.ConditionStatus`."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Frozen):
    """`metav1.Condition`."""

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""
    last_transition_time: str = ""
    observed_generation: int = 0


class ModelSource(Frozen):
    """Where the model is and what it is."""

    storage_uri: str
    """A folder with `manifest.json`, or a single model file: `file:///models/digits/1`."""
    model_format: ModelFormat
    digest: str | None = None
    """`sha256:` and 64 hex digits. When given, a model with another digest is not served."""
    version: str = "1"
    """The version in the path of the Open Inference Protocol: `/v2/models/NAME/versions/VERSION`."""


class LocalReference(Frozen):
    """An object in the same namespace."""

    name: str


class Accelerator(Frozen):
    """An accelerator for each replica."""

    type: str
    """The value of the nodes' accelerator-type label, such as `nvidia-l4`."""
    count: str = "1"
    """A whole number, or a share of one accelerator such as `0.5`."""


class Resources(Frozen):
    """What each replica is given."""

    cpu: Quantity = "1"
    memory: Quantity | None = None
    accelerator: Accelerator | None = None


class Batching(Frozen):
    """How requests become batches."""

    max_batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    max_delay_milliseconds: Annotated[int, Field(ge=0, le=10_000)] = 0
    max_queued_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 512


class Scaling(Frozen):
    """How many replicas, and when."""

    replicas: Annotated[int, Field(ge=0, le=1000)] | None = None
    """A fixed number, as `kubectl scale` sets it. While set, nothing scales by load."""
    min_replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    target_in_flight_requests: Annotated[int, Field(ge=1, le=100_000)] = 16
    """Requests in flight that one replica should carry."""
    stabilization_window_seconds: Annotated[int, Field(ge=0, le=3600)] = 60
    """Scale down only to the highest number wanted in this window."""
    scale_to_zero_after_seconds: Annotated[int, Field(ge=1, le=86_400)] = 300
    """With `minReplicas: 0`: idle time after which the last replica goes."""


class ServiceLevelObjective(Frozen):
    """What users of the model were promised."""

    latency_p99_milliseconds: Annotated[int, Field(ge=1, le=600_000)]


class Tracing(Frozen):
    """Which requests leave a trace. Slow and failed ones always do."""

    sampling_ratio: str = "0.01"
    """Share of the requests without a `traceparent` of their own, from `0` to `1`."""


class InferenceDeploymentSpec(Frozen):
    """What is to be served and how."""

    model: ModelSource
    pool_ref: LocalReference = LocalReference(name="default")
    resources: Resources = Resources()
    batching: Batching = Batching()
    scaling: Scaling = Scaling()
    slo: ServiceLevelObjective | None = None
    tracing: Tracing = Tracing()


class ReplicaCounts(Frozen):
    """How many replicas there are and why."""

    desired: int = 0
    ready: int = 0
    reason: str = ""
    """Why that many, in a sentence."""


class InferenceDeploymentStatus(Frozen):
    """What is served."""

    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()
    url: str | None = None
    replicas: ReplicaCounts = ReplicaCounts()
    selector: str = ""
    """Label selector in string form, for the scale subresource."""
    active_revision: str | None = None
    candidate_revision: str | None = None
    digest: str | None = None


class InferenceDeployment(Frozen):
    """One model, served."""

    api_version: Literal["penstock.dev/v1alpha1"] = "penstock.dev/v1alpha1"
    kind: Literal["InferenceDeployment"] = "InferenceDeployment"
    metadata: ObjectMeta
    spec: InferenceDeploymentSpec
    status: InferenceDeploymentStatus = InferenceDeploymentStatus()


class SecretKeyReference(Frozen):
    """A key of a Secret in the same namespace."""

    name: str
    key: str = "token"


class ExistingRayCluster(Frozen):
    """A Ray cluster that someone else runs."""

    address: str
    """Base URL of its dashboard, such as `http://ray-head:8265`."""
    serve_address: str | None = None
    """Base URL of Serve's HTTP proxy, which wakes models at zero replicas. Default: the same host, port 8000."""
    token_secret_ref: SecretKeyReference | None = None
    """Ray's authentication token."""


class ServingPoolSpec(Frozen):
    """A namespace's Ray cluster. Exactly one kind of pool is named."""

    existing: ExistingRayCluster


class PoolCapacity(Frozen):
    """What the pool's nodes have in all."""

    nodes: int = 0
    cpu: Quantity = "0"
    memory: Quantity = "0"
    accelerators: dict[str, str] = {}


class ServingPoolStatus(Frozen):
    """Whether the pool can be used."""

    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()
    ray_version: str | None = None
    capacity: PoolCapacity = PoolCapacity()
    deployments: int = 0


class ServingPool(Frozen):
    """Where a namespace's models run."""

    api_version: Literal["penstock.dev/v1alpha1"] = "penstock.dev/v1alpha1"
    kind: Literal["ServingPool"] = "ServingPool"
    metadata: ObjectMeta
    spec: ServingPoolSpec
    status: ServingPoolStatus = ServingPoolStatus()


Resource = InferenceDeployment | ServingPool
Manifest = dict[str, Any]
"""A Kubernetes object as it travels. Past the boundary it is one of the types above."""
