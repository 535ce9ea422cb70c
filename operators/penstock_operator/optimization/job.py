"""Builds the Job of an `OptimizationRun`, complete; and the names that go with it."""

from __future__ import annotations

from typing import Final

from penstock import names
from penstock.api.conditions import Reason
from penstock.api.meta import Manifest
from penstock.api.optimization import OptimizationProfileSpec, OptimizationRun
from penstock.api.pod_template import PodTemplate
from penstock.api.pool import WorkerGroup
from penstock.api.quantity import number
from penstock.errors import Invalid
from penstock.optimization.progress import OptimizationRequest, RunIdentity
from penstock.optimization.statements import digest_of_profile, store_of
from penstock.optimization.variants import SourceRequest
from penstock_operator.optimization.job_pod import pod
from penstock_operator.optimization.job_settings import JobSettings
from penstock_operator.pods.template import with_templates

__all__ = ["JobSettings", "budget_seconds", "build", "job_name", "queue_of", "request", "run_folder"]

REQUEST_VARIABLE: Final = "PENSTOCK_OPTIMIZATION_REQUEST"
"""The environment variable in which a Job finds its `OptimizationRequest` as JSON."""
MARGIN_SECONDS: Final = 1800
"""After the budget, in which no trial begins: for the trials that run then, for publishing, and for a pod's start."""
KEPT_SECONDS: Final = 86_400
"""How long a Job that is over is kept, for its log."""
_LARGEST_REQUEST: Final = 100_000
"""Characters. Linux takes at most 128 KiB for one variable (MAX_ARG_STRLEN in execve(2))."""


def run_folder(settings: JobSettings, run: OptimizationRun) -> str:
    """Folder of `progress.json` and `result.json`, in the namespace's own part of the artifact store.

    Another run of the same name has another.
    """
    metadata = run.metadata
    return f"{store_of(settings.store, metadata.namespace)}/runs/{metadata.name}-{metadata.uid[:8]}"


def job_name(run: OptimizationRun, attempt: int) -> str:
    """The Job of one attempt, counted from 1."""
    return f"{run.metadata.name}-{attempt}"


def budget_seconds(profile: OptimizationProfileSpec) -> int:
    """After which no trial begins."""
    return profile.search.budget_minutes * 60


def request(
    run: OptimizationRun, profile: OptimizationProfileSpec, settings: JobSettings, attempt: int
) -> OptimizationRequest:
    """What the Job of one attempt is to do.

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
        model_version=spec.model.version,
        model_digest=spec.model.digest,
        name=run.metadata.labels.get(names.MODEL_LABEL) or run.metadata.name,
        profile=f"{spec.profile_ref.kind}/{spec.profile_ref.name}",
        spec=profile,
        data_uri=spec.model.data_uri,
        store=store_of(settings.store, run.metadata.namespace),
        run_folder=run_folder(settings, run),
        scoped_store=settings.image is not None and not settings.shared_store,
        identity=RunIdentity(namespace=run.metadata.namespace, run=run.metadata.uid, job=job_name(run, attempt)),
        workspace=settings.workspace,
        signing_key=settings.signing_key if settings.signing_key_secret is None else "",
        latency_bound_milliseconds=float(bound) if bound is not None else None,
        memory_bytes=int(number(spec.resources.memory)) if spec.resources.memory else None,
        threads=max(1, int(number(spec.resources.cpu))),
        sandbox=settings.sandbox,
        credentials=spec.model.credentials_secret_ref.name if spec.model.credentials_secret_ref else None,
    )


def queue_of(run: OptimizationRun, settings: JobSettings) -> str | None:
    """Kueue's LocalQueue of a run's Jobs; None where they wait in none."""
    return run.metadata.labels.get(names.QUEUE_LABEL) or settings.queue


def build(
    run: OptimizationRun,
    profile: OptimizationProfileSpec,
    settings: JobSettings,
    attempt: int,
    group: WorkerGroup | None = None,
    *,
    template: PodTemplate | None = None,
) -> Manifest:
    """The Job of one attempt, on the kind of node that `group` of the pool runs on, and with the pool's `template`.

    In a queue it is made suspended: Kueue starts it once there is room. Attempts are the operator's, so Kubernetes makes none; but a pod whose node goes is replaced, which is no attempt.

    Raises:
        Invalid: a quantity in the spec is none, or the request is too long for a process's environment.
    """
    metadata, queue = run.metadata, queue_of(run, settings)
    labels = {"app.kubernetes.io/managed-by": "penstock", names.RUN_LABEL: metadata.name}
    variables = {REQUEST_VARIABLE: _encode(run, profile, settings, attempt)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(run, attempt),
            "namespace": metadata.namespace,
            "labels": labels | ({names.QUEUE_LABEL: queue} if queue else {}),
            "annotations": {names.PROFILE_ANNOTATION: digest_of_profile(profile)},
            "ownerReferences": [names.owner_reference(run.api_version, run.kind, metadata)],
        },
        "spec": {
            **({"suspend": True} if queue else {}),
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
            "template": with_templates(
                {"metadata": {"labels": labels}, "spec": pod(run, profile, settings, variables, group)},
                (settings.template, template, group.pod_template if group else None),
                sidecars=False,
            ),
        },
    }


def _encode(run: OptimizationRun, profile: OptimizationProfileSpec, settings: JobSettings, attempt: int) -> str:
    text = request(run, profile, settings, attempt).model_dump_json(exclude_none=True)
    if len(text.encode()) > _LARGEST_REQUEST:
        raise Invalid(
            Reason.INVALID_SPEC,
            f"The run and its profile take {len(text.encode())} bytes as JSON, more than the {_LARGEST_REQUEST} that a "
            "process can be given: shorten the profile's URIs and import paths",
        )
    return text
