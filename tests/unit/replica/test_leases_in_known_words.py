"""What a replica tells gateways of this release and of former ones, which refuse a lease for a word that they do not know."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from penstock.routing.fleet import FEATURES, FEATURES_HEADER, ORDERS, SHOWN, UNRUN
from penstock.routing.leases import LeaseGranted, ReplicaStats
from penstock.routing.outcomes import (
    MadeOutcomes,
    Orders,
    ReplicaOutcomes,
    ShadowOutcomes,
    ShownOutcomes,
    UnrunRequests,
)
from penstock.routing.tokens import replica_token
from penstock.serving.control import ReplicaSettings
from penstock_serving.replica.registration import Leases

_COUNTED = ReplicaOutcomes(
    answered=3,
    shown=ShownOutcomes(answered=2),
    shadow=ShadowOutcomes(revision="v2", made=MadeOutcomes(samples=7)),
    unrun=UnrunRequests(unfit=1),
)
_GRANTED = LeaseGranted(lease_seconds=1, orders=Orders(outcomes=True)).model_dump_json().encode()


@pytest.mark.parametrize(
    ("features", "said"),
    [
        pytest.param(FEATURES, {"obeys", "outcomes", "features", "shown", "made", "unrun"}, id="of this release"),
        pytest.param(
            FEATURES - {UNRUN},
            {"obeys", "outcomes", "features", "shown", "made"},
            id="of one that tells no failures apart",
        ),
        pytest.param(
            FEATURES - {UNRUN, SHOWN}, {"obeys", "outcomes"}, id="of one that tells nothing apart that is shown"
        ),
        pytest.param(FEATURES - {UNRUN, SHOWN, ORDERS}, set(), id="of one that orders nothing"),
    ],
)
def test_a_gateway_is_told_what_it_knows(features: frozenset[str], said: set[str]) -> None:
    heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.lower().splitlines() if b"content-length" in line)
        body = await reader.readexactly(length)
        if body:
            heard.put_nowait(json.loads(body))
        words = f"{FEATURES_HEADER}: {' '.join(features)}"
        writer.write(f"HTTP/1.1 200 OK\r\n{words}\r\nContent-Length: {len(_GRANTED)}\r\n\r\n".encode() + _GRANTED)
        await writer.drain()
        writer.close()

    async def scenario() -> set[str]:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        settings = ReplicaSettings(
            namespace="default", model="m", revision="r1", replica_id="a", storage_uri="file:///m", lease_seconds=0.2,
            gateways=(f"http://127.0.0.1:{port}",), registration_token=replica_token("s", "default", "m", "u"),
        )  # fmt: skip
        async with asyncio.timeout(60), server:
            leases = Leases(settings, "127.0.0.1:9", "", ReplicaStats, outcomes=lambda: _COUNTED)
            # The first is said before the gateway's words are known, and the second before its orders are.
            first, *_, last = [await heard.get() for _ in range(4)]
            await leases.leave()
        assert "obeys" not in first
        outcomes = last.get("outcomes", {})
        assert not outcomes or outcomes["answered"] == 3
        return last.keys() | outcomes.keys() | outcomes.get("shadow", {}).keys()

    told = asyncio.run(scenario())
    assert told & {"obeys", "outcomes", "features", "shown", "made", "unrun"} == said
