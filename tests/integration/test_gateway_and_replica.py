"""A real replica behind a real gateway, each proving to the other who it is."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.integration.gateway_parts import SECRET, Gateway, gateway, until
from tests.integration.replica_process import ReplicaProcess, document, replica, save_linear
from tests.telling import assert_tells

from penstock.routing.tokens import replica_token

MIB = 1 << 20
ROWS = 65 * MIB // 256
"""Of 64 numbers of 4 bytes."""


@contextlib.asynccontextmanager
async def pair(gw: Gateway, model: Path, **settings: Any) -> AsyncIterator[ReplicaProcess]:
    """A replica that the gateway sends requests to."""
    await gw.declare("default/tiny", owner="u1", revisions={"r1": 100})
    token = replica_token(SECRET, "default", "tiny", "u1")
    # Its process is started from a thread, so that the gateway's log is read meanwhile.
    context = replica(model, gateways=(gw.control,), registration_token=token, lease_seconds=2.0, **settings)
    started = await asyncio.to_thread(context.__enter__)
    try:
        yield started
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


@pytest.mark.parametrize(
    ("at_gateway", "at_replica", "status", "facts"),
    [
        pytest.param(128, 128, 200, "", id="both take so much"),
        pytest.param(64, 128, 413, f"body larger gateway {64 * MIB} bytes", id="the gateway does not"),
        pytest.param(128, 64, 413, f"body limit {64 * MIB} bytes", id="the replica does not"),
    ],
)
def test_a_body_of_65_mib(tmp_path: Path, at_gateway: int, at_replica: int, status: int, facts: str) -> None:
    model = save_linear(tmp_path / "model.onnx")
    tensor = np.ones((ROWS, 64), np.float32).tobytes()
    head = json.dumps(
        {
            "inputs": [
                {"name": "x", "shape": [ROWS, 64], "datatype": "FP32", "parameters": {"binary_data_size": len(tensor)}}
            ],
            "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
        }
    ).encode()
    headers = {"inference-header-content-length": str(len(head))}

    async def scenario() -> None:
        async with (
            asyncio.timeout(180),
            gateway("--max-body-bytes", str(at_gateway * MIB)) as gw,
            pair(gw, model, max_body_bytes=at_replica * MIB),
            gw.session.post(f"{gw.url}/v2/models/tiny/infer", data=head + tensor, headers=headers) as response,
        ):
            answer = await response.read()
            assert response.status == status, answer[:200]
            if status == 200:
                assert len(answer) == int(response.headers["inference-header-content-length"]) + ROWS * 10 * 4
            else:
                assert_tells(json.loads(answer)["error"], facts)

    asyncio.run(scenario())


def test_a_replica_answers_through_its_gateway_and_nobody_else(tmp_path: Path) -> None:
    model, body = save_linear(tmp_path / "model.onnx"), json.dumps(document(np.ones((1, 64), np.float32))).encode()

    async def scenario() -> None:
        async with asyncio.timeout(180), gateway() as gw, pair(gw, model) as started:
            direct = f"http://{started.address}/v2/models/tiny/infer"

            async def alone() -> bool:
                async with gw.session.post(direct, data=body) as answer:
                    return answer.status == 403

            async def answers() -> bool:
                return (await gw.infer("/v2/models/tiny/infer", body))[0] == 200

            await until(alone)
            await until(answers)
            # A deployment of the same name that is made anew has nothing of this one.
            await gw.declare("default/tiny", owner="u2", revisions={"r1": 100}, holdSeconds=1)
            assert (await gw.infer("/v2/models/tiny/infer", body))[0] == 503

    asyncio.run(scenario())
