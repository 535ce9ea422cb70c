"""How much of a GPU's memory is taken while something runs, by nvidia-smi."""

from __future__ import annotations

import subprocess
import threading
from types import TracebackType
from typing import Final, Self

_PAUSE_SECONDS: Final = 0.2
_QUERY: Final = ("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0")
STATE: Final = (
    "nvidia-smi", "--id=0", "--format=csv",
    "--query-gpu=name,driver_version,pstate,clocks.sm,clocks.max.sm,power.limit,temperature.gpu,utilization.gpu",
)  # fmt: skip
"""Clocks and power state, which go with any figure of a GPU."""


class GpuMemory:
    """The most that the first GPU held meanwhile, in MiB above what it held before; None where there is none."""

    def __init__(self, *, gpu: bool) -> None:
        self._before = _used() if gpu else None
        self._most = self._before
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def mib(self) -> float | None:
        """The difference so far."""
        return None if self._most is None or self._before is None else self._most - self._before

    def __enter__(self) -> Self:
        """Watch."""
        if self._before is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self._stop.set()
        if self._before is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(_PAUSE_SECONDS):
            found = _used()
            if found is not None:
                self._most = max(self._most or 0.0, found)


def _used() -> float | None:
    try:
        said = subprocess.run(_QUERY, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
        return float(said)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
