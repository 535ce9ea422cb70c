"""A real replica behind a real gateway, for clients that block."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.gateway_parts import GUARD_SECONDS, SECRET, Gateway, gateway, until
from tests.integration.replica_process import ReplicaProcess, replica

from penstock.routing.tokens import replica_token


@dataclass(frozen=True)
class Served:
    """A model that is served."""

    gateway: Gateway
    replica: ReplicaProcess

    @property
    def address(self) -> str:
        """The gateway's host and port."""
        return self.gateway.url.partition("://")[2]


@contextmanager
def behind_gateway(
    model: Path, *arguments: str, address: str = "127.0.0.1", trust: ssl.SSLContext | None = None, **settings: Any
) -> Iterator[Served]:
    """A replica of a model `tiny` in the namespace `default`, which its gateway sends requests to."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    stack = AsyncExitStack()

    async def start() -> Gateway:
        running = await stack.enter_async_context(gateway(*arguments, address=address, trust=trust))
        await running.declare("default/tiny", owner="u1", revisions={"r1": 100})
        return running

    async def until_received(running: Gateway) -> None:
        async def received() -> bool:
            behind = (await running.routes())["default/tiny"]["replicas"]
            return any(each["receiving"] for each in behind)

        await until(received)

    try:
        running = asyncio.run_coroutine_threadsafe(start(), loop).result(GUARD_SECONDS)
        token = replica_token(SECRET, "default", "tiny", "u1")
        told = {"gateways": (running.control,), "registration_token": token} | settings
        with replica(model, **told) as started:
            asyncio.run_coroutine_threadsafe(until_received(running), loop).result(GUARD_SECONDS)
            yield Served(running, started)
    finally:
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result(GUARD_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
