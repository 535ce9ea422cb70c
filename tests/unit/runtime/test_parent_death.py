"""Processes that end with the one that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock_runtime.parent_death import command_that_ends_with_us

OURS = "import os, time; from penstock_runtime.parent_death import end_with_parent; end_with_parent(os.getppid()); "
THEIRS = (
    "import os, subprocess, sys; from penstock_runtime.parent_death import command_that_ends_with_us as bound;"
    "subprocess.Popen(bound([sys.executable, '-c', sys.argv[1]])); sys.stdin.read(1); os.kill(os.getpid(), 9)"
)
OWN = "import os, subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]]); sys.stdin.read(1); os.kill(os.getpid(), 9)"


@pytest.mark.parametrize(
    ("parent", "prelude"),
    [pytest.param(THEIRS, "import time;", id="a program of others"), pytest.param(OWN, OURS, id="a child of ours")],
)
def test_a_child_ends_when_its_parent_is_killed(parent: str, prelude: str) -> None:
    child = f"{prelude} print('up', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", parent, child], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.stdin.write(b"x")
    process.stdin.close()
    # The child holds the pipe until it is gone.
    assert process.stdout.read() == b""
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL


def test_a_child_whose_parent_went_before_it_could_ask_ends_at_once() -> None:
    command = command_that_ends_with_us([sys.executable, "-c", "print('ran')"])
    stranger = [str(os.getppid()) if each == str(os.getpid()) else each for each in command]
    ended = subprocess.run(stranger, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, b"")


def test_a_program_gets_its_arguments_and_keeps_its_process(tmp_path: Path) -> None:
    code = f"import os, sys; open({str(tmp_path / 'pid')!r}, 'w').write(f'{{os.getpid()}} {{sys.argv[1]}}')"
    process = subprocess.Popen(command_that_ends_with_us([sys.executable, "-c", code, "word"]))
    assert process.wait() == 0
    assert (tmp_path / "pid").read_text() == f"{process.pid} word"
