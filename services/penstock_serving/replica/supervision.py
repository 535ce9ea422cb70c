"""Runs a replica server as a child process and speaks its control pipe. Knows no Ray."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import IO, Final, assert_never

from pydantic import ValidationError

from penstock.api.conditions import Reason
from penstock.errors import Unavailable
from penstock.routing.leases import ReplicaStats
from penstock.serving.arguments import FAILURE_MARKER, StartFailure
from penstock.serving.control import (
    EVENT,
    Drain,
    Drained,
    QueryStats,
    Ready,
    Reconfigure,
    ReplicaSettings,
    StartFailed,
    Stats,
)
from penstock_runtime.logs import RateLimitedLines, RateLimitFilter

log = logging.getLogger(__name__)
log.addFilter(RateLimitFilter())

SERVER: Final = (sys.executable, "-m", "penstock_serving.replica")
START_SECONDS: Final = 600.0
"""Loading and warming a model may take this long."""
_EXIT_SECONDS: Final = 5.0
_LAST_LINES_SECONDS: Final = 1.0
_LONGEST_LINE: Final = 8192


def _pass_on(lines: IO[str] | None) -> None:
    """Write what the server, and the libraries that it loads, write, within bounds: requests can make them repeat it."""
    if lines is None:
        return
    # Ray puts another object in the place of `sys.stderr`.
    bounded = RateLimitedLines(lambda line: os.write(2, line), time.monotonic())
    with contextlib.suppress(OSError, ValueError):
        while line := lines.buffer.readline(_LONGEST_LINE):  # type: ignore[attr-defined]  # it is a TextIOWrapper
            bounded.take(line, time.monotonic())


class ReplicaFailedError(Exception):
    """The replica server did not start. Its text carries a `StartFailure` through whoever reports it."""

    def __init__(self, failure: StartFailure) -> None:
        super().__init__(FAILURE_MARKER + failure.model_dump_json())
        self.failure = failure


class Supervisor:
    """One replica server process.

    It is started, read and waited for by one thread of its own, since a child that asks to die with its parent dies
    with the *thread* that made it.

    Args:
        settings: written to the child's standard input.
        died: called, in that thread, when the child ends without having been told to.
        command: what to run.
    """

    def __init__(self, settings: ReplicaSettings, died: Callable[[int], None], command: Sequence[str] = SERVER) -> None:
        self._settings = settings
        self._died = died
        self._command = list(command)
        self._started: queue.Queue[Ready | StartFailed] = queue.Queue()
        self._statistics: queue.SimpleQueue[Future[ReplicaStats]] = queue.SimpleQueue()
        self._writing = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._draining = False
        self._ended = threading.Event()
        self._ready = False
        self._thread = threading.Thread(target=self._supervise, name="replica-supervisor", daemon=True)

    def start(self, timeout: float = START_SECONDS) -> Ready:
        """Start the server and wait until it answers.

        Raises:
            ReplicaFailedError: it cannot start; it has ended.
        """
        self._thread.start()
        try:
            event = self._started.get(timeout=timeout)
        except queue.Empty:
            self.kill()
            event = StartFailed(reason=Reason.REPLICA_FAILED, message=f"The replica was not ready after {timeout:g} s.")
        if isinstance(event, StartFailed):
            self._ended.wait(_EXIT_SECONDS)
            self.kill()
            raise ReplicaFailedError(StartFailure(reason=event.reason, message=event.message, digest=event.digest))
        return event

    @property
    def alive(self) -> bool:
        """Whether the server answers, as far as is known here."""
        return self._ready and not self._ended.is_set()

    def reconfigure(self, command: Reconfigure) -> None:
        """Hand new settings on."""
        self._send(command)

    def statistics(self) -> Future[ReplicaStats]:
        """Ask what the server saw lately."""
        answer: Future[ReplicaStats] = Future()
        self._statistics.put(answer)
        self._send(QueryStats())
        return answer

    def drain(self, timeout: float) -> bool:
        """Tell the server to leave and wait until it has ended; after `timeout` seconds it is killed.

        Returns:
            Whether it ended by itself.
        """
        self._draining = True
        if not self._ended.is_set():
            with contextlib.suppress(Unavailable):  # it ended meanwhile
                self._send(Drain())
        ended = self._ended.wait(timeout)
        self.kill()
        return ended

    def kill(self) -> None:
        """End the server at once."""
        self._draining = True
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        self._ended.wait(_EXIT_SECONDS)

    def _send(self, command: Reconfigure | Drain | QueryStats) -> None:
        self._write(command.model_dump_json())

    def _write(self, line: str) -> None:
        stdin = self._process.stdin if self._process else None
        if stdin is None:
            raise Unavailable(Reason.REPLICA_FAILED, "the replica server is not running")
        with self._writing:
            try:
                stdin.write(line + "\n")
                stdin.flush()
            except (OSError, ValueError) as error:
                raise Unavailable(Reason.REPLICA_FAILED, f"the replica server's pipe is closed: {error}") from error

    def _supervise(self) -> None:
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                bufsize=1,
                errors="replace",
            )
        except OSError as error:
            self._ended.set()
            self._started.put(StartFailed(reason=Reason.REPLICA_FAILED, message=f"The server did not start: {error}"))
            return
        self._process = process
        # Ray lowers its workers' priority, which children inherit. Raising it again needs a privilege we may lack.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, 0)
        try:
            self._write(self._settings.model_dump_json())
        except Unavailable:
            log.warning("the replica server ended before it read its settings")
        passing = threading.Thread(target=_pass_on, args=(process.stderr,), name="replica-stderr", daemon=True)
        passing.start()
        if process.stdout is not None:
            self._read(process.stdout)
        status = process.wait()
        # What it wrote last says why it ended. A process of its own may hold the pipe for longer.
        passing.join(_LAST_LINES_SECONDS)
        self._ended.set()
        self._started.put(
            StartFailed(reason=Reason.REPLICA_FAILED, message=f"The replica server ended with status {status}.")
        )
        if self._ready and not self._draining:
            log.error("the replica server ended with status %d", status)
            self._died(status)

    def _read(self, events: IO[str]) -> None:
        for line in events:
            try:
                event = EVENT.validate_json(line)
            except ValidationError:
                log.warning("not an event of the replica server: %.200s", line.rstrip())
                continue
            match event:
                case Ready():
                    self._ready = True
                    self._started.put(event)
                case StartFailed():
                    self._started.put(event)
                case Stats():
                    self._answer(event.stats)
                case Drained():
                    log.info("the replica has drained")
                case _:
                    assert_never(event)

    def _answer(self, stats: ReplicaStats) -> None:
        """Answers come in the order of the questions."""
        try:
            answer = self._statistics.get_nowait()
        except queue.Empty:
            return
        if answer.set_running_or_notify_cancel():
            answer.set_result(stats)
