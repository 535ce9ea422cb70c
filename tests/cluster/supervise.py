"""Keeps processes running, as a service manager would, and reaps orphans."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.cluster.configuration import Component

_RESTART_SECONDS = 1.0


class Supervisor:
    """Starts components, and starts each again when it ends.

    Args:
        logs: a folder for one log a component.
        prefix: before each log's name.
    """

    def __init__(self, logs: Path, prefix: str = "") -> None:
        self._logs = logs
        self._prefix = prefix
        self._running: dict[int, Component] = {}

    def start(self, *components: Component) -> None:
        """Start components, each in a session of its own."""
        for component in components:
            with (self._logs / f"{self._prefix}{component.name}.log").open("ab") as log:
                process = subprocess.Popen(
                    component.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            process.returncode = 0  # reaped by `run`, with everybody else's orphans
            self._running[process.pid] = component

    def kill(self, name: str) -> None:
        """SIGKILL a component; `run` starts it again."""
        for pid, component in self._running.items():
            if component.name == name:
                os.kill(pid, 9)

    def run(self) -> None:
        """Reap whatever ends, and start components again; forever."""
        while True:
            try:
                pid, status = os.wait()
            except ChildProcessError:
                time.sleep(_RESTART_SECONDS)
                continue
            component = self._running.pop(pid, None)
            if component is not None:
                code = os.waitstatus_to_exitcode(status)
                print(f"{self._prefix}{component.name} ended with {code}; starting it again", flush=True)
                time.sleep(_RESTART_SECONDS)
                self.start(component)


def until(what: str, condition: list[str], seconds: float = 120.0) -> None:
    """Run a command until it succeeds.

    Raises:
        TimeoutError: it did not within the time; its last words are in the message.
    """
    deadline = time.monotonic() + seconds
    while True:
        done = subprocess.run(condition, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode == 0:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s: {done.stdout}{done.stderr}")
        time.sleep(0.2)


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs a module of this checkout."""
    return (sys.executable, "-m", module, *arguments)
