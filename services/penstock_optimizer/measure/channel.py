"""A child process that answers lines with lines, within a time, and does not outlive its parent."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self, TypeVar

from pydantic import BaseModel

from penstock_optimizer.sandbox import environment as sandboxed
from penstock_optimizer.sandbox import require_sandbox, sandbox_command
from penstock_runtime.parent_death import end_with_parent
from penstock_runtime.pipes import ParentPipe

A = TypeVar("A", bound=BaseModel)

_PATIENCE_SECONDS: Final = 5.0
_TAIL_BYTES: Final = 2000
_THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class ChildGone(Exception):
    """The child ended, or did not answer in time; the message says which, with the end of what it wrote to stderr."""


class Channel:
    """One child, in a process group of its own. Used as a context manager, at whose end it is gone.

    The kernel kills the child when the thread that started it ends: start and use it in the same one.

    Args:
        module: what the child is.
        threads: for libraries that read OMP_NUM_THREADS.
        isolated: whether it runs in the sandbox, as what opens a model must that is code. None: it opens none. False: the user
            says that a sandbox is around all of this; even so it gets none of this process's environment but what it needs.
        hidden: files that it must not see there.

    Raises:
        Invalid: SandboxUnavailable.
    """

    def __init__(
        self,
        module: str,
        threads: int = 1,
        *,
        isolated: bool | None = None,
        hidden: Sequence[Path] = (),
    ) -> None:
        if isolated:
            require_sandbox()
        self._home = tempfile.TemporaryDirectory(prefix="penstock-child-") if isolated is not None else None
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by `close`
        self._buffer = bytearray()
        variables = dict.fromkeys(_THREAD_VARIABLES, str(threads))
        base: Mapping[str, str] = os.environ
        command = [sys.executable, "-m", module]
        if self._home is not None:
            base = sandboxed(Path(self._home.name), threads, hidden)
            command = sandbox_command(module, isolated=bool(isolated))
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**base, **variables},
            cwd=self._home.name if self._home is not None else None,
            process_group=0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._process.pid

    def tell(self, line: str) -> None:
        """Send a line.

        Raises:
            ChildGone: nobody reads it any more.
        """
        assert self._process.stdin is not None  # noqa: S101 -- it was asked to be a pipe
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise ChildGone(self._ending()) from error

    def hear(self, timeout: float) -> bytes:
        """The next line.

        Raises:
            ChildGone: it ended, or said nothing for so many seconds.
        """
        assert self._process.stdout is not None  # noqa: S101 -- it was asked to be a pipe
        deadline = time.monotonic() + timeout
        pipe = self._process.stdout.fileno()
        poller = select.poll()
        poller.register(pipe, select.POLLIN)
        while (end := self._buffer.find(b"\n")) < 0:
            left = deadline - time.monotonic()
            if left <= 0 or not poller.poll(left * 1000):
                raise ChildGone(f"it did not answer within {timeout:.0f} s{self._tail()}")
            chunk = os.read(pipe, 1 << 16)
            if not chunk:
                raise ChildGone(self._ending())
            self._buffer += chunk
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def close(self) -> None:
        """End the child and all that it started: politely by closing its input, then by force."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what is left in a buffer for a child that has gone is lost
                    pipe.close()
        try:
            self._process.wait(_PATIENCE_SECONDS if self._process.poll() is None else 0)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(_PATIENCE_SECONDS)
        self._stderr.close()
        if self._home is not None:
            self._home.cleanup()

    def _ending(self) -> str:
        try:
            status = self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            return f"it closed its output and runs on{self._tail()}"
        if status < 0:
            return f"it was killed by {signal.Signals(-status).name}{self._tail()}"
        return f"it ended with status {status}{self._tail()}"

    def _tail(self) -> str:
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _TAIL_BYTES))
        text = self._stderr.read().decode(errors="replace").strip()
        self._stderr.seek(0, os.SEEK_END)
        return f": {text}" if text else ""


def ask_once(
    module: str,
    request: BaseModel,
    answer: type[A],
    timeout: float,
    threads: int,
    *,
    isolated: bool | None,
    hidden: Sequence[Path],
) -> A:
    """Have a child that calls `answer_one_request` answer one request. See `Channel` for the arguments; the timeout is in seconds.

    Raises:
        Invalid: SandboxUnavailable.
        ChildGone: there is no answer.
    """
    with Channel(module, threads, isolated=isolated, hidden=hidden) as channel:
        channel.tell(request.model_dump_json())
        return answer.model_validate_json(channel.hear(timeout))


def serve_lines() -> ParentPipe:
    """In the child: end with the parent, and keep the answers' pipe clear of what libraries print."""
    end_with_parent(os.getppid())
    return ParentPipe()
