"""What code of a model can do in the sandbox, tried with a module that tries it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from penstock_optimizer import sandbox
from penstock_optimizer.measure.channel import Channel


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "sandbox_probe.py"


def run(probe: Path, code: str, *, isolated: bool = True, timeout: float = 30.0) -> sandbox.Ended:
    probe.write_text(textwrap.dedent(code))
    return sandbox.run_module("sandbox_probe", "a request", home=probe.parent, isolated=isolated, timeout=timeout)


def test_it_reads_its_request_and_ends_well(probe: Path) -> None:
    ended = run(probe, "import sys; assert sys.stdin.read() == 'a request'")
    assert ended.status == 0, ended.reason


def test_it_cannot_reach_a_server_of_its_parent(probe: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), timeout=5)"
        assert "unreachable" in run(probe, code).reason
        assert run(probe, code, isolated=False).status == 0, "the server answers outside the sandbox"


def test_it_sees_no_secret_in_its_environment_nor_in_its_parents(probe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_SECRET_KEY", "hunter2")
    own = run(probe, "import os; raise SystemExit('hunter2' in str(os.environ))")
    assert own.status == 0
    others = run(probe, f"open('/proc/{os.getpid()}/environ').read()")
    assert "Permission denied" in others.reason


def test_a_process_that_measures_answers_in_the_sandbox_and_ends_with_its_channel(
    probe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUD_SECRET_KEY", "hunter2")
    key = tmp_path / "signing-key.pem"
    key.write_text("secret")
    probe.write_text(
        "import os, socket\n"
        "from pydantic import RootModel\n"
        "from penstock_optimizer.measure.channel import serve_lines\n"
        "pipe = serve_lines()\n"
        "for line in pipe.lines:\n"
        "    try: socket.create_connection(('127.0.0.1', int(line)), timeout=5)\n"
        "    except OSError as error: said = error.strerror\n"
        "    else: said = 'connected'\n"
        f"    secret = open({str(key)!r}).read() + os.environ.get('CLOUD_SECRET_KEY', '')\n"
        "    pipe.send(RootModel[str](f'{said}; {secret!r}'))\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        with Channel("sandbox_probe", isolated=True, hidden=[key]) as channel:
            for _ in range(2):
                channel.tell(port)
                assert json.loads(channel.hear(60)) == "Network is unreachable; ''"
        with Channel("sandbox_probe", isolated=False, hidden=[key]) as channel:
            channel.tell(port)
            assert json.loads(channel.hear(60)) == "connected; 'secret'", (
                "where all of it is isolated, the environment is kept back"
            )
        with Channel("sandbox_probe") as channel:
            channel.tell(port)
            assert json.loads(channel.hear(60)) == "connected; 'secrethunter2'", (
                "outside the sandbox it would see all of it"
            )


def test_it_sees_hidden_folders_empty_and_cannot_unhide_them(probe: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "private.pem").write_text("secret")
    probe.write_text(
        f"import ctypes, os\nctypes.CDLL(None).umount2({str(keys)!r}.encode(), 0)\nassert not os.listdir({str(keys)!r})"
    )
    ended = sandbox.run_module("sandbox_probe", "", home=tmp_path, isolated=True, timeout=30, hidden=[keys])
    assert ended.status == 0, ended.reason


def test_it_reads_nothing_in_a_hidden_file(probe: Path, tmp_path: Path) -> None:
    key = tmp_path / "signing-key.pem"
    key.write_text("secret")
    probe.write_text(f"assert open({str(key)!r}).read() == ''")
    ended = sandbox.run_module("sandbox_probe", "", home=tmp_path, isolated=True, timeout=30, hidden=[key])
    assert ended.status == 0, ended.reason
    assert key.read_text() == "secret"


def test_a_crash_is_told_by_its_signal(probe: Path) -> None:
    assert "SIGSEGV" in run(probe, "import ctypes; ctypes.string_at(0)").reason


def test_an_error_is_told_by_its_last_line(probe: Path) -> None:
    assert "status 1: ValueError: no such thing" in run(probe, "raise ValueError('no such thing')").reason


def test_it_is_killed_with_all_that_it_started_when_time_is_up(probe: Path, tmp_path: Path) -> None:
    code = """
        import os, time
        if os.fork() == 0:
            os.setsid()
        while True:
            open("alive", "a").write("x")
            time.sleep(0.01)
    """
    # On a busy machine it may not have begun by then.
    for seconds in (1.0, 5.0, 25.0):
        assert run(probe, code, timeout=seconds).timed_out
        if (tmp_path / "alive").exists():
            break
    _stays_the_same(tmp_path / "alive")


def test_it_dies_with_its_parent(probe: Path, tmp_path: Path) -> None:
    probe.write_text("import time\nwhile True:\n    open('alive', 'a').write('x')\n    time.sleep(0.01)\n")
    code = (
        "import pathlib; from penstock_optimizer import sandbox\n"
        f"sandbox.run_module('sandbox_probe', '', home=pathlib.Path({str(tmp_path)!r}), isolated=True, timeout=60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "alive").exists():
            assert time.monotonic() < deadline, "the child did not start"
            time.sleep(0.02)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    _stays_the_same(tmp_path / "alive")


def _stays_the_same(file: Path) -> None:
    """Within a deadline, nothing writes to it for a while."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        before = file.stat().st_size
        time.sleep(0.3)
        if file.stat().st_size == before:
            return
    pytest.fail(f"{file} still grows")
