"""Shares of requests that several revisions get of the real HAProxy, within what chance allows."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from tests.integration.gateway_parts import SECRET, Gateway, gateway, until
from tests.integration.share_parts import BASELINE, CANDIDATE, STABLE, Client, count, deviations, fleet

from penstock.routing.access import NamespaceKey
from penstock.routing.keys import KeyChange, digest_of
from penstock.routing.tokens import admin_token

_DEVIATIONS = 7
"""Chance leaves them less than once in a million times: that is exact for the least shares here, whose tail is longer than a normal one."""


def run(scenario: Callable[[Gateway], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(120), gateway() as running:
            await scenario(running)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("percent", "clients", "seconds", "path", "headers"),
    [
        pytest.param(1, 1, {}, "/v2/models/m/infer", "", id="one in a hundred of a lone client's"),
        pytest.param(50, 1, {}, "/v2/models/m/versions/1/infer", "", id="half, by version"),
        pytest.param(
            25, 1, {}, "/default/v2/models/m/infer", "tracestate: a=b\r\n", id="of requests that are not usual"
        ),
        pytest.param(5, 64, {CANDIDATE: 0.01}, "/v2/models/m/infer", "", id="of many at once, the candidate slower"),
        pytest.param(50, 64, {STABLE: 0.01}, "/v2/models/m/infer", "", id="and where it is faster"),
    ],
)
def test_a_revision_gets_its_share_however_busy_and_however_many_its_replicas_are(
    percent: int, clients: int, seconds: Mapping[str, float], path: str, headers: str
) -> None:
    async def scenario(gw: Gateway) -> None:
        await gw.declare(revisions={STABLE: 100 - percent, CANDIDATE: percent})
        async with fleet(gw, seconds, {STABLE: 4, CANDIDATE: 1}):
            counts = await count(gw, 2048, clients, path, headers)
        assert set(counts) <= {STABLE, CANDIDATE}
        assert abs(deviations(counts, CANDIDATE, percent / 100)) < _DEVIATIONS, counts

    run(scenario)


def test_shares_change_step_by_step_and_no_request_fails_or_goes_astray() -> None:
    steps: list[dict[str, Any]] = [
        {"revisions": {STABLE: 98, BASELINE: 1, CANDIDATE: 1}},
        {"revisions": {STABLE: 50, BASELINE: 25, CANDIDATE: 25}},
        {"revisions": {STABLE: 0, BASELINE: 0, CANDIDATE: 100}},
        {"revisions": {STABLE: 90, BASELINE: 5, CANDIDATE: 5}},
        {"revisions": {STABLE: 100, BASELINE: 0, CANDIDATE: 0}},
    ]

    async def scenario(gw: Gateway) -> None:
        await gw.declare(revisions={STABLE: 100})
        answers: Counter[str] = Counter()
        stop = asyncio.Event()

        async def go() -> None:
            client = await Client.connect(gw)
            while not stop.is_set():
                answers[await client.ask("/v2/models/m/infer")] += 1
            client.close()

        async with fleet(gw, {}, {STABLE: 2, BASELINE: 1, CANDIDATE: 1}):
            clients = [asyncio.create_task(go()) for _ in range(8)]
            for step in steps:
                await gw.declare(**step)
                # One that was under way when this was declared may be answered as before.
                before, seen = answers.total(), answers.copy()

                async def answered(before: int = before) -> bool:
                    return answers.total() >= before + 300

                await until(answered)
                gone = {name for name, weight in step["revisions"].items() if not weight}
                assert all(answers[name] - seen[name] <= len(clients) for name in gone)
            stop.set()
            await asyncio.gather(*clients)
        assert set(answers) == {STABLE, BASELINE, CANDIDATE}

    run(scenario)


def test_when_a_candidate_dies_the_others_answer_its_share() -> None:
    async def scenario(gw: Gateway) -> None:
        await gw.declare(revisions={STABLE: 50, CANDIDATE: 50})
        answers: Counter[str] = Counter()
        stop = asyncio.Event()

        async def go() -> None:
            client = await Client.connect(gw)
            while not stop.is_set():
                answers[await client.ask("/v2/models/m/infer")] += 1
            client.close()

        async def until_more(name: str) -> None:
            wanted = answers[name] + 50

            async def enough() -> bool:
                return answers[name] >= wanted

            await until(enough)

        async with fleet(gw, {}, {STABLE: 2}):
            async with fleet(gw, {CANDIDATE: 0.01}, {CANDIDATE: 1}):
                clients = [asyncio.create_task(go()) for _ in range(8)]
                await until_more(CANDIDATE)
            # It has a lease still.
            await until_more(STABLE)
            assert (await count(gw, 20)) == Counter({STABLE: 20})
            stop.set()
            await asyncio.gather(*clients)
        assert set(answers) == {STABLE, CANDIDATE}

    run(scenario)


def test_callers_stay_with_a_revision_and_those_of_the_candidate_with_it_while_it_gets_more() -> None:
    keys = {f"key-{number}": f"caller-{number}" for number in range(60)}

    async def scenario(gw: Gateway) -> None:
        told = tuple(
            NamespaceKey(name=caller, sha256=hashlib.sha256(key.encode()).hexdigest()) for key, caller in keys.items()
        )
        change = KeyChange(namespace="default", added=told, digest=digest_of(told))
        body = change.model_dump_json().encode()
        assert await gw.call("PUT", "/v1/keys/default", body, admin_token(SECRET)) == (204, None)
        compared = {"candidate": CANDIDATE, "stable": STABLE, "baseline": BASELINE, "sticky": True}
        access = {"required": True, "shared": True}

        async def declare(percent: int) -> None:
            revisions = {STABLE: 100 - 2 * percent, BASELINE: percent, CANDIDATE: percent}
            await gw.declare(revisions=revisions, comparison=compared, access=access)

        async def who() -> dict[str, str]:
            """By whom each caller is answered, by any connection, path, or way to show the key."""
            first, second = await Client.connect(gw), await Client.connect(gw)
            found = {}
            for key in keys:
                given = {
                    await first.ask("/v2/models/m/infer", f"Authorization: Bearer {key}\r\n"),
                    await second.ask("/default/v2/models/m/infer", f"X-API-Key: {key}\r\n"),
                    await second.ask("/v2/models/m/versions/1/infer", f"X-API-Key: {key}\r\ntracestate: a=b\r\n"),
                }
                (found[key],) = given
            return found

        async with fleet(gw, {}, {STABLE: 2, BASELINE: 1, CANDIDATE: 1}):
            former: set[str] = set()
            for percent in (5, 25, 40):
                await declare(percent)
                found = await who()
                counts = Counter(found.values())
                assert abs(deviations(counts, CANDIDATE, percent / 100)) < _DEVIATIONS, counts
                own = {key for key, revision in found.items() if revision == CANDIDATE}
                assert former <= own
                former = own
            await gw.declare(revisions={STABLE: 50, CANDIDATE: 50}, comparison=compared)
            # Of those who show no key, an address is all that is known.
            assert len(await count(gw, 20)) == 1

    run(scenario)
