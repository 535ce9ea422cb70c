"""Reads all that decides what happens to an `OptimizationRun`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from pydantic import ValidationError

from penstock.api.conditions import Reason
from penstock.api.optimization import OptimizationRun
from penstock.api.pool import ServingPool, WorkerGroup
from penstock.errors import Invalid, Unavailable
from penstock.models import Frozen
from penstock.optimization.progress import PROGRESS_FILE, RESULT_FILE, Progress, RunResult
from penstock.planning.conditions import epoch
from penstock.planning.job import JobSettings, run_folder
from penstock.planning.names import MODEL_LABEL, QUEUE_LABEL
from penstock.planning.observed import ProfileProblem
from penstock.planning.run import JobState, ObservedJob, ObservedRun, is_over
from penstock_operator.optimization.directory import OptimizationDirectory
from penstock_operator.pool.directory import INFERENCE_DEPLOYMENT, PoolDirectory
from penstock_operator.pool.users import pool_of
from penstock_operator.runtime.cluster import JOB, Cluster, Key, Manifest
from penstock_operator.runtime.job_status import end_of, ended_at

Content = TypeVar("Content", bound=Frozen)


class Folder(Protocol):
    """A run's folder in the artifact store."""

    def read(self, relative: str) -> bytes | None:
        """A file's content, or None where there is none."""


class RunObserver:
    """Observes runs.

    Args:
        cluster: where runs, profiles and Jobs are.
        directory: finds profiles.
        settings: of the Jobs.
        open_folder: from the URI of a run's folder.
        pools: finds the pool that is to serve a run's model.
    """

    def __init__(
        self,
        cluster: Cluster,
        directory: OptimizationDirectory,
        settings: JobSettings,
        open_folder: Callable[[str], Folder],
        pools: PoolDirectory,
    ) -> None:
        self._cluster = cluster
        self._directory = directory
        self._settings = settings
        self._open_folder = open_folder
        self._pools = pools

    def observe(self, run: OptimizationRun) -> ObservedRun:
        """The observation. Raises `Unavailable` where the API or the artifact store does not answer."""
        profile = self._directory.profile(run.metadata.namespace, run.spec.profile_ref)
        # Jobs before the result: a Job that is seen to have ended has written what it was to write.
        jobs = tuple(self._jobs(run))
        progress: Progress | None = None
        result: RunResult | None = None
        if self._settings.store:
            try:
                folder = self._open_folder(run_folder(self._settings, run))
                progress = _content(folder, PROGRESS_FILE, Progress)
                result = _content(folder, RESULT_FILE, RunResult)
            except Invalid as error:
                message = f"The artifact store cannot be used: {error.message}"
                profile = ProfileProblem(Reason.OPTIMIZATION_UNAVAILABLE, message)
        groups = () if is_over(run) or any(each.state is JobState.ACTIVE for each in jobs) else self._groups(run)
        return ObservedRun(run, profile, self._settings, jobs, progress, result, groups)

    def _groups(self, run: OptimizationRun) -> tuple[WorkerGroup, ...]:
        """Of the pool of the deployment that owns the run; of the namespace's default pool where none does."""
        namespace, name = run.metadata.namespace, run.metadata.labels.get(MODEL_LABEL)
        owner = self._cluster.get(INFERENCE_DEPLOYMENT, Key(namespace, name)) if name else None
        pool = self._pools.pool(pool_of(owner) if owner is not None else Key(namespace, "default"))
        managed = pool.spec.managed if isinstance(pool, ServingPool) else None
        return managed.worker_groups if managed is not None else ()

    def _jobs(self, run: OptimizationRun) -> Iterable[ObservedJob]:
        for manifest in self._cluster.list(JOB, run.metadata.namespace).items:
            metadata = manifest["metadata"]
            owners = {each["uid"] for each in metadata.get("ownerReferences") or ()}
            if run.metadata.uid in owners and metadata.get("deletionTimestamp") is None:
                yield observed_job(manifest)


def observed_job(manifest: Manifest) -> ObservedJob:
    """What a Job says of itself."""
    status = manifest.get("status") or {}
    end = end_of(manifest)
    state = JobState.ACTIVE if end is None else JobState.SUCCEEDED if end.succeeded else JobState.FAILED
    return ObservedJob(
        name=manifest["metadata"]["name"],
        state=state,
        exit_code=None if end is None else end.exit_code,
        reason="" if end is None else end.reason,
        message="" if end is None else end.message,
        started_at=_epoch(status.get("startTime")),
        finished_at=_epoch(ended_at(manifest)),
        suspended=bool(manifest["spec"].get("suspend")),
        queue=str((manifest["metadata"].get("labels") or {}).get(QUEUE_LABEL, "")),
    )


def _epoch(time: str | None) -> float | None:
    return None if not time else epoch(time)


def _content(folder: Folder, name: str, model: type[Content]) -> Content | None:
    """A file of the run's folder.

    Raises:
        Unavailable: the store does not answer, or what is there is not such a file.
    """
    body = folder.read(name)
    if body is None:
        return None
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise Unavailable("StoreUnreadable", f"{name} in the run's folder is not as expected: {error}") from error
