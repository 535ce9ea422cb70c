"""What is laid over the pods that Penstock builds, in Kubernetes' own words: `PodTemplate`.

Fields that Penstock relies on are not there or are refused by name. Those that it has no opinion on are passed on as they are
written; the API refuses what they get wrong once the pods' RayCluster or Job is applied.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field

from penstock.api.meta import Described, Quantity

RAY_HEAD: Final = "ray-head"
RAY_WORKER: Final = "ray-worker"
AUTOSCALER: Final = "autoscaler"
OPTIMIZER: Final = "optimizer"
OWN_CONTAINERS: Final = (RAY_HEAD, RAY_WORKER, AUTOSCALER, OPTIMIZER)
"""Names of the containers that Penstock makes. KubeRay adds the autoscaler to the head's pod."""


class Opaque:
    """Marks a part of Kubernetes' API that is passed on as it is written."""


OpaqueObject = Annotated[dict[str, Any], Opaque()]
"""An object of Kubernetes' API. A null in it says nothing: whether one is kept depends on how the object is applied."""
_Objects = Annotated[tuple[OpaqueObject, ...], Field(max_length=32)]
_Words = Annotated[tuple[Annotated[str, Field(max_length=4096)], ...], Field(max_length=64)]
_Name = Annotated[str, Field(max_length=253)]
_Amounts = Annotated[dict[str, Quantity], Field(max_length=16)]


class TemplateMetadata(Described):
    """Labels and annotations of pods."""

    labels: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=32)] | None = None
    """Such as a cost centre. Those of `ray.io`, `penstock.dev` and some of `app.kubernetes.io` are taken."""
    annotations: Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=32)] | None = None
    """Such as `karpenter.sh/do-not-disrupt`."""


class TemplateVariable(Described):
    """An environment variable, as in a container."""

    name: Annotated[str, Field(max_length=253)]
    """Of our containers, none that begins with RAY_ or PENSTOCK_, nor HOME."""
    value: Annotated[str, Field(max_length=16384)] | None = None
    """Its text."""
    value_from: OpaqueObject | None = None
    """Or where it is to be read."""


class TemplateResources(Described):
    """What a container is sure of, and what it may take."""

    requests: _Amounts | None = None
    """Ray goes by the pool's own `cpu` and `memory`, whatever stands here."""
    limits: _Amounts | None = None
    """May be more than the requests."""


class ContainerTemplate(Described):
    """A container of ours, by its name (`ray-head`, `ray-worker`, `autoscaler`, `optimizer`), which is changed, or another.

    Others are added to each pod but those of Jobs, which would not end.
    """

    name: Annotated[str, Field(max_length=63)]
    """Unique among the containers."""
    resources: TemplateResources | None = None
    """Merged by the resource."""
    env: Annotated[tuple[TemplateVariable, ...], Field(max_length=64)] | None = None
    """Merged by their names."""
    env_from: _Objects | None = None
    """Secrets and ConfigMaps whose keys become variables."""
    volume_mounts: _Objects | None = None
    """Merged by `mountPath`."""
    security_context: OpaqueObject | None = None
    """Merged by its fields."""
    image: Annotated[str, Field(max_length=512)] | None = None
    """Of another container. Ours have the pool's."""
    image_pull_policy: Annotated[str, Field(max_length=16)] | None = None
    """`Always`, `IfNotPresent` or `Never`."""
    command: _Words | None = None
    """Of another container."""
    args: _Words | None = None
    """Of another container."""
    working_dir: Annotated[str, Field(max_length=1024)] | None = None
    """Of another container."""
    ports: _Objects | None = None
    """Of another container."""
    lifecycle: OpaqueObject | None = None
    """Of another container."""
    liveness_probe: OpaqueObject | None = None
    """Of another container."""
    readiness_probe: OpaqueObject | None = None
    """Of another container."""
    startup_probe: OpaqueObject | None = None
    """Of another container."""
    restart_policy: Annotated[str, Field(max_length=16)] | None = None
    """`Always` makes a sidecar of an init container."""


_Containers = Annotated[tuple[ContainerTemplate, ...], Field(max_length=8)]


class TemplateSpec(Described):
    """The part of a pod's spec that may be said.

    Lists are merged as `kubectl patch --type=strategic` merges them, but for tolerations, which are added up.
    """

    containers: _Containers = ()
    """Ours are changed, others added."""
    init_containers: _Containers | None = None
    """They run before Ray."""
    volumes: _Objects | None = None
    """Merged by their names. What an emptyDir may hold is asked for as `ephemeral-storage`, or as memory."""
    node_selector: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=16)] | None = None
    """Beside those of the head and of groups."""
    tolerations: _Objects | None = None
    """Beside those of the head and of groups."""
    affinity: OpaqueObject | None = None
    """Merged by its fields."""
    topology_spread_constraints: _Objects | None = None
    """Merged by `topologyKey`."""
    runtime_class_name: _Name | None = None
    """Such as `nvidia`."""
    priority_class_name: _Name | None = None
    """In place of the pool's."""
    scheduler_name: _Name | None = None
    """Who finds nodes for the pods."""
    service_account_name: _Name | None = None
    """Whose identity the pods have with a cloud; its token is not mounted. The head's gets the autoscaler's rights from KubeRay."""
    image_pull_secrets: _Objects | None = None
    """Beside the pool's."""
    security_context: OpaqueObject | None = None
    """Of the pod: ids, groups, seccomp. Merged by its fields."""
    ids_from_cluster: bool | None = None
    """Whether Penstock leaves out `runAsUser`, `runAsGroup` and `fsGroup`, which OpenShift gives each namespace."""
    dns_policy: Annotated[str, Field(max_length=32)] | None = None
    """How names are resolved."""
    dns_config: OpaqueObject | None = None
    """Merged by its fields."""
    host_aliases: _Objects | None = None
    """Merged by `ip`."""


class PodTemplate(Described):
    """Laid over pods: the platform's own first, then the pool's, then the head's or the group's."""

    metadata: TemplateMetadata = TemplateMetadata()
    """Labels and annotations."""
    spec: TemplateSpec = TemplateSpec()
    """The pod."""
