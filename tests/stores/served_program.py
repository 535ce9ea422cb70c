"""Runs a server program on a port of loopback, for as long as a block lasts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_START_SECONDS = 120


@contextmanager
def served(command: Sequence[str], port: int, log: Path) -> Iterator[None]:
    """The program, answering on its port."""
    # The kernel ends it with this process, also where that is killed.
    argv = ["setpriv", "--pdeathsig", "KILL", *command]
    with log.open("w") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output, start_new_session=True)
    try:
        _wait(process, port, log)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{process.args!r} did not start: {log.read_text()}") from None
            time.sleep(0.05)
        else:
            return
