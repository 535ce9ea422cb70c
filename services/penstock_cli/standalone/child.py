"""A program that the stack starts: guarded, with its output in a log file."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from penstock.errors import Unavailable

_GUARD = Path(__file__).with_name("guard.py")
_POLL_SECONDS = 0.1
_LAST_LINES = 12
_STARTS = 3
_ENDED = "ComponentEnded"


@dataclass(frozen=True, slots=True)
class ChildProgram:
    """What to start."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    grace_seconds: float = 10.0
    """How long it may take to end when asked, before it is killed."""
    scratch: Path | None = None
    """A folder that goes when the program has ended."""


class Child:
    """A started program. Whatever becomes of this process, the program ends with it."""

    def __init__(self, program: ChildProgram) -> None:
        self._start(program)

    def _start(self, program: ChildProgram) -> None:
        self._program = program
        program.log.parent.mkdir(parents=True, exist_ok=True)
        with program.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-I", "-S", str(_GUARD), str(program.grace_seconds), str(program.scratch or ""),
                    *program.argv,
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(program.environment),
                start_new_session=True,
            )  # fmt: skip

    @property
    def running(self) -> bool:
        """Whether the program has not ended."""
        return self._process.poll() is None

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Poll until `ready()`.

        Raises:
            Unavailable: the program ended first, or the time is up; the message has its last lines of output.
        """
        deadline = monotonic() + seconds
        while not ready():
            self._check_running()
            if monotonic() > deadline:
                raise Unavailable("ComponentNotReady", self.describe(f"was not ready within {seconds:.0f} s"))
            sleep(_POLL_SECONDS)

    def wait_started(self, ready: Callable[[], bool], seconds: float, anew: Callable[[], ChildProgram]) -> None:
        """Poll until `ready()` while the program runs. If it ends before, start it anew, twice at most.

        A port that was free when it was chosen may be another's when the program binds it; then another's server may
        answer in its place, so an answer counts only while the program runs.

        Args:
            ready: whether it answers.
            seconds: how long each start may take.
            anew: what to start, with ports that are chosen anew.

        Raises:
            Unavailable: it ended each time, or the time is up; the message has its last lines of output.
        """
        for start in range(1, _STARTS + 1):
            try:
                self.wait_until(ready, seconds)
                self._check_running()
            except Unavailable as error:
                if error.reason != _ENDED or start == _STARTS:
                    raise
                self.stop()
                self._start(anew())
            else:
                return

    def _check_running(self) -> None:
        if not self.running:
            raise Unavailable(_ENDED, self.describe(f"ended with status {self._process.returncode}"))

    def wait(self, seconds: float) -> None:
        """Wait until the program has ended by itself.

        Raises:
            Unavailable: it failed, or the time is up.
        """
        self.wait_until(lambda: self._process.poll() == 0, seconds)

    def check(self) -> None:
        """Raise if the program has failed.

        Raises:
            Unavailable: it ended with a status other than 0.
        """
        if self._process.poll():
            raise Unavailable(_ENDED, self.describe(f"ended with status {self._process.returncode}"))

    def describe(self, what_happened: str) -> str:
        """A message for people, with the end of the program's output and where the rest is."""
        tail = last_lines(self._program.log)
        said = f" Its last lines:\n{tail}" if tail else ""
        return f"{self._program.name} {what_happened}. Its log: {self._program.log}.{said}"

    def begin_stop(self) -> None:
        """Ask the program to end; returns at once."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self.running:
            self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """End the program and everything that it started, and wait for that."""
        self.begin_stop()
        try:
            # The guard's own deadlines end it well before this one.
            self._process.wait(self._program.grace_seconds + 15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def last_lines(path: Path) -> str:
    """The end of a log file, indented; empty where there is none."""
    if not path.is_file():
        return ""
    lines = path.read_bytes()[-64 * 1024 :].decode(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-_LAST_LINES:])
