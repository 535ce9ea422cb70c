"""One tenant tries to route to, read, slow down and evict another's models, at a real gateway."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from tests.integration.access_parts import bearer, guarded, key_entry
from tests.integration.gateway_parts import Gateway, Replica, run, token_of, until
from tests.telling import Telling
from yarl import URL

MINE, THEIRS = bearer("pk_intruder"), bearer("pk_victim")


async def two_tenants(gw: Gateway, stack: AsyncExitStack) -> dict[str, Replica]:
    """Two namespaces, each with a model of the same name that its own key opens."""
    found = {}
    for tenant in ("victim", "intruder"):
        replica = found[tenant] = await stack.enter_async_context(Replica(tenant))
        await gw.declare(f"{tenant}/m", access=guarded(key_entry(f"pk_{tenant}", tenant)))
        await gw.lease(f"{tenant}-1", replica.address, f"{tenant}/m")
    return found


def lease_body(address: str, model: str, **more: Any) -> dict[str, Any]:
    namespace, name = model.split("/")
    return {
        "namespace": namespace, "model": name, "version": "1", "revision": "r1", "address": address, "leaseSeconds": 60,
        **more,
    }  # fmt: skip


def test_route_to() -> None:
    """With its key, its replica's token or by odd paths: nothing leads to the other's replica, nor the other's here."""

    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        replicas = await two_tenants(gw, stack)
        address = replicas["intruder"].address
        attempts: list[tuple[str, str, dict[str, Any] | None]] = [
            ("PUT", "/v1/replicas/sneak", lease_body(address, "victim/m")),
            ("PUT", "/v1/replicas/victim-1", lease_body(address, "victim/m")),
            ("PUT", "/v1/routes/victim/m", {"namespace": "victim", "model": "m", "access": {"required": False}}),
            ("PUT", "/v1/routes/intruder/m", {"namespace": "intruder", "model": "m", "access": {"required": False}}),
            ("DELETE", "/v1/routes/victim/m", None),
            ("POST", "/v1/routes", {"routes": []}),
            ("GET", "/v1/routes", None),
        ]
        for method, path, body in attempts:
            status, _ = await gw.call(method, path, body, token_of("intruder/m"))
            assert (method, path, status) == (method, path, 403)
        # An id is a replica's of one model: the same one for a model of its own takes nothing from the other's.
        for method, path, body in (
            ("PUT", "/v1/replicas/victim-1", lease_body(address, "intruder/m")),
            ("DELETE", "/v1/replicas/victim-1", None),
        ):
            status, _ = await gw.call(method, path, body, token_of("intruder/m"))
            assert (method, path, status // 100) == (method, path, 2)
        for path in (
            "/victim/v2/models/m/infer",
            "/victim/v2/models/%6d/infer",
            "/victim/v2/models/m/versions/1/infer",
            "/intruder/../victim/v2/models/m/infer",
            "/intruder/v2/models/../../../victim/v2/models/m/infer",
            "/intruder//victim/v2/models/m/infer",
            "/%2e%2e/victim/v2/models/m/infer",
            "/intruder/v2/models/m%2F..%2F..%2F..%2F..%2Fvictim%2Fv2%2Fmodels%2Fm/infer",
        ):
            for headers in (
                MINE,
                {**MINE, "x-penstock-namespace": "victim"},
                {**MINE, "x-penstock-caller": "key/victim"},
            ):
                async with gw.session.post(URL(gw.url + path, encoded=True), data=b"{}", headers=headers) as response:
                    assert (path, response.status) in {(path, status) for status in (401, 403, 404)}
        assert replicas["victim"].answered == 0
        for tenant, headers in (("victim", THEIRS), ("intruder", MINE)):
            status, body, _ = await gw.infer(f"/{tenant}/v2/models/m/infer", headers=headers)
            assert (status, body["replica"]) == (200, tenant)

    run(scenario)


def test_route_to_by_naming_anothers_address() -> None:
    """With its own token, a replica cannot have its model's requests sent to another's replica."""

    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        replicas = await two_tenants(gw, stack)
        elsewhere = replicas["victim"].address.replace("127.0.0.1", "127.0.0.2")
        for address in (elsewhere, "10.0.0.1:80", "[::1]:80"):
            body = lease_body(address, "intruder/m")
            status, answer = await gw.call("PUT", "/v1/replicas/sneak", body, token_of("intruder/m"))
            assert (status, answer["error"]) == (403, Telling("own address"))

    run(scenario, "--own-addresses-only")


def test_read() -> None:
    """Neither metadata, readiness, statistics nor the gateway's own tables say anything of another's model."""

    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        replicas = await two_tenants(gw, stack)
        for path in ("", "/ready", "/stats", "/config", "/versions/1", "/versions/1/ready", "/versions/9", "/metrics"):
            async with gw.session.get(f"{gw.url}/victim/v2/models/m{path}", headers=MINE) as response:
                text = await response.text()
                assert (path, response.status) == (path, 401)
                assert "victim" not in text
        for path in ("/metrics", "/v1/routes", "/victim/metrics", "/haproxy", "/stats", "/victim/v1/routes"):
            async with gw.session.get(gw.url + path, headers=MINE) as response:
                assert (path, response.status) == (path, 404)
        # A name that exists tells no more than one that does not, where models are closed by default.
        answers = [
            (await gw.infer(f"/victim/v2/models/{name}/infer", headers=MINE))[:2] for name in ("m", "there-is-no-such")
        ]
        assert answers[0] == answers[1]
        assert replicas["victim"].answered == 0

    run(scenario, "--default-authentication", "Required")


_ADDRESSES = 6


async def flood(gw: Gateway, stack: AsyncExitStack, path: str, count: int, **sent: Any) -> None:
    """So many clients until the end of the test; returns when they have all that they get: some are turned away."""
    # From several addresses, as a namespace's callers are: each may have a part of the connections alone.
    connectors = [aiohttp.TCPConnector(limit=0, local_addr=(f"127.0.78.{index + 1}", 0)) for index in range(_ADDRESSES)]
    sessions = [await stack.enter_async_context(aiohttp.ClientSession(connector=each)) for each in connectors]
    answers: Counter[int] = Counter()

    async def one(index: int) -> None:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with sessions[index % _ADDRESSES].post(gw.url + path, **sent) as response:
                    await response.read()
                    answers[response.status] += 1
            await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(one(index)) for index in range(count)]

    async def end() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def refused() -> bool:
        return answers[429] + answers[503] > count

    stack.push_async_callback(end)
    await until(refused)


SLEEPING = "/intruder/v2/models/asleep/infer"


@pytest.mark.parametrize("what", ["requests that wait", "bodies that wait", "slow requests", "unknown tokens"])
def test_slow_down(what: str) -> None:
    """While one namespace has taken all that it gets, every request of another is answered, asleep or awake."""

    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        replicas = await two_tenants(gw, stack)
        issuers = [{"issuer": "https://127.0.0.1:1", "audiences": ["a"]}]
        await gw.declare("intruder/asleep", access=guarded(key_entry("pk_intruder", "intruder"), issuers=issuers))
        await gw.declare("victim/asleep", access=guarded(key_entry("pk_victim", "victim")))
        match what:
            case "requests that wait":
                await flood(gw, stack, SLEEPING, 60, data=b"{}", headers=MINE)
            case "bodies that wait":
                await flood(gw, stack, SLEEPING, 20, data=b"x" * 100_000, headers=MINE)
            case "slow requests":
                replicas["intruder"].go_on.clear()
                await flood(gw, stack, "/intruder/v2/models/m/infer", 60, data=b"{}", headers=MINE)
            case _:
                await flood(gw, stack, SLEEPING, 20, data=b"{}", headers=bearer("a.b.c"))
        held = asyncio.create_task(
            gw.infer("/victim/v2/models/asleep/infer", b"x" * 50_000, headers=THEIRS), name="a victim's held request"
        )
        for _ in range(50):
            status, body, _ = await gw.infer("/victim/v2/models/m/infer", headers=THEIRS)
            assert (status, body["replica"]) == (200, "victim")
        waker = await stack.enter_async_context(Replica("woken"))
        await gw.lease("woken", waker.address, "victim/asleep")
        status, body, _ = await held
        assert (status, body["replica"], body["size"]) == (200, "woken", 50_000)
        replicas["intruder"].go_on.set()

    run(
        scenario, "--max-connections", "80", "--max-held-bytes", "1000000", "--agent-requests-per-second", "50"
    )  # fmt: skip


def test_evict() -> None:
    """Neither many leases, nor many versions, keys, callers or tokens of one namespace put out anything of another."""

    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        replicas = await two_tenants(gw, stack)
        mine = token_of("intruder/m")
        address = replicas["intruder"].address
        versions = [
            (await gw.call("PUT", f"/v1/replicas/v{n}", lease_body(address, "intruder/m", version=str(n)), mine))[0]
            for n in range(20)
        ]
        assert versions.count(200) < 20
        assert set(versions) == {200, 400}
        keys = [key_entry(f"pk_{n}", f"k{n}", requestsPerSecond=1) for n in range(2000)]
        limited = {**guarded(key_entry("pk_intruder", "intruder"), *keys), "requestsPerSecond": 1}
        await gw.declare("intruder/m", access=limited)
        await gw.declare("intruder/n", access={"required": False, "requestsPerSecond": 1})
        await asyncio.gather(*(gw.infer("/intruder/v2/models/m/infer", headers=bearer(f"pk_{n}")) for n in range(300)))
        await gw.declare("intruder/m", access=guarded())
        assert sorted(await gw.routes()) == ["intruder/m", "intruder/n", "victim/m"]
        end = time.time() + 1.5
        while time.time() < end:
            status, body, _ = await gw.infer("/victim/v2/models/m/infer", headers=THEIRS)
            assert (status, body["replica"]) == (200, "victim")
            await asyncio.sleep(0.02)

    run(scenario)
