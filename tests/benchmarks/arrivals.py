"""The schedule of the batcher's benchmark."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

ARRIVALS, APART, ENGINE, LARGEST = 50, 0.02, 0.2, 16


async def arrive(submit: Callable[[], Awaitable[object]]) -> list[float]:
    """Latencies in seconds of 50 requests that come 20 ms apart, whatever the answers do."""
    latencies: list[float] = []

    async def one() -> None:
        began = time.monotonic()
        await submit()
        latencies.append(time.monotonic() - began)

    start = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number in range(ARRIVALS):
            await asyncio.sleep(max(0.0, start + number * APART - time.monotonic()))
            tasks.create_task(one())
    return latencies
