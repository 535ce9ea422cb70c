"""Guarded programs: nothing of them stays, however they or whoever started them end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.ports import free_port
from tests.telling import assert_tells, telling
from tests.waiting import eventually, is_alive

from penstock.errors import Conflict, Unavailable
from penstock_cli.standalone import gateway, operator, ray_head
from penstock_cli.standalone.child import Child, ChildProgram
from penstock_cli.standalone.ports import free_ports, next_free_port
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


def program(tmp_path: Path, *argv: str, scratch: Path | None = None) -> ChildProgram:
    return ChildProgram(
        "It", [sys.executable, "-c", *argv], dict(os.environ), tmp_path / "it.log", grace_seconds=2.0, scratch=scratch
    )


def pids(path: Path) -> list[int]:
    assert eventually(path.exists)
    return [int(text) for text in path.read_text().split()]


def test_stopping_ends_what_left_the_session_and_ignores_sigterm(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    child = Child(program(tmp_path, STUBBORN, str(tmp_path / "pids"), "stay", scratch=scratch))
    started = pids(tmp_path / "pids")
    assert all(map(is_alive, started))
    child.stop()
    assert not any(map(is_alive, started))
    assert not scratch.exists()


def test_what_a_program_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    child = Child(program(tmp_path, STUBBORN, str(tmp_path / "pids"), "exit"))
    started = pids(tmp_path / "pids")
    assert eventually(lambda: not child.running)
    assert not any(map(is_alive, started))
    with pytest.raises(Unavailable, match="status 3"):
        child.check()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["by SIGKILL", "by SIGTERM"])
def test_nothing_outlives_whoever_started_it(tmp_path: Path, number: signal.Signals) -> None:
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from penstock_cli.standalone.child import Child, ChildProgram\n"
        "argv = [sys.executable, '-c', *sys.argv[2:]]\n"
        "child = Child(ChildProgram('It', argv, dict(os.environ), Path(sys.argv[1]), 2.0))\n"
        "time.sleep(600)\n"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "log"), STUBBORN, str(tmp_path / "pids"), "stay"]
    with subprocess.Popen(argv) as starter:
        started = pids(tmp_path / "pids")
        starter.send_signal(number)
    assert eventually(lambda: not any(map(is_alive, started)))


def test_a_program_that_ends_early_is_told_with_its_last_lines(tmp_path: Path) -> None:
    child = Child(program(tmp_path, "print('no such turbine'); raise SystemExit(4)"))
    with pytest.raises(Unavailable) as caught:
        child.wait_until(lambda: False, DEADLINE_SECONDS)
    child.stop()
    assert_tells(caught.value.message, "It 4 no such turbine", str(tmp_path / "it.log"))


def test_a_program_that_is_not_ready_in_time_is_told(tmp_path: Path) -> None:
    child = Child(program(tmp_path, "import time; time.sleep(600)"))
    with pytest.raises(Unavailable, match=telling("It not ready 0 s")):
        child.wait_until(lambda: False, 0.2)
    child.stop()
    assert not child.running


# Listens on its first argument's port, or fails.
LISTENER = """
import socket, sys, time
with socket.create_server(("127.0.0.1", int(sys.argv[1]))):
    time.sleep(600)
"""


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def test_a_program_whose_port_was_taken_meanwhile_gets_another(tmp_path: Path) -> None:
    free = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        child = Child(program(tmp_path, LISTENER, str(taken.getsockname()[1])))
        child.wait_started(
            lambda: listens(free), DEADLINE_SECONDS, lambda: program(tmp_path, LISTENER, str(free))
        )  # fmt: skip
        assert child.running
        child.stop()
        assert not child.running


def test_a_program_that_always_ends_is_told_after_three_starts(tmp_path: Path) -> None:
    starts: list[ChildProgram] = []

    def anew() -> ChildProgram:
        starts.append(program(tmp_path, "print('no such turbine'); raise SystemExit(4)"))
        return starts[-1]

    child = Child(anew())
    with pytest.raises(Unavailable, match="no such turbine"):
        child.wait_started(lambda: False, DEADLINE_SECONDS, anew)
    assert len(starts) == 3


def test_the_answer_of_another_program_is_not_taken_for_ones_own(tmp_path: Path) -> None:
    child = Child(program(tmp_path, "raise SystemExit(1)"))
    assert eventually(lambda: not child.running)
    starts: list[ChildProgram] = []

    def anew() -> ChildProgram:
        starts.append(program(tmp_path, "import time; time.sleep(600)"))
        return starts[-1]

    child.wait_started(lambda: True, DEADLINE_SECONDS, anew)
    assert len(starts) == 1
    child.stop()


@pytest.mark.parametrize("part", ["Ray", "the gateway", "the operator"])
def test_each_part_is_given_other_ports_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    state = StateFolder(tmp_path)
    state.create()
    started: list[ChildProgram] = []

    class Ended:
        def __init__(self, program: ChildProgram) -> None:
            started.append(program)

        def wait_started(self, _ready: object, _seconds: float, anew: Callable[[], ChildProgram]) -> None:
            started.extend(anew() for _ in range(3))

    module, make = {
        "Ray": (ray_head, lambda: ray_head.RayHead(state, {})),
        "the gateway": (gateway, lambda: gateway.GatewayProcess(state, {}, free_port())),
        "the operator": (operator, lambda: operator.OperatorProcess(state, {}, "http://127.0.0.1:1", tmp_path)),
    }[part]
    monkeypatch.setattr(module, "Child", Ended)
    make().wait_ready()
    ports = [frozenset(re.findall(r"\b\d{5}\b", " ".join(each.argv))) for each in started]
    # Chosen at random among some ten thousand: one start or another may get those of the one before.
    assert len(set(ports)) > 1
    # A gateway's clients know its port: it stays where it is free.
    assert part != "the gateway" or frozenset.intersection(*ports)
    for each in started:
        if each.scratch is not None:
            each.scratch.rmdir()


def test_a_gateways_port_that_was_taken_meanwhile_gives_the_next(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    state.create()
    wanted = free_port()
    made = gateway.GatewayProcess(state, dict(os.environ), wanted)
    made.child.stop()
    with socket.create_server(("127.0.0.1", wanted)):
        made.wait_ready()
        try:
            assert made.port > wanted
            assert made.child.running
        finally:
            made.child.stop()


def test_free_ports_differ_and_are_none_that_connections_get() -> None:
    found = free_ports(20)
    assert len(set(found)) == 20
    kernels = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if kernels.exists() and int(kernels.read_text().split()[0]) > 21_000:
        assert max(found) < int(kernels.read_text().split()[0])


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
