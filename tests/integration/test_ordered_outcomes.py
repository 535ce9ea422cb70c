"""Outcomes from real replicas, ordered by the real gateway while a route compares their revisions."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc.aio as triton_aio
from tests.integration.gateway_parts import SECRET, Gateway, gateway, token_of, until
from tests.integration.grpc_parts import triton_inputs
from tests.integration.replica_process import document, replica, save_linear

from penstock.routing.fleet import FEATURES, FEATURES_HEADER, ORDERS
from penstock.routing.leases import RouteList, RouteStatus
from penstock.routing.outcomes import ReplicaOutcomes
from penstock.routing.tokens import admin_token

_MODEL = "default/tiny"
_COMPARED = {"candidate": "v2", "stable": "v1", "shadowShare": 0.1}


async def _status(gw: Gateway, features: frozenset[str] = FEATURES) -> RouteStatus:
    headers = {"authorization": f"Bearer {admin_token(SECRET)}", FEATURES_HEADER: " ".join(features)}
    async with gw.session.get(gw.control + "/v1/routes", headers=headers) as response:
        (status,) = RouteList.model_validate_json(await response.read()).routes
        return status


async def replica_outcomes(gw: Gateway) -> dict[str, ReplicaOutcomes]:
    """What replicas count, by revision, as the operator is told."""
    return {each.revision: each.outcomes for each in (await _status(gw)).replicas if each.outcomes is not None}


def test_what_replicas_count_is_seen_while_their_revisions_are_compared(tmp_path: Path) -> None:
    model = save_linear(tmp_path / "model.onnx")
    asked = document(np.ones((1, 64), np.float32))

    async def scenario(gw: Gateway) -> None:
        settings: dict[str, Any] = {
            "gateways": (gw.control,), "registration_token": token_of(_MODEL), "lease_seconds": 0.6,
        }  # fmt: skip
        with (
            replica(model, revision="v1", replica_id="s", **settings),
            replica(model, revision="v2", replica_id="c", **settings),
        ):
            await until(lambda: _is(gw, receiving={"s"}))
            assert await replica_outcomes(gw) == {}
            await gw.declare(_MODEL, revisions={"v1": 50, "v2": 50}, comparison=_COMPARED)
            for _ in range(20):
                async with gw.session.post(f"{gw.url}/v2/models/tiny/infer", json=asked) as response:
                    assert response.status == 200

            async def counted() -> bool:
                return sum(each.answered for each in (await replica_outcomes(gw)).values()) == 20

            await until(counted)
            seen = await replica_outcomes(gw)
            assert set(seen) == {"v1", "v2"}
            assert all(sum(each.seconds.values()) == each.answered for each in seen.values())
            assert all(each.failed == each.late == 0 for each in seen.values())
            assert all(each.age_seconds > 0 and each.memory_bytes > 1_000_000 for each in seen.values())
            # What no model runs is told apart from what one fails at: an input that there is not, and a deadline that was over.
            lapsed = {**asked, "parameters": {"timeout": 1}}
            for wrong, expected in (({"inputs": [{**asked["inputs"][0], "name": "z"}]}, 400), (lapsed, 504)):
                async with gw.session.post(f"{gw.url}/v2/models/tiny/infer", json=wrong) as response:
                    assert response.status == expected

            async def told_apart() -> bool:
                told = [each.unrun for each in (await replica_outcomes(gw)).values() if each.unrun is not None]
                return [sum(each.unfit for each in told), sum(sum(each.expired.values()) for each in told)] == [1, 1]

            await until(told_apart)
            assert sum(each.failed for each in (await replica_outcomes(gw)).values()) == 2
            # Each call of a connection that carries many draws a lot of its own.
            async with triton_aio.InferenceServerClient(f"{gw.address}:{gw.port}") as client:
                for _ in range(40):
                    await client.infer("tiny", triton_inputs({"x": np.ones((1, 64), np.float32)}))

            async def called() -> bool:
                return sum(each.answered for each in (await replica_outcomes(gw)).values()) == 60

            await until(called)
            calls = {name: each.answered - seen[name].answered for name, each in (await replica_outcomes(gw)).items()}
            assert min(calls.values()) >= 4, "chance leaves less than once in a million times"
            # An operator of a former release would refuse the whole list.
            former = await _status(gw, FEATURES - {ORDERS})
            assert all(each.outcomes is None for each in former.replicas)
            await gw.declare(_MODEL, revisions={"v1": 100})

            async def over() -> bool:
                return not await replica_outcomes(gw)

            await until(over)

    async def main() -> None:
        async with asyncio.timeout(120), gateway() as running:
            await running.declare(_MODEL, revisions={"v1": 100})
            await scenario(running)

    asyncio.run(main())


async def _is(gw: Gateway, receiving: set[str]) -> bool:
    """Whether both replicas have a lease, and these receive."""
    replicas = (await _status(gw)).replicas
    return len(replicas) == 2 and {each.replica_id for each in replicas if each.receiving} == receiving


@pytest.mark.parametrize(
    ("said", "ordered"),
    [
        pytest.param({"obeys": True}, True, id="one that says that it obeys"),
        pytest.param({}, False, id="one of a former release, which would refuse the word"),
    ],
)
def test_a_lease_is_answered_with_orders_only_where_it_says_that_they_are_understood(
    said: dict[str, Any], *, ordered: bool
) -> None:
    async def main() -> None:
        async with asyncio.timeout(120), gateway() as gw:
            await gw.declare(_MODEL, revisions={"v1": 100}, comparison=_COMPARED)
            candidate = {"revision": "v2", "address": "127.0.0.1:9", "obeys": True}
            body = {"namespace": "default", "model": "tiny", "version": "1", "revision": "v1", "address": "127.0.0.1:8"}
            await gw.call("PUT", "/v1/replicas/c", body | candidate, token_of(_MODEL))
            status, answer = await gw.call("PUT", "/v1/replicas/s", body | said, token_of(_MODEL))
            assert status == 200
            assert ("orders" in answer) is ordered
            if ordered:
                assert answer["orders"]["outcomes"] is True
                assert [each["address"] for each in answer["orders"]["shadow"]["candidate"]] == ["127.0.0.1:9"]

    asyncio.run(main())
