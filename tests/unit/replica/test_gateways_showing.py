from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from penstock.routing.fleet import FEATURES_HEADER, GATEWAY_WORD
from penstock.routing.leases import ReplicaStats
from penstock.serving.control import ReplicaSettings
from penstock_serving.replica.registration import Leases

_NAME = "agents.test"
_FORMER, _PRESENT = "127.0.0.2", "127.0.0.3"


async def _gateway(host: str, port: int, features: str) -> asyncio.Server:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\n{FEATURES_HEADER}: {features}\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, host, port)


@pytest.mark.parametrize(
    ("addresses", "told"),
    [
        pytest.param([[_PRESENT]], [True], id="all show it"),
        pytest.param([[_FORMER]], [False], id="none does"),
        pytest.param([[_FORMER, _PRESENT], [_PRESENT]], [False, True], id="the one that did not is gone"),
        pytest.param([[_PRESENT], [_PRESENT, _FORMER]], [True, False], id="one that does not came"),
    ],
)
def test_a_replica_knows_whether_all_its_gateways_show_its_token(
    addresses: Sequence[Sequence[str]], told: Sequence[bool]
) -> None:
    """As gateways come and go, which of a former release show nothing."""

    async def scenario() -> None:
        first = await _gateway(_PRESENT, 0, f"owners {GATEWAY_WORD}")
        port = first.sockets[0].getsockname()[1]
        second = await _gateway(_FORMER, port, "")
        present, heard = list(addresses[0]), asyncio.Queue[bool]()

        async def find(_: str) -> tuple[str, ...]:
            return tuple(present)

        settings = ReplicaSettings(
            namespace="default", model="m", revision="r1", replica_id="a", storage_uri="file:///m", lease_seconds=0.2,
            gateways=(f"http://{_NAME}:{port}",), registration_token="secret",
        )  # fmt: skip
        async with asyncio.timeout(60), first, second:
            leases = Leases(settings, "127.0.0.1:9", "", ReplicaStats, find, showing=heard.put_nowait)
            for step, wanted in zip(addresses, told, strict=True):
                present[:] = step
                while await heard.get() is not wanted:
                    pass
            await leases.leave()

    asyncio.run(scenario())
