"""`@serve.batch` in a Serve deployment, measured from inside it: no proxy, no handle, only its batching."""

from __future__ import annotations

import asyncio

from ray import serve
from ray.serve import Application
from tests.benchmarks.arrivals import ENGINE, LARGEST, arrive


@serve.deployment(name="batch", max_ongoing_requests=256)
class Batch:
    """A GET runs the schedule and returns latencies and batch sizes."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    @serve.batch(max_batch_size=LARGEST, batch_wait_timeout_s=0.01)
    async def engine(self, items: list[int]) -> list[int]:
        """The engine: 200 ms for whatever it is given."""
        self.batches.append(len(items))
        await asyncio.sleep(ENGINE)
        return items

    async def __call__(self) -> dict[str, list[float]]:
        self.batches = []
        latencies = await arrive(lambda: self.engine(1))
        return {"latencies": latencies, "batches": list(map(float, self.batches))}


def app(args: dict[str, str]) -> Application:
    """Builder for Serve's declarative API."""
    del args
    return Batch.bind()
