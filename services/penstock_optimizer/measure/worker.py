"""A process that holds one variant and runs it when it is told to: `python -m penstock_optimizer.measure.worker`.

Between commands it is blocked on its pipe and takes nothing from the others. It ends when its input does.
"""

from __future__ import annotations

import gc
import logging
import math
import time
from array import array
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Final

import numpy as np

from penstock.errors import Invalid
from penstock_optimizer.measure import variant as variants
from penstock_optimizer.measure.channel import serve_lines
from penstock_optimizer.measure.messages import (
    COMMAND,
    Answer,
    Failed,
    Load,
    Loaded,
    Ran,
    Run,
    Summarize,
    Summary,
    Warm,
    Warmed,
)
from penstock_optimizer.samples.arrays import batches, read
from penstock_optimizer.search.statistics import histogram, percentile
from penstock_runtime.energy import meter
from penstock_runtime.engines import Array

logger = logging.getLogger(__name__)

_BLOCK_SECONDS: Final = 0.05
_STEADY: Final = 0.03
"""Two blocks of warm-up that differ by no more than this share are taken as steady."""
_LEAST_BLOCKS: Final = 3
_REWARM_SECONDS: Final = 0.004
"""After a turn of others, to bring this one's data back into the core's own caches."""
_MOST_REWARM_RUNS: Final = 200
_KIB: Final = 1024


class Worker:
    """One loaded variant."""

    def __init__(self, command: Load) -> None:
        variants.pin_to_cores(command.cores)
        self.variant = variants.read_variant(Path(command.folder))
        start = time.perf_counter()
        _, self._engine = variants.open_variant(Path(command.folder))
        self.load_seconds = time.perf_counter() - start
        self.accelerated = variants.is_accelerated(self.variant)
        self._synchronize = variants.synchronizer(self.variant)
        self._meter = meter(gpu=self.accelerated)
        samples = read(Path(command.samples))
        cut = list(batches(samples, self._engine.signature, command.batch_size))
        full = [inputs for rows, inputs in cut if rows == cut[0][0]]
        # A model whose first axis is fixed to fewer rows is called as often as the batch needs.
        self._calls = math.ceil(command.batch_size / cut[0][0])
        self._batches: Iterator[dict[str, Array]] = cycle(full)
        self._walls: list[array[int]] = []
        self._rewarm_runs = 1
        # A collection in the middle of a run would be taken for the model's own time.
        gc.collect()
        gc.freeze()
        gc.disable()

    def answer(self, command: Warm | Run | Summarize) -> Answer:
        """Do what is asked."""
        match command:
            case Warm(seconds=seconds):
                return self._warm(seconds)
            case Run(runs=runs):
                return self._run(runs)
            case Summarize():
                return self._summary()

    def _warm(self, seconds: float) -> Warmed:
        end = time.perf_counter() + seconds
        runs, before, blocks = 1, 0.0, 0
        while True:
            _, wall, _ = self._time_runs(runs)
            each, blocks = wall / runs, blocks + 1
            steady = blocks >= _LEAST_BLOCKS and abs(each - before) <= _STEADY * before
            if steady or (time.perf_counter() >= end and blocks >= _LEAST_BLOCKS):
                break
            before, runs = each, max(1, round(_BLOCK_SECONDS / each))
        self._rewarm_runs = min(max(1, round(_REWARM_SECONDS / each)), _MOST_REWARM_RUNS)
        return Warmed(wall_seconds_per_run=each)

    def _run(self, runs: int) -> Ran:
        if self._rewarm_runs > 1:
            self._time_runs(self._rewarm_runs)
        before = self._meter.read()
        cpu, wall, walls = self._time_runs(runs)
        joules = self._meter.joules_between(before, self._meter.read())
        self._walls.append(walls)
        return Ran(cpu_seconds=cpu, wall_seconds=wall, joules=joules)

    def _time_runs(self, runs: int) -> tuple[float, float, array[int]]:
        """Seconds of CPU and of the wall's clock for so many runs, and nanoseconds of each."""
        walls = array("q", bytes(8 * runs))
        run, synchronize = self._engine.run, self._synchronize
        batch: Callable[[], dict[str, Array]] = self._batches.__next__
        again = range(self._calls - 1)
        clock = time.perf_counter_ns
        cpu = time.clock_gettime_ns(time.CLOCK_PROCESS_CPUTIME_ID)
        start = clock()
        for index in range(runs):
            before = clock()
            run(batch())
            for _ in again:
                run(batch())
            if synchronize is not None:
                synchronize()
            walls[index] = clock() - before
        wall = clock() - start
        cpu = time.clock_gettime_ns(time.CLOCK_PROCESS_CPUTIME_ID) - cpu
        return cpu / 1e9, wall / 1e9, walls

    def _summary(self) -> Summary:
        walls = np.concatenate([np.frombuffer(each, dtype=np.int64) for each in self._walls]) / 1e6
        return Summary(
            wall_milliseconds_p50=percentile(walls, 0.5),
            wall_milliseconds_p99=percentile(walls, 0.99),
            histogram_milliseconds=histogram(walls),
            peak_memory_bytes=peak_memory_bytes(),
            energy_method=self._meter.method,
        )


def peak_memory_bytes() -> int:
    """The most memory that this process had resident: the kernel's VmHWM."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * _KIB


def main() -> None:
    """Answer commands until there are no more."""
    pipe = serve_lines()
    worker: Worker | None = None
    for line in pipe.lines:
        command = COMMAND.validate_json(line)
        reply: Answer
        try:
            if isinstance(command, Load):
                worker = Worker(command)
                reply = Loaded(load_seconds=worker.load_seconds, accelerated=worker.accelerated)
            elif worker is None:
                reply = Failed(message=f"'{command.type}' came before 'load'")
            else:
                reply = worker.answer(command)
        except Invalid as error:
            reply = Failed(message=f"{error.reason}: {error.message}")
        except Exception as error:
            logger.exception("a command failed")
            reply = Failed(message=f"{type(error).__name__}: {error}")
        pipe.send(reply)


if __name__ == "__main__":
    main()
