"""The pods of a managed pool's Ray cluster: the head and the workers of each group, as pod templates.

All run as uid 1000 with no capability, a read-only root and no service account's token. What Ray writes goes to `/tmp`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from penstock.api.meta import Manifest, ObjectMeta
from penstock.api.pod_template import AUTOSCALER, RAY_HEAD, RAY_WORKER, PodTemplate
from penstock.api.pool import HeadNode, ManagedRayCluster, Toleration, WorkerGroup
from penstock.api.quantity import canonical_quantity, number
from penstock.names import ACCELERATOR_LABEL
from penstock.serving.mounts import CACHE_BYTES_VARIABLE, CACHE_ROOT, CACHE_VARIABLE
from penstock_operator.nodes.forecast import PodDemand
from penstock_operator.nodes.requests import demand_of
from penstock_operator.pods.disk import with_volumes
from penstock_operator.pods.template import with_container_templates, with_templates
from penstock_operator.pods.trust import TrustedAuthorities, with_authorities
from penstock_operator.pool import redis
from penstock_operator.pool.names import GROUP_LABEL, POOL_LABEL, label
from penstock_operator.pool.placement import needs_cuda, ray_resource
from penstock_operator.pool.volumes import empty_volume, model_volumes, own_credentials

ACCELERATOR_NODE_LABEL: Final = "penstock.dev/accelerator-type"
"""Label of Kubernetes' nodes by which a group with an accelerator finds its own, unless it selects by others."""
OWN_CREDENTIALS: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where Kubernetes' clients look for a pod's own credentials."""

_USER: Final = 1000
"""`ray` in the runtime image, as in Ray's own."""
_TEMPORARY: Final = "/tmp"  # noqa: S108 - an emptyDir of the pod's own, which no other pod sees
_TEMPORARY_BYTES: Final = "10Gi"
"""Ray's logs turn over long before; what fills it all the same costs its own pod, not the node."""
_OBJECT_STORE_BYTES: Final = 128 * 2**20
"""Requests do not pass through Ray's object store, so it is kept small."""
_RAY_BYTES: Final = 512 * 2**20
"""Of a worker's memory, what Ray itself takes: raylet, agents and object store. Replicas get the rest."""
_AUTOSCALER_MEMORY: Final = "512Mi"
_AUTOSCALER_CPU: Final = "100m"
_AUTOSCALER_CPU_LIMIT: Final = "1"
_HEAD_BURST: Final = 4
"""Cores that the head may take for each that it is sure of. It runs no tenant's code, and a slow head is a slow start of
everything; but without a limit it is refused where a ResourceQuota counts limits or a LimitRange's default is too low."""
_HEAD_GRACE_SECONDS: Final = 15
WORKER_GRACE_SECONDS: Final = 180
"""A worker that is to go has this long for its replicas to be started elsewhere and to answer what came to them."""


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """What the operator's settings say of managed pools."""

    image: str = ""
    """The runtime image of this release; empty: pools must name one."""
    gpu_image: str = ""
    """The same for workers with NVIDIA's GPUs, of the same Ray and Python; empty: as of the others."""
    system_namespace: str = "penstock-system"
    """Where the operator and the gateways run."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables of all of Ray's pods, such as `OTEL_EXPORTER_OTLP_ENDPOINT`."""
    architectures: tuple[str, ...] = ()
    """That the runtime image was built for, by Kubernetes' names; none: any."""
    ipv6: bool = False
    """Whether Services have IPv6 addresses here, where nothing else is said; Ray's head then listens at those."""
    artifact_secret: str | None = None
    """A Secret of the pool's namespace with which optimized models are read; mounted beside those that the pool lists."""
    cloud_identity: bool = False
    """Whether pods may reach the addresses at which clouds give them an identity of their own."""
    template: PodTemplate | None = None
    """Laid over all pods of pools and Jobs, under what the pools say themselves."""
    trusted: TrustedAuthorities | None = None
    """Private authorities that workers trust beside those of their image."""


def head(pool: str, spec: ManagedRayCluster, settings: PoolSettings) -> Manifest:
    """The head's pod template. KubeRay adds the autoscaler's container, whose token `autoscaler` mounts."""
    node = spec.head
    trusted, mounted = redis.volumes(spec.gcs_fault_tolerance)
    container = {
        **_container(RAY_HEAD, image(spec, settings), settings, redis.variables(spec.gcs_fault_tolerance)),
        "resources": {
            "requests": {"cpu": node.cpu, "memory": node.memory},
            "limits": {"cpu": _head_limit(node), "memory": node.memory},
        },
        "ports": [_port("gcs-server", 6379), _port("dashboard", 8265), _port("serve", 8000)],
        "volumeMounts": [{"name": "temporary", "mountPath": _TEMPORARY}, *mounted],
    }
    volumes = [
        empty_volume("temporary", _TEMPORARY_BYTES),
        empty_volume("autoscaler-temporary", "1Gi"),
        {"name": "autoscaler-credentials", "projected": {"defaultMode": 0o440, "sources": own_credentials()}},
        *trusted,
    ]
    pod = _pod(spec, [container], volumes, _HEAD_GRACE_SECONDS)
    pod |= _placement(node.node_selector, node.tolerations)
    built = {"metadata": {"labels": _labels(pool, "ray-head")}, "spec": pod}
    return _finish(built, RAY_HEAD, _templates(spec, settings, node.pod_template))


def autoscaler(spec: ManagedRayCluster, settings: PoolSettings) -> Manifest:
    """Options of Ray's autoscaler, the one container of a pool that may speak with the Kubernetes API.

    KubeRay makes its service account and a Role: pods (get, list, watch, patch) and RayClusters (get, patch) of the
    namespace. Mounting the token here, and not through the pod, keeps it from Ray's other processes.
    """
    container = {
        "securityContext": _confined_context(),
        "resources": {
            "requests": {"cpu": _AUTOSCALER_CPU, "memory": _AUTOSCALER_MEMORY},
            "limits": {"cpu": _AUTOSCALER_CPU_LIMIT, "memory": _AUTOSCALER_MEMORY},
        },
        "env": [{"name": "HOME", "value": _TEMPORARY}],
        "volumeMounts": [
            {"name": "autoscaler-temporary", "mountPath": _TEMPORARY},
            {"name": "autoscaler-credentials", "mountPath": OWN_CREDENTIALS, "readOnly": True},
        ],
    }
    templates = _templates(spec, settings, spec.head.pod_template)
    said = with_container_templates(container, AUTOSCALER, templates)
    said.pop("name", None)
    return {"version": "v2", "idleTimeoutSeconds": spec.idle_timeout_seconds, "upscalingMode": "Default", **said}


def worker(pool: ObjectMeta, spec: ManagedRayCluster, group: WorkerGroup, settings: PoolSettings) -> Manifest:
    """A group's pod template."""
    amounts = worker_requests(group)
    volumes, mounts = model_volumes(spec, settings.artifact_secret, pool.namespace)
    cached = {CACHE_VARIABLE: CACHE_ROOT, CACHE_BYTES_VARIABLE: str(int(number(spec.cache.max_bytes)))}
    container = {
        **_container(RAY_WORKER, image(spec, settings, group), settings, cached),
        # Limits as requests: a tenant's model takes no more than its worker has.
        "resources": {"requests": amounts, "limits": amounts},
        "volumeMounts": [{"name": "temporary", "mountPath": _TEMPORARY}, *mounts],
        # Has Ray move the replicas before the pod goes, and sees them off.
        "lifecycle": {"preStop": {"exec": {"command": ["python", "-m", "penstock_serving.replica.evacuation"]}}},
    }
    pod = _pod(spec, [container], [empty_volume("temporary", _TEMPORARY_BYTES), *volumes], WORKER_GRACE_SECONDS)
    pod |= _placement(node_selector(group), group.tolerations)
    if group.topology_spread_key is not None:
        chosen = {POOL_LABEL: label(pool.name), GROUP_LABEL: group.name}
        pod["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": group.topology_spread_key,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": chosen},
            }
        ]
    pod = with_authorities(pod, RAY_WORKER, settings.trusted)
    built = {"metadata": {"labels": _labels(pool.name, "ray-worker")}, "spec": pod}
    return _finish(built, RAY_WORKER, _templates(spec, settings, group.pod_template))


def node_selector(group: WorkerGroup) -> dict[str, str]:
    """Labels of the nodes where a group's workers may run."""
    if group.node_selector or group.accelerator is None:
        return dict(group.node_selector)
    return {ACCELERATOR_NODE_LABEL: group.accelerator.type}


def ray_labels(group: WorkerGroup) -> dict[str, str]:
    """Ray's labels of a group's workers, by which replicas choose: the accelerator's type, and what nodes have."""
    labels = dict(group.node_selector)
    if group.accelerator is not None:
        labels[ACCELERATOR_LABEL] = group.accelerator.type
    return labels


def ray_resources(group: WorkerGroup) -> dict[str, str]:
    """What a worker offers to replicas, by Ray's names. Cores are whole in Ray; part of the memory is Ray's own."""
    memory = number(group.memory)
    resources = {"CPU": str(max(1, int(number(group.cpu)))), "memory": str(int(memory - min(_RAY_BYTES, memory / 2)))}
    if group.accelerator is not None:
        name, count = ray_resource(group.accelerator)
        resources[name] = f"{count:g}"
    return resources


def worker_requests(group: WorkerGroup) -> dict[str, str]:
    """What a worker asks of Kubernetes."""
    amounts = {"cpu": group.cpu, "memory": group.memory}
    if group.accelerator is not None:
        amounts[group.accelerator.resource] = str(group.accelerator.count)
    return amounts


def worker_demand(pool: ObjectMeta, spec: ManagedRayCluster, group: WorkerGroup, settings: PoolSettings) -> PodDemand:
    """What a worker needs of its node."""
    return demand_of(f"a worker of group {group.name}", worker(pool, spec, group, settings)["spec"])


def head_demand(pool: ObjectMeta, spec: ManagedRayCluster, settings: PoolSettings) -> PodDemand:
    """What the head needs of its node, the autoscaler's container included."""
    pod = head(pool.name, spec, settings)["spec"]
    containers = [*pod["containers"], {"name": AUTOSCALER, **autoscaler(spec, settings)}]
    return demand_of("the head of the Ray cluster", {**pod, "containers": containers})


def object_store_bytes() -> str:
    """Ray's own limit on its object store, in bytes."""
    return str(_OBJECT_STORE_BYTES)


def image(spec: ManagedRayCluster, settings: PoolSettings, group: WorkerGroup | None = None) -> str:
    """The image of the head, or of the workers of a group: the pool's own; else this release's for what they run on."""
    if spec.image or group is None or group.accelerator is None or not needs_cuda(group.accelerator.resource):
        return spec.image or settings.image
    return settings.gpu_image or settings.image


def _head_limit(node: HeadNode) -> str:
    return node.cpu_limit or canonical_quantity(str(number(node.cpu) * _HEAD_BURST))


def _templates(
    spec: ManagedRayCluster, settings: PoolSettings, own: PodTemplate | None
) -> tuple[PodTemplate | None, ...]:
    """In the order in which they are laid over a pod."""
    return settings.template, spec.pod_template, own


def _finish(built: Manifest, container: str, templates: tuple[PodTemplate | None, ...]) -> Manifest:
    made = with_templates(built, templates)
    return {**made, "spec": with_volumes(made["spec"], container)}


def _container(name: str, image_: str, settings: PoolSettings, more: Mapping[str, str]) -> Manifest:
    fixed = {
        "HOME": _TEMPORARY,
        "RAY_USAGE_STATS_ENABLED": "0",
        # The preStop hook has emptied the worker by then, or there was no head to ask.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        # Ray's default of ten seconds would make scaling as slow as that.
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
        "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    }
    variables = {**fixed, **dict(settings.environment), **more}
    return {
        "name": name,
        "image": image_,
        "securityContext": _confined_context(),
        "env": [{"name": key, "value": value} for key, value in variables.items()],
    }


def _pod(spec: ManagedRayCluster, containers: list[Manifest], volumes: list[Manifest], grace: int) -> Manifest:
    pod: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": containers,
        "volumes": volumes,
    }
    if spec.priority_class_name is not None:
        pod["priorityClassName"] = spec.priority_class_name
    if spec.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": each.name} for each in spec.image_pull_secrets]
    return pod


def _placement(selector: Mapping[str, str], tolerations: tuple[Toleration, ...]) -> Manifest:
    placement: Manifest = {}
    if selector:
        placement["nodeSelector"] = dict(selector)
    if tolerations:
        placement["tolerations"] = [each.model_dump(mode="json", exclude_none=True) for each in tolerations]
    return placement


def _confined_context() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _labels(pool: str, component: str) -> dict[str, str]:
    return {
        POOL_LABEL: label(pool),
        "app.kubernetes.io/managed-by": "penstock",
        "app.kubernetes.io/component": component,
    }


def _port(name: str, number_: int) -> Manifest:
    return {"name": name, "containerPort": number_, "protocol": "TCP"}
