"""What shadowing costs a replica's clients: loaded by a closed loop, with all requests to be shown and with none, interleaved.

The replica has a core of its own; the client, the candidate and the twin share the other. A third case, as the first, shows by how much
two rounds differ by chance.
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks import parts, report
from tests.benchmarks.load import LoadResult, run_load
from tests.integration.replica_process import ReplicaProcess
from tests.integration.replica_process import fresh_replica as replica
from tests.integration.test_shadowing import GATEWAY, TOKEN, OrderingAgent
from tests.waiting import eventually

from penstock.routing.outcomes import ShadowOrders, ShadowOutcomes, ShadowPeer

_ROUNDS = 10
_SECONDS = 2.0
_NONE, _ALL, _AGAIN = "none", "all requests", "none, again"
_WIDTHS = {"a small model": (64, 32, 10), "a model of some milliseconds": (64, 4096, 4096, 10)}


@dataclass(frozen=True)
class Scene:
    """A loaded replica, whom it shows samples to, and who orders it."""

    agent: OrderingAgent
    stable: ReplicaProcess
    orders: ShadowOrders

    def told(self) -> ShadowOutcomes:
        """What the replica has counted."""
        return self.agent.outcomes("stable").shadow or ShadowOutcomes()

    def order(self, share: float) -> None:
        """Have this share of the requests shown."""
        if share:
            self.agent.orders["stable"] = self.orders.model_copy(update={"share": share})
        else:
            self.agent.orders.pop("stable", None)
        self.agent.outcomes("stable")


def main() -> None:
    rows = [row for name, widths in _WIDTHS.items() for row in _measure(name, widths)]
    notes = [
        f"Medians of {_ROUNDS} rounds of {_SECONDS:g} s in random order; 16 clients in a closed loop, requests of one row.",
        "× none: the median over rounds of what the case took, over what the first took in the same round.",
        "Shown a second: samples that both have answered; dropped: those given up.",
    ]
    report.publish("shadowing", "What shadowing costs a replica's clients", rows, notes)


def _measure(name: str, widths: tuple[int, ...]) -> list[dict[str, Any]]:
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        home = Path(folder)
        model = parts.dense_model(home / "model.onnx", widths)
        (home / "body").write_bytes(parts.request_body())
        agent = OrderingAgent()
        stack.callback(agent.close)
        settings = {"gateways": (agent.url,), "registration_token": TOKEN, "lease_seconds": 1.0, "engine_threads": 1}
        started = {
            each: stack.enter_context(replica(model, replica_id=each, **settings))
            for each in ("stable", "candidate", "twin")
        }
        for each, process in started.items():
            _pin(process.process.pid, cores[0] if each == "stable" else cores[-1])
        candidate, twin = (ShadowPeer(address=started[each].address) for each in ("candidate", "twin"))
        orders = ShadowOrders(revision="c", candidate=(candidate,), twins=(twin,), share=1.0)
        return _compare(name, Scene(agent, started["stable"], orders), home / "body", str(cores[-1]))


def _compare(name: str, scene: Scene, body: Path, client: str) -> list[dict[str, Any]]:
    results: dict[str, list[LoadResult]] = {_NONE: [], _ALL: [], _AGAIN: []}
    shown = dropped = 0
    for number in range(_ROUNDS):
        report.progress(f"{name}: round {number + 1} of {_ROUNDS}")
        for case in random.sample(sorted(results), len(results)):
            scene.order(1.0 if case == _ALL else 0.0)
            before = scene.told()
            results[case].append(
                run_load(
                    f"{scene.stable.url}/v2/models/tiny/infer", body, connections=16, seconds=_SECONDS,
                    pids=[scene.stable.process.pid], cpus=client, headers=list(GATEWAY.items()),
                )
            )  # fmt: skip
            after = scene.told()
            shown += after.samples - before.samples
            dropped += after.dropped - before.dropped
    eventually(lambda: scene.told().samples, "samples were shown")
    seconds = _ROUNDS * (_SECONDS + min(0.5, _SECONDS / 4))
    return [_row(name, case, results, (shown / seconds, dropped / seconds)) for case in results]


def _row(name: str, case: str, results: dict[str, list[LoadResult]], rates: tuple[float, float]) -> dict[str, Any]:
    def median(field: str) -> float:
        return statistics.median(getattr(each, field) for each in results[case])

    def ratio(field: str) -> float:
        pairs = zip(results[case], results[_NONE], strict=True)
        return round(statistics.median(getattr(ours, field) / getattr(theirs, field) for ours, theirs in pairs), 3)

    shadows = case == _ALL
    return {
        "model": name,
        "shown": case,
        "answers/s": round(median("requests_per_second")),
        "p50 ms": round(median("p50_ms"), 3),
        "× none": ratio("p50_ms"),
        "p99 ms": round(median("p99_ms"), 3),
        "p99 × none": ratio("p99_ms"),
        "CPU µs/answer": round(median("cpu_us_per_answer"), 1),
        "CPU × none": ratio("cpu_us_per_answer"),
        "shown a second": round(rates[0], 1) if shadows else 0.0,
        "dropped a second": round(rates[1], 1) if shadows else 0.0,
        "errors": sum(each.errors for each in results[case]),
    }


def _pin(process: int, core: int) -> None:
    """Have all threads of a process run on one core."""
    for task in Path(f"/proc/{process}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


if __name__ == "__main__":
    main()
