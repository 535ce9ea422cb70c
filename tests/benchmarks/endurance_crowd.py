"""Who asks in `endurance`: all connections of a run, the judge that they tell, and how things stand."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from tests.benchmarks.endurance_cases import Answers, inputs, numbers_of, render
from tests.benchmarks.endurance_judge import Judge

PATIENCE_SECONDS: Final = 30.0
_AGAIN_SECONDS: Final = 0.1


class Client(asyncio.Protocol):
    """One connection."""

    def leave(self) -> None:
        """Close once the answers are there."""
        raise NotImplementedError

    def lose_patience(self, now: float) -> None:
        """Give up what waits too long. `now` is the performance counter's."""
        raise NotImplementedError


class Crowd:
    """All clients of a run.

    Args:
        answers: what is right.
        connections: of each kind.
        make: what speaks on a connection: it is given this, the kind, and calls to begin with by number of the request.
    """

    def __init__(self, answers: Answers, connections: Mapping[str, int], make: Make) -> None:
        self.judge = Judge(answers)
        self.finishing = False
        self.clients: set[Client] = set()
        self._start = time.perf_counter()
        self._wanted = connections
        self._make = make
        self._tasks: set[asyncio.Task[None]] = set()
        rows = inputs()
        self.requests = {
            kind: [(n, render(kind, rows[n], "tiny.test")) for n in numbers_of(kind)] for kind in self._wanted
        }

    def now(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def take(self, line: bytes) -> None:
        """How things stand now."""
        told: dict[str, Any] = json.loads(line)
        if told.pop("finish", False):
            self.finish()
            return
        if "gateways" in told:
            told["gateways"] = tuple((host, int(port)) for host, port in told["gateways"])
        if "revisions" in told:
            told["revisions"] = frozenset(told["revisions"])
        first = not self.judge.scene.gateways
        self.judge.scene = replace(self.judge.scene, **told)
        if first:
            for kind, count in self._wanted.items():
                for _ in range(count):
                    self.open(kind)

    def finish(self) -> None:
        """Send nothing more."""
        self.finishing = True
        for client in tuple(self.clients):
            client.leave()

    def open(self, kind: str, calls: Sequence[int] = ()) -> None:
        """A new connection, to any gateway that is there.

        Args:
            kind: of its requests.
            calls: what was not begun elsewhere, by number of the input.
        """
        if self.finishing and not calls:
            return
        task = asyncio.get_running_loop().create_task(self._connect(kind, calls))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, kind: str, calls: Sequence[int]) -> None:
        while True:
            host, port = random.choice(self.judge.scene.gateways)
            try:
                await asyncio.get_running_loop().create_connection(lambda: self._make(self, kind, calls), host, port)
            except OSError as error:
                self.judge.fail(kind, "could not connect", self.now(), f"to {host}: {error}")
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return

    def lose(self, client: Client, kind: str) -> None:
        """A connection ended of which nobody said so; the next one comes after a moment."""
        self.clients.discard(client)
        asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self.open, kind)

    async def watch(self) -> None:
        """Say each second how far it is, and end what waits for ever; until all clients are gone."""
        while not self.finishing or self.clients or self._tasks:
            await asyncio.sleep(1.0)
            now = time.perf_counter()
            for client in tuple(self.clients):
                client.lose_patience(now)
            judge = self.judge
            said = {"finished": judge.finished, "failed": judge.failed.total(), "wrong": judge.wrong.total()}
            print(json.dumps(said | {"seconds": self.now()}), flush=True)


Make = Callable[[Crowd, str, Sequence[int]], Client]
