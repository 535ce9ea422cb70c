"""The plan for one `OptimizationRun`: `plan_run(observed, now)` reads nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from penstock.api.conditions import Reason, RunCondition
from penstock.api.meta import Manifest
from penstock.api.optimization import OptimizationRun, OptimizationRunStatus, RunProgress
from penstock.api.verdicts import Verdict, condition, false, timestamp, true, unknown
from penstock.errors import Invalid
from penstock.optimization.progress import Progress, RunResult
from penstock.optimization.report import SearchVerdict as Found
from penstock.optimization.statements import lies_within, store_of
from penstock_operator.deployment.observed import ProfileProblem
from penstock_operator.deployment.unschedulable import groups_that_fit, why_unschedulable
from penstock_operator.optimization import figures
from penstock_operator.optimization.job import build, job_name
from penstock_operator.optimization.job_network import network_policy
from penstock_operator.optimization.observed import JobState, ObservedJob, ObservedRun
from penstock_operator.runtime.loop.requeue import Requeue

MOST_ATTEMPTS: Final = 3
TRY_AGAIN: Final = 75
"""EX_TEMPFAIL of sysexits.h: trying again may help."""
KILLED: Final = 137
"""128 and SIGKILL: what a container that ran out of memory ends with."""
PROGRESS_SECONDS: Final = 3.0
"""How often a run's `progress.json` is read while its Job is active: a file, so nobody tells."""
PROFILE_SECONDS: Final = 30.0
QUEUED_SECONDS: Final = 30.0
"""A suspended Job's start is told by its watch."""
SETTLE_SECONDS: Final = 30.0
"""How long after a Job's success its result may take to be seen."""
SILENT_SECONDS: Final = 120.0
"""A Job that has said nothing for so long may not have found a node, or its image."""
_DEADLINE_EXCEEDED: Final = "DeadlineExceeded"
_LONGEST: Final = 1000
_SHOWN: Final = 200
"""Characters of an address that nobody vouches for."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What is to be done."""

    status: OptimizationRunStatus
    job: Manifest | None = None
    """To be created; it may be there already by then."""
    network_policy: Manifest | None = None
    """To be created before `job`; it may be there already by then."""
    delete_jobs: tuple[str, ...] = ()
    """Names, to be deleted after `job` was created."""
    requeue: Requeue | None = None


def backoff(attempt: int) -> float:
    """Seconds from the end of an attempt, counted from 1, to the next: 30, 120."""
    return 30.0 * 4.0 ** (attempt - 1)


def is_over(run: OptimizationRun) -> bool:
    """Whether the run has ended, with a verdict or without."""
    return run.status.completion_time is not None


def last_of(run: OptimizationRun, jobs: Sequence[ObservedJob]) -> ObservedJob | None:
    """The Job of the last attempt."""
    return max(jobs, key=lambda each: _attempt(run, each), default=None)


def plan_run(observed: ObservedRun, now: float) -> RunPlan:
    """What is to be done for one run. A run that is over stays as it is."""
    run = observed.run
    if is_over(run) or run.metadata.deletion_timestamp is not None:
        return RunPlan(status=run.status)
    last = last_of(run, observed.jobs)
    if last is None:
        return _start(observed, run.status.attempts + 1, now)
    match last.state:
        case JobState.ACTIVE:
            return _follow(observed, last, now)
        case JobState.SUCCEEDED if observed.result is not None and observed.result.error is None:
            return RunPlan(status=_conclude(observed, observed.result, now))
        case JobState.SUCCEEDED:
            return _wait_for_result(observed, last, now)
        case JobState.FAILED:
            return _retry_or_fail(observed, last, now)
        case _:
            assert_never(last.state)


def failed_status(run: OptimizationRun, reason: Reason, message: str, now: float) -> OptimizationRunStatus:
    """The status of a run that ended without a verdict."""
    status = _status(run, false(reason, message), false(reason, message), now)
    return status.model_copy(update={"completion_time": timestamp(now), "summary": message})


def refused_run_status(run: OptimizationRun, message: str, now: float) -> OptimizationRunStatus:
    """The status of a run that goes on once Kubernetes' API lets it. One that is over stays as it is."""
    if is_over(run):
        return run.status
    return _status(run, false(Reason.API_REFUSED, message), _undecided_verdict(), now)


def _attempt(run: OptimizationRun, job: ObservedJob) -> int:
    number = job.name.removeprefix(job_name(run, 0)[:-1])
    return int(number) if number.isdigit() else 0


def _start(observed: ObservedRun, attempt: int, now: float, before: str = "") -> RunPlan:
    run, profile = observed.run, observed.profile
    if attempt > MOST_ATTEMPTS:
        message = before or f"Its Job went {MOST_ATTEMPTS} times before it had ended. Delete the run to start anew."
        return RunPlan(status=failed_status(run, Reason.OPTIMIZATION_FAILED, message, now))
    if isinstance(profile, ProfileProblem):
        waiting = _status(run, false(profile.reason, profile.message), unknown(profile.reason, profile.message), now)
        return RunPlan(status=waiting, requeue=Requeue(PROFILE_SECONDS, profile.message))
    try:
        impossible = why_unschedulable(run.spec.resources, observed.groups)
        if impossible is not None:
            waiting = _status(run, false(Reason.UNSCHEDULABLE, impossible), _undecided_verdict(), now)
            return RunPlan(status=waiting, requeue=Requeue(PROFILE_SECONDS, impossible))
        group = next(iter(groups_that_fit(run.spec.resources, observed.groups)), None)
        job = build(run, profile, observed.settings, attempt, group, template=observed.template)
    except Invalid as error:
        return RunPlan(status=failed_status(run, Reason.INVALID_SPEC, error.message, now))
    message = f"{before} Attempt {attempt} begins.".strip() if before else "The Job is being created."
    status = _status(
        run, false(Reason.OPTIMIZATION_RETRIED if before else Reason.PENDING, message), _undecided_verdict(), now
    )
    status = status.model_copy(
        update={"attempts": attempt, "start_time": run.status.start_time or timestamp(now), "progress": RunProgress()}
    )
    stale = tuple(each.name for each in observed.jobs)
    # A process of this machine has no network of its own to be bounded.
    policy = network_policy(run, observed.settings) if observed.settings.image is not None else None
    return RunPlan(status, job, policy, stale, Requeue(PROGRESS_SECONDS, "the Job is to report"))


def _follow(observed: ObservedRun, job: ObservedJob, now: float) -> RunPlan:
    """A Job is under way."""
    run, progress = observed.run, observed.progress
    if job.suspended:
        return _wait_in_queue(observed, job, now)
    if progress is None:
        silent = job.started_at is not None and now - job.started_at > SILENT_SECONDS
        hint = f" For {SILENT_SECONDS:g} s: see kubectl describe job {job.name} -n {run.metadata.namespace}."
        message = f"The Job {job.name} has not reported yet.{hint if silent else ''}"
        shown = RunProgress()
    else:
        doing = _sentence(progress)
        message = f"{doing}. So far: {progress.found}"[:_LONGEST] if progress.found else doing
        shown = RunProgress(
            stage=progress.stage,
            message=doing,
            found=progress.found[:_LONGEST],
            completed_trials=progress.done,
            total_trials=progress.total,
        )
    status = _status(run, false(Reason.OPTIMIZING, message), _undecided_verdict(), now)
    attempts = max(run.status.attempts, _attempt(run, job))
    started = run.status.start_time or timestamp(job.started_at or now)
    status = status.model_copy(update={"progress": shown, "attempts": attempts, "start_time": started})
    stale = tuple(each.name for each in observed.jobs if each.name != job.name)
    return RunPlan(status, delete_jobs=stale, requeue=Requeue(PROGRESS_SECONDS, "the search goes on"))


def _wait_in_queue(observed: ObservedRun, job: ObservedJob, now: float) -> RunPlan:
    """A Job waits to be let start; also one that had begun, and was suspended for another."""
    where = f" in the queue {job.queue}" if job.queue else ""
    message = f"The Job {job.name} waits{where} to be started: it is suspended."
    status = _status(observed.run, false(Reason.PENDING, message), _undecided_verdict(), now)
    attempts = max(observed.run.status.attempts, _attempt(observed.run, job))
    status = status.model_copy(update={"progress": RunProgress(), "attempts": attempts})
    stale = tuple(each.name for each in observed.jobs if each.name != job.name)
    return RunPlan(status, delete_jobs=stale, requeue=Requeue(QUEUED_SECONDS, message))


def _wait_for_result(observed: ObservedRun, job: ObservedJob, now: float) -> RunPlan:
    """The Job says that all is well, and there is no `result.json`, or one that has no verdict."""
    ended = job.finished_at if job.finished_at is not None else now
    if now - ended < SETTLE_SECONDS:
        waiting = _status(
            observed.run, false(Reason.OPTIMIZING, "The result is being read."), _undecided_verdict(), now
        )
        return RunPlan(waiting, requeue=Requeue(PROGRESS_SECONDS, "the result is to appear"))
    if observed.refused:
        message = (
            f"The Job {job.name} ended, and what lies in the place of its result is not its own: {observed.refused}."
        )
        return RunPlan(status=failed_status(observed.run, Reason.OPTIMIZATION_FAILED, message[:_LONGEST], now))
    message = _error_of_search(observed) or (
        f"The Job {job.name} ended and left no result in {observed.settings.store}: see whether the operator and the Job "
        "reach the same artifact store."
    )
    return RunPlan(status=failed_status(observed.run, Reason.OPTIMIZATION_FAILED, message, now))


def _retry_or_fail(observed: ObservedRun, job: ObservedJob, now: float) -> RunPlan:
    attempt = max(1, _attempt(observed.run, job))
    message = _failure(observed, job)
    # Without an exit code the pod was lost, which says nothing about the search.
    lost = job.exit_code is None and job.reason != _DEADLINE_EXCEEDED
    if attempt >= MOST_ATTEMPTS or not (lost or job.exit_code == TRY_AGAIN):
        tried = f" It was tried {attempt} times." if attempt > 1 else ""
        return RunPlan(status=failed_status(observed.run, Reason.OPTIMIZATION_FAILED, message + tried, now))
    due = (job.finished_at if job.finished_at is not None else now) + backoff(attempt)
    if now >= due:
        return _start(observed, attempt + 1, now, message)
    again = f"{message} Attempt {attempt + 1} begins at {timestamp(due)}."
    status = _status(observed.run, false(Reason.OPTIMIZATION_RETRIED, again), _undecided_verdict(), now)
    status = status.model_copy(update={"attempts": attempt})
    return RunPlan(status, requeue=Requeue(max(due - now, 1.0), "the next attempt is due"))


def _failure(observed: ObservedRun, job: ObservedJob) -> str:
    reported = _error_of_search(observed)
    if job.exit_code == KILLED:
        return (
            f"The Job {job.name} was killed, most likely for memory: raise spec.resources.memory of the deployment, or "
            "the operator's memory for Jobs."
        )
    if job.reason == _DEADLINE_EXCEEDED:
        return (
            f"The Job {job.name} ran for longer than its budget allows: raise search.budgetMinutes in a new profile, or "
            "try fewer steps."
        )
    return (
        reported
        or f"The Job {job.name} failed: {job.message or job.reason or 'Kubernetes does not say why'}."[:_LONGEST]
    )


def _error_of_search(observed: ObservedRun) -> str:
    """What the search itself said of its failure."""
    return observed.result.error[:_LONGEST] if observed.result is not None and observed.result.error else ""


def _conclude(observed: ObservedRun, result: RunResult, now: float) -> OptimizationRunStatus:
    """A verdict counts only with addresses in the namespace's own part of the store."""
    namespace, store = observed.run.metadata.namespace, observed.settings.store
    for uri in (result.artifact_uri, result.report_uri):
        if uri is not None and not lies_within(store, namespace, uri):
            message = (
                f"The result names {uri[:_SHOWN]}, which is not below {store_of(store, namespace)}, so it does not count: "
                "look who can sign for this run."
            )
            return failed_status(observed.run, Reason.OPTIMIZATION_FAILED, message, now)
    return _complete(observed, result, now)


def _complete(observed: ObservedRun, result: RunResult, now: float) -> OptimizationRunStatus:
    run = observed.run
    status = _status(run, true(Reason.VERDICT_REACHED, result.summary), _verdict(result), now)
    return status.model_copy(
        update={
            "verdict": result.verdict.value,
            "summary": result.summary,
            "recipe": result.recipe,
            "progress": RunProgress(),
            "figures": figures.describe(result.figures),
            "capacity": figures.capacity(result),
            "artifact": figures.artifact(result, observed.public_key),
            "report_uri": result.report_uri,
            "attempts": max([run.status.attempts, *(_attempt(run, each) for each in observed.jobs)]),
            "start_time": run.status.start_time or timestamp(now),
            "completion_time": timestamp(now),
        }
    )


def _verdict(result: RunResult) -> Verdict:
    match result.verdict:
        case Found.ACCEPTED:
            return true(Reason.PROFILE_ACCEPTED, result.summary)
        case Found.REJECTED:
            return false(Reason.PROFILE_REJECTED, result.summary)
        case Found.NO_DECISION:
            return false(Reason.NO_DECISION, result.summary)
        case _:
            assert_never(result.verdict)


def _undecided_verdict() -> Verdict:
    return unknown(Reason.OPTIMIZING, "No verdict was reached yet.")


def _sentence(progress: Progress) -> str:
    """`Measure (3 of 12): …`: what a search does now."""
    count = f" ({progress.done} of {progress.total})" if progress.total else ""
    return f"{progress.stage}{count}: {progress.message}"[:_LONGEST]


def _status(run: OptimizationRun, complete: Verdict, accepted: Verdict, now: float) -> OptimizationRunStatus:
    """The status as it was, with these conditions."""
    generation, before = run.metadata.generation, run.status.conditions
    conditions = (
        condition(RunCondition.COMPLETE, complete, before, generation, now),
        condition(RunCondition.ACCEPTED, accepted, before, generation, now),
    )
    return run.status.model_copy(update={"observed_generation": generation, "conditions": conditions})
