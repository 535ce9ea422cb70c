"""A real replica behind a real gateway, each proving to the other who it is."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
from tests.integration.gateway_parts import SECRET, gateway, until
from tests.integration.replica_process import document, replica, save_linear

from penstock.routing.tokens import replica_token


def test_a_replica_answers_through_its_gateway_and_nobody_else(tmp_path: Path) -> None:
    model, body = save_linear(tmp_path / "model.onnx"), json.dumps(document(np.ones((1, 64), np.float32))).encode()

    async def scenario() -> None:
        async with asyncio.timeout(180), gateway() as gw:
            await gw.declare("default/tiny", owner="u1", revisions={"r1": 100})
            settings: dict[str, Any] = {
                "gateways": (gw.control,),
                "registration_token": replica_token(SECRET, "default", "tiny", "u1"),
                "lease_seconds": 2.0,
            }
            # Its process is started from a thread, so that the gateway's log is read meanwhile.
            context = replica(model, **settings)
            started = await asyncio.to_thread(context.__enter__)
            try:
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
            finally:
                await asyncio.to_thread(context.__exit__, None, None, None)

    asyncio.run(scenario())
