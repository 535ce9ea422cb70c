"""Becomes another program, after it has made sure that this one cannot be left behind or run twice.

    python launch.py PARENT_PID LOCK_DESCRIPTOR NICENESS PROGRAM [ARGUMENT...]

It is a program of its own since what it does must happen between fork and exec, where a process with threads can run no
Python safely. It needs only the standard library. The lock's descriptor stays open in the program: the kernel gives the
lock back when the program, however it ends, is gone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Take the place of this process."""
    parent, lock, niceness, *argv = sys.argv[1:]
    if sys.platform == "linux":
        # Survives exec: the program ends with the operator's thread that started it.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(128 + signal.SIGTERM)  # the operator went before its death could be told
    os.nice(int(niceness))
    os.ftruncate(int(lock), 0)
    os.pwrite(int(lock), str(os.getpid()).encode(), 0)
    os.execvp(argv[0], argv)  # noqa: S606  # no shell is what is wanted


if __name__ == "__main__":
    main()
