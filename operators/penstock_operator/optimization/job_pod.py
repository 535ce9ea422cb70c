"""The pod of an optimization Job: on the kind of node that will serve, and with nothing that it does not need."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from penstock import names
from penstock.api.meta import Manifest
from penstock.api.optimization import OptimizationProfileSpec, OptimizationRun
from penstock.api.pod_template import OPTIMIZER
from penstock.api.pool import WorkerGroup
from penstock.api.quantity import canonical_quantity, number
from penstock.optimization.progress import SIGNING_KEY_VARIABLE
from penstock.serving.mounts import CLAIMS_ROOT, CREDENTIALS_ROOT
from penstock_operator.architectures import keep_to
from penstock_operator.optimization.job_settings import JobSettings
from penstock_operator.pods.disk import DISK
from penstock_operator.pods.trust import with_authorities
from penstock_operator.pool.placement import needs_cuda
from penstock_operator.pool.raypods import node_selector

SIGNING_KEY: Final = "key.pem"
"""In a run's Secret."""
_TEMPORARY: Final = "/tmp"  # noqa: S108 - an emptyDir of the pod's own, which no other pod sees
_USER: Final = 1000
"""`ray` in the optimizer's image: libraries look the user up by its number."""
_KUBERNETES_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
"""Values of the well-known label kubernetes.io/arch, by the kernel's name."""


def pod(
    run: OptimizationRun,
    profile: OptimizationProfileSpec,
    settings: JobSettings,
    variables: Mapping[str, str],
    group: WorkerGroup | None,
) -> Manifest:
    """The pod's spec.

    Args:
        run: what is measured.
        profile: its profile.
        settings: of all Jobs.
        variables: of the process's environment, beside those of the settings.
        group: the worker group that would serve the model; None where the pool is not known, or is no managed one.

    Raises:
        Invalid: a quantity in the spec is none.
    """
    volumes, mounts = _volumes(run, settings)
    made: Manifest = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(run, settings, variables, _amounts(run, settings, group), mounts)],
        "volumes": volumes,
    }
    selector = {**run.spec.resources.node_labels, **(node_selector(group) if group else {})}
    if selector:
        made["nodeSelector"] = selector
    if group is not None and group.tolerations:
        made["tolerations"] = [each.model_dump(mode="json", exclude_none=True) for each in group.tolerations]
    terms = _node_terms(run, profile, settings, group)
    if terms:
        required = {"nodeSelectorTerms": [{"matchExpressions": terms}]}
        made["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    return keep_to(settings.architectures, with_authorities(made, OPTIMIZER, settings.trusted))


def _container(
    run: OptimizationRun,
    settings: JobSettings,
    variables: Mapping[str, str],
    amounts: Mapping[str, str],
    mounts: list[Manifest],
) -> Manifest:
    container: Manifest = {
        "name": OPTIMIZER,
        "image": _image(settings, amounts),
        "command": [settings.python, "-m", "penstock_optimizer"],
        "env": [
            *({"name": name, "value": value} for name, value in variables.items()),
            *_key(run, settings),
            # Libraries keep caches in the home folder, and a pod's root file system cannot be written to.
            *([{"name": "HOME", "value": settings.workspace}] if settings.image else []),
            *({"name": name, "value": value} for name, value in dict(settings.environment).items()),
        ],
        # What a search writes is bounded by nobody, so the disk that it asks for is a guess and no limit.
        "resources": {"requests": {**amounts, DISK: settings.disk}, "limits": dict(amounts)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    if settings.environment_secret is not None:
        container["envFrom"] = [{"secretRef": {"name": settings.environment_secret}}]
    return container


def _image(settings: JobSettings, amounts: Mapping[str, str]) -> str:
    on_gpus = any(needs_cuda(resource) for resource in amounts)
    return (settings.gpu_image if on_gpus else None) or settings.image or "none"


def _key(run: OptimizationRun, settings: JobSettings) -> list[Manifest]:
    """A variable and no file: every process of the pod could read a file, but only the driver its environment."""
    if settings.signing_key_secret is None:
        return []
    source = {"name": names.signing_secret(run.metadata, settings.signing_key_secret), "key": SIGNING_KEY}
    return [{"name": SIGNING_KEY_VARIABLE, "valueFrom": {"secretKeyRef": source}}]


def _amounts(run: OptimizationRun, settings: JobSettings, group: WorkerGroup | None) -> dict[str, str]:
    """Requests and limits alike: a Job that may be throttled or squeezed measures its neighbours.

    Being requests, they count against the namespace's ResourceQuota, as any pod's.
    """
    resources = run.spec.resources
    memory = max((resources.memory or "0", settings.memory), key=number)
    amounts = {"cpu": resources.cpu, "memory": memory}
    if resources.accelerator is not None:
        # Kubernetes has no shares of an accelerator: what is measured alone is measured on a whole one.
        resource = group.accelerator.resource if group and group.accelerator else settings.accelerator_resource
        amounts[resource] = canonical_quantity(str(math.ceil(number(resources.accelerator.count))))
    return amounts


def _node_terms(
    run: OptimizationRun, profile: OptimizationProfileSpec, settings: JobSettings, group: WorkerGroup | None
) -> list[Manifest]:
    terms: list[Manifest] = []
    accelerator = run.spec.resources.accelerator
    if accelerator is not None and group is None:
        terms.append({"key": settings.accelerator_label, "operator": "In", "values": [accelerator.type]})
    architectures = [_KUBERNETES_ARCHITECTURES.get(each, each) for each in profile.hardware.architectures]
    if architectures:
        terms.append({"key": "kubernetes.io/arch", "operator": "In", "values": architectures})
    return terms


def _volumes(run: OptimizationRun, settings: JobSettings) -> tuple[list[Manifest], list[Manifest]]:
    workspace: dict[str, Any] = (
        {"persistentVolumeClaim": {"claimName": settings.workspace_claim}}
        if settings.workspace_claim
        else {"emptyDir": {}}
    )
    volumes: list[Manifest] = [{"name": "workspace", **workspace}, {"name": "temporary", "emptyDir": {}}]
    mounts: list[Manifest] = [
        {"name": "workspace", "mountPath": settings.workspace},
        {"name": "temporary", "mountPath": _TEMPORARY},
    ]
    for index, (claim, path) in enumerate(settings.model_volumes):
        volumes.append({"name": f"models-{index}", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
        mounts.append({"name": f"models-{index}", "mountPath": path, "readOnly": True})
    if settings.image is not None:
        _add_of_model(run, volumes, mounts)
    return volumes, mounts


def _add_of_model(run: OptimizationRun, volumes: list[Manifest], mounts: list[Manifest]) -> None:
    """The Secret that the model names, and the claims that its URIs name, where a pool's pods have them too."""
    model = run.spec.model
    if model.credentials_secret_ref is not None:
        name = model.credentials_secret_ref.name
        volumes.append({"name": "credentials", "secret": {"secretName": name, "defaultMode": 0o440}})
        mounts.append({"name": "credentials", "mountPath": f"{CREDENTIALS_ROOT}/{name}", "readOnly": True})
    uris = (model.storage_uri, model.data_uri or "")
    claims = sorted({parts.netloc for uri in uris if (parts := urlsplit(uri)).scheme == "pvc"})
    for index, claim in enumerate(claims):
        volumes.append({"name": f"claim-{index}", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
        mounts.append({"name": f"claim-{index}", "mountPath": f"{CLAIMS_ROOT}/{claim}", "readOnly": True})
