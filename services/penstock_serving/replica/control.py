"""The control pipe: commands in by standard input, events out by standard output."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from penstock_runtime.pipes import ParentPipe


class ControlPipe(ParentPipe):
    """The pipe to the supervisor, whose commands reach the event loop."""

    def start(self, on_line: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        """Read the commands on a thread of their own, and hand each to the event loop."""
        loop = asyncio.get_running_loop()

        def read() -> None:
            try:
                for line in self.lines:
                    loop.call_soon_threadsafe(on_line, line)
                loop.call_soon_threadsafe(on_end)
            except RuntimeError:
                return  # the loop has ended

        threading.Thread(target=read, name="control", daemon=True).start()
