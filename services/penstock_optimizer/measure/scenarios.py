"""MLPerf's scenarios on the replica's own batcher, in real time, on one thread.

Requests have one row. One that comes while the engine runs is queued with the time at which it came, so that waiting is
counted in full. Waiting for a request costs no CPU time here, as it costs none in a replica that sleeps.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from penstock.optimization.variants import Variant
from penstock.serving.manifest import BatchPoint
from penstock.serving.settings import BatchingSettings
from penstock_optimizer.samples.arrays import rows_of_run, run_of
from penstock_optimizer.search.statistics import percentile
from penstock_runtime.batching.batcher import Batcher
from penstock_runtime.batching.ticket import Ticket
from penstock_runtime.engines import Array, Engine

_ENDLESS: Final = 10_000_000
"""Requests that may wait: a test queues all that comes."""
_SPIN_SECONDS: Final = 0.0002
"""Shorter waits are not slept: the system would oversleep them."""
_LEAST_RUNS: Final = 5
_MOST_RUNS: Final = 20_000
_WARM_RUNS: Final = 3
_TRIALS: Final = 6
"""Halvings of the rate: the answer is good to 2 % of the capacity."""
_TRIES: Final = 2
"""A rate that fails is tried again: one hiccup of the machine says nothing about the model."""
_LEAST_REQUESTS: Final = 100
_HOPELESS_BOUNDS: Final = 20
"""A trial whose requests wait for so many bounds ends early."""
_OFFLINE_BATCHES: Final = 8


@dataclass
class Subject:
    """A loaded variant and rows to send."""

    variant: Variant
    engine: Engine
    samples: Mapping[str, Array]
    batchable: bool
    """Whether requests can be joined, as a replica proves it."""
    rows: int = field(init=False)
    """That a run has at least: more than 1 only where the model's first axis is fixed."""

    def __post_init__(self) -> None:
        """Look how many rows there are."""
        self.rows = rows_of_run(self.engine.signature, 1)
        self.count = len(next(iter(self.samples.values())))

    def batch(self, first: int, rows: int) -> dict[str, Array]:
        """A batch of so many rows, put together from the samples as a replica puts requests together."""
        ran = rows_of_run(self.engine.signature, max(rows, self.rows))
        return run_of(self.samples, self.engine.signature, np.arange(first, first + ran) % self.count)


@dataclass(frozen=True)
class ScenarioOutcome:
    """What a scenario showed. Latencies are from a request's arrival to its answer."""

    requests_per_second: float
    p50_milliseconds: float
    p99_milliseconds: float
    cpu_seconds_per_request: float


class Drive:
    """The batcher and the engine, and what they did."""

    def __init__(self, subject: Subject, max_batch_size: int, seed: int) -> None:
        self.subject = subject
        self.max_batch_size = max_batch_size
        self.generator = np.random.default_rng(seed)
        settings = BatchingSettings(max_batch_size=max_batch_size, max_queued_requests=_ENDLESS)
        self.batcher: Batcher[None] = Batcher(settings, batchable=subject.batchable, measuring=True)
        self.latencies: list[float] = []
        self.cpu_seconds = 0.0
        self._next = 0

    def submit(self, arrived: float) -> None:
        """A request came at this time."""
        self.batcher.submit(Ticket(None), arrived)

    def step(self) -> int:
        """Run one batch; how many requests it answered."""
        cpu = time.process_time()
        start = time.perf_counter()
        step = self.batcher.poll(start, engine_free=True)
        if step.batch:
            self.subject.engine.run(self.subject.batch(self._next, step.rows))
            self._next = (self._next + step.rows) % self.subject.count
            end = time.perf_counter()
            self.batcher.finish(len(step.batch), end - start, step.rows, end)
            self.latencies.extend(end - ticket.enqueued_at for ticket in step.batch)
        self.cpu_seconds += time.process_time() - cpu
        return len(step.batch)

    def outcome(self, seconds: float) -> ScenarioOutcome:
        """Of all that was answered in so many seconds."""
        answered = len(self.latencies)
        return ScenarioOutcome(
            requests_per_second=answered / seconds,
            p50_milliseconds=percentile(self.latencies, 0.5) * 1000,
            p99_milliseconds=percentile(self.latencies, 0.99) * 1000,
            cpu_seconds_per_request=self.cpu_seconds / answered,
        )

    def fresh_copy(self) -> Drive:
        """The same, with nothing done yet and other arrivals."""
        return Drive(self.subject, self.max_batch_size, int(self.generator.integers(1 << 31)))


def batch_curve(subject: Subject, max_batch_size: int, seconds: float) -> tuple[BatchPoint, ...]:
    """Time of a run by number of rows: 1, 2, 4, … and the greatest. Only 1 where requests cannot be joined."""
    powers = itertools.takewhile(lambda rows: rows < max_batch_size, (1 << power for power in itertools.count()))
    sizes = [*powers, max_batch_size] if subject.batchable else [1]
    return tuple(_point(subject, rows, seconds / len(sizes)) for rows in sizes)


def _point(subject: Subject, rows: int, seconds: float) -> BatchPoint:
    batches: Iterator[dict[str, Array]] = itertools.cycle(
        [subject.batch(first * rows, rows) for first in range(max(1, min(4, subject.count // rows)))]
    )
    for _ in range(_WARM_RUNS):
        subject.engine.run(next(batches))
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < _LEAST_RUNS or (time.perf_counter() < end and len(times) < _MOST_RUNS):
        inputs = next(batches)
        start = time.perf_counter()
        subject.engine.run(inputs)
        times.append(time.perf_counter() - start)
    p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
    return BatchPoint(rows=rows, p50_milliseconds=p50 * 1000, p99_milliseconds=p99 * 1000, rows_per_second=rows / p50)


def closed_loop(drive: Drive, seconds: float, in_flight: int) -> ScenarioOutcome:
    """So many clients, each of which asks again as soon as it is answered. One client: SingleStream."""
    start = time.perf_counter()
    for _ in range(in_flight):
        drive.submit(start)
    while (now := time.perf_counter()) < start + seconds or len(drive.latencies) < _LEAST_RUNS:
        answered = drive.step()
        now = time.perf_counter()
        for _ in range(answered):
            drive.submit(now)
    return drive.outcome(now - start)


def offline(drive: Drive, seconds: float) -> ScenarioOutcome:
    """All samples are there at once. The latencies are of whole batches: waiting is what offline work does."""
    start = time.perf_counter()
    answered = 0
    runs: list[float] = []
    while (now := time.perf_counter()) < start + seconds or not answered:
        for _ in range(_OFFLINE_BATCHES * drive.max_batch_size):
            drive.submit(now)
        while drive.batcher.queued:
            before = time.perf_counter()
            answered += drive.step()
            runs.append(time.perf_counter() - before)
    found = drive.outcome(time.perf_counter() - start)
    return ScenarioOutcome(
        requests_per_second=found.requests_per_second,
        p50_milliseconds=percentile(runs, 0.5) * 1000,
        p99_milliseconds=percentile(runs, 0.99) * 1000,
        cpu_seconds_per_request=found.cpu_seconds_per_request,
    )


def find_highest_rate(drive: Drive, seconds: float, bound_milliseconds: float, capacity: float) -> ScenarioOutcome:
    """The highest rate of a Poisson process at which p99 keeps the bound, by halving.

    Args:
        drive: what is loaded.
        seconds: for all trials together, about.
        bound_milliseconds: of p99.
        capacity: rows a second of the curve, above which no rate can last.

    Returns:
        The best trial that kept it; where none did, the figures of a lone client, with 0 requests a second.
    """
    alone = closed_loop(drive.fresh_copy(), seconds / (_TRIALS * _TRIES), in_flight=1)
    if alone.p50_milliseconds > bound_milliseconds:
        return replace(alone, requests_per_second=0.0)
    low, high = 0.0, capacity
    best: ScenarioOutcome | None = None
    each = seconds / (_TRIALS * _TRIES)
    for _ in range(_TRIALS):
        rate = (low + high) / 2
        for _ in range(_TRIES):
            found = poisson(drive.fresh_copy(), rate, each, bound_milliseconds)
            if found.p99_milliseconds <= bound_milliseconds:
                break
        if found.p99_milliseconds <= bound_milliseconds:
            low, best = rate, found
        else:
            high = rate
    return best or replace(alone, requests_per_second=0.0)


def poisson(drive: Drive, rate: float, seconds: float, bound_milliseconds: float) -> ScenarioOutcome:
    """Requests come independently of each other and of the answers, so many a second on average."""
    count = max(int(rate * seconds), min(_LEAST_REQUESTS, int(2 * rate * seconds)), _LEAST_RUNS)
    arrivals = np.cumsum(drive.generator.exponential(1 / rate, count)) + time.perf_counter()
    hopeless = _HOPELESS_BOUNDS * bound_milliseconds / 1000
    come = 0
    start = time.perf_counter()
    while len(drive.latencies) < count:
        now = time.perf_counter()
        while come < count and arrivals[come] <= now:
            drive.submit(float(arrivals[come]))
            come += 1
        if drive.batcher.queued:
            drive.step()
            if drive.latencies[-1] > hopeless:
                break
        elif arrivals[come] - now > _SPIN_SECONDS:
            time.sleep(arrivals[come] - now - _SPIN_SECONDS)
    return drive.outcome(max(time.perf_counter() - start, 1e-9))
