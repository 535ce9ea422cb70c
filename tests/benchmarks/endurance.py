"""A million requests through two gateways while three rolling updates go on and a gateway is exchanged: none may fail.

Requests are JSON, binary tensors and gRPC over kept connections. Each revision has weights of its own, and each answer is compared
with what the model gives: one that is wrong, somebody else's, or of a revision that has left, is counted. All that serves is on
the first core, the clients on the last.

Two controls: with `--wrong-model` the judge was told other weights of the last revision, so that every answer of it must be
counted; with `--kill` a replica dies by SIGKILL, and only requests that are too large for a gateway to repeat may be lost.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks import report
from tests.benchmarks.endurance_scene import Clients, Scene, pin
from tests.benchmarks.memory_slope import MemoryWatch

ROLLS = 3
_SAY_SECONDS = 5.0
_MOST_SECONDS = 3600.0
_TOLD = 10


class Run:
    """The clients' way to so many requests, with what happens on it."""

    def __init__(self, clients: Clients, requests: int) -> None:
        self._clients, self._requests = clients, requests
        self.notes: list[str] = []
        self._said_at = 0.0

    def note(self, happening: str) -> None:
        """What happens now."""
        said = self._clients.said
        line = f"at {said['seconds']:.0f} s, {said['finished']:,} requests: {happening}"
        self.notes.append(line)
        report.progress(line)

    def wait(self, share: float) -> None:
        """Until this share of the requests has ended."""
        deadline = time.monotonic() + _MOST_SECONDS
        while self.share < share:
            self._clients.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {share:.0%} of {self._requests:,} requests within {_MOST_SECONDS:.0f} s")
            self.say()
            time.sleep(0.2)

    @property
    def share(self) -> float:
        """Of the requests, how many have ended."""
        return float(self._clients.said["finished"]) / self._requests

    def say(self) -> None:
        """Now and then, how far it is."""
        if time.monotonic() - self._said_at >= _SAY_SECONDS:
            self._said_at = time.monotonic()
            said = self._clients.said
            rate = said["finished"] / max(said["seconds"], 1e-9)
            report.progress(
                f"{said['finished']:,} of {self._requests:,} requests, {rate:,.0f}/s, "
                f"{said['failed']} failed, {said['wrong']} wrong"
            )


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(prog="endurance", description=__doc__)
    result.add_argument("--requests", type=int, default=1_000_000)
    result.add_argument("--replicas", type=int, default=2, help="of each revision")
    result.add_argument(
        "--connections", type=int, default=16, help="of REST with JSON, and as many with binary tensors"
    )
    result.add_argument("--calls", type=int, default=16, help="of gRPC at a time, over two connections")
    result.add_argument("--kill", action="store_true", help="control: kill a replica at the end")
    result.add_argument(
        "--wrong-model", action="store_true", help="control: the judge knows other weights of the last revision"
    )
    return result


def main(arguments: Sequence[str] = ()) -> int:
    """Measure, publish `endurance` and `endurance-memory`; 1 where a request failed or an answer was wrong."""
    given = parser().parse_args(list(arguments))
    allowed = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory(prefix="pbench") as folder:
        told = [ROLLS + 1, given.connections, given.calls, *([ROLLS] if given.wrong_model else [])]
        clients = Clients(told, str(max(allowed)))
        pin(min(allowed))
        run = Run(clients, given.requests)
        scene = Scene(Path(folder), given.replicas, run.note)
        memory = MemoryWatch(scene.processes, lambda: int(clients.said["finished"]))
        try:
            scene.begin()
            clients.tell(gateways=scene.addresses(), revisions=[0], happening="nothing")
            memory.start()
            _carry_out(run, scene, clients, kill=given.kill)
            memory.stop()
            result = clients.finish()
        finally:
            clients.end()
            scene.end()
            os.sched_setaffinity(0, allowed)
    return _publish(result, run.notes, memory)


def _carry_out(run: Run, scene: Scene, clients: Clients, *, kill: bool) -> None:
    for share, act in ((0.12, scene.roll), (0.36, scene.roll), (0.6, scene.exchange), (0.75, scene.roll)):
        run.wait(share)
        act(clients)
    run.wait(0.95)
    if kill:
        scene.kill_replica(clients)
        run.wait(run.share + 0.05)
    run.wait(1.0)


def _publish(result: dict[str, Any], happened: list[str], memory: MemoryWatch) -> int:
    rows = result["rows"]
    finished = sum(row["requests"] for row in rows)
    failed, wrong = (sum(row[what] for row in rows) for what in ("failed", "wrong"))
    notes = [
        f"{finished:,} requests in {result['seconds']:.0f} s: {finished / result['seconds']:,.0f}/s; {failed} failed, {wrong} wrong.",
        f"the clients used {result['cpu_seconds'] / result['seconds']:.0%} of their core.",
        f"right answers by revision: {result['by_revision']}.",
        f"calls not begun by a gateway that left, and asked again elsewhere (RFC 9113, 6.8): {result['moved']}.",
        "the longest took {seconds} s, ended at {at} s ({kind}), during: {during}.".format(**result["longest"]),
        *(f"failed: {what}: {count}" for what, count in result["failed"].items()),
        *(
            f"{each['at']} s, {each['kind']}, during {each['during']}: {each['what']}"
            for each in result["told"][:_TOLD]
        ),
        *happened,
    ]
    report.publish("endurance", "Requests while replicas and a gateway are exchanged", rows, notes)
    title = "Memory (RSS) of all that serves, and its slope over all requests of the run by least squares"
    why = [
        "the first third of each process's requests is its warm-up, and left out of the slope.",
        "s.e.: standard error.",
    ]
    report.publish("endurance-memory", title, memory.rows(), why)
    return 1 if failed or wrong else 0
