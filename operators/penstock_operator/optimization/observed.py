"""What is known of one `OptimizationRun` before it is decided what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from penstock.api.optimization import OptimizationProfileSpec, OptimizationRun
from penstock.api.pod_template import PodTemplate
from penstock.api.pool import WorkerGroup
from penstock.optimization.progress import Progress, RunResult
from penstock_operator.deployment.observed import ProfileProblem
from penstock_operator.optimization.job import JobSettings


class JobState(StrEnum):
    """How far a Job is."""

    ACTIVE = "Active"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class ObservedJob:
    """One Job of a run."""

    name: str
    state: JobState
    exit_code: int | None = None
    """Of its command, where it is known."""
    reason: str = ""
    """Kubernetes' own, where it failed, such as `DeadlineExceeded`."""
    message: str = ""
    """Kubernetes' own, where it failed."""
    started_at: float | None = None
    finished_at: float | None = None
    """Both in epoch seconds."""
    suspended: bool = False
    """Whether it waits to be let start, as in Kueue's queues. It has no pod then."""
    queue: str = ""
    """Kueue's queue that it is in."""
    profile_digest: str = ""
    """Of what it was told to do, as its annotation says."""


@dataclass(frozen=True, slots=True)
class ObservedRun:
    """All that decides what happens to one `OptimizationRun`."""

    run: OptimizationRun
    profile: OptimizationProfileSpec | ProfileProblem
    settings: JobSettings
    jobs: tuple[ObservedJob, ...] = ()
    """All that this run owns, without those that are going."""
    progress: Progress | None = None
    """`progress.json` in `penstock_operator.optimization.job.run_folder`, signed by the last Job's driver."""
    result: RunResult | None = None
    """`result.json` there, signed likewise."""
    public_key: str = ""
    """In PEM: whose signature of `result` was found good."""
    refused: str = ""
    """Why what lies in the place of `result` does not count; empty where nothing does, or it counts."""
    groups: tuple[WorkerGroup, ...] = ()
    """Of the pool that is to serve the model, where it is a managed one and a Job is to be made."""
    template: PodTemplate | None = None
    """Of the same pool."""
