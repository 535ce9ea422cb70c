"""The plan for one `OptimizationRun`: `plan_run(observed, now)` reads nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from penstock.api.optimization import OptimizationProfileSpec, OptimizationRun, OptimizationRunStatus
from penstock.api.v1alpha1 import Manifest
from penstock.optimization.progress import Progress, RunResult
from penstock.planning.job import JobSettings
from penstock.planning.observed import ProfileProblem
from penstock.planning.requeue import Requeue


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
    message: str = ""
    """Kubernetes' own, where it failed."""
    started_at: float | None = None
    finished_at: float | None = None
    """Both in epoch seconds."""


@dataclass(frozen=True, slots=True)
class ObservedRun:
    """All that decides what happens to one `OptimizationRun`."""

    run: OptimizationRun
    profile: OptimizationProfileSpec | ProfileProblem
    settings: JobSettings
    jobs: tuple[ObservedJob, ...] = ()
    """All that this run owns, without those that are going."""
    progress: Progress | None = None
    """`progress.json` in `penstock.planning.job.run_folder`."""
    result: RunResult | None = None
    """`result.json` there."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What is to be done."""

    status: OptimizationRunStatus
    job: Manifest | None = None
    """To be created; it may be there already by then."""
    delete_jobs: tuple[str, ...] = ()
    """Names, to be deleted after `job` was created."""
    requeue: Requeue | None = None
