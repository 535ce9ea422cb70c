"""Programs of ours in a process each, forked from one whose imports are done: a start takes what the program does itself.

Importing takes most of a short program's start, and tests start some of them a hundred times. What runs is the program's
`main()`, with its arguments, environment and standard streams; what it imports it does not import anew.
`/proc/PID/environ` and `cmdline` are those of the process that it was forked from.

    python -m tests.preloaded MODULE       (with a socket as its standard input: one message a start)
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_LONGEST = 1 << 17


class Forked:
    """A program that was started, as far as tests use `subprocess.Popen`."""

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._status = open(status, "rb")  # noqa: SIM115  # closed once it was read

    def send_signal(self, number: int) -> None:
        """Send it a signal, where it has not ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status once it has ended, negative where a signal ended it.

        Raises:
            TimeoutExpired: it has not within so many seconds.
        """
        if self.returncode is None:
            if timeout is not None and not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            with self._status as file:
                self.returncode = int(file.readline())
        return self.returncode


def start(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    streams: tuple[int, int, int] | None = None,
    imported_with: tuple[tuple[str, str], ...] = (),
) -> Forked:
    """Start a module's `main()`.

    Args:
        module: that has it.
        arguments: the command line's.
        environment: all of it.
        streams: its standard input, output and errors; else it has no input, and its output goes where this process's goes.
        imported_with: what the environment has, besides this process's, where its imports are done.
    """
    told, tell = os.pipe()
    message = json.dumps({"arguments": list(arguments), "environment": dict(environment)}).encode()
    # The keeper of the program has the end of the pipe: it says the process's id, and its status once that has ended.
    with Path(os.devnull).open("rb") as nothing:
        socket.send_fds(_server(module, imported_with), [message], [*(streams or (nothing.fileno(), 1, 2)), tell])
    os.close(tell)
    pid = b""
    while not pid.endswith(b"\n"):
        part = os.read(told, 1)
        if not part:
            raise ChildProcessError(f"{module} could not be started")
        pid += part
    return Forked(int(pid), told)


@cache
def _server(module: str, environment: tuple[tuple[str, str], ...]) -> socket.socket:
    """The process with the module's imports; it ends when this one does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", "tests.preloaded", module]
        subprocess.Popen(command, stdin=theirs, cwd=_ROOT, env=os.environ | dict(environment))
    return ours


def _next_program() -> bool:
    """Fork whenever it is asked for. Returns True in a program's process, and False once nobody can ask any more."""
    # Keepers are nobody's to wait for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    asked = socket.socket(fileno=0)
    while True:
        message, given, _, _ = socket.recv_fds(asked, _LONGEST, 4)
        if not message:
            return False
        if os.fork() == 0:
            break
        for each in given:
            os.close(each)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *streams, tell = given
    pid = os.fork()
    if pid:
        _keep(pid, tell, *streams)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, max(given) + 1)
    asked.detach()
    program = json.loads(message)
    os.environ.clear()
    os.environ.update(program["environment"])
    sys.argv[1:] = program["arguments"]
    return True


def _keep(pid: int, tell: int, *others: int) -> None:
    """Say a program's process id, wait for its end, say its status, and end."""
    for each in (0, *others):
        os.close(each)
    os.write(tell, b"%d\n" % pid)
    _, status = os.waitpid(pid, 0)
    os.write(tell, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _main() -> int:
    module = importlib.import_module(sys.argv[1])
    gc.freeze()
    if not _next_program():
        return 0
    status: int = module.main()
    return status


if __name__ == "__main__":
    sys.exit(_main())
