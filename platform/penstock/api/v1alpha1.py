"""`InferenceDeployment` of `penstock.dev/v1alpha1` as types. The CRDs are generated from them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from penstock.api.access import Access
from penstock.api.meta import AUTO, Condition, Described, IntOrString, LocalReference, ObjectMeta, Quantity
from penstock.api.rollout import RolloutSpec, RolloutStatus
from penstock.scaling.policy import ScalingRule
from penstock.serving.manifest import ModelFormat
from penstock.serving.settings import CacheMode


class UpdatePolicy(StrEnum):
    """What becomes of a deployment whose model was replaced where it lies."""

    PINNED = "Pinned"
    """Every replica of a revision serves the model that the first one loaded. One that finds another does not start."""
    AUTOMATIC = "Automatic"
    """The model that a replica finds in its place is rolled out as a new revision."""


class ModelSource(Described):
    """Where the model is and what it is."""

    storage_uri: Annotated[str, Field(max_length=2048)]
    """A folder with `manifest.json`, or a single model file: `file:///models/digits/1`, `pvc://CLAIM/path`,
    `s3://BUCKET/path`, `gs://BUCKET/path`, `https://HOST/path`, `hf://ORG/REPO@REVISION/path` or
    `oci://REGISTRY/REPOSITORY:TAG`."""
    model_format: ModelFormat
    """What the engine is to load."""
    digest: Annotated[str, Field(max_length=128)] | None = None
    """`sha256:` and 64 hex digits, over every file that serves. When given, a model with another digest is not served."""
    update_policy: UpdatePolicy = UpdatePolicy.PINNED
    """What happens when a replica that starts finds another model at `storageUri` than its revision's first one did. `Pinned`:
    it does not start, the others serve on, and the condition ModelResolved says ModelChanged. `Automatic`: that model is
    rolled out as a new revision."""
    version: Annotated[str, Field(max_length=32)] = "1"
    """The version in the path of the Open Inference Protocol: `/v2/models/NAME/versions/VERSION`."""
    import_path: Annotated[str, Field(max_length=253)] | None = None
    """`package.module:callable` that gives the `torch.nn.Module`, for safetensors. It runs in a sandboxed job only."""
    data_uri: Annotated[str, Field(max_length=2048)] | None = None
    """Samples for calibration and evaluation. Left out: the profile's."""
    credentials_secret_ref: LocalReference | None = None
    """A Secret whose keys are what the store's library reads from the environment, such as `AWS_ACCESS_KEY_ID` or
    `HF_TOKEN`. The pool must list it in `credentials`. Only the process that fetches the model gets it."""


class Accelerator(Described):
    """An accelerator for each replica."""

    type: Annotated[str, Field(max_length=63)]
    """The type of a worker group of the pool, such as `nvidia-l4`, `nvidia-a100-mig-1g.5gb` or `google-tpu-v5e`."""
    count: IntOrString = "1"
    """A whole number, or a share of one GPU such as `"0.5"`. Replicas that share a GPU share its memory too, and nothing
    keeps one from taking all of it; a MIG slice is a GPU of its own. What is no GPU cannot be shared."""


class Resources(Described):
    """What each replica is given."""

    cpu: Quantity = "1"
    """Cores, such as `1` or `500m`."""
    memory: Quantity | None = None
    """Bytes, such as `1Gi`. Left out: nothing is reserved."""
    accelerator: Accelerator | None = None
    node_labels: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=8)] = Field(
        default_factory=dict
    )
    """Node labels that a replica needs, such as `kubernetes.io/arch: arm64` or
    `feature.node.kubernetes.io/cpu-cpuid.AMXINT8: "true"`. A worker group of the pool must select by them."""


class Batching(Described):
    """How requests become batches. `Auto` is what an optimization run measured, or a default where none did."""

    max_batch_size: IntOrString = AUTO
    """Rows in a batch at most, from 1 to 4096, or Auto (32 until measured). 1: no batching."""
    max_delay_milliseconds: IntOrString = AUTO
    """How long a batch may wait for more while the engine is free, from 0 to 10000, or Auto (0 until measured). A lone
    request never waits for it. Whatever it says, a replica waits for fractions of a run's time where it has measured that it
    answers more that way."""
    max_queued_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 512
    """Past this many waiting requests a replica answers 429, whatever time there is."""


class Cache(Described):
    """Answers that are kept and given again."""

    mode: CacheMode = CacheMode.OFF
    """`Exact`: byte-identical inputs of the same tenant get the answer that was computed before."""
    max_bytes: Quantity = "64Mi"
    """In each replica, keys and answers together."""
    ttl_seconds: Annotated[int, Field(ge=1, le=604_800)] = 300
    """An older answer is computed anew."""


class Weekday(StrEnum):
    """A day of the week."""

    MONDAY = "Mon"
    TUESDAY = "Tue"
    WEDNESDAY = "Wed"
    THURSDAY = "Thu"
    FRIDAY = "Fri"
    SATURDAY = "Sat"
    SUNDAY = "Sun"


class ScheduledFloor(Described):
    """A time of the week at which there are more replicas at the least, whatever the load."""

    days: Annotated[tuple[Weekday, ...], Field(max_length=7)] = ()
    """On which it begins. None: every day."""
    start: Annotated[str, Field(max_length=5)]
    """When it begins, such as `"07:30"`."""
    end: Annotated[str, Field(max_length=5)]
    """When it ends, such as `"19:00"`; on the next day where that is before `start`."""
    time_zone: Annotated[str, Field(max_length=64)] = "Etc/UTC"
    """Whose clocks count, such as `Europe/Zurich`. Where they leave an hour out or repeat one, it holds for longer."""
    min_replicas: Annotated[int, Field(ge=1, le=1000)]
    """At least this many meanwhile. Where several hold, the greatest counts."""


class Scaling(Described):
    """How many replicas, and when."""

    replicas: Annotated[int, Field(ge=0, le=1000)] | None = None
    """A fixed number. While set, nothing scales by load, and `/scale` takes no other."""
    min_replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """At least this many. 0: none while nobody asks, and the first request waits for a start."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """At most this many."""
    schedule: Annotated[tuple[ScheduledFloor, ...], Field(max_length=16)] = ()
    """Times of the week at which `minReplicas` is greater."""
    target_in_flight_requests: IntOrString = AUTO
    """Requests in flight that one replica should carry, from 1 to 100000. Auto: 16 until it is known what a replica can answer;
    then the rate of arrivals decides alone."""
    miss_weight: Annotated[int, Field(ge=1, le=1000)] = 16
    """How many answered requests one weighs that gets no answer within the objective. The more, the more replicas are kept for
    a load that comes back, and the less they are used."""
    forecast: bool = True
    """Whether growth that is under way is carried on for the time of a start, and replicas are kept for load that comes back. False:
    the number follows from the rate as it is."""
    stabilization_window_seconds: Annotated[int, Field(ge=0, le=3600)] = 60
    """Scale down only to the highest number wanted in this window."""
    scale_to_zero_after_seconds: Annotated[int, Field(ge=1, le=86_400)] = 300
    """With `minReplicas: 0`: idle time after which the last replica goes."""


class ReplicaSpread(StrEnum):
    """What several replicas are not to have in common."""

    NODE = "Node"
    ZONE = "Zone"
    NONE = "None"


class Placement(Described):
    """Where replicas are, beside what they need there."""

    spread: ReplicaSpread = ReplicaSpread.NODE
    """`Node`: where all replicas are on one worker or node, and another has room, one of them moves there: one more is started,
    and once it answers one goes. `Zone`: the same of zones (`topology.kubernetes.io/zone`), then of nodes. `None`: they stay where
    Ray put them. No worker is started for it."""


class ServiceLevelObjective(Described):
    """What users of the model were promised."""

    latency_p99_milliseconds: Annotated[int, Field(ge=1, le=600_000)]
    """99 of 100 requests are answered in this time. Slower ones keep their trace, and what would be slower behind all that waits
    already is refused at once, with 429."""


class Tracing(Described):
    """Which requests leave a trace. Slow and failed ones always do."""

    sampling_ratio: IntOrString = "0.01"
    """Share of the requests without a `traceparent` of their own, from `"0"` to `"1"`."""


class ProfileKind(StrEnum):
    """Where a profile is looked for."""

    NAMESPACED = "OptimizationProfile"
    CLUSTER = "ClusterOptimizationProfile"


class ProfileReference(Described):
    """An optimization profile."""

    kind: ProfileKind = ProfileKind.CLUSTER
    """Where it is looked for: in the cluster, or in this namespace."""
    name: Annotated[str, Field(max_length=253)]
    """Its `metadata.name`."""


class InferenceDeploymentSpec(Described):
    """What is to be served and how."""

    model: ModelSource
    pool_ref: LocalReference = LocalReference(name="default")
    """The `ServingPool` whose Ray cluster runs the replicas. Cannot be changed."""
    optimization_profile_ref: ProfileReference | None = None
    """What is to make the model faster. The model itself serves until a faster one was measured and accepted."""
    resources: Resources = Resources()
    batching: Batching = Batching()
    cache: Cache = Cache()
    scaling: Scaling = Scaling()
    replicas: Annotated[int, Field(ge=0, le=1000)] | None = None
    """How many replicas there are to be now. Leave it out: Penstock writes what it decided, so that `/scale` always tells the
    number. Once `kubectl scale`, a HorizontalPodAutoscaler or KEDA has written another, that one holds and nothing scales by
    load, until this is taken out."""
    placement: Placement = Placement()
    slo: ServiceLevelObjective | None = None
    rollout: RolloutSpec = RolloutSpec()
    tracing: Tracing = Tracing()
    access: Access = Access()


class ReplicaCounts(Described):
    """How many replicas there are and why."""

    desired: int = 0
    """How many there should be."""
    ready: int = 0
    """How many answer."""
    reason: str = ""
    """Why that many, in a sentence."""


class ScalingBound(StrEnum):
    """What kept a number of replicas from being another."""

    MINIMUM = "Minimum"
    MAXIMUM = "Maximum"
    SCHEDULE = "Schedule"
    """The floor that holds at this time of the week."""
    NODES = "Nodes"
    """Replicas wait for a node."""
    QUOTA = "Quota"
    """The namespace's `TenantQuota` leaves no room for more, or a `ResourceQuota` refuses the pods of workers."""


class ScalingChange(Described):
    """A change of the number of replicas that there should be."""

    time: str
    """When it was seen: RFC 3339 in UTC."""
    from_replicas: int
    """The number before it."""
    to_replicas: int
    """The number after it."""
    rule: ScalingRule
    """What decided it."""
    reason: Annotated[str, Field(max_length=512)] = ""
    """Why, in a sentence."""
    bound_by: ScalingBound | None = None
    """What kept the number from being another, or replicas from running."""
    inputs: Annotated[dict[str, Annotated[str, Field(max_length=32)]], Field(max_length=12)] = Field(
        default_factory=dict
    )
    """What was seen then, over all replicas: requests in flight and queued, requests a second, the longest wait (p95), what a
    replica can answer in a second, replicas that reported."""


class ServedRevision(Described):
    """What a revision was made of."""

    revision: Annotated[str, Field(max_length=32)]
    """Its name."""
    made_of: Annotated[str, Field(max_length=16_384)]
    """`spec.model` and `spec.resources` as they were carried out, in JSON."""


class InferenceDeploymentStatus(Described):
    """What is served."""

    observed_generation: int = 0
    """The `metadata.generation` that this status is about."""
    conditions: tuple[Condition, ...] = ()
    """`Ready` sums up the others: ModelResolved, PoolReady, Serving. Progressing says whether a change is under way,
    ProfileApplied whether the optimized model serves and if not, why."""
    url: str | None = None
    """Where clients send their requests."""
    replicas: ReplicaCounts = ReplicaCounts()
    selector: str = ""
    """Label selector in string form, for the scale subresource."""
    active_revision: str | None = None
    """The revision that gets the requests."""
    candidate_revision: str | None = None
    """The revision that is starting beside it."""
    digest: str | None = None
    """Digest of the model that the active revision's replicas loaded."""
    models: Annotated[dict[str, Annotated[str, Field(max_length=128)]], Field(max_length=8)] = Field(
        default_factory=dict
    )
    """Digest of the model by revision, for the revisions of the present spec: what later replicas of them must find."""
    served: Annotated[tuple[ServedRevision, ...], Field(max_length=3)] = ()
    """What the revision that gets the requests was made of, and one that may get them again, so that either can be started anew
    though the spec names another by now."""
    optimization_run: str | None = None
    """The `OptimizationRun` that decides which model serves."""
    speedup: str | None = None
    """Of the model that serves, against the run's baseline, such as `8.40x`."""
    scaling_history: Annotated[tuple[ScalingChange, ...], Field(max_length=20)] = ()
    """The last changes of the number of replicas, oldest first."""
    rollout: RolloutStatus | None = None
    """How its newest revision takes over, or did."""


class InferenceDeployment(Described):
    """One model, served."""

    api_version: Literal["penstock.dev/v1alpha1"] = "penstock.dev/v1alpha1"
    kind: Literal["InferenceDeployment"] = "InferenceDeployment"
    metadata: ObjectMeta
    spec: InferenceDeploymentSpec
    status: InferenceDeploymentStatus = InferenceDeploymentStatus()
