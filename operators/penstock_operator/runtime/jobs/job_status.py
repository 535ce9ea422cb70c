"""What a `batch/v1` Job says and is to say: its command, how it ended, and its next status. Pure.

How a Job ended is read from its conditions alone, so that no right on Pods is needed: a Job whose `podFailurePolicy`
names an exit code has that code in the message of its `Failed` condition, in Kubernetes' own words. The standalone home
writes the same words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from penstock.api.verdicts import epoch, timestamp
from penstock.errors import Invalid
from penstock_operator.runtime.cluster import Manifest

_EXIT_CODE: Final = re.compile(r"exit code (\d+)")
_FIRST_RETRY_SECONDS: Final = 10.0
_LAST_RETRY_SECONDS: Final = 360.0
_DEFAULT_BACKOFF_LIMIT: Final = 6


class JobEnding(StrEnum):
    """Reasons of a Job's `Failed` condition that Kubernetes gives."""

    POLICY = "PodFailurePolicy"
    """The exit code is one that `podFailurePolicy` fails the Job for."""
    BACKOFF = "BackoffLimitExceeded"
    DEADLINE = "DeadlineExceeded"


@dataclass(frozen=True, slots=True)
class Command:
    """What a Job's container runs."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    folder: str | None = None
    """Working directory."""


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How a Job ended."""

    succeeded: bool
    reason: str
    message: str
    exit_code: int | None = None
    """None where Kubernetes does not tell."""


def command_of(job: Manifest) -> Command:
    """The command of a Job's only container.

    Raises:
        Invalid: there is not one container, or it has no command, or its environment is not plain text.
    """
    name = job["metadata"]["name"]
    containers: list[Manifest] = job["spec"]["template"]["spec"].get("containers") or []
    if len(containers) != 1 or not containers[0].get("command"):
        raise Invalid("InvalidJob", f"Job {name} needs exactly one container with a command to run on this machine")
    container = containers[0]
    environment = {}
    for each in container.get("env") or ():
        if "valueFrom" in each:
            raise Invalid("InvalidJob", f"Job {name}: {each['name']} is taken from elsewhere; give its value")
        environment[str(each["name"])] = str(each.get("value", ""))
    argv = (*container["command"], *(container.get("args") or ()))
    return Command(tuple(map(str, argv)), environment, container.get("workingDir"))


def end_of(job: Manifest) -> JobEnd | None:
    """How a Job ended; None while it has not."""
    for each in (job.get("status") or {}).get("conditions") or ():
        if each.get("status") != "True" or each.get("type") not in ("Complete", "Failed"):
            continue
        message = str(each.get("message") or "")
        if each["type"] == "Complete":
            return JobEnd(succeeded=True, reason=str(each.get("reason") or ""), message=message, exit_code=0)
        found = _EXIT_CODE.search(message)
        code = int(found[1]) if found else None
        return JobEnd(succeeded=False, reason=str(each.get("reason") or ""), message=message, exit_code=code)
    return None


def running_status(job: Manifest, now: float) -> Manifest:
    """The status of a Job whose command runs."""
    before = job.get("status") or {}
    kept = {"failed": before["failed"]} if before.get("failed") else {}
    return {"active": 1, "startTime": before.get("startTime") or timestamp(now), **kept}


def exited_status(job: Manifest, code: int, now: float, note: str = "") -> Manifest:
    """The status after the command ended; without a final condition where it is to be tried again.

    Args:
        job: as it is.
        code: exit status; 128 and the signal's number where a signal ended it.
        now: seconds since the Unix epoch.
        note: appended to the message, such as where the log is.
    """
    if code == 0:
        return _final_status(job, now, None, "")
    failed = _count_failed(job) + 1
    metadata, spec = job["metadata"], job["spec"]
    for index, rule in enumerate((spec.get("podFailurePolicy") or {}).get("rules") or ()):
        if rule.get("action") == "FailJob" and _matches(rule.get("onExitCodes") or {}, code):
            container = spec["template"]["spec"]["containers"][0]["name"]
            message = (
                f"Container {container} for pod {metadata.get('namespace')}/{metadata['name']} failed with exit code "
                f"{code} matching FailJob rule at index {index}"
            )
            return _final_status(job, now, JobEnding.POLICY, message + note, failed)
    limit = spec.get("backoffLimit", _DEFAULT_BACKOFF_LIMIT)
    if failed > limit:
        message = f"Job has reached the specified backoff limit; the last try failed with exit code {code}"
        return _final_status(job, now, JobEnding.BACKOFF, message + note, failed)
    return {"startTime": _start_time(job, now), "failed": failed}


def overdue_status(job: Manifest, now: float) -> Manifest:
    """The status of a Job that ran for too long."""
    failed = _count_failed(job) + 1
    return _final_status(job, now, JobEnding.DEADLINE, "Job was active longer than specified deadline", failed)


def unfit_status(job: Manifest, message: str, now: float) -> Manifest:
    """The status of a Job that cannot be run here."""
    return _final_status(job, now, JobEnding.POLICY, message, 1)


def seconds_left(job: Manifest, now: float) -> float | None:
    """Until `activeDeadlineSeconds` is over; None where there is none or it has not started."""
    deadline, started = job["spec"].get("activeDeadlineSeconds"), (job.get("status") or {}).get("startTime")
    return None if deadline is None or started is None else epoch(started) + float(deadline) - now


def seconds_to_keep(job: Manifest, now: float) -> float | None:
    """Until `ttlSecondsAfterFinished` is over, for a Job that has ended; None where it is kept."""
    keep, ended = job["spec"].get("ttlSecondsAfterFinished"), end_time(job)
    return None if keep is None or ended is None else epoch(ended) + float(keep) - now


def end_time(job: Manifest) -> str | None:
    """When a Job ended. Only one that succeeded has a completion time."""
    status = job.get("status") or {}
    failed = (each for each in status.get("conditions") or () if each["type"] == "Failed" and each["status"] == "True")
    when = status.get("completionTime") or next((each.get("lastTransitionTime") for each in failed), None)
    return None if when is None else str(when)


def retry_seconds(job: Manifest) -> float:
    """How long to wait before the next try: 10 seconds, doubled with each failure, as Kubernetes does."""
    failed = _count_failed(job)
    return min(_FIRST_RETRY_SECONDS * 2.0 ** (failed - 1), _LAST_RETRY_SECONDS) if failed else 0.0


def _matches(rule: Mapping[str, Any], code: int) -> bool:
    listed = code in (rule.get("values") or ())
    return listed if rule.get("operator") == "In" else not listed


def _count_failed(job: Manifest) -> int:
    return int((job.get("status") or {}).get("failed") or 0)


def _start_time(job: Manifest, now: float) -> str:
    return str((job.get("status") or {}).get("startTime") or timestamp(now))


def _final_status(job: Manifest, now: float, reason: JobEnding | None, message: str, failed: int = 0) -> Manifest:
    """Both conditions that Kubernetes gives: the criterion was met, and then the Job is over."""
    when = timestamp(now)
    about = {"lastProbeTime": when, "lastTransitionTime": when, "message": message}
    if reason is None:
        about |= {"reason": "CompletionsReached", "message": "Reached expected number of succeeded pods"}
        kinds, counts = ("SuccessCriteriaMet", "Complete"), {"succeeded": 1, "completionTime": when}
        before = (job.get("status") or {}).get("failed")
        counts |= {"failed": before} if before else {}
    else:
        about |= {"reason": reason.value}
        kinds, counts = ("FailureTarget", "Failed"), {"failed": failed}
    conditions = [{"type": kind, "status": "True", **about} for kind in kinds]
    return {"startTime": _start_time(job, now), **counts, "conditions": conditions}
