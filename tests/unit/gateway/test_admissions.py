from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from tests.integration.access_parts import Issuer, bearer
from tests.ports import free_port

from penstock.api.access import Authentication
from penstock.routing.access import Admitted, RouteAccess, RouteIssuer
from penstock.routing.leases import Route
from penstock_serving.gateway.access.admissions import SPACING_SECONDS, Admissions
from penstock_serving.gateway.access.gatekeeper import Gatekeeper
from penstock_serving.gateway.access.issuers import Issuers
from penstock_serving.gateway.access.verification import Verification
from penstock_serving.gateway.haproxy.convergence import Convergence
from penstock_serving.gateway.haproxy.process import Haproxy, find_haproxy
from penstock_serving.gateway.settings import GatewaySettings
from penstock_serving.gateway.table.registry import Registry

MODEL = ("ns", "m")
ISSUERS = (RouteIssuer(issuer="https://i", audiences=("a",)),)


def token(number: int, until: int = 2000) -> tuple[str, Admitted]:
    return f"{number:064x}", Admitted(f"jwt/{number}", until, ISSUERS)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(main())


class Time:
    """A clock that goes on by what is waited for, and by what the test says."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def clock(self) -> float:
        return self.now

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def test_of_many_tokens_haproxy_is_told_together_and_of_a_lone_one_at_once() -> None:
    async def scenario() -> None:
        told, time_ = [], Time()
        admissions = Admissions(clock=time_.clock, pause=time_.pause)
        for burst in range(3):
            for number in range(500):
                admissions.admit(MODEL, *token(burst * 500 + number))
            await admissions.wait_for_news()
            told.append(len(admissions.collect(1000.0)))
        assert (told, time_.pauses) == ([500, 1000, 1500], [0.0, SPACING_SECONDS, SPACING_SECONDS])
        time_.now += 10
        admissions.admit(MODEL, *token(9999))
        await admissions.wait_for_news()
        assert time_.pauses[-1] == 0.0

    run(scenario)


def test_there_is_no_news_of_what_haproxy_was_told() -> None:
    async def scenario() -> None:
        admissions = Admissions(pause=Time().pause)
        admissions.admit(MODEL, *token(1))
        admissions.collect(1000.0)
        news = asyncio.create_task(admissions.wait_for_news())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not news.done()
        admissions.admit(MODEL, *token(2))
        await news

    run(scenario)


def test_a_token_is_found_while_it_holds_and_for_the_same_issuers_only() -> None:
    admissions = Admissions(bound=2)
    digest, admitted = token(1, until=1100)
    admissions.admit(MODEL, digest, admitted)
    assert admissions.find(MODEL, digest, ISSUERS, 1099.0) == admitted
    for what, found in {
        "after its end": admissions.find(MODEL, digest, ISSUERS, 1100.0),
        "of a model with other issuers now": admissions.find(MODEL, digest, (), 1099.0),
        "at another model": admissions.find(("ns", "n"), digest, ISSUERS, 1099.0),
        "in another namespace": admissions.find(("other", "m"), digest, ISSUERS, 1099.0),
    }.items():
        assert (what, found) == (what, None)
    for number in (2, 3):
        admissions.admit(MODEL, *token(number))
    assert admissions.find(MODEL, digest, ISSUERS, 1099.0) is None


def test_a_verified_token_is_no_change_of_the_table_and_is_not_verified_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            issuer = Issuer()
            issuer.add_key("k", "ES256")
            crt = await issuer.start(stack, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="iss-"))))
            issuers = Issuers(allow_private=True, ca_file=crt)
            stack.push_async_callback(issuers.close)
            registry, admissions = Registry(tmp_path / "routes.json"), Admissions()
            entries = (RouteIssuer.model_validate(issuer.entry()),)
            registry.declare(Route(namespace="ns", model="m", access=RouteAccess(required=True, issuers=entries)))
            gatekeeper = Gatekeeper(registry, admissions, issuers, Verification(), Authentication.REQUIRED)
            generation = registry.generation
            given = issuer.token()
            caller = await gatekeeper.admit(bearer(given), MODEL)
            assert len(admissions.collect(time.time())) == 1
            assert registry.generation == generation
            # Without its issuers' keys nothing could verify it again.
            gatekeeper = Gatekeeper(
                registry,
                admissions,
                Issuers(allow_private=False, ca_file=None),
                Verification(),
                Authentication.REQUIRED,
            )
            assert await gatekeeper.admit(bearer(given), MODEL) == caller

    run(scenario)


def test_who_tells_haproxy_rests_until_a_token_was_verified(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="adm-")))
            settings = GatewaySettings(secret="s", state_dir=state, port=free_port(), slots=1)
            settings.layout.run.mkdir()
            registry, admissions = Registry(tmp_path / "routes.json"), Admissions()
            haproxy = Haproxy(find_haproxy(settings), settings.layout, list)
            stack.push_async_callback(haproxy.stop, 0.0)
            convergence = Convergence(settings, registry, admissions, haproxy)
            await convergence._converge(registry.generation)
            resting = asyncio.create_task(convergence._wait_for_work(registry.generation, 3600.0))
            for _ in range(5):
                await asyncio.sleep(0)
            assert not resting.done()
            admissions.admit(MODEL, *token(1))
            await resting

    run(scenario)
