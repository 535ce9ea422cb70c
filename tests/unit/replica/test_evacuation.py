"""How a worker is emptied before its pod goes: by Ray where it can be asked, else by word to the replicas."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from tests.waiting import eventually

from penstock_serving.replica.evacuation import Surroundings, evacuate, replica_servers


@dataclass
class Worker:
    """A worker whose replicas go a while after Ray agreed to drain it, or after they were told."""

    replicas: set[int]
    refusal: str | None = None
    migrates_after: float | None = 5.0
    head_until: float = 1e9
    leaves_after: float = 2.0
    now: float = 0.0
    asked_at: float | None = None
    told: dict[int, list[float]] = field(default_factory=dict)

    def running(self) -> tuple[int, ...]:
        moved = self.asked_at is not None and self.migrates_after is not None and self.head()
        if moved and self.now >= (self.asked_at or 0.0) + (self.migrates_after or 0.0):
            self.replicas.clear()
        self.replicas -= {each for each, at in self.told.items() if self.now >= at[0] + self.leaves_after}
        return tuple(sorted(self.replicas))

    def drain(self, _: float) -> str | None:
        if self.refusal is None:
            self.asked_at = self.now
        return self.refusal

    def head(self) -> bool:
        return self.now < self.head_until

    def tell(self, process: int) -> None:
        self.told.setdefault(process, []).append(self.now)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def surroundings(self) -> Surroundings:
        clock: Callable[[], float] = lambda: self.now  # noqa: E731 - it reads the field anew
        return Surroundings(self.running, self.drain, self.head, self.tell, self.sleep, clock)


LEFT = [
    ("an empty worker goes at once", Worker(set()), 0.0, set()),
    ("Ray moves the replicas, and nobody is told to leave", Worker({7, 8}), 10.0, set()),
    ("Ray refuses, so they are told", Worker({7, 8}, refusal="it is the head"), 5.0, {7, 8}),
    ("the head is gone before it is asked", Worker({7}, head_until=0.0), 5.0, {7}),
    ("the head goes meanwhile", Worker({7}, head_until=3.0), 12.0, {7}),
    ("Ray finds no other node", Worker({7}, migrates_after=None), 130.0, {7}),
]


@pytest.mark.parametrize(("worker", "at_most", "told"), [row[1:] for row in LEFT], ids=[row[0] for row in LEFT])
def test_left(worker: Worker, at_most: float, told: set[int]) -> None:
    assert evacuate(worker.surroundings())
    assert worker.now <= at_most
    assert set(worker.told) == told
    assert all(len(times) == 1 for times in worker.told.values()), "a second word would end it with requests in flight"


def test_a_replica_that_does_not_end_is_not_waited_for_longer_than_the_pod_has() -> None:
    worker = Worker({7}, migrates_after=None, leaves_after=1e9)
    assert not evacuate(worker.surroundings())
    assert worker.now < 180


def test_replica_servers_are_found_by_their_command_line() -> None:
    command = [sys.executable, "-c", "import sys; sys.stdin.read()", "-m", "penstock_serving.replica"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    other = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        # The kernel shows a process's command line a moment after it has let its parent go on.
        found = eventually(lambda: process.pid in (servers := replica_servers()) and servers)
        assert other.pid not in found
    finally:
        for each in (process, other):
            each.communicate()
