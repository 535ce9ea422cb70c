"""Reads all that decides what happens to an `OptimizationRun`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock.api.conditions import Reason
from penstock.api.optimization import OptimizationRun
from penstock.api.pool import ManagedRayCluster, ServingPool
from penstock.api.verdicts import epoch
from penstock.errors import Invalid
from penstock.names import MODEL_LABEL, PROFILE_ANNOTATION, QUEUE_LABEL
from penstock.optimization.progress import PROGRESS_FILE, RESULT_FILE, RunIdentity
from penstock.optimization.statements import MOST_BYTES, Statement, mismatch
from penstock_operator.deployment.observed import ProfileProblem
from penstock_operator.kinds import INFERENCE_DEPLOYMENT
from penstock_operator.optimization.directory import OptimizationDirectory
from penstock_operator.optimization.job import JobSettings, run_folder
from penstock_operator.optimization.observed import JobState, ObservedJob, ObservedRun
from penstock_operator.optimization.plan import is_over, last_of
from penstock_operator.pool.directory import PoolDirectory
from penstock_operator.pool.users import pool_of
from penstock_operator.runtime.cluster import JOB, Cluster, Key, Manifest, list_owned
from penstock_operator.runtime.jobs.job_status import end_of, end_time
from penstock_runtime.signing import verify_statement


class Folder(Protocol):
    """A run's folder in the artifact store."""

    def read(self, relative: str, most: int | None = None) -> bytes | None:
        """A file's content, or None where there is none. Raises `Invalid` where it is longer than `most` bytes."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a file of a run's folder says, if it counts."""

    statement: Statement | None = None
    public_key: str = ""
    refused: str = ""
    """Why it does not count."""


class RunObserver:
    """Observes runs.

    Args:
        cluster: where runs, profiles and Jobs are.
        directory: finds profiles.
        settings: of the Jobs.
        open_folder: from the URI of a run's folder.
        pools: finds the pool that is to serve a run's model.
        keys: public keys in PEM that a run's files may be signed by.
    """

    def __init__(
        self,
        cluster: Cluster,
        directory: OptimizationDirectory,
        settings: JobSettings,
        open_folder: Callable[[str], Folder],
        pools: PoolDirectory,
        *,
        keys: Callable[[OptimizationRun], Sequence[str]],
    ) -> None:
        self._cluster = cluster
        self._directory = directory
        self._settings = settings
        self._open_folder = open_folder
        self._pools = pools
        self._keys = keys

    def observe(self, run: OptimizationRun) -> ObservedRun:
        """The observation. Raises `Unavailable` where the API or the artifact store does not answer."""
        profile = self._directory.profile(run.metadata.namespace, run.spec.profile_ref)
        # Jobs before the result: a Job that is seen to have ended has written what it was to write.
        owned = list_owned(self._cluster, JOB, run.metadata.namespace, run.metadata.uid)
        jobs = tuple(observed_job(each) for each in owned)
        progress, result = Told(), Told()
        if self._settings.store and not is_over(run):
            try:
                folder = self._open_folder(run_folder(self._settings, run))
                last = last_of(run, jobs)
                if last is not None:
                    progress = self._read_statement(run, last, folder, PROGRESS_FILE)
                    result = self._read_statement(run, last, folder, RESULT_FILE)
            except Invalid as error:
                message = f"The artifact store cannot be used: {error.message}"
                profile = ProfileProblem(Reason.OPTIMIZATION_UNAVAILABLE, message)
        none_to_make = is_over(run) or any(each.state is JobState.ACTIVE for each in jobs)
        pool = None if none_to_make else self._pool(run)
        return ObservedRun(
            run,
            profile,
            self._settings,
            jobs,
            progress.statement.progress if progress.statement is not None else None,
            result.statement.result if result.statement is not None else None,
            result.public_key,
            result.refused,
            pool.worker_groups if pool is not None else (),
            pool.pod_template if pool is not None else None,
        )

    def _read_statement(self, run: OptimizationRun, job: ObservedJob, folder: Folder, name: str) -> Told:
        """Raises `Unavailable` where the store does not answer, `Invalid` where it cannot be used."""
        try:
            body = folder.read(name, MOST_BYTES)
            if body is None:
                return Told()
            statement, key = verify_statement(body, self._keys(run))
        except Invalid as error:
            if error.reason not in (Reason.SIGNATURE_INVALID, Reason.KEY_NOT_TRUSTED, Reason.SIGNATURE_MISSING):
                raise
            return Told(refused=f"{name}: {error.message}")
        wanted = RunIdentity(namespace=run.metadata.namespace, run=run.metadata.uid, job=job.name)
        wrong = mismatch(statement, wanted, job.profile_digest)
        return Told(statement, key) if wrong is None else Told(refused=f"{name}: {wrong}")

    def _pool(self, run: OptimizationRun) -> ManagedRayCluster | None:
        """The managed pool of the deployment that owns the run; of the namespace's default pool where none does."""
        namespace, name = run.metadata.namespace, run.metadata.labels.get(MODEL_LABEL)
        owner = self._cluster.get(INFERENCE_DEPLOYMENT, Key(namespace, name)) if name else None
        pool = self._pools.pool(pool_of(owner) if owner is not None else Key(namespace, "default"))
        return pool.spec.managed if isinstance(pool, ServingPool) else None


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
        finished_at=_epoch(end_time(manifest)),
        suspended=bool(manifest["spec"].get("suspend")),
        queue=str((manifest["metadata"].get("labels") or {}).get(QUEUE_LABEL, "")),
        profile_digest=str((manifest["metadata"].get("annotations") or {}).get(PROFILE_ANNOTATION, "")),
    )


def _epoch(time: str | None) -> float | None:
    return None if not time else epoch(time)
