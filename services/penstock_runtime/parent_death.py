"""Ends a process with the one that started it, however that ends: Linux's parent-death signal, prctl(2).

A child of ours that is Python calls `end_with_parent`. Any other program is started through this file:

    python parent_death.py PARENT_PID SIGNAL PROGRAM [ARGUMENT...]

It is a program of its own since what it does must happen between fork and exec, where a process with threads can run no
Python safely. It needs only the standard library.

The kernel gives the signal when the *thread* ends that started the child: start it from one that stays. The signal outlives
exec, but no change of identity.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Have this process get a signal when its parent ends, and now if it has ended already.

    Args:
        parent: its process id, as it was when this process was started.
        number: of the signal.

    Raises:
        OSError: the kernel says no.
    """
    if sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        problem = ctypes.get_errno()
        raise OSError(problem, f"prctl: {os.strerror(problem)}")
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def command_that_ends_with_us(argv: Sequence[str]) -> list[str]:
    """What starts a program that gets SIGTERM when this process, its parent, ends."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(signal.SIGTERM)), *argv]


def main() -> None:
    """Take the place of this process."""
    parent, number, *argv = sys.argv[1:]
    end_with_parent(int(parent), int(number))
    os.execvp(argv[0], argv)  # noqa: S606  # no shell is what is wanted


if __name__ == "__main__":
    main()
