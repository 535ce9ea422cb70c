"""Bounds on what is logged: whoever asks for answers, or declares objects, decides how often a sentence is due.

Each place in the code that logs may write so many lines at once and so many a second after that. What is left out is counted,
and told with the next line of that place that is written.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

BURST: Final = 60
PER_SECOND: Final = 1.0
_KINDS: Final = 256
_LINE_BURST: Final = 30
_LINES_PER_SECOND: Final = 0.2
_BYTES: Final = 1 << 20
_BYTES_PER_SECOND: Final = 4096.0
_VARYING: Final = re.compile(rb"0x[0-9a-fA-F]+|[0-9]+")
_KIND_BYTES: Final = 120


class TokenBucket:
    """So much at once, and so much a second after that."""

    def __init__(self, burst: float, per_second: float, now: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._left = burst
        self._at = now
        self._withheld = 0

    def take(self, now: float, amount: float = 1.0) -> int | None:
        """Ask to write something.

        Args:
            now: seconds of a monotonic clock.
            amount: of it.

        Returns:
            How often it was refused since it was last granted; None: it is refused.
        """
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < amount:
            self._withheld += 1
            return None
        self._left -= amount
        withheld, self._withheld = self._withheld, 0
        return withheld


class RateLimitFilter(logging.Filter):
    """For a handler: lets each place in the code that logs write within its allowance. There are only so many places.

    Args:
        burst: lines at once.
        per_second: lines after that.
        clock: monotonic.
    """

    def __init__(
        self, burst: float = BURST, per_second: float = PER_SECOND, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._burst = burst
        self._per_second = per_second
        self._clock = clock
        self._places: dict[tuple[str, int], TokenBucket] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        with self._lock:
            now = self._clock()
            place = record.pathname, record.lineno
            allowance = self._places.get(place)
            if allowance is None:
                allowance = self._places[place] = TokenBucket(self._burst, self._per_second, now)
            withheld = allowance.take(now)
        if withheld is None:
            return False
        if withheld:
            record.msg, record.args = f"{record.getMessage()} ({withheld} more of this kind were not written)", None
        return True


class RateLimitedLines:
    """Another process's lines. What differs in numbers alone is of one kind; each kind has an allowance, and all together.

    Args:
        write: writes a line.
        now: seconds of a monotonic clock.
    """

    def __init__(self, write: Callable[[bytes], object], now: float) -> None:
        self._write = write
        self._all = TokenBucket(_BYTES, _BYTES_PER_SECOND, now)
        self._kinds: OrderedDict[bytes, TokenBucket] = OrderedDict()

    def take(self, line: bytes, now: float) -> None:
        """Write a line, or leave it out."""
        kind = _VARYING.sub(b"#", line[: 2 * _KIND_BYTES])[:_KIND_BYTES]
        allowance = self._kinds.pop(kind, None) or TokenBucket(_LINE_BURST, _LINES_PER_SECOND, now)
        self._kinds[kind] = allowance
        if len(self._kinds) > _KINDS:
            self._kinds.popitem(last=False)
        same = allowance.take(now)
        if same is None:
            return
        others = self._all.take(now, len(line))
        if others is None:
            return
        if same or others:
            self._write(b"(%d lines like the next one, and %d others, were not written)\n" % (same, others))
        self._write(line)
