"""The real HAProxy, reloaded faster than it can, or with what it does not take."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from tests.ports import free_port

from penstock.errors import Unavailable
from penstock.routing.leases import ReplicaLease
from penstock_serving.gateway.access.admissions import Admissions
from penstock_serving.gateway.haproxy.convergence import Convergence
from penstock_serving.gateway.haproxy.process import Haproxy, find_haproxy
from penstock_serving.gateway.haproxy.runtime_socket import execute
from penstock_serving.gateway.settings import GatewaySettings
from penstock_serving.gateway.table.registry import Registry

RELOADS = 20


class Spoiling(Haproxy):
    """Finds its configuration damaged at a reload, as a full disk would leave it."""

    spoilt = True

    async def reload(self) -> str:
        if self.spoilt:
            self._layout.config.write_text("global\n  nonsense\n", encoding="utf-8")
        return await super().reload()


@asynccontextmanager
async def settings() -> AsyncIterator[GatewaySettings]:
    with tempfile.TemporaryDirectory(prefix="hap-") as folder:
        found = GatewaySettings(secret="s", state_dir=Path(folder), port=free_port(), slots=1)
        found.layout.run.mkdir()
        yield found


def run(scenario: Callable[[GatewaySettings, AsyncExitStack], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(120), settings() as found, AsyncExitStack() as stack:
            await scenario(found, stack)

    asyncio.run(main())


def write(of: GatewaySettings, edition: str) -> None:
    socket = f"stats socket unix@{of.layout.runtime_socket} mode 600 level admin expose-fd listeners"
    text = f"global\n  {socket}\n  node {edition}\nfrontend f\n  mode http\n  timeout client 1s\n  bind 127.0.0.1:{of.port}\n"
    of.layout.config.write_text(text, encoding="utf-8")


async def until_runs(of: GatewaySettings, edition: str) -> None:
    """Asks on without a rest: what follows comes as early as it can."""
    while True:
        try:
            if f"node: {edition}\n" in await execute(of.layout.runtime_socket, ["show info"]):
                return
        except Unavailable:
            pass
        await asyncio.sleep(0)


def test_none_of_many_reloads_is_lost_each_as_soon_as_the_worker_before_answers() -> None:
    async def scenario(of: GatewaySettings, stack: AsyncExitStack) -> None:
        haproxy = Haproxy(find_haproxy(of), of.layout, list)
        stack.push_async_callback(haproxy.stop, 0.0)
        write(of, "e0")
        await haproxy.start()
        for number in range(1, RELOADS):
            await until_runs(of, f"e{number - 1}")
            write(of, f"e{number}")
            assert await haproxy.reload() == ""
        await until_runs(of, f"e{RELOADS - 1}")

    run(scenario)


def test_a_configuration_that_is_not_taken_is_told_and_the_next_one_is_taken() -> None:
    async def scenario(of: GatewaySettings, stack: AsyncExitStack) -> None:
        haproxy = Haproxy(find_haproxy(of), of.layout, list)
        stack.push_async_callback(haproxy.stop, 0.0)
        write(of, "e0")
        await haproxy.start()
        await until_runs(of, "e0")
        of.layout.config.write_text("global\n  nonsense\n", encoding="utf-8")
        assert "nonsense" in await haproxy.reload()
        await until_runs(of, "e0")
        write(of, "e1")
        assert await haproxy.reload() == ""
        await until_runs(of, "e1")

    run(scenario)


def test_an_haproxy_that_ended_says_so_when_it_is_to_reload() -> None:
    async def scenario(of: GatewaySettings, _: AsyncExitStack) -> None:
        haproxy = Haproxy(find_haproxy(of), of.layout, list)
        with pytest.raises(Unavailable):
            await haproxy.reload()
        write(of, "e0")
        await haproxy.start()
        await until_runs(of, "e0")
        await haproxy.stop(0.0)
        with pytest.raises(Unavailable):
            await haproxy.reload()

    run(scenario)


def test_a_worker_goes_on_with_what_it_holds_while_more_slots_are_refused_and_they_come_later() -> None:
    async def scenario(of: GatewaySettings, stack: AsyncExitStack) -> None:
        registry = Registry(of.state_dir / "routes.json")
        haproxy = Spoiling(find_haproxy(of), of.layout, list)
        stack.push_async_callback(haproxy.stop, 0.0)
        convergence = Convergence(of, registry, Admissions(), haproxy)
        lease(registry, "first")
        await convergence._converge(registry.generation)
        edition = convergence.edition
        lease(registry, "second")
        for _ in range(2):
            with pytest.raises(Unavailable, match="HAProxy refused"):
                await convergence._converge(registry.generation)
        assert convergence.edition == edition
        held = await execute(of.layout.runtime_socket, [f"show map {of.layout.map}"], edition)
        assert "/first" in held
        assert "/second" not in held
        haproxy.spoilt = False
        await convergence._converge(registry.generation)
        assert "/second" in await execute(of.layout.runtime_socket, [f"show map {of.layout.map}"], convergence.edition)

    run(scenario)


def lease(registry: Registry, model: str) -> None:
    registry.lease(
        f"replica-{model}",
        ReplicaLease(
            namespace="default", model=model, version="1", revision="r1", address="127.0.0.1:9", lease_seconds=60
        ),
        "",
    )
