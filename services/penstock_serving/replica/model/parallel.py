"""Whether a replica's cores serve one run, or a run each: measured on the model at the start.

Threads that share a run wait for each other after each operator. For a model of many small ones that costs more than it brings, and
as many runs at once as there are cores, of one thread each, answer more; a large product of matrices is faster the other way.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from penstock.serving.joining import Joining
from penstock_runtime.engines import Array, Engine
from penstock_serving.replica.execution.executor import INLINE_SECONDS
from penstock_serving.replica.model.warmup import made_inputs

logger = logging.getLogger(__name__)

Feeds = Mapping[str, Array]

_MORE: Final = 1.1
"""By how much more runs at once must answer, at every load: less than that cannot be told from noise."""
_SLOWER: Final = 1.05
"""A lone request's run may take so much longer, likewise."""
_ROUNDS: Final = 3
_WINDOW_SECONDS: Final = 0.01
"""For which each way runs in each round, at least one run."""
_LONG_SECONDS: Final = 0.1
"""No larger runs are measured past this: a start must not wait for them."""


@dataclass(frozen=True, slots=True)
class ParallelRuns:
    """How many runs may be under way at once, and of how many threads each is."""

    runs: int
    threads: int
    reason: str
    """For people."""


ONE_RUN: Final = ParallelRuns(1, 1, "one run: it has one thread")


@dataclass(slots=True)
class MeasuredRuns:
    """Seconds of runs by their rows."""

    lone: float = float("inf")
    """Of one run of one row on one thread, with nothing beside it."""
    shared: dict[int, float] = field(default_factory=dict)
    """Of one run, all of whose threads work on it."""
    apart: dict[int, float] = field(default_factory=dict)
    """Of a run of one thread, while there are as many as there are threads."""


def choose_runs(measured: MeasuredRuns, threads: int) -> ParallelRuns:
    """One run of all threads, or one for each thread where that answers more at every load, and a lone request as soon.

    Where `n` rows are around, one run can have up to `n` of them, and of `k` at once each up to `n / k`. Each way is taken to run
    whatever number of rows answers most.
    """
    one = measured.shared.get(1)
    if one is None:
        return ParallelRuns(1, threads, "one run: made-up inputs do not suit the model, so nothing was measured")
    lone = f"a lone row takes {measured.lone * 1e3:.3g} ms on one thread and {one * 1e3:.3g} ms on {threads}"
    if measured.lone < INLINE_SECONDS:
        # A second one would be one more that keeps the loop from reading and writing.
        return ParallelRuns(1, threads, f"one run: {lone}, and runs so short happen on the event loop")
    if measured.lone > _SLOWER * one:
        return ParallelRuns(1, threads, f"one run: {lone}")
    gains = {}
    for rows in sorted(measured.shared.keys() & measured.apart.keys()):
        # What is around is all that so many runs hold, so one run may have it where it is no more than was measured.
        shared = max(n / measured.shared[n] for n in measured.shared if n <= rows * threads)
        gains[rows * threads] = threads * max(n / measured.apart[n] for n in measured.apart if n <= rows) / shared
    if not gains:
        return ParallelRuns(1, threads, f"one run: {lone}, and runs at once were not measured")
    told = ", ".join(f"{gain:.2f} with {around}" for around, gain in gains.items())
    told = f"{threads} runs at once answer so many times as much as one by rows that are around: {told}; {lone}"
    if min(gains.values()) < _MORE:
        return ParallelRuns(1, threads, f"one run: {told}")
    return ParallelRuns(threads, 1, told)


def measure_runs(shared: Engine, apart: Engine, joining: Joining | None, most_rows: int, threads: int) -> MeasuredRuns:
    """Time both ways on zeros, in turn, so that what else the machine does meets both.

    Args:
        shared: the model, whose runs use so many threads.
        apart: the same, whose runs use one thread, and which several threads may run at once.
        joining: the axes that count rows; None: a run has one request.
        most_rows: of a batch.
        threads: of the replica.
    """
    measured = MeasuredRuns()
    rows = 1
    while rows <= (most_rows if joining is not None else 1):
        feeds = made_inputs(shared.signature, joining, rows)
        if feeds is None:
            break
        try:
            _measure_rows(measured, (shared, apart), feeds, rows, threads)
        except Exception as error:  # noqa: BLE001 -- a model may refuse zeros and still serve real inputs
            logger.warning("runs at once could not be measured with %d rows: %s", rows, error)
            break
        decided = not INLINE_SECONDS <= measured.lone <= _SLOWER * measured.shared[1]
        if decided or max(measured.shared[rows], measured.apart[rows]) > _LONG_SECONDS:
            break
        rows *= 2
    return measured


def _measure_rows(
    measured: MeasuredRuns, engines: tuple[Engine, Engine], feeds: Feeds, rows: int, threads: int
) -> None:
    shared, apart = engines
    for engine in engines:
        engine.run(feeds)  # the first one allocates
    best = float("inf"), float("inf")
    for _ in range(_ROUNDS):
        together = _seconds_a_run(shared, feeds)
        if rows == 1:
            measured.lone = min(measured.lone, _seconds_a_run(apart, feeds))
        best = min(best[0], together), min(best[1], _seconds_at_once(apart, feeds, threads))
    measured.shared[rows], measured.apart[rows] = best


def _seconds_a_run(engine: Engine, feeds: Feeds) -> float:
    began = now = time.perf_counter()
    runs = 0
    while not runs or now - began < _WINDOW_SECONDS:
        engine.run(feeds)
        runs += 1
        now = time.perf_counter()
    return (now - began) / runs


def _seconds_at_once(engine: Engine, feeds: Feeds, threads: int) -> float:
    """The mean over threads that run at once."""
    barrier = threading.Barrier(threads)
    found: list[float] = []
    failed: list[BaseException] = []

    def work() -> None:
        barrier.wait()
        try:
            found.append(_seconds_a_run(engine, feeds))
        except Exception as error:  # noqa: BLE001 -- told to who waits for this thread
            failed.append(error)

    _run_in_threads(work, threads)
    if failed:
        raise failed[0]
    return sum(found) / len(found)


def _run_in_threads(work: Callable[[], None], count: int) -> None:
    workers = [threading.Thread(target=work, name="measuring") for _ in range(count)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
