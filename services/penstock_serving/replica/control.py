"""The control pipe: commands in by standard input, events out by standard output."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Final

from penstock.models import Frozen

_CHUNK: Final = 65536


class ControlPipe:
    """Owns standard input and output, so that nothing else that prints can break the protocol."""

    def __init__(self) -> None:
        self._out = os.dup(1)
        # Libraries that print to standard output reach the log instead.
        sys.stdout.flush()
        os.dup2(2, 1)
        self._lines = _lines(0)

    def first_line(self) -> bytes:
        """The settings; blocks. Empty when standard input is closed already."""
        return next(self._lines, b"")

    def send(self, event: Frozen) -> None:
        """Write an event."""
        line = event.model_dump_json().encode() + b"\n"
        try:
            os.write(self._out, line)
        except BrokenPipeError:
            # The supervisor is gone; standard input says so too, and that is what ends the process.
            return

    def start(self, on_line: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        """Read the commands on a thread of their own, and hand each to the event loop."""
        loop = asyncio.get_running_loop()

        def read() -> None:
            try:
                for line in self._lines:
                    loop.call_soon_threadsafe(on_line, line)
                loop.call_soon_threadsafe(on_end)
            except RuntimeError:
                return  # the loop has ended

        threading.Thread(target=read, name="control", daemon=True).start()


def _lines(descriptor: int) -> Iterator[bytes]:
    """Lines without their ends. Reads the descriptor itself: a buffered file would hold a lock at exit."""
    rest = b""
    while chunk := os.read(descriptor, _CHUNK):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line.strip())
    if rest.strip():
        yield rest
