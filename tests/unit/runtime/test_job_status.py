"""A Job's statuses as this machine writes them and as Kubernetes does, read back."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import Invalid
from penstock_operator.runtime.jobs import job_status

NOW = 1_800_000_000.0


def job(
    *, status: dict[str, Any] | None = None, container: dict[str, Any] | None = None, **spec: Any
) -> dict[str, Any]:
    main = {"name": "main", "command": ["run"], **(container or {})}
    return {
        "metadata": {"name": "j", "namespace": "n", "uid": "u"},
        "spec": {"backoffLimit": 0, "template": {"spec": {"containers": [main]}}, **spec},
        "status": status or {},
    }


FAIL_ON_1 = {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}}]}
FAIL_BUT_ON_75 = {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [75]}}]}

ENDS = [
    ("0 is success", {}, 0, (True, 0)),
    ("an exit code that the policy names is told", {"podFailurePolicy": FAIL_ON_1}, 1, (False, 1)),
    ("as is one that it does not except", {"podFailurePolicy": FAIL_BUT_ON_75}, 2, (False, 2)),
    ("without a try left, the last code is told", {"podFailurePolicy": FAIL_ON_1}, 75, (False, 75)),
    ("with one left, it is not over", {"podFailurePolicy": FAIL_ON_1, "backoffLimit": 1}, 75, None),
    ("but a code that the policy names ends it", {"podFailurePolicy": FAIL_ON_1, "backoffLimit": 9}, 1, (False, 1)),
]


@pytest.mark.parametrize(("spec", "code", "wanted"), [row[1:] for row in ENDS], ids=[row[0] for row in ENDS])
def test_how_it_ends(spec: dict[str, Any], code: int, wanted: tuple[bool, int] | None) -> None:
    end = job_status.end_of(job(status=job_status.exited_status(job(**spec), code, NOW), **spec))
    assert (end and (end.succeeded, end.exit_code)) == wanted


def test_the_start_is_kept_over_tries_and_each_failure_waits_longer() -> None:
    first = job(status=job_status.running_status(job(), NOW), backoffLimit=5)
    failed = job(status=job_status.exited_status(first, 3, NOW + 5), backoffLimit=5)
    again = job(status=job_status.running_status(failed, NOW + 20), backoffLimit=5)
    twice = job(status=job_status.exited_status(again, 3, NOW + 30), backoffLimit=5)
    assert again["status"] == {"active": 1, "startTime": first["status"]["startTime"], "failed": 1}
    assert (twice["status"]["failed"], twice["status"]["startTime"]) == (2, first["status"]["startTime"])
    assert [job_status.retry_seconds(each) for each in (first, failed, twice)] == [0.0, 10.0, 20.0]


def test_the_words_of_kubernetes_are_understood() -> None:
    message = "Container optimizer for pod a/b-xyz failed with exit code 1 matching FailJob rule at index 0"
    failed = {"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": message}
    assert job_status.end_of(job(status={"conditions": [failed]})) == job_status.JobEnd(
        succeeded=False, reason="PodFailurePolicy", message=message, exit_code=1
    )


def test_the_deadline_counts_from_the_start() -> None:
    running = job(status=job_status.running_status(job(), NOW), activeDeadlineSeconds=60)
    assert job_status.seconds_left(running, NOW + 20) == 40.0
    assert job_status.seconds_left(job(activeDeadlineSeconds=60), NOW) is None
    end = job_status.end_of(job(status=job_status.overdue_status(running, NOW + 61)))
    assert end is not None
    assert (end.reason, end.exit_code) == ("DeadlineExceeded", None)


UNFIT = [
    ("no command", {"command": []}),
    ("an environment from a Secret", {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}]}),
]


@pytest.mark.parametrize("container", [row[1] for row in UNFIT], ids=[row[0] for row in UNFIT])
def test_this_machine_cannot_run(container: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="Job j"):
        job_status.command_of(job(container=container))


def test_arguments_follow_the_command_and_the_environment_is_text() -> None:
    container = {"command": ["a"], "args": ["b"], "env": [{"name": "X", "value": "1"}], "workingDir": "/"}
    assert job_status.command_of(job(container=container)) == job_status.Command(("a", "b"), {"X": "1"}, "/")


@pytest.mark.parametrize("code", [0, 1], ids=["a success", "a failure"])
def test_what_is_over_is_kept_for_its_time_to_live(code: int) -> None:
    kept = {"ttlSecondsAfterFinished": 100}
    over = job(status=job_status.exited_status(job(**kept), code, NOW), **kept)
    assert job_status.seconds_to_keep(over, NOW + 30) == 70.0
    assert job_status.seconds_to_keep(job(status=over["status"]), NOW) is None
    assert job_status.seconds_to_keep(job(**kept), NOW) is None
