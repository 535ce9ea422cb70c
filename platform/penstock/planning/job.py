"""Builds the Job of an `OptimizationRun`, complete; and the names that go with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from penstock.api.conditions import Reason
from penstock.api.meta import Manifest
from penstock.api.optimization import OptimizationProfileSpec, OptimizationRun
from penstock.errors import Invalid
from penstock.optimization.progress import OptimizationRequest
from penstock.optimization.variants import SourceRequest
from penstock.planning import names
from penstock.planning.quantities import canonical, number

REQUEST_VARIABLE: Final = "PENSTOCK_OPTIMIZATION_REQUEST"
"""The environment variable in which a Job finds its `OptimizationRequest` as JSON."""
MARGIN_SECONDS: Final = 1800
"""After the budget, in which no trial begins: for the trials that run then, for publishing, and for a pod's start."""
KEPT_SECONDS: Final = 86_400
"""How long a Job that is over is kept, for its log."""
_LARGEST_REQUEST: Final = 100_000
"""Characters. Linux takes at most 128 KiB for one variable (MAX_ARG_STRLEN in execve(2))."""
_TEMPORARY: Final = "/tmp"  # noqa: S108 - an emptyDir of the pod's own, which no other pod sees
_USER: Final = 65532
"""Any user but root; the one that distroless images have."""
_KUBERNETES_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
"""Values of the well-known label kubernetes.io/arch, by the kernel's name."""


@dataclass(frozen=True, slots=True)
class JobSettings:
    """What the operator's settings say of optimization Jobs."""

    store: str
    """fsspec URI of the artifact store."""
    signing_key: str
    """Path of the private key in PEM, as the Job sees it."""
    workspace: str = "/workspace"
    """Folder that keeps ledgers and built variants, as the Job sees it."""
    python: str = "python"
    """The interpreter; standalone: the operator's own."""
    image: str | None = None
    """None: the Job is a process of this machine."""
    signing_key_secret: str | None = None
    """A Secret in the run's namespace whose keys are mounted as files in the folder of `signing_key`; None: the file is
    there already, as it is standalone."""
    workspace_claim: str | None = None
    """A PersistentVolumeClaim for the workspace, so that a second run with the same key is free; None: an emptyDir."""
    model_volumes: tuple[tuple[str, str], ...] = ()
    """PersistentVolumeClaims with models and data, and where each is mounted, read-only: for `file://`."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables of the Job's process, such as an S3 endpoint."""
    environment_secret: str | None = None
    """A Secret whose keys become variables, such as the store's credentials."""
    memory: str = "8Gi"
    """At least this much, for the search itself, which needs more than a replica: it trains and converts."""
    accelerator_label: str = names.ACCELERATOR_LABEL
    """Label of Kubernetes' nodes that holds their type of accelerator."""
    accelerator_resource: str = "nvidia.com/gpu"
    sandbox: bool = True
    """Whether import paths and converters run in a sandbox within the Job."""


def run_folder(settings: JobSettings, run: OptimizationRun) -> str:
    """Folder of `progress.json` and `result.json` in the artifact store. Another run of the same name has another."""
    metadata = run.metadata
    return f"{settings.store.rstrip('/')}/runs/{metadata.namespace}/{metadata.name}-{metadata.uid[:8]}"


def job_name(run: OptimizationRun, attempt: int) -> str:
    """The Job of one attempt, counted from 1."""
    return f"{run.metadata.name}-{attempt}"


def budget_seconds(profile: OptimizationProfileSpec) -> int:
    """After which no trial begins."""
    return profile.search.budget_minutes * 60


def request(run: OptimizationRun, profile: OptimizationProfileSpec, settings: JobSettings) -> OptimizationRequest:
    """What the Job is to do.

    Raises:
        Invalid: a quantity in the spec is none.
    """
    spec = run.spec
    bound = spec.latency_p99_milliseconds
    return OptimizationRequest(
        model=SourceRequest(
            path="",
            format=spec.model.model_format,
            import_path=spec.model.import_path,
            student_import_path=profile.steps.distil.student_import_path if profile.steps.distil else None,
        ),
        model_uri=spec.model.storage_uri,
        name=run.metadata.labels.get(names.MODEL_LABEL, run.metadata.name),
        profile=f"{spec.profile_ref.kind}/{spec.profile_ref.name}",
        spec=profile,
        data_uri=spec.model.data_uri,
        store=settings.store,
        run_folder=run_folder(settings, run),
        workspace=settings.workspace,
        signing_key=settings.signing_key,
        latency_bound_milliseconds=float(bound) if bound is not None else None,
        memory_bytes=int(number(spec.resources.memory)) if spec.resources.memory else None,
        threads=max(1, int(number(spec.resources.cpu))),
        sandbox=settings.sandbox,
    )


def build(run: OptimizationRun, profile: OptimizationProfileSpec, settings: JobSettings, attempt: int) -> Manifest:
    """The Job of one attempt.

    Attempts are the operator's, so Kubernetes makes none; but a pod whose node goes is replaced, which is no attempt.

    Raises:
        Invalid: a quantity in the spec is none, or the request is too long for a process's environment.
    """
    metadata = run.metadata
    labels = {"app.kubernetes.io/managed-by": "penstock", names.RUN_LABEL: metadata.name}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(run, attempt),
            "namespace": metadata.namespace,
            "labels": labels,
            "ownerReferences": [names.owner_reference(run.api_version, run.kind, metadata)],
        },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": budget_seconds(profile) + MARGIN_SECONDS,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    # Puts the exit code into the Job's condition, so that no right on pods is needed to learn it.
                    {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [0]}},
                ]
            },
            "template": {"metadata": {"labels": labels}, "spec": _pod(run, profile, settings)},
        },
    }


def _pod(run: OptimizationRun, profile: OptimizationProfileSpec, settings: JobSettings) -> Manifest:
    volumes, mounts = _volumes(settings)
    pod: Manifest = {
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
        "containers": [_container(run, profile, settings, mounts)],
        "volumes": volumes,
    }
    terms = _node_terms(run, profile, settings)
    if terms:
        required = {"nodeSelectorTerms": [{"matchExpressions": terms}]}
        pod["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    return pod


def _container(
    run: OptimizationRun, profile: OptimizationProfileSpec, settings: JobSettings, mounts: list[Manifest]
) -> Manifest:
    amounts = _amounts(run, settings)
    container: Manifest = {
        "name": "optimizer",
        "image": settings.image or "none",
        "command": [settings.python, "-m", "penstock_optimizer"],
        "env": [
            {"name": REQUEST_VARIABLE, "value": _encoded(run, profile, settings)},
            # Libraries keep caches in the home folder, and a pod's root file system cannot be written to.
            *([{"name": "HOME", "value": settings.workspace}] if settings.image else []),
            *({"name": name, "value": value} for name, value in settings.environment),
        ],
        "resources": {"requests": amounts, "limits": amounts},
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


def _encoded(run: OptimizationRun, profile: OptimizationProfileSpec, settings: JobSettings) -> str:
    text = request(run, profile, settings).model_dump_json(exclude_none=True)
    if len(text.encode()) > _LARGEST_REQUEST:
        raise Invalid(
            Reason.INVALID_SPEC,
            f"The run and its profile take {len(text.encode())} bytes as JSON, more than the {_LARGEST_REQUEST} that a "
            "process can be given: shorten the profile's URIs and import paths",
        )
    return text


def _amounts(run: OptimizationRun, settings: JobSettings) -> dict[str, str]:
    """Requests and limits alike: a Job that may be throttled or squeezed measures its neighbours."""
    resources = run.spec.resources
    memory = max((resources.memory or "0", settings.memory), key=number)
    amounts = {"cpu": resources.cpu, "memory": memory}
    if resources.accelerator is not None:
        # Kubernetes has no shares of an accelerator: what is measured alone is measured on a whole one.
        amounts[settings.accelerator_resource] = canonical(str(math.ceil(number(resources.accelerator.count))))
    return amounts


def _node_terms(run: OptimizationRun, profile: OptimizationProfileSpec, settings: JobSettings) -> list[Manifest]:
    terms: list[Manifest] = []
    accelerator = run.spec.resources.accelerator
    if accelerator is not None:
        terms.append({"key": settings.accelerator_label, "operator": "In", "values": [accelerator.type]})
    architectures = [_KUBERNETES_ARCHITECTURES.get(each, each) for each in profile.hardware.architectures]
    if architectures:
        terms.append({"key": "kubernetes.io/arch", "operator": "In", "values": architectures})
    return terms


def _volumes(settings: JobSettings) -> tuple[list[Manifest], list[Manifest]]:
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
    if settings.signing_key_secret is not None:
        folder = settings.signing_key.rpartition("/")[0]
        volumes.append(
            {"name": "signing-key", "secret": {"secretName": settings.signing_key_secret, "defaultMode": 0o440}}
        )
        mounts.append({"name": "signing-key", "mountPath": folder, "readOnly": True})
    for index, (claim, path) in enumerate(settings.model_volumes):
        volumes.append({"name": f"models-{index}", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
        mounts.append({"name": f"models-{index}", "mountPath": path, "readOnly": True})
    return volumes, mounts
