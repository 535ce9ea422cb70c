"""Runs one program and outlives it: when the program ends, or whoever asked for it is gone, nothing of it stays.

    python guard.py GRACE_SECONDS FOLDER_TO_REMOVE_OR_EMPTY PROGRAM [ARGUMENT...]

It is a program of its own and needs only the standard library, so that it starts in milliseconds and costs little.
Its standard input is a pipe that the command line holds open: when that closes, even by SIGKILL, the guard stops the
program. On Linux it adopts orphans (PR_SET_CHILD_SUBREAPER), so that it finds processes that left their session, as
some of Ray's do.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LINUX = sys.platform == "linux"
_SECOND_GRACE_SECONDS = 3.0
_POLL_SECONDS = 0.05


def descendants(root: int) -> list[int]:
    """Process ids of all below `root`, from `/proc`. Empty where there is no `/proc`."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir() if Path("/proc/self/stat").exists() else ():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
    found: list[int] = []
    layer = [root]
    while layer:
        layer = [pid for pid, parent in parents.items() if parent in layer]
        found.extend(layer)
    return found


class Guard:
    """One program under guard."""

    def __init__(self, argv: list[str], grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._stop = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, self._on_signal)
        if _LINUX:
            _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        # This process has one thread, so that code between fork and exec is safe.
        self._child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_parent if _LINUX else None,  # noqa: PLW1509 (see above)
        )

    def run(self) -> int:
        """Wait until the program ends or the guard is to stop it; returns the program's exit status."""
        watched = [sys.stdin.fileno(), self._wake_read]
        while not self._stop and self._child.poll() is None:
            ready, _, _ = select.select(watched, [], [], 5.0)
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
                self._reap_adopted()
            if watched[0] in ready and watched[0] != self._wake_read and not os.read(watched[0], 4096):
                self._stop = True
        self._end()
        code = self._child.returncode
        return 128 - code if code < 0 else code

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._stop = True

    def _end(self) -> None:
        """Ask the program; then all that is left; then leave no choice."""
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
            self._wait_until_gone(self._grace_seconds, only_child=True)
        for number, seconds in ((signal.SIGTERM, _SECOND_GRACE_SECONDS), (signal.SIGKILL, _SECOND_GRACE_SECONDS)):
            left = self._find_survivors()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            if left:
                self._wait_until_gone(seconds, only_child=False)
        self._child.wait()

    def _find_survivors(self) -> list[int]:
        self._child.poll()
        self._reap_adopted()
        if _LINUX:
            return descendants(os.getpid())
        return [] if self._child.returncode is not None else [self._child.pid]

    def _wait_until_gone(self, seconds: float, *, only_child: bool) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._child.poll() is not None and (only_child or not self._find_survivors()):
                return
            time.sleep(_POLL_SECONDS)

    def _reap_adopted(self) -> None:
        """Collect orphans that have ended. The program itself is left to `poll`, which keeps its exit status."""
        while _LINUX:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            if ended.si_pid == self._child.pid:
                if self._child.poll() is None:
                    return
            else:
                os.waitpid(ended.si_pid, 0)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def main() -> int:
    """Guard the program on the command line."""
    grace_seconds, folder, *argv = sys.argv[1:]
    try:
        return Guard(argv, float(grace_seconds)).run()
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
