"""Where models run: `ServingPool`, a namespace's Ray cluster."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from penstock.api.meta import (
    CertificateReference,
    Condition,
    Described,
    LocalReference,
    ObjectMeta,
    Quantity,
    SecretKeyReference,
)
from penstock.api.pod_template import PodTemplate

Labels = Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=16)]
"""Kubernetes node labels, all of which a node must have."""


class ExistingRayCluster(Described):
    """A Ray cluster that someone else runs."""

    address: Annotated[str, Field(max_length=2048)]
    """Base URL of its dashboard, such as `http://ray-head:8265`. Cannot be changed."""
    serve_address: Annotated[str, Field(max_length=2048)] | None = None
    """Base URL of Serve's HTTP proxy, which wakes models at zero replicas. Default: the same host, port 8000."""
    token_secret_ref: SecretKeyReference | None = None
    """Ray's authentication token."""


class TolerationOperator(StrEnum):
    """How a toleration compares."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """What a taint does to pods that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(Described):
    """`corev1.Toleration`: a taint that does not keep pods away."""

    key: Annotated[str, Field(max_length=253)] | None = None
    """The taint's key. Left out, with `Exists`: every taint."""
    operator: TolerationOperator = TolerationOperator.EXISTS
    """`Equal` compares `value` too."""
    value: Annotated[str, Field(max_length=63)] | None = None
    """The taint's value."""
    effect: TaintEffect | None = None
    """Left out: every effect."""


Tolerations = Annotated[tuple[Toleration, ...], Field(max_length=16)]


class HeadNode(Described):
    """The pod that runs Ray's control processes. No replica runs there."""

    cpu: Quantity = "1"
    """Cores that it is sure of."""
    cpu_limit: Quantity | None = None
    """Cores that it may take where they are free. Left out: four times `cpu`. A ResourceQuota counts it as `limits.cpu`."""
    memory: Quantity = "2Gi"
    """Bytes."""
    node_selector: Labels = Field(default_factory=dict)
    """Labels of the nodes where it may run."""
    tolerations: Tolerations = ()
    """Taints that do not keep it away."""
    pod_template: PodTemplate | None = None
    """Laid over its pod, after that of all."""


class GroupAccelerator(Described):
    """The accelerators of each worker of a group."""

    type: Annotated[str, Field(max_length=63)]
    """What deployments name in `resources.accelerator.type`: `nvidia-l4`, `nvidia-a100-mig-1g.5gb`, `google-tpu-v5e`."""
    resource: Annotated[str, Field(max_length=253)] = "nvidia.com/gpu"
    """The extended resource by which Kubernetes counts it: `nvidia.com/mig-1g.5gb`, `amd.com/gpu`, `google.com/tpu`. Where
    the nodes' GPUs are time-sliced, workers that were given one each may be on the same GPU and share its memory."""
    count: Annotated[int, Field(ge=1, le=64)] = 1
    """How many each worker has."""


class WorkerGroup(Described):
    """Ray workers that are alike. Each is a pod."""

    name: Annotated[str, Field(max_length=30)]
    """Unique in the pool."""
    cpu: Quantity
    """Cores of each worker."""
    memory: Quantity
    """Bytes of each worker."""
    accelerator: GroupAccelerator | None = None
    """Left out: none."""
    min_workers: Annotated[int, Field(ge=0, le=1000)] = 0
    """Kept also while nothing needs them."""
    max_workers: Annotated[int, Field(ge=1, le=1000)] = 1
    """Ray's autoscaler starts no more."""
    node_selector: Labels = Field(default_factory=dict)
    """Labels of the nodes where workers may run; replicas can ask for them in `resources.nodeLabels`. Left out, with an
    accelerator: `penstock.dev/accelerator-type` and the type."""
    tolerations: Tolerations = ()
    """Taints that do not keep workers away, such as `nvidia.com/gpu`."""
    topology_spread_key: Annotated[str, Field(max_length=253)] | None = None
    """Spread workers evenly over the values of this node label, such as `topology.kubernetes.io/zone`."""
    pod_template: PodTemplate | None = None
    """Laid over the pods of its workers, after that of all."""


class GcsFaultTolerance(Described):
    """A Redis that keeps the state of Ray's control process, so that a new head goes on where the old one ended."""

    redis_address: Annotated[str, Field(max_length=253)]
    """`host:port`, or `rediss://host:port` for one that speaks TLS."""
    username: Annotated[str, Field(max_length=253)] | None = None
    """Whose password it is. Left out, without `usernameSecretRef`: the Redis' default user's."""
    username_secret_ref: SecretKeyReference | None = None
    """The same, where the name is to be kept in a Secret."""
    password_secret_ref: SecretKeyReference | None = None
    """Its password."""
    ca_secret_ref: CertificateReference | None = None
    """The authority (PEM) that signed its certificate. Left out: those that the image trusts."""


class NodeCache(Described):
    """Models that were fetched, kept for the next replica."""

    max_bytes: Quantity = "20Gi"
    """The least recently used go beyond this."""
    host_path: Annotated[str, Field(max_length=1024)] | None = None
    """A folder of each node in which the namespace's pods share one. Left out: each worker pod has a cache of its own."""


class ManagedRayCluster(Described):
    """A Ray cluster that Penstock makes, as a KubeRay `RayCluster`."""

    image: Annotated[str, Field(max_length=512)] | None = None
    """Of head and workers. Left out: the runtime image of this release of Penstock."""
    image_pull_secrets: Annotated[tuple[LocalReference, ...], Field(max_length=8)] = ()
    """Secrets with registries' credentials."""
    head: HeadNode = HeadNode()
    """Ray's control processes."""
    worker_groups: Annotated[tuple[WorkerGroup, ...], Field(min_length=1, max_length=16)]
    """One for each kind of node that models are to run on."""
    idle_timeout_seconds: Annotated[int, Field(ge=10, le=86_400)] = 300
    """A worker on which nothing runs goes after this time."""
    gcs_fault_tolerance: GcsFaultTolerance | None = None
    """Left out: when the head is lost, replicas serve on, and are started anew once there is a new head."""
    priority_class_name: Annotated[str, Field(max_length=253)] | None = None
    """Of all pods of the pool."""
    pod_template: PodTemplate | None = None
    """What the cluster asks of pods: labels, runtime class, ids, volumes, sidecars. Laid over all pods of the pool, and over
    those of the Jobs that optimize its models."""
    credentials: Annotated[tuple[LocalReference, ...], Field(max_length=8)] = (
        LocalReference(name="model-credentials"),
    )
    """Secrets that deployments may name in `model.credentialsSecretRef`. They may be absent, and come later."""
    model_claims: Annotated[tuple[LocalReference, ...], Field(max_length=8)] = ()
    """PersistentVolumeClaims that `pvc://NAME/path` may name. Workers mount them read-only."""
    cache: NodeCache = NodeCache()
    """Fetched models."""


class ServingPoolSpec(Described):
    """A namespace's Ray cluster: `managed` by Penstock, or `existing`. Exactly one of the two."""

    existing: ExistingRayCluster | None = None
    """A Ray cluster that someone else runs."""
    managed: ManagedRayCluster | None = None
    """A Ray cluster that Penstock makes, changes and deletes. It needs KubeRay."""
    suspend: bool = False
    """Give back all nodes of a managed pool. Its deployments stay, and start again when this is false."""


class PoolCapacity(Described):
    """What the pool's nodes have in all."""

    nodes: int = 0
    """Nodes that are alive."""
    cpu: Quantity = "0"
    """Cores."""
    memory: Quantity = "0"
    """Bytes."""
    accelerators: dict[str, str] = Field(default_factory=dict)
    """How many accelerators, by type."""


class GroupStatus(Described):
    """A worker group now."""

    name: str
    """As in the spec."""
    desired: int = 0
    """Workers that Ray's autoscaler wants."""
    ready: int = 0
    """Workers that run."""
    message: str = ""
    """Why workers are missing, where some are."""


class PoolChange(StrEnum):
    """What a change of the spec does to what runs."""

    IN_PLACE = "InPlace"
    """Workers may come and go; the Ray cluster stays."""
    REPLACEMENT = "Replacement"
    """A second Ray cluster starts beside the first, and takes over once every model answers there."""


class ServingPoolStatus(Described):
    """Whether the pool can be used."""

    observed_generation: int = 0
    """The `metadata.generation` that this status is about."""
    conditions: tuple[Condition, ...] = ()
    """`Ready` says whether the Ray cluster answers, Progressing whether a change is under way and what stops it."""
    address: str | None = None
    """Base URL of the Ray dashboard."""
    ray_cluster: str | None = None
    """The `RayCluster` that serves, of a managed pool."""
    candidate_ray_cluster: str | None = None
    """The one that is to take its place."""
    change: PoolChange | None = None
    """What the change under way is, or the last one was."""
    groups: tuple[GroupStatus, ...] = ()
    """Worker groups of a managed pool."""
    ray_version: str | None = None
    """What the Ray cluster runs."""
    capacity: PoolCapacity = PoolCapacity()
    deployments: int = 0
    """How many deployments run here."""


class ServingPool(Described):
    """Where a namespace's models run."""

    api_version: Literal["penstock.dev/v1alpha1"] = "penstock.dev/v1alpha1"
    kind: Literal["ServingPool"] = "ServingPool"
    metadata: ObjectMeta
    spec: ServingPoolSpec
    status: ServingPoolStatus = ServingPoolStatus()
