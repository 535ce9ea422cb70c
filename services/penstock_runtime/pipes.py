"""The end of a child in a protocol of JSON lines: requests by standard input, answers by standard output.

`penstock_serving.replica.supervision` and `penstock_optimizer.measure.channel` hold the parent's end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Final

from pydantic import BaseModel

_CHUNK: Final = 65536


class ParentPipe:
    """Owns standard input and output, so that nothing else that prints can break the protocol."""

    def __init__(self) -> None:
        self._out = os.dup(1)
        # Libraries that print to standard output reach the log instead.
        sys.stdout.flush()
        os.dup2(2, 1)
        self.lines = _lines(0)
        """Until the parent closes its end; blocks."""

    def first_line(self) -> bytes:
        """The next line; blocks. Empty when standard input is closed already."""
        return next(self.lines, b"")

    def send(self, message: BaseModel) -> None:
        """Write a message. It is lost where the parent is gone, which standard input says, too."""
        rest = message.model_dump_json().encode() + b"\n"
        try:
            while rest:
                rest = rest[os.write(self._out, rest) :]
        except BrokenPipeError:
            return


def _lines(descriptor: int) -> Iterator[bytes]:
    """Lines without their ends. Reads the descriptor itself: a buffered file would hold a lock at exit."""
    rest = b""
    while chunk := os.read(descriptor, _CHUNK):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line.strip())
    if rest.strip():
        yield rest
