"""50 arrivals 20 ms apart on an engine that takes 200 ms for up to 16: our batcher beside `ray.serve.batch`.

Each batches inside its own process, over the same schedule and the same engine time, ours in an executor, `serve.batch` in
a Serve deployment that drives itself. The engine sleeps: what is measured is when requests are put together.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tests.benchmarks import parts, report
from tests.benchmarks.arrivals import ENGINE, LARGEST, arrive
from tests.integration.local_ray import local_ray

from penstock.serving.joining import Joining
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock.serving.settings import BatchingSettings
from penstock_runtime.batching.ticket import Ticket
from penstock_runtime.engines import Array
from penstock_runtime.joining import Trial
from penstock_serving.replica.call import Call
from penstock_serving.replica.codec.requests import InferRequest
from penstock_serving.replica.execution.executor import Executor
from penstock_serving.replica.execution.joint import BatchRun


class SleepingEngine:
    """Takes 200 ms for whatever it is given."""

    platform = "sleep"
    signature = Signature(
        inputs=(TensorSpec(name="x", datatype=DataType.FP32, shape=(-1, 1)),),
        outputs=(TensorSpec(name="y", datatype=DataType.FP32, shape=(-1, 1)),),
    )

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The input, later."""
        time.sleep(ENGINE)
        return {"y": inputs["x"]}


async def _ours(delay_milliseconds: int) -> tuple[list[float], list[int]]:
    batches: list[int] = []
    waiting: dict[int, asyncio.Future[None]] = {}

    def ran(result: BatchRun) -> None:
        batches.append(len(result.members))
        for member in result.members:
            waiting.pop(id(member.payload)).set_result(None)

    settings = BatchingSettings(max_batch_size=LARGEST, max_delay_milliseconds=delay_milliseconds)
    trial = Trial(Joining(inputs={"x": 0}, outputs={"y": 0}), "declared here")
    executor = Executor(
        SleepingEngine(), trial, settings, on_ran=ran, on_expired=lambda _: None, on_shed=lambda _: None
    )

    async def submit() -> None:
        call = Call(time.monotonic_ns())
        call.request = InferRequest({"x": np.zeros((1, 1), np.float32)}, 1, ((1,),), ())
        done = waiting[id(call)] = asyncio.get_running_loop().create_future()
        rejected = executor.submit(Ticket(call, bucket=call.request.bucket), time.monotonic())
        assert rejected is None
        await done

    latencies = await arrive(submit)
    executor.close()
    return latencies, batches


def _serve_batch() -> tuple[list[float], list[int]]:
    application = {"name": "batch", "route_prefix": "/batch", "import_path": "tests.benchmarks.peers.serve_batch:app"}
    with local_ray(environment={"PYTHONPATH": str(Path.cwd())}) as ray:
        parts.put_applications(ray, [application])
        seen = parts.http_json(f"{ray.serve_url}/batch", timeout=120)
    return seen["latencies"], [int(size) for size in seen["batches"]]


def main() -> None:
    """Measure, and publish `batcher-arrivals`."""
    report.progress("serve.batch runs in a real Ray")
    cases = {
        "penstock": asyncio.run(_ours(0)),
        "penstock, maxDelayMilliseconds 10": asyncio.run(_ours(10)),
        "ray.serve.batch, wait 10 ms": _serve_batch(),
    }
    baseline = statistics.median(cases["ray.serve.batch, wait 10 ms"][0])
    rows = [
        {
            "batcher": name,
            "p50 s": round(statistics.median(latencies), 3),
            "max s": round(max(latencies), 3),
            "batches": len(batches),
            "mean batch": round(statistics.mean(batches), 1),
            "× faster at p50": round(baseline / statistics.median(latencies), 1),
        }
        for name, (latencies, batches) in cases.items()
    ]
    report.publish("batcher-arrivals", "50 arrivals 20 ms apart, a 200 ms engine, at most 16 in a batch", rows)


if __name__ == "__main__":
    main()
