"""Jobs as processes of this machine: run once, one at a time, ended with their Job, and never twice."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import eventually, is_alive

from penstock_operator.runtime.cluster import JOB, Key, Manifest
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
from penstock_operator.runtime.jobs import job_status
from penstock_operator.runtime.jobs.runner import JobRunner

SOURCE = """
import os, sys, time
from pathlib import Path
note, seconds, code = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
with note.open("a") as file:
    file.write(f"{os.getpid()} {os.environ.get('WORD')} {os.nice(0)} {time.monotonic()}\\n")
print("output", flush=True)
time.sleep(seconds)
with note.open("a") as file:
    file.write(f"end {os.getpid()} - {time.monotonic()}\\n")
sys.exit(code)
"""
LONG = 60.0


class RunnerFolder:
    """A store, a runner on it, and what its Jobs' commands noted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cluster = EmbeddedCluster(folder / "store")
        self.runner: JobRunner | None = None

    def start(self) -> JobRunner:
        self.runner = JobRunner(self.cluster, self.folder / "jobs")
        self.runner.prepare()
        self.runner.controller.start()
        return self.runner

    def stop(self) -> None:
        if self.runner is not None:
            assert self.runner.controller.stop(60)
            self.runner.end()

    def apply(self, name: str, seconds: float = 0.0, code: int = 0, **spec: Any) -> Manifest:
        container = {
            "name": "main",
            "command": [sys.executable, "-c", SOURCE],
            "args": [str(self.folder / name), str(seconds), str(code)],
            "env": [{"name": "WORD", "value": f"of-{name}"}],
        }
        template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
        manifest = {
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"backoffLimit": 0, "template": template, **spec},
        }
        return self.cluster.create(JOB, manifest)

    def notes(self, name: str) -> list[list[str]]:
        path = self.folder / name
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def job(self, name: str) -> Manifest:
        found = self.cluster.get(JOB, Key("default", name))
        assert found is not None
        return found

    def end(self, name: str) -> job_status.JobEnd | None:
        return job_status.end_of(self.job(name))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[RunnerFolder]:
    made = RunnerFolder(tmp_path)
    yield made
    made.stop()
    made.cluster.close()


def test_a_command_runs_with_its_arguments_and_environment_at_low_priority(home: RunnerFolder) -> None:
    runner = home.start()
    uid = home.apply("one")["metadata"]["uid"]
    end = eventually(lambda: home.end("one"))
    (first, _) = home.notes("one")
    assert (end.succeeded, end.exit_code, first[1]) == (True, 0, "of-one")
    assert int(first[2]) >= 10
    assert runner.log_of(uid).read_text() == "output\n"
    status = home.job("one")["status"]
    assert status["succeeded"] == 1
    assert status["completionTime"] >= status["startTime"]


def test_a_failure_tells_its_exit_code_and_where_the_output_is(home: RunnerFolder) -> None:
    home.start()
    uid = home.apply("bad", code=3)["metadata"]["uid"]
    end = eventually(lambda: home.end("bad"))
    assert (end.succeeded, end.exit_code) == (False, 3)
    assert f"{uid}.log" in end.message
    assert home.job("bad")["status"]["failed"] == 1


def test_what_cannot_be_started_fails_with_the_reason(home: RunnerFolder) -> None:
    home.start()
    manifest = home.apply("absent")
    home.cluster.delete(JOB, Key("default", "absent"))
    manifest["spec"]["template"]["spec"]["containers"][0]["workingDir"] = "/nonexistent"
    home.cluster.create(JOB, manifest)
    end = eventually(lambda: home.end("absent"))
    assert (end.succeeded, "cannot start" in end.message) == (False, True)


def test_jobs_take_turns(home: RunnerFolder) -> None:
    home.apply("a", seconds=0.4)
    home.apply("b", seconds=0.4)
    home.start()
    eventually(lambda: home.end("a") and home.end("b"))
    times = sorted((float(line[3]), line[0] != "end") for name in "ab" for line in home.notes(name))
    assert [begins for _, begins in times] == [True, False, True, False]


def test_a_deleted_job_s_process_ends(home: RunnerFolder) -> None:
    home.start()
    home.apply("long", LONG)
    (line,) = eventually(lambda: home.notes("long"))
    # That it runs is written once it has begun.
    eventually(lambda: (home.job("long").get("status") or {}).get("active") == 1)
    home.cluster.delete(JOB, Key("default", "long"))
    eventually(lambda: not is_alive(int(line[0])))


def test_a_job_past_its_deadline_ends(home: RunnerFolder) -> None:
    home.start()
    uid = home.apply("late", LONG, activeDeadlineSeconds=1)["metadata"]["uid"]
    end = eventually(lambda: home.end("late"))
    assert end.reason == "DeadlineExceeded"
    # The command may be ended before it notes its process, but none lives without holding the lock.
    with (home.folder / "jobs" / f"{uid}.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert [line for line in home.notes("late") if line[0] == "end"] == []


def test_an_orderly_end_of_the_operator_ends_the_process_and_the_next_starts_it_again(home: RunnerFolder) -> None:
    home.start()
    home.apply("long", LONG)
    (line,) = eventually(lambda: home.notes("long"))
    home.stop()
    assert not is_alive(int(line[0]))
    assert home.end("long") is None
    home.start()
    eventually(lambda: len(home.notes("long")) == 2)


def test_after_sigkill_of_the_operator_the_command_is_started_again_and_never_twice_at_once(home: RunnerFolder) -> None:
    home.apply("long", LONG)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.job_runner_process", str(home.folder / "store"),
         str(home.folder / "jobs")],
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    try:
        (line,) = eventually(lambda: home.notes("long"))
    finally:
        process.kill()
        process.wait(10)
    home.start()
    eventually(lambda: len(home.notes("long")) == 2)
    assert not is_alive(int(line[0]))


def test_a_child_that_outlived_its_operator_is_ended_before_the_command_starts_again(home: RunnerFolder) -> None:
    uid = home.apply("long", LONG)["metadata"]["uid"]
    (home.folder / "jobs").mkdir()
    holder = "import fcntl, os, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); "
    holder += "f.write(str(os.getpid())); f.flush(); print('held', flush=True); time.sleep(60)"
    orphan = subprocess.Popen(
        [sys.executable, "-c", holder, str(home.folder / "jobs" / f"{uid}.lock")],
        start_new_session=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert orphan.stdout is not None
    assert orphan.stdout.readline() == b"held\n"
    home.start()
    assert orphan.wait(20) == -signal.SIGKILL
    orphan.stdout.close()
    (line,) = eventually(lambda: home.notes("long"))
    assert int(line[0]) != orphan.pid
    os.kill(int(line[0]), 0)
