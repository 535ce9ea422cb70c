"""A batcher, its engines and a clock that only counts: requests come when they are told to, and runs take what a formula says."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from penstock.serving.settings import BatchingSettings
from penstock_runtime.batching.batcher import Batcher, BatchStep, Rejected
from penstock_runtime.batching.ticket import Ticket


@dataclass
class Arrival:
    """A request that comes at a time (seconds); what became of it."""

    at: float
    rows: int = 1
    flow: Hashable = ""
    priority: int = 8
    timeout: float | None = None
    answered: float | None = None
    rejected: Rejected | None = None
    shed: float | None = None
    expired: float | None = None
    then: Callable[[float], None] | None = None
    """Told when it was answered: a client that waits for its answer sends its next then."""
    came: Callable[[], None] | None = None
    """Told when it has come."""

    @property
    def seconds(self) -> float:
        assert self.answered is not None
        return self.answered - self.at


@dataclass
class EngineRoom:
    """Runs a batcher on engines that run at once, whose runs of `rows` take `seconds(rows)`, but for noise."""

    seconds: Callable[[int], float]
    settings: BatchingSettings = BatchingSettings(max_queued_requests=100_000)  # noqa: RUF009 -- frozen
    objective: float | None = None
    noise: float = 0.0
    seed: int = 1
    sizes: list[int] = field(default_factory=list)
    warm: Sequence[int] = (1, 32)
    engines: int = 1
    eager: bool = False
    """Whether it never waits, as a control."""

    def __post_init__(self) -> None:
        self.batcher: Batcher[Arrival] = Batcher(self.settings, objective_seconds=self.objective, runs=self.engines)
        if self.eager:
            self.batcher.gathering.wait_until = lambda *_: None  # type: ignore[method-assign]
        self.random = random.Random(self.seed)
        for rows in self.warm:
            self.batcher.warm_up(rows, self.seconds(rows))
        self.now = 0.0
        self.events: list[tuple[float, int, Arrival | BatchStep[Arrival] | None]] = []
        self.count = 0
        self.free = list(range(self.engines))

    @property
    def busy(self) -> bool:
        return not self.free

    def at(self, when: float, what: Arrival | BatchStep[Arrival] | None) -> None:
        self.count += 1
        heapq.heappush(self.events, (when, self.count, what))

    def run(self, arrivals: Sequence[Arrival], until: float = float("inf")) -> None:
        for arrival in arrivals:
            self.at(arrival.at, arrival)
        while self.events and self.events[0][0] <= until:
            self.now, _, what = heapq.heappop(self.events)
            if isinstance(what, Arrival):
                self.arrive(what)
            elif what is not None:
                self.finish(what)
            self.poll()

    def arrive(self, arrival: Arrival) -> None:
        if arrival.came is not None:
            arrival.came()
        deadline = None if arrival.timeout is None else self.now + arrival.timeout
        ticket = Ticket(arrival, arrival.rows, flow=arrival.flow, priority=arrival.priority, deadline=deadline)
        arrival.rejected = self.batcher.submit(ticket, self.now)

    def finish(self, step: BatchStep[Arrival]) -> None:
        self.free.append(step.engine)
        self.batcher.finish(len(step.batch), 0.0, step.rows, self.now, step.engine)
        for ticket in step.batch:
            ticket.payload.answered = self.now
            if ticket.payload.then is not None:
                ticket.payload.then(self.now)
        self.batcher.learn(step.batch, self.now)

    def poll(self) -> None:
        while self.begin():
            pass

    def begin(self) -> bool:
        """Do what the batcher says; whether another engine may begin a run, too."""
        step = self.batcher.poll(self.now, engine_free=not self.busy, engine=self.free[-1] if self.free else 0)
        for ticket in step.expired:
            ticket.payload.expired = self.now
        for ticket in step.shed:
            ticket.payload.shed = self.now
        if step.batch:
            self.free.remove(step.engine)
            self.sizes.append(step.rows)
            took = self.seconds(step.rows) * (1 + self.noise * self.random.random())
            self.at(self.now + took, step)
        elif step.wake_at is not None:
            self.at(max(step.wake_at, self.now), None)
        return bool(step.batch and self.free)


def poisson(rate: float, seconds: float, seed: int = 1, **more: object) -> list[Arrival]:
    """Arrivals at random, so many a second."""
    source = random.Random(seed)
    arrivals, now = [], 0.0
    while (now := now + source.expovariate(rate)) < seconds:
        arrivals.append(Arrival(now, **more))  # type: ignore[arg-type]  # the fields of an arrival
    return arrivals


def mlp(rows: int) -> float:
    """Weights are read once a run: joining gains."""
    return 0.010 + 0.0004 * rows


def small_mlp(rows: int) -> float:
    """As `mlp`, of a size that a core runs in milliseconds."""
    return 0.0013 + 0.00018 * rows


def cnn(rows: int) -> float:
    """Intermediate results leave the processor's cache: joining loses 15 %."""
    return 0.0010 if rows == 1 else 0.00115 * rows


def steep(rows: int) -> float:
    """Almost all of a run is its rows': joining gains little."""
    return 0.0005 + 0.001 * rows
