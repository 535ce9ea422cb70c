"""Names that tenants choose, whose servers may take as long as they like to answer."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from penstock.errors import Unavailable
from penstock.routing.access import RouteIssuer
from penstock_serving.gateway.access.issuers import Issuers
from penstock_serving.gateway.lookups import MOST_OF_A_NAMESPACE, charge_lookups_to, look_up
from penstock_serving.gateway.services import alias_of


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names below `slow` have no answer until the test ends; those that were asked for."""
    asked: list[str] = []
    ended = threading.Event()

    def lookup(host: str, port: Any, *_arguments: object, **_options: object) -> list[Any]:
        asked.append(host)
        if ".slow." in host:
            ended.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        if host.startswith("none."):
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, host, ("192.0.2.7", port or 0))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    yield asked
    ended.set()


@pytest.mark.usefixtures("slow")
def test_slow_names_of_one_namespace_keep_nothing_else_waiting() -> None:
    async def scenario() -> None:
        with charge_lookups_to("greedy"):
            waiting = [asyncio.create_task(alias_of(f"a{each}.slow.svc")) for each in range(3 * MOST_OF_A_NAMESPACE)]
        async with asyncio.timeout(30):
            refused, _ = await asyncio.wait(waiting[MOST_OF_A_NAMESPACE:])
            assert all(isinstance(each.exception(), OSError) for each in refused)
            with charge_lookups_to("modest"):
                assert await alias_of("head.quick.svc") is None
                with pytest.raises(OSError, match="no such name"):
                    await alias_of("none.quick.svc")
            assert await asyncio.to_thread(lambda: "routes are written")
        assert not any(each.done() for each in waiting[:MOST_OF_A_NAMESPACE])
        for each in waiting:
            each.cancel()

    asyncio.run(scenario())


def test_a_name_is_looked_up_once_for_all_who_ask_meanwhile(slow: list[str]) -> None:
    async def scenario() -> None:
        waiting = [asyncio.create_task(look_up("head.slow.svc", 80)) for _ in range(3 * MOST_OF_A_NAMESPACE)]
        await asyncio.sleep(0)
        assert await look_up("head.quick.svc", 80)
        async with asyncio.timeout(30):
            while len(slow) < 2:  # noqa: ASYNC110 -- the thread of the first may begin after the second has ended
                await asyncio.sleep(0.01)
        assert not any(each.done() for each in waiting)
        assert sorted(slow) == ["head.quick.svc", "head.slow.svc"]
        for each in waiting:
            each.cancel()

    asyncio.run(scenario())


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("private", [False, True], ids=["at public addresses", "at any address"])
def test_slow_issuers_keep_nothing_else_waiting(private: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001 -- a parameter
    monkeypatch.setattr("penstock_serving.gateway.access.issuers.TIMEOUT_SECONDS", 0.2)

    async def scenario() -> None:
        issuers = Issuers(allow_private=private, ca_file=None)

        async def ask(number: int) -> None:
            entry = RouteIssuer(issuer=f"https://i{number}.slow.example", audiences=("a",))
            with pytest.raises(Unavailable):
                await issuers.keys(f"ns{number}", entry, "k")

        async with asyncio.timeout(30):
            await asyncio.gather(*(ask(each) for each in range(64)))
            assert await asyncio.to_thread(lambda: "routes are written")
        await issuers.close()

    asyncio.run(scenario())
