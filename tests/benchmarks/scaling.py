"""From one replica to four and back under a step load; and 50 requests at once at zero replicas."""

from __future__ import annotations

import threading
import time
from typing import Any, Self

from tests.benchmarks import parts, processes, report
from tests.benchmarks.open_loop import Outcome, infer_at
from tests.benchmarks.stack import running_platform
from tests.e2e.stack import Platform, deployment

WIDTHS = (64, 3072, 3072, 10)
"""A model of some milliseconds, so that replicas are what limits."""
BURST = 200


class Watch:
    """Notes when the number of receiving replicas changes."""

    def __init__(self, penstock: Platform, name: str) -> None:
        self.changes: list[tuple[float, int]] = []
        self._penstock, self._name = penstock, name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._start = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            count = len(self._penstock.gateway.receiving("default", self._name))
            if not self.changes or self.changes[-1][1] != count:
                self.changes.append((time.monotonic() - self._start, count))

    def first(self, count: int) -> float | None:
        """Seconds until there were so many."""
        return next((round(when, 1) for when, seen in self.changes if seen == count), None)

    def most(self) -> int:
        """The most there were."""
        return max((seen for _, seen in self.changes), default=0)


def main() -> None:
    """Measure, and publish `scaling`."""
    with running_platform() as penstock:
        step = _step(penstock)
        zero, phases = _from_zero(penstock)
    report.publish(
        "scaling",
        "Autoscaling: a step load from 1 replica to 4 and back; 50 requests at once at zero",
        [step, zero],
        ["seconds count from the first request", phases],
    )


def _send(url: str, times: list[float]) -> Outcome:
    return infer_at(url, parts.request_body(), times)


def _row(case: str, outcome: Outcome, **more: Any) -> dict[str, Any]:
    return {
        "case": case,
        "requests": len(outcome.answers),
        "failed": len(outcome.failed()),
        "first answer s": round(min(a.sent + a.seconds for a in outcome.answers), 2),
        "p50 s": round(outcome.quantile(0.5), 3),
        "p99 s": round(outcome.quantile(0.99), 3),
        "2 replicas at s": "-", "4 replicas at s": "-", "most": "-", "back to 1 at s": "-",
    } | more  # fmt: skip


def _step(penstock: Platform) -> dict[str, Any]:
    model = parts.dense_model(penstock.folder / "step" / "model.onnx", WIDTHS)
    scaling = {"minReplicas": 1, "maxReplicas": 4, "targetInFlightRequests": 2, "stabilizationWindowSeconds": 10}
    # The load is more than one replica can answer: what comes until others are up must find room in the queue.
    batching = {"maxBatchSize": 1, "maxQueuedRequests": 10_000}
    manifest = deployment("default", "step", model, scaling=scaling, batching=batching)
    penstock.kubectl("apply", "-f", "-", manifest=manifest)
    url = penstock.until_ready("default", "step")["status"]["url"]
    burst = _send(url, [0.0] * BURST)
    capacity = BURST / max(answer.sent + answer.seconds for answer in burst.answers)
    rate = capacity * 1.1
    report.progress(f"one replica answers {capacity:.0f} requests/s; {rate:.0f} requests/s for 40 s")
    with Watch(penstock, "step") as watch:
        outcome = _send(url, [number / rate for number in range(int(rate * 40))])
        up = time.monotonic()
        said = penstock.get("default", "step")["status"]["replicas"]
        report.progress(f"{watch.most()} replicas; the status says: {said}")
        parts.until("one replica", lambda: len(penstock.gateway.receiving("default", "step")) == 1, 240)
        down = time.monotonic() - up
    penstock.kubectl("delete", "infdep", "step", "--timeout=120s")
    return _row(
        f"step: {rate:.0f} requests/s for 40 s", outcome,
        **{"2 replicas at s": watch.first(2), "4 replicas at s": watch.first(4), "most": watch.most(),
           "back to 1 at s": f"{down:.0f} after"},
    )  # fmt: skip


def _from_zero(penstock: Platform) -> tuple[dict[str, Any], str]:
    model = parts.dense_model(penstock.folder / "zero" / "model.onnx", (64, 10))
    scaling = {"minReplicas": 0, "maxReplicas": 1, "scaleToZeroAfterSeconds": 3, "stabilizationWindowSeconds": 1}
    penstock.kubectl("apply", "-f", "-", manifest=deployment("default", "zero", model, scaling=scaling))
    url = penstock.until_ready("default", "zero")["status"]["url"]
    parts.until("no replica", lambda: not penstock.gateway.receiving("default", "zero"), 120)
    report.progress("50 requests at once at zero replicas")
    with Watch(penstock, "zero") as watch:
        began = time.monotonic()
        outcome = _send(url, [0.0] * 50)
        started = time.monotonic() - processes.age_seconds(penstock.replica_processes("default", "zero")[0]) - began
    first = min(answer.sent + answer.seconds for answer in outcome.answers)
    receiving = min(next((when for when, seen in watch.changes if seen), first), first)
    phases = (
        f"at zero, by phase: woken, decided by Serve and placed {started:.2f} s; process, model and lease "
        f"{receiving - started:.2f} s; to the first answer {first - receiving:.2f} s"
    )
    return _row("50 at once at zero", outcome, most=watch.most()), phases


if __name__ == "__main__":
    main()
