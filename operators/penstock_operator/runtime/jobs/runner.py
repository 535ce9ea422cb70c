"""Runs `batch/v1` Jobs on this machine, one at a time: what Kubernetes' Job controller and kubelet are to a cluster.

A Job's command is a child process in a group of its own, at low priority. While it lives it holds a file lock, which is
how an operator that was started anew knows that a former one's child is still there; that child is ended, and the Job's
command started again. Commands must therefore bear being killed and started over, as Kubernetes demands of them too.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.errors import Invalid
from penstock_operator.runtime.cluster import JOB, Cluster, Key, Manifest, NotFound, key_of
from penstock_operator.runtime.jobs import job_status
from penstock_operator.runtime.loop.controller import Controller, ControllerSettings
from penstock_operator.runtime.loop.requeue import Requeue
from penstock_runtime.parent_death import command_that_ends_with_us

log = logging.getLogger(__name__)

FIELD_MANAGER: Final = "penstock-job-runner"
_NICENESS: Final = 10
_BUSY_SECONDS: Final = 1.0
_GRACE_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class _Running:
    """A Job's child process."""

    key: Key
    uid: str
    process: subprocess.Popen[bytes]


class JobRunner:
    """Runs Jobs.

    Args:
        cluster: where the Jobs are.
        folder: for locks and logs.
        may_act: whether this process may start and end anything.
    """

    def __init__(
        self,
        cluster: Cluster,
        folder: Path,
        may_act: Callable[[], bool] = lambda: True,
    ) -> None:
        self._cluster = cluster
        self._folder = folder
        self._running: _Running | None = None
        # One worker: reconciles never overlap, and the thread that starts a child lives as long as the operator.
        self.controller = Controller(
            JOB, self.reconcile, cluster, settings=ControllerSettings(workers=1), may_act=may_act
        )

    def prepare(self) -> None:
        """Before the controller starts."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def end(self) -> None:
        """After the controller stopped: end the running child, whose Job a later operator starts again."""
        if self._running is not None:
            _end(self._running.process)
            self._running = None

    def log_of(self, uid: str) -> Path:
        """Where a Job's output goes."""
        return self._folder / f"{uid}.log"

    def reconcile(self, key: Key) -> Requeue | None:
        """See `penstock_operator.runtime.loop.controller.Reconcile`."""
        job = self._cluster.get(JOB, key)
        going = job is None or job["metadata"].get("deletionTimestamp") is not None
        running = self._running
        if running is not None and running.key == key and (going or job is None or _uid(job) != running.uid):
            log.info("Job %s is gone; ending its command", key)
            _end(running.process)
            self._running = running = None
        if job is None or going or job["spec"].get("suspend"):
            return None
        if job_status.end_of(job) is not None:
            return self._keep_ended(key, job)
        if running is None:
            return self._begin(key, job)
        if running.key != key:
            return Requeue(_BUSY_SECONDS, "another Job runs")
        return self._follow(key, job, running.process)

    def _keep_ended(self, key: Key, job: Manifest) -> Requeue | None:
        """A Job that is over, until its time to live is."""
        left = job_status.seconds_to_keep(job, time.time())
        if left is None or left > 0:
            return None if left is None else Requeue(left, "the Job's time to live")
        self._cluster.delete(JOB, key, uid=_uid(job))
        self.log_of(_uid(job)).unlink(missing_ok=True)
        return None

    def _begin(self, key: Key, job: Manifest) -> Requeue | None:
        """Start a Job's command, unless a former operator's child is still there."""
        if self._end_orphans():
            return Requeue(_POLL_SECONDS, "a former operator's child is ending")
        try:
            command = job_status.command_of(job)
            self._running = _Running(key, _uid(job), self._launch(_uid(job), command))
        except Invalid as error:
            self._write(job, job_status.unfit_status(job, error.message, time.time()))
            raise
        log.info("Job %s: started process %d", key, self._running.process.pid)
        threading.Thread(
            target=self._wait_for, args=(key, self._running.process), name=f"job-{key.name}", daemon=True
        ).start()
        status = job_status.running_status(job, time.time())
        self._write(job, status)
        return self._requeue_at_deadline({**job, "status": status})

    def _wait_for(self, key: Key, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        self.controller.enqueue(key)

    def _follow(self, key: Key, job: Manifest, process: subprocess.Popen[bytes]) -> Requeue | None:
        code = process.poll()
        now = time.time()
        left = job_status.seconds_left(job, now)
        if code is None and (left is None or left > 0):
            return self._requeue_at_deadline(job)
        if code is None:
            _end(process)
            status = job_status.overdue_status(job, now)
        else:
            shown = 128 - code if code < 0 else code
            log.info("Job %s: its command ended with status %d", key, shown)
            status = job_status.exited_status(job, shown, now, f". Its output: {self.log_of(_uid(job))}")
        self._write(job, status)
        self._running = None
        fresh = {**job, "status": status}
        if job_status.end_of(fresh) is None:
            return Requeue(job_status.retry_seconds(fresh), "the command failed and is tried again")
        return None

    def _requeue_at_deadline(self, job: Manifest) -> Requeue | None:
        left = job_status.seconds_left(job, time.time())
        return None if left is None else Requeue(max(left, _POLL_SECONDS), "the Job's deadline")

    def _launch(self, uid: str, command: job_status.Command) -> subprocess.Popen[bytes]:
        """Start a command that holds the Job's lock: the kernel gives it back when the command, however it ends, is gone.

        Raises:
            Invalid: it cannot be started.
        """
        lock = os.open(self._folder / f"{uid}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with self.log_of(uid).open("ab") as output:
                process = subprocess.Popen(
                    command_that_ends_with_us(["nice", "-n", str(_NICENESS), *command.argv]),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **command.environment},
                    cwd=command.folder,
                    pass_fds=(lock,),
                    start_new_session=True,
                )
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(process.pid).encode(), 0)
        except OSError as error:
            raise Invalid("InvalidJob", f"cannot start {command.argv[0]}: {error}") from error
        finally:
            os.close(lock)
        return process

    def _end_orphans(self) -> bool:
        """Ask children of a former operator to end; whether there were any. Locks of Jobs that are over are removed."""
        found = False
        known = {_uid(each) for each in self._cluster.list(JOB).items}
        for path in self._folder.glob("*.lock"):
            holder = _holder(path)
            if holder is None:
                if path.stem not in known:
                    path.unlink(missing_ok=True)
                continue
            found = True
            log.info("process %d is of a former operator; ending it", holder)
            _kill_group(holder, signal.SIGKILL)
        return found

    def _write(self, job: Manifest, status: Manifest) -> None:
        key = key_of(job)
        body = {"metadata": {"name": key.name, "namespace": key.namespace}, "status": status}
        with contextlib.suppress(NotFound):  # deleted meanwhile: the next reconcile sees it
            self._cluster.apply_status(JOB, body, FIELD_MANAGER)


def _uid(job: Manifest) -> str:
    return str(job["metadata"]["uid"])


def _holder(path: Path) -> int | None:
    """The process that holds a lock; 0 where it has not yet said which it is; None where nobody holds it."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            said = file.read()
            return int(said) if said.isdigit() else 0
    return None


def _kill_group(leader: int, number: signal.Signals) -> None:
    """Signal a whole group. A leader of 0 would be this process's own."""
    if leader > 0:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, number)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a child's group to end, then leave no choice. Also what a leader that has ended left behind."""
    _kill_group(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_SECONDS)
    _kill_group(process.pid, signal.SIGKILL)
    process.wait()
