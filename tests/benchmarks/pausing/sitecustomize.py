"""Makes runs of ONNX models last a fixed time, in the replica servers of a benchmark that puts this folder on their PYTHONPATH.

The time passes asleep, so that replicas on few cores do not slow each other down; what is around the run is the platform's own.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

_FIRST, _EACH = (float(each) for each in os.environ.get("BENCH_RUN_SECONDS", "0,0").split(","))
"""Seconds of a run, and of each of its rows."""


class _PausingEngine:
    """An engine whose runs take their time, one after the other."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, inputs: Any) -> Any:
        """The engine's answer, once the time has passed."""
        rows = next(iter(inputs.values())).shape[0]
        with self._lock:
            began = time.monotonic()
            answer = self._engine.run(inputs)
            time.sleep(max(0.0, _FIRST + _EACH * rows - (time.monotonic() - began)))
        return answer


if "penstock_serving.replica" in sys.orig_argv:
    from penstock_runtime.engines import onnx

    _load = onnx.load
    onnx.load = lambda *given: _PausingEngine(_load(*given))  # type: ignore[assignment]  # it does what an engine does
