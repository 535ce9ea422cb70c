"""Replicas' metrics through the gateway, as Prometheus asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from tests.integration.gateway_parts import Gateway, gateway
from tests.ports import free_port
from yarl import URL

METRICS = 'penstock_requests_total{namespace="default",model="m"} 3.0\n'


@asynccontextmanager
async def replica(text: str = METRICS, status: int = 200) -> AsyncIterator[str]:
    """A replica's HTTP server with nothing but metrics; its address."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text=text, status=status, headers={"location": "http://127.0.0.1:1/"})

    application = web.Application()
    application.router.add_get("/metrics", metrics)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _targets(gw: Gateway, probes: str) -> list[dict[str, Any]]:
    async with gw.session.get(f"{probes}/scrape-targets") as answer:
        found: list[dict[str, Any]] = await answer.json()
        return found


def test_prometheus_finds_each_replica_at_the_address_that_it_asked() -> None:
    async def main() -> None:
        port = free_port()
        probes = f"http://127.0.0.1:{port}"
        async with gateway("--probe-port", str(port)) as gw, replica() as address:
            assert await _targets(gw, probes) == []
            await gw.lease("a b/1", address)
            (target,) = await _targets(gw, probes)
            labels = target["labels"]
            assert target["targets"] == [f"127.0.0.1:{port}"]
            assert (labels["instance"], labels["namespace"], labels["model"]) == ("a b/1", "default", "m")
            async with gw.session.get(URL(probes + labels["__metrics_path__"], encoded=True)) as answer:
                assert (answer.status, await answer.text()) == (200, METRICS)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("text", "status", "says"),
    [
        pytest.param("", 500, "answered 500", id="a replica that fails"),
        pytest.param("", 302, "answered 302", id="a replica that sends elsewhere"),
        pytest.param("x" * 5_000_000, 200, "longer than", id="a replica that does not end"),
    ],
)
def test_a_scrape_fails_for(text: str, status: int, says: str) -> None:
    async def main() -> None:
        port = free_port()
        async with gateway("--probe-port", str(port)) as gw, replica(text, status) as address:
            await gw.lease("a", address)
            async with gw.session.get(f"http://127.0.0.1:{port}/replicas/default/m/a/metrics") as answer:
                assert answer.status == 502
                assert says in await answer.text()
            async with gw.session.get(f"http://127.0.0.1:{port}/replicas/default/m/b/metrics") as answer:
                assert answer.status == 404

    asyncio.run(main())
