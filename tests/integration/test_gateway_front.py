"""A gateway behind something that leaves a prefix before paths, and gives up on requests that are held."""

from __future__ import annotations

import asyncio

import pytest
from tests.integration.gateway_parts import SECRET, Replica, gateway, until

from penstock.routing.tokens import secret_digest

KNOWN = 'penstock_gateway_requests_total{code="2xx",model="m",namespace="team"} 2.0'


def test_paths_are_answered_with_a_prefix_and_without_and_counted_alike() -> None:
    async def run() -> None:
        async with Replica() as behind, gateway("--path-prefix=/front/models") as running:
            await running.lease("a", behind.address, "team/m")
            asked = "/team/v2/models/m/infer?x=1"
            for path in (f"/front/models{asked}", asked):
                status, told, _ = await running.infer(path)
                assert (status, told["path"]) == (200, "/team/v2/models/m/infer?x=1")
            for path in (f"/front/modelsteam{asked}", f"/front{asked}", f"/front/models/front/models{asked}"):
                assert (await running.infer(path))[0] == 404, path

            async def counted() -> bool:
                async with running.session.get(f"{running.control}/metrics") as answer:
                    shown = await answer.text()
                assert (
                    f'penstock_gateway_secret_info{{component="gateway",digest="{secret_digest(SECRET)}"}} 1.0' in shown
                )
                return KNOWN in shown

            await until(counted)
            async with running.session.get(f"{running.url}/front/models/v2/health/live") as answer:
                assert answer.status == 200

    asyncio.run(run())


@pytest.mark.parametrize(
    ("bound", "routes_say", "waited"),
    [
        pytest.param("0.5", 60.0, "0.5 s", id="the gateway's bound, under that of what stands before it"),
        pytest.param("60", 0.5, "0.5 s", id="the route's, where it is less"),
        pytest.param("0", 0.5, "0.5 s", id="the route's, where the gateway has none"),
    ],
)
def test_a_request_that_is_held_is_told_when_to_come_again_after(bound: str, routes_say: float, waited: str) -> None:
    async def run() -> None:
        async with gateway(f"--hold-seconds={bound}") as running:
            await running.declare(holdSeconds=routes_say)
            status, told, headers = await running.infer()
            assert (status, headers.get("retry-after")) == (503, "1")
            assert told == {"error": f"no replica of model 'm' was ready within {waited}"}

    asyncio.run(run())
