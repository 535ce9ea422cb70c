"""How long a run of the engine takes by its rows: measured at the start of a replica, and corrected by every run."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field
from typing import Final

_GAIN: Final = 0.2
"""Of the smoothed time, which follows a machine that becomes slower or faster within some ten runs."""
_REMEMBERED: Final = 8
_ENOUGH: Final = 4
"""Runs of about so many rows, for their cost to count: a first one is slow, and any one may have been held up."""
_FRESH: Final = 1024
"""Runs for which it counts what one cost beside others. In calm hours all are faster, and of a busy one only the large are known."""
_BESIDE_SECONDS: Final = 20e-6
"""What a run costs the replica beside the engine: lone requests of a model of some microseconds cost so much more than joined ones
do (`make bench ARGS=data-path`)."""


@dataclass(slots=True)
class CurvePoint:
    """Runs of about equally many rows: those whose number has the same power of two below it."""

    rows: float
    """Smoothed, as `seconds` is."""
    seconds: float
    """From where the engine could have begun to where it was free again."""
    runs: int = 1
    last: int = 0
    """Which of all runs was the last."""
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    """Seconds a row of the last runs, with what a run costs beside the engine, and without what came before they began."""

    @property
    def seconds_a_row(self) -> float:
        """The least of the last runs: what the scheduler gave to other processes meanwhile only ever adds."""
        return min(self.recent)


class ServiceCurve:
    """Seconds of a run by its rows.

    More rows are taken never to need less time. Between two measured numbers of rows the time lies on the line through them;
    below the first it is the first's, since fewer rows need not be faster; past the last it grows as the last one's rows do.

    Args:
        most_rows: of a batch.
    """

    def __init__(self, most_rows: int) -> None:
        # 16 stands for 16 to 32: runs of 31 and of 32 are not worth telling apart.
        self._largest = 1 << max((most_rows - 1).bit_length() - 1, 0)
        self._points: dict[int, CurvePoint] = {}
        self._line: list[tuple[float, float]] = []
        self._found: dict[int, float] = {}
        self._runs = 0

    def costs(self) -> dict[int, float]:
        """Seconds a row by `size_of`, of those that ran often enough of late: what is compared was measured in the same hour."""
        return {
            size: each.seconds_a_row
            for size, each in sorted(self._points.items())
            if self._runs - each.last <= _FRESH and len(each.recent) >= _ENOUGH
        }

    def size_of(self, rows: int) -> int:
        """The number of rows that stands for this one: the power of two below it; of the largest, half the most or less."""
        return min(1 << (rows.bit_length() - 1), self._largest)

    @property
    def sizes(self) -> list[int]:
        """All that `size_of` gives."""
        return [1 << power for power in range(self._largest.bit_length())]

    def observe(self, rows: int, seconds: float, cycle: float | None = None) -> None:
        """A run has ended.

        Args:
            rows: of its requests.
            seconds: from its start to its end.
            cycle: the same from where the engine could have begun, where requests waited then; None: none did.
        """
        rows = max(rows, 1)
        size = self.size_of(rows)
        whole = seconds if cycle is None else cycle
        point = self._points.get(size)
        if point is None:
            point = self._points[size] = CurvePoint(float(rows), whole)
        else:
            point.rows += _GAIN * (rows - point.rows)
            point.seconds += _GAIN * (whole - point.seconds)
            point.runs += 1
        self._runs += 1
        if self._runs - point.last > _FRESH:
            point.recent.clear()
        point.last = self._runs
        point.recent.append((seconds + _BESIDE_SECONDS) / rows)

    def refresh(self) -> None:
        """Let `seconds` tell what was observed since the last time. It costs more than a short run does."""
        self._found = {}
        line: list[tuple[float, float]] = []
        self._line = line
        longest = 0.0
        for point in sorted(self._points.values(), key=lambda each: each.rows):
            longest = max(longest, point.seconds)
            line.append((point.rows, longest))

    @property
    def points(self) -> dict[int, CurvePoint]:
        """What was measured, by `size_of`."""
        return self._points

    def seconds(self, rows: int) -> float:
        """How long a run of so many rows takes; 0 before anything was measured."""
        found = self._found.get(rows)
        if found is None:
            found = self._found[rows] = self._read_off(rows)
        return found

    def _read_off(self, rows: int) -> float:
        line = self._line
        if not line:
            return 0.0
        at = bisect_left(line, (rows, 0.0))
        if at == 0:
            return line[0][1]
        before = line[at - 1]
        if at == len(line):
            return before[1] * rows / before[0]
        after = line[at]
        share = (rows - before[0]) / (after[0] - before[0])
        return before[1] + share * (after[1] - before[1])
