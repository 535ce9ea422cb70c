"""Guarded programs: nothing of them stays, however they or whoever started them end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.errors import Conflict, Unavailable
from penstock_cli.standalone.child import Child, Program
from penstock_cli.standalone.ports import next_free_port
from penstock_cli.standalone.state import StateFolder, StateLock, is_locked

DEADLINE_SECONDS = 30.0

# Starts a grandchild in a session of its own that ignores SIGTERM, and writes both process ids.
STUBBORN = """
import os, signal, subprocess, sys, time
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
p = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
p.stdout.readline()
open(sys.argv[1] + ".tmp", "w").write(f"{os.getpid()} {p.pid}")
os.rename(sys.argv[1] + ".tmp", sys.argv[1])
if sys.argv[2] == "exit": sys.exit(3)
time.sleep(600)
"""


def program(tmp_path: Path, *argv: str, scratch: Path | None = None) -> Program:
    return Program(
        "It", [sys.executable, "-c", *argv], dict(os.environ), tmp_path / "it.log", grace_seconds=2.0, scratch=scratch
    )


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def pids(path: Path) -> list[int]:
    assert eventually(path.exists)
    return [int(text) for text in path.read_text().split()]


def test_stopping_ends_what_left_the_session_and_ignores_sigterm(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    child = Child(program(tmp_path, STUBBORN, str(tmp_path / "pids"), "stay", scratch=scratch))
    started = pids(tmp_path / "pids")
    assert all(map(alive, started))
    child.stop()
    assert not any(map(alive, started))
    assert not scratch.exists()


def test_what_a_program_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    child = Child(program(tmp_path, STUBBORN, str(tmp_path / "pids"), "exit"))
    started = pids(tmp_path / "pids")
    assert eventually(lambda: not child.running)
    assert not any(map(alive, started))
    with pytest.raises(Unavailable, match="status 3"):
        child.check()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["by SIGKILL", "by SIGTERM"])
def test_nothing_outlives_whoever_started_it(tmp_path: Path, number: signal.Signals) -> None:
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from penstock_cli.standalone.child import Child, Program\n"
        "argv = [sys.executable, '-c', *sys.argv[2:]]\n"
        "child = Child(Program('It', argv, dict(os.environ), Path(sys.argv[1]), 2.0))\n"
        "time.sleep(600)\n"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "log"), STUBBORN, str(tmp_path / "pids"), "stay"]
    with subprocess.Popen(argv) as starter:
        started = pids(tmp_path / "pids")
        starter.send_signal(number)
    assert eventually(lambda: not any(map(alive, started)))


def test_a_program_that_ends_early_is_told_with_its_last_lines(tmp_path: Path) -> None:
    child = Child(program(tmp_path, "print('no such turbine'); raise SystemExit(4)"))
    with pytest.raises(Unavailable) as caught:
        child.wait_until(lambda: False, DEADLINE_SECONDS)
    child.stop()
    assert "It ended with status 4" in caught.value.message
    assert "no such turbine" in caught.value.message
    assert str(tmp_path / "it.log") in caught.value.message


def test_a_program_that_is_not_ready_in_time_is_told(tmp_path: Path) -> None:
    child = Child(program(tmp_path, "import time; time.sleep(600)"))
    with pytest.raises(Unavailable, match="was not ready within 0 s"):
        child.wait_until(lambda: False, 0.2)
    child.stop()
    assert not child.running


def test_a_state_folder_has_one_user(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "state")
    folder.create()
    with StateLock(folder):
        assert is_locked(folder)
        with pytest.raises(Conflict, match="--state-dir"), StateLock(folder):
            pass
    assert not is_locked(folder)


def test_secrets_are_kept_and_private(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    first = folder.secret(folder.ray_token_file)
    assert len(first) == 64
    assert folder.secret(folder.ray_token_file) == first
    assert folder.ray_token_file.stat().st_mode & 0o777 == 0o600


def test_a_taken_port_gives_the_next() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert next_free_port(port) > port
