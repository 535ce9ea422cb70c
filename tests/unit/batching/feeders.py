"""Who sends the requests of an engine room: clients that wait for their answers, and a gateway that shares the engine's core."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tests.unit.batching.engine_room import Arrival, EngineRoom


@dataclass
class Clients:
    """So many, each of which sends its next request when it has its answer. Answers are written and requests read in turn."""

    room: EngineRoom
    count: int
    write: float = 40e-6
    read: float = 60e-6
    network: float = 100e-6
    pause: float = 0.0
    """For which a client waits before its next request, on average."""
    answers: list[float] = field(default_factory=list)
    """When there was one."""
    arrivals: list[Arrival] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(2)
        self.written = self.taken = 0.0
        for _ in range(self.count):
            self.send(0.0)

    def send(self, at: float) -> None:
        # Requests are read in the order in which they were sent, but for those that pause.
        self.taken = max(self.taken, at) + self.read if not self.pause else at + self.read
        self.arrivals.append(Arrival(self.taken, then=self.answer))
        self.room.at(self.taken, self.arrivals[-1])

    def answer(self, now: float) -> None:
        self.answers.append(now)
        self.written = max(self.written, now) + self.write
        pause = self.random.expovariate(1 / self.pause) if self.pause else 0.0
        self.send(self.written + self.network + pause)


@dataclass
class StarvedGateway:
    """Forwards the requests of so many clients, one each `seconds`, while no run has the core that it shares with the engine.

    Of a run, it gets half of the time that is past the scheduler's slice.
    """

    room: EngineRoom
    clients: int
    seconds: float = 150e-6
    slice: float = 3e-3
    answers: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.waiting = self.clients
        self.left = False
        self.forwarding = False
        poll = self.room.poll

        def polled() -> None:
            ran = self.room.busy
            poll()
            if not self.room.busy:
                self.forward()
            elif not ran:
                self.forward_during(self.room.seconds(self.room.sizes[-1]))

        self.room.poll = polled  # type: ignore[method-assign]
        self.forward()

    def forward(self) -> None:
        """Begin to forward one, if there is one."""
        if not self.forwarding and self.waiting:
            self.waiting -= 1
            self.forwarding = True
            self.room.at(self.room.now + self.seconds, Arrival(0.0, then=self.answer, came=self.came))

    def came(self) -> None:
        self.forwarding = False

    def forward_during(self, run: float) -> None:
        """Forward what the scheduler leaves time for."""
        count = min(int(max(run - self.slice, 0.0) / 2 / self.seconds), self.waiting)
        self.waiting -= count
        for number in range(count):
            at = self.room.now + self.slice + (number + 1) * 2 * self.seconds
            self.room.at(at, Arrival(at, then=self.answer))

    def answer(self, now: float) -> None:
        self.answers.append(now)
        self.waiting += not self.left

    def leave(self) -> None:
        """All clients go; what was forwarded is still answered."""
        self.left = True
        self.waiting = 0


def rate(answers: list[float], since: float, until: float) -> float:
    """Answers a second."""
    return sum(since <= at < until for at in answers) / (until - since)
