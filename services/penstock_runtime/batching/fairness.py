"""In which order requests of several callers go, so that each gets its share whatever the others send."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

_MOST_REMEMBERED: Final = 1024


class FairOrder:
    """Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996), with equal weights; what is shared out are rows.

    A request starts at the virtual time at which its caller's former one ends, or now if that is later; the lowest start goes
    first. The virtual time is the start of what was served last. Requests of one caller keep their order.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._ends: dict[Hashable, float] = {}

    def start(self, flow: Hashable, rows: int) -> float:
        """The start of a caller's next request, of so many rows."""
        begins = max(self._ends.get(flow, 0.0), self._now)
        self._ends[flow] = begins + max(rows, 1)
        return begins

    def serve(self, start: float) -> None:
        """The request that starts there is served now."""
        if start > self._now:
            self._now = start
            if len(self._ends) > _MOST_REMEMBERED:
                self._ends = {flow: end for flow, end in self._ends.items() if end > start}
