"""Memory of processes while requests come, and its slope by least squares."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.processes import resident_mib

_WARM_SHARE = 1 / 3
_FEWEST = 8
_MILLION = 1e6


@dataclass(frozen=True)
class Slope:
    """MiB per million requests."""

    value: float
    error: float
    """Twice the standard error: of what scatters by chance, 95 % lie within."""


def slope(requests: Sequence[float], mib: Sequence[float]) -> Slope | None:
    """The slope of memory over requests by ordinary least squares.

    Args:
        requests: how many there had been at each sample.
        mib: what a process had then.

    Returns:
        None where there are too few samples.
    """
    count = len(requests)
    if count < _FEWEST or len(set(requests)) < _FEWEST:
        return None
    middle, mean = math.fsum(requests) / count, math.fsum(mib) / count
    spread = math.fsum((x - middle) ** 2 for x in requests)
    value = math.fsum((x - middle) * (y - mean) for x, y in zip(requests, mib, strict=True)) / spread
    rest = math.fsum((y - mean - value * (x - middle)) ** 2 for x, y in zip(requests, mib, strict=True))
    return Slope(value * _MILLION, 2 * math.sqrt(rest / (count - 2) / spread) * _MILLION)


def warmed(samples: Sequence[tuple[float, float]], share: float = _WARM_SHARE) -> Sequence[tuple[float, float]]:
    """The samples after a process's warm-up, which is this share of the requests of its life."""
    if not samples:
        return ()
    first, last = samples[0][0], samples[-1][0]
    return [each for each in samples if each[0] >= first + share * (last - first)]


class MemoryWatch:
    """Reads, on a thread of its own, what processes have.

    Args:
        processes: those that live now, by name; one that is gone is named no more.
        requests: how many there have been so far.
        seconds: between two looks.
    """

    def __init__(
        self, processes: Callable[[], Mapping[str, int]], requests: Callable[[], int], seconds: float = 1.0
    ) -> None:
        self._processes, self._requests, self._seconds = processes, requests, seconds
        self.samples: dict[str, list[tuple[float, float]]] = {}
        """By process: requests so far, and MiB."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            done = self._requests()
            for name, pid in self._processes().items():
                if mib := resident_mib(pid):
                    self.samples.setdefault(name, []).append((done, mib))

    def rows(self) -> list[dict[str, Any]]:
        """A row for each process."""
        rows = []
        for name, samples in self.samples.items():
            kept = warmed(samples)
            found = slope(*zip(*kept, strict=True)) if kept else None
            rows.append(
                {
                    "process": name,
                    "of requests": f"{samples[0][0]:,} to {samples[-1][0]:,}",
                    "MiB at first": round(samples[0][1], 1),
                    "after warm-up": round(kept[0][1], 1),
                    "at last": round(samples[-1][1], 1),
                    "most": round(max(mib for _, mib in samples), 1),
                    "MiB per million requests": round(found.value, 2) if found else "too short",
                    "± (2 s.e.)": round(found.error, 2) if found else "",
                    "samples": len(kept),
                }
            )
        return rows
