"""What one exchange with a server that somebody else runs may take, and what is left of it.

A timeout for each read is no bound: a server that sends one byte every few seconds never meets it. Here the deadline and
the count of bytes are the thread's, so that they hold for the name's lookup, the handshake, headers and body alike.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

_HEADER_BYTES: Final = 64 * 1024
"""Beside the body: what status line, headers and the chunks' frames may take."""
_FRAMES: Final = 2
"""Bytes on the wire for each of a body: a server may send it in small chunks, each with a frame."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one exchange may take."""

    seconds: float
    """From the lookup of the name to the last byte of the answer."""
    most_bytes: int
    """Of the answer's body."""
    connect_seconds: float = 3.0
    """To connect to one of the name's addresses."""


@dataclass(slots=True)
class Allowance:
    """What is left to an exchange."""

    ends: float
    bytes_left: int = 0

    def seconds(self, timeout: float | None, late: type[Exception]) -> float:
        """Seconds that the next step may take. Raises `late` where there are none."""
        left = self.ends - time.monotonic()
        if left <= 0:
            raise late("timed out")
        return left if timeout is None else min(left, timeout)

    def receive(self, length: int, excess: type[Exception]) -> None:
        """So many bytes have come. Raises `excess` where they are too many."""
        self.bytes_left -= length
        if self.bytes_left < 0:
            raise excess("the answer is longer than was to be expected")


_exchange: ContextVar[Allowance | None] = ContextVar("exchange", default=None)


@contextmanager
def enforce(bounds: Bounds) -> Iterator[None]:
    """All that this thread sends and receives meanwhile is within these bounds."""
    most = _HEADER_BYTES + _FRAMES * bounds.most_bytes
    token = _exchange.set(Allowance(time.monotonic() + bounds.seconds, most))
    try:
        yield
    finally:
        _exchange.reset(token)


def present_allowance() -> Allowance | None:
    """The exchange of this thread; None: nothing bounds it."""
    return _exchange.get()


def seconds_left(timeout: float | None, late: type[Exception]) -> float | None:
    """Seconds that the next step of this thread's exchange may take; None: any. Raises `late` where there are none."""
    exchange = _exchange.get()
    return timeout if exchange is None else exchange.seconds(timeout, late)
