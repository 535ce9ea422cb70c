"""Builds the Job of an `OptimizationRun`, complete; and the names that go with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock.api.optimization import OptimizationRun

REQUEST_VARIABLE: Final = "PENSTOCK_OPTIMIZATION_REQUEST"
"""The environment variable in which a Job finds its `OptimizationRequest` as JSON."""


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
    image: str = "penstock-optimizer"
    signing_key_secret: str | None = None
    """A Secret in the run's namespace whose keys are mounted beside `signing_key`; None: the file is there already, as it
    is standalone."""
    workspace_claim: str | None = None
    """A PersistentVolumeClaim for the workspace, so that a second run with the same key is free; None: an emptyDir."""
    model_volumes: tuple[tuple[str, str], ...] = ()
    """PersistentVolumeClaims with models and data, and where each is mounted, read-only: for `file://`."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables of the Job's process, such as an S3 endpoint."""
    environment_secret: str | None = None
    """A Secret whose keys become variables, such as the store's credentials."""
    memory: str = "8Gi"
    """For the search itself, which needs more than a replica: it trains and converts."""
    accelerator_label: str = "ray.io/accelerator-type"
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
