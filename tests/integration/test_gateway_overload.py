"""What the gateway does with more requests than replicas say that they take, on the real HAProxy."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from tests.integration.gateway_parts import Gateway, Replica, run, until


async def occupied(stack: AsyncExitStack, name: str = "a") -> Replica:
    """A replica that answers nothing yet."""
    replica = await stack.enter_async_context(Replica(name))
    replica.go_on.clear()
    return replica


def ask(gw: Gateway, count: int) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(gw.infer()) for _ in range(count)]


def test_what_no_replica_has_room_for_is_refused_by_the_gateway_and_says_when_to_come_again() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        replica = await occupied(stack)
        await gw.lease("a", replica.address, room={"requests": 2, "retryAfterSeconds": 7})
        inside = ask(gw, 2)
        await until(lambda: _has(replica, 2))
        status, body, headers = await gw.infer()
        assert (status, set(body), headers["retry-after"]) == (429, {"error"}, "7")
        assert headers["content-type"] == "application/json"
        replica.go_on.set()
        assert [answer[0] for answer in await asyncio.gather(*inside)] == [200, 200]
        assert replica.answered == 2
        assert (await gw.infer())[0] == 200

    run(scenario)


def test_a_replica_that_says_nothing_gets_all() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        replica = await occupied(stack)
        await gw.lease("a", replica.address)
        inside = ask(gw, 50)
        await until(lambda: _has(replica, 50))
        replica.go_on.set()
        assert {answer[0] for answer in await asyncio.gather(*inside)} == {200}

    run(scenario)


def test_room_follows_the_lease_in_place_and_small_changes_are_none() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        replica = await occupied(stack)
        await gw.lease("a", replica.address, room={"requests": 5})
        inside = ask(gw, 5)
        await until(lambda: _has(replica, 5))
        await gw.lease("a", replica.address, room={"requests": 6})
        assert (await gw.infer())[0] == 429, "a fifth more is no change"
        await gw.lease("a", replica.address, room={"requests": 8})
        inside += ask(gw, 3)
        await until(lambda: _has(replica, 8))
        assert (await gw.infer())[0] == 429
        # HAProxy is asked anew every five seconds, and does not say what it was bounded to.
        await asyncio.sleep(6)
        assert (await gw.infer())[0] == 429
        await gw.lease("a", replica.address)
        inside += ask(gw, 10)
        await until(lambda: _has(replica, 18))
        replica.go_on.set()
        assert {answer[0] for answer in await asyncio.gather(*inside)} == {200}

    run(scenario)


def test_a_full_replica_leaves_its_requests_to_one_that_has_room() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        full, free = await occupied(stack, "full"), await occupied(stack, "free")
        await gw.lease("full", full.address, room={"requests": 1})
        await gw.lease("free", free.address, room={"requests": 9})
        inside = ask(gw, 10)
        await until(lambda: _has(free, 9))
        await until(lambda: _has(full, 1))
        assert (await gw.infer())[0] == 429
        full.go_on.set()
        free.go_on.set()
        assert {answer[0] for answer in await asyncio.gather(*inside)} == {200}

    run(scenario)


def test_of_two_revisions_the_one_that_is_full_refuses_its_share_though_the_other_has_room() -> None:
    """Who gets which request goes by lots alone (docs/adr/0019)."""

    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        stable, candidate = await occupied(stack, "stable"), await occupied(stack, "candidate")
        await gw.lease("stable", stable.address, revision="v1", room={"requests": 40, "retryAfterSeconds": 7})
        await gw.lease("candidate", candidate.address, revision="v2", room={"requests": 1, "retryAfterSeconds": 7})
        await gw.declare(revisions={"v1": 50, "v2": 50})
        inside = ask(gw, 30)

        async def all_are_in_or_refused() -> bool:
            return sum(each.done() for each in inside) + stable.answered + candidate.answered == 30

        await until(all_are_in_or_refused)
        stable.go_on.set()
        candidate.go_on.set()
        answers = await asyncio.gather(*inside)
        refused = [headers["retry-after"] for status, _, headers in answers if status == 429]
        assert candidate.answered == 1
        assert len(refused) == 29 - stable.answered
        assert set(refused) == {"7"}, "chance leaves none once in 40 million times"

    run(scenario)


async def _has(replica: Replica, requests: int) -> bool:
    return replica.answered >= requests


def test_a_look_at_a_model_that_is_full_is_no_inference() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        replica = await occupied(stack)
        await gw.lease("a", replica.address, room={"requests": 1})
        inside = ask(gw, 1)
        await until(lambda: _has(replica, 1))
        assert (await gw.infer())[0] == 429
        call = f"{gw.url}/inference.GRPCInferenceService/"
        message, kind = b"\0\0\0\0\3\x0a\1m", {"content-type": "application/grpc"}
        async with gw.session.post(call + "ModelInfer", data=message, headers=kind) as refused:
            assert refused.headers["grpc-status"] == "8"
        look = asyncio.create_task(gw.session.post(call + "ModelReady", data=message, headers=kind))
        replica.go_on.set()
        (await look).close()
        assert (await inside[0])[0] == 200
        assert replica.answered == 2

    run(scenario)
