"""200 requests/s while a replica is killed, the model is changed, and the operator is killed and restarted three times."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

from tests.benchmarks import parts, report
from tests.benchmarks.open_loop import Outcome, steady
from tests.benchmarks.stack import running_platform
from tests.e2e.stack import deployment

PER_SECOND = 200


def during(url: str, body: bytes, seconds: float, act: Callable[[], None]) -> Outcome:
    """The load's outcome while something happens, beginning a second in."""
    problem: list[Exception] = []

    def acting() -> None:
        time.sleep(1.0)
        try:
            act()
        except Exception as error:  # noqa: BLE001 -- told below, after the load
            problem.append(error)

    thread = threading.Thread(target=acting)
    thread.start()
    outcome = steady(url, body, PER_SECOND, seconds)
    thread.join(300)
    if problem:
        raise problem[0]
    return outcome


def main(seconds: float = 40.0) -> None:
    """Measure, and publish `faults`."""
    with running_platform() as penstock:
        models = [parts.dense_model(penstock.folder / str(n) / "model.onnx", (64, 64, 10), n) for n in range(2)]
        body = parts.request_body()
        scaling = {"replicas": 2}
        penstock.kubectl("apply", "-f", "-", manifest=deployment("default", "m", models[0], scaling=scaling))
        url = penstock.until_ready("default", "m")["status"]["url"]
        parts.until("two replicas", lambda: len(penstock.gateway.receiving("default", "m")) == 2)

        def kill_replica() -> None:
            os.kill(penstock.replica_processes("default", "m")[0], signal.SIGKILL)
            parts.until("two replicas again", lambda: len(penstock.gateway.receiving("default", "m")) == 2)

        def change_model() -> None:
            penstock.kubectl("apply", "-f", "-", manifest=deployment("default", "m", models[1], scaling=scaling))
            penstock.until_ready("default", "m")

        def kill_operator() -> None:
            for _ in range(3):
                penstock.operators[0].kill()
                time.sleep(1.0)
                penstock.operators[0].start()
                time.sleep(4.0)

        rows = []
        for name, act in (
            ("nothing", lambda: None),
            ("a replica killed (SIGKILL)", kill_replica),
            ("the model changed to another revision", change_model),
            ("the operator killed and restarted 3 times", kill_operator),
        ):
            report.progress(f"{PER_SECOND} requests/s for {seconds:g} s: {name}")
            outcome = during(url, body, seconds, act)
            rows.append(
                {
                    "fault": name,
                    "requests": len(outcome.answers),
                    "failed": len(outcome.failed()),
                    "p50 ms": round(outcome.quantile(0.5) * 1000, 2),
                    "p99 ms": round(outcome.quantile(0.99) * 1000, 2),
                    "max ms": round(max(a.seconds for a in outcome.answers) * 1000, 1),
                }
            )
            for answer in outcome.failed()[:3]:
                report.progress(f"failed: {answer}")
    report.publish("faults", f"{PER_SECOND} requests/s, two replicas, open loop, through the gateway", rows)


if __name__ == "__main__":
    main()
