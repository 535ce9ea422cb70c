"""API keys, tokens and rate limits at a real gateway."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDict
from tests.integration.access_parts import Issuer, bearer, guarded, key_entry
from tests.integration.gateway_parts import SECRET, Gateway, Replica, gateway, run, until
from tests.telling import Telling, assert_tells
from yarl import URL

from penstock.routing.access import NamespaceKey
from penstock.routing.fleet import FEATURES
from penstock.routing.keys import KeySet
from penstock.routing.tokens import admin_token

PATHS = (
    "/vision/v2/models/m/infer",
    "/vision/v2/models/m/versions/1/infer",
    "/vision/v2/models/m",
    "/vision/v2/models/m/ready",
    "/vision/v2/models/m/versions/1",
    "/vision/v2/models/m/stats",
)


async def serving(gw: Gateway, stack: AsyncExitStack, model: str = "vision/m", **access: Any) -> Replica:
    """A model with a replica, guarded as told."""
    replica = await stack.enter_async_context(Replica(model))
    await gw.declare(model, access=access)
    await gw.lease(model.replace("/", "-"), replica.address, model)
    return replica


async def ask(gw: Gateway, path: str = PATHS[0], headers: dict[str, str] | None = None) -> int:
    return (await gw.infer(path, headers=headers))[0]


REFUSALS: dict[str, tuple[dict[str, str], int, str, str]] = {
    "no key": ({}, 401, "Bearer", "needs API key token Authorization: Bearer"),
    "another scheme": ({"authorization": "Basic YTpi"}, 401, "Bearer", "needs API key"),
    "an empty key": ({"authorization": "Bearer "}, 401, "Bearer", "needs API key"),
    "an unknown key": (bearer("pk_other"), 401, 'Bearer error="invalid_token"', "API key token not known"),
    "a key's hash": (
        bearer(key_entry("pk_a")["sha256"]),
        401,
        'Bearer error="invalid_token"',
        "API key token not known",
    ),
    "an ended key": (bearer("pk_ended"), 401, 'Bearer error="invalid_token"', "API key token not known"),
    "a key of another namespace": (bearer("pk_sound"), 401, 'Bearer error="invalid_token"', "API key token not known"),
    "a key to another model": (bearer("pk_b"), 403, 'Bearer error="insufficient_scope"', "API key valid"),
    "a name of one's own": ({"x-penstock-caller": "key/alice"}, 401, "Bearer", "needs API key"),
    "a token where none is taken": (bearer("a.b.c"), 401, 'Bearer error="invalid_token"', "API key token not known"),
}


def test_only_a_key_of_the_model_opens_it_by_whatever_path() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        ended = key_entry("pk_ended", "ended", expiresAt=int(time.time()) - 1)
        replica = await serving(gw, stack, **guarded(key_entry("pk_a"), ended))
        await serving(gw, stack, "vision/n", **guarded(key_entry("pk_b", "bob"), key_entry("pk_a")))
        await serving(gw, stack, "sound/m", **guarded(key_entry("pk_sound", "carol")))
        for what, (headers, status, how, why) in REFUSALS.items():
            for path in PATHS:
                got, body, answered = await gw.infer(path, headers=headers)
                assert (what, path, got, answered.get("www-authenticate")) == (what, path, status, how)
                assert (what, body) == (what, {"error": Telling(why)})
        assert replica.answered == 0
        for path in PATHS:
            for headers in (bearer("pk_a"), {"x-api-key": "pk_a"}, {"authorization": "bEaReR pk_a"}):
                assert (path, await ask(gw, path, headers)) == (path, 200)
        assert await ask(gw, "/vision/v2/models/n/infer", bearer("pk_a")) == 200
        assert await ask(gw, "/vision/v2/models/n/infer", bearer("pk_b")) == 200

    run(scenario)


async def listed(gw: Gateway, headers: dict[str, str], namespace: str = "vision") -> list[str] | int:
    """The models that a caller is told of, or the status of a refusal."""
    async with gw.session.post(f"{gw.url}/{namespace}/v2/repository/index", headers=headers) as answer:
        return [each["name"] for each in await answer.json()] if answer.status == 200 else answer.status


def test_the_index_lists_what_its_caller_may_ask() -> None:
    async def scenario(gw: Gateway, _: AsyncExitStack) -> None:
        await gw.declare("vision/a", access=guarded(key_entry("pk_a")))
        await gw.declare("vision/b", access=guarded(key_entry("pk_a"), key_entry("pk_b", "bob")))
        await gw.declare("vision/open", access={"required": False})
        await gw.declare("sound/c", access=guarded(key_entry("pk_sound", "carol")))
        assert await listed(gw, bearer("pk_a")) == ["a", "b", "open"]
        assert await listed(gw, {"x-api-key": "pk_b"}) == ["b", "open"]
        for headers in (
            {},
            bearer("pk_other"),
            bearer("pk_sound"),
            {"x-penstock-caller": "key/alice"},
            bearer("a.b.c"),
        ):
            assert await listed(gw, headers) == ["open"]
        assert await listed(gw, bearer("pk_sound"), "sound") == ["c"]
        assert await listed(gw, bearer("pk_a"), "sound") == []

    run(scenario)


def test_where_models_are_closed_strangers_are_told_of_none() -> None:
    async def scenario(gw: Gateway, _: AsyncExitStack) -> None:
        await gw.declare("vision/a", access=guarded(key_entry("pk_a")))
        assert await listed(gw, bearer("pk_a")) == ["a"]
        assert await listed(gw, {}) == 401
        assert await listed(gw, bearer("pk_other")) == 401
        assert await listed(gw, bearer("pk_a"), "nothing") == 401

    run(scenario, "--default-authentication", "Required")


@pytest.mark.parametrize("asleep", [False, True], ids=["a replica that is there", "a replica that was waited for"])
def test_a_replica_learns_who_asks_and_never_the_key(*, asleep: bool) -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        replica = await stack.enter_async_context(Replica("a"))
        await gw.declare("vision/m", access=guarded(key_entry("pk_a")))
        if not asleep:
            await gw.lease("a", replica.address, "vision/m")
        headers = {**bearer("pk_a"), "x-api-key": "pk_a", "x-penstock-caller": "key/bob", "x-mark": "1"}
        asked = asyncio.create_task(gw.infer(PATHS[0], headers=headers))
        if asleep:

            async def held() -> bool:
                return bool((await gw.routes())["vision/m"]["heldRequests"])

            await until(held)
            await gw.lease("a", replica.address, "vision/m")
        status, body, _ = await asked
        seen = {name.lower(): value for name, value in body["headers"].items()}
        assert (status, seen["x-penstock-caller"], seen["x-mark"]) == (200, "key/alice", "1")
        assert not {"authorization", "x-api-key"} & set(seen)
        assert "pk_a" not in str(body)

    run(scenario)


def test_an_open_model_takes_anyone_and_keeps_no_credential() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        await serving(gw, stack, required=False)
        for headers in ({}, bearer("pk_other"), {"x-penstock-caller": "key/alice"}):
            status, body, _ = await gw.infer(PATHS[0], headers=headers)
            seen = {name.lower() for name in body["headers"]}
            assert (status, seen & {"authorization", "x-penstock-caller"}) == (200, set())

    run(scenario)


def test_keys_come_and_go_without_a_reload_and_end_on_time() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        workers = gw.haproxy_pids()
        await serving(gw, stack, required=False)
        assert await ask(gw) == 200
        await gw.declare("vision/m", access=guarded())
        assert await ask(gw, headers=bearer("pk_a")) == 401
        await gw.declare("vision/m", access=guarded(key_entry("pk_a")))
        assert await ask(gw, headers=bearer("pk_a")) == 200
        await gw.declare("vision/m", access=guarded(key_entry("pk_b", "bob")))
        assert (await ask(gw, headers=bearer("pk_a")), await ask(gw, headers=bearer("pk_b"))) == (401, 200)
        end = int(time.time()) + 3
        await gw.declare("vision/m", access=guarded(key_entry("pk_a", expiresAt=end)))
        seen = []
        while time.time() < end + 2:
            before, status, after = time.time(), await ask(gw, headers=bearer("pk_a")), time.time()
            seen.append((before, status, after))
            await asyncio.sleep(0.05)
        # None was in time where it took seconds to declare it.
        assert {status for _, status, after in seen if after < end} <= {200}
        assert {status for before, status, _ in seen if before >= end} == {401}
        assert gw.haproxy_pids() == workers

    run(scenario)


def test_of_what_nothing_is_declared_is_closed_where_models_are_closed_by_default() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        replica = await stack.enter_async_context(Replica("a"))
        await gw.lease("a", replica.address, "vision/m")
        status, body, headers = await gw.infer(PATHS[0], headers=bearer("pk_a"))
        assert (status, headers["retry-after"]) == (503, "1")
        assert_tells(body["error"], "not told yet")
        await gw.declare("vision/m", access=guarded(key_entry("pk_a")))
        assert await ask(gw, headers=bearer("pk_a")) == 200
        unknown = "/vision/v2/models/secret-name/infer"
        assert [await ask(gw, unknown, each) for each in ({}, bearer("pk_b"), bearer("pk_a"))] == [401, 401, 404]
        assert replica.answered == 1

    run(scenario, "--default-authentication", "Required")


def test_a_percent_encoded_name_goes_round_nothing() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        replica = await serving(gw, stack, **guarded(key_entry("pk_a")))
        await serving(gw, stack, "default/m", **guarded(key_entry("pk_a")))
        for path in ("/vision/v2/models/%6d/infer", "/vision/v2/models/%6D/versions/1/infer"):
            for headers in ({}, bearer("pk_a")):
                async with gw.session.post(_raw(gw, path), data=b"{}", headers=headers) as response:
                    assert (path, response.status) == (path, 404)
        for path, headers, status in (
            ("/vision/v2/models/m/versions/%31/infer", {}, 401),
            ("/vision/v2/models/m/versions/%31/infer", bearer("pk_a"), 404),
            ("/vision/v2/mod%65ls/m/infer", bearer("pk_a"), 404),
            ("/vision/%762/models/m/infer", bearer("pk_a"), 404),
            ("/vision/v2%2fmodels/m/infer", bearer("pk_a"), 404),
            ("/vision/v2/models%2fm/infer", bearer("pk_a"), 404),
            ("/v2/mod%65ls/m/infer", bearer("pk_a"), 404),
            ("/%762/models/m/infer", bearer("pk_a"), 404),
        ):
            async with gw.session.post(_raw(gw, path), data=b"{}", headers=headers) as response:
                assert (path, response.status, set(await response.json())) == (path, status, {"error"})
        for path in ("//vision/v2/models/m/infer", "/vision//v2/models/m/infer", "/%76ision/v2/models/m/infer"):
            async with gw.session.post(_raw(gw, path), data=b"{}") as response:
                assert (path, response.status) == (path, 404)
        assert replica.answered == 0

    run(scenario)


def _raw(gw: Gateway, path: str) -> Any:

    return URL(gw.url + path, encoded=True)


@pytest.mark.parametrize(
    ("access", "callers"),
    [
        (guarded(key_entry("pk_a", requestsPerSecond=10), key_entry("pk_b", "bob")), {"pk_a": True, "pk_b": False}),
        (guarded(key_entry("pk_a"), key_entry("pk_b", "bob"), requestsPerSecond=10), {"pk_a": True, "pk_b": True}),
        ({"required": False, "requestsPerSecond": 10}, {"": True}),
    ],
    ids=["a key's own limit is its own", "a deployment's limit is each caller's", "strangers are counted by address"],
)
def test_limits_are_each_callers(access: dict[str, Any], callers: dict[str, bool]) -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        await serving(gw, stack, **access)
        answers: Counter[tuple[str, int]] = Counter()
        stop = asyncio.get_running_loop().time() + 2.5

        async def flood(secret: str) -> None:
            while asyncio.get_running_loop().time() < stop:
                status, body, headers = await gw.infer(PATHS[0], headers=bearer(secret) if secret else {})
                answers[secret, status] += 1
                if status == 429:
                    assert headers["retry-after"] == "1"
                    assert_tells(body["error"], "more requests limit")

        await asyncio.gather(*(flood(secret) for secret in callers for _ in range(4)))
        for secret, bounded in callers.items():
            assert (secret, answers[secret, 429] > 0) == (secret, bounded)
            assert sum(count for (caller, status), count in answers.items() if (caller, status) == (secret, 200)) > 0
            if bounded:
                # Ten a second over two and a half seconds and the moment before them, give or take HAProxy's window.
                assert answers[secret, 200] <= 50
        assert {status for _, status in answers} <= {200, 429}

    run(scenario)


def test_a_keys_limit_is_over_all_its_models_and_a_deployments_is_not() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        key = key_entry("pk_a", requestsPerSecond=3)
        for name in ("m", "n"):
            await serving(gw, stack, f"vision/{name}", **guarded(key))
        paths = [f"/vision/v2/models/{name}/infer" for name in ("m", "n")] * 4
        # The limit is a second's: what took longer tells nothing, and counts no more after a rest.
        while True:
            began = time.monotonic()
            statuses = [await ask(gw, path, bearer("pk_a")) for path in paths]
            if time.monotonic() - began < 0.5:
                break
            await asyncio.sleep(2.5)
        assert statuses[:3] == [200] * 3
        assert set(statuses[3:]) == {429}

    run(scenario)


async def issued(stack: AsyncExitStack, issuer: Issuer, *arguments: str) -> Gateway:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="iss-")))
    crt = await issuer.start(stack, folder)
    return await stack.enter_async_context(gateway("--allow-private-issuers", "--issuer-ca-file", str(crt), *arguments))


def test_the_index_lists_what_a_token_opens() -> None:
    async def main() -> None:
        async with asyncio.timeout(120), AsyncExitStack() as stack:
            issuer = Issuer()
            issuer.add_key("k")
            gw = await issued(stack, issuer)
            for name in ("a", "b"):
                await gw.declare(f"vision/{name}", access=guarded(issuers=[issuer.entry()]))
            await gw.declare("vision/team", access=guarded(issuers=[issuer.entry(requiredClaims={"team": "x"})]))
            await gw.declare("vision/keys", access=guarded(key_entry("pk_a")))
            assert await listed(gw, bearer(issuer.token())) == ["a", "b"]
            assert await listed(gw, bearer(issuer.token(team="x"))) == ["a", "b", "team"]
            assert await listed(gw, bearer(issuer.token(aud="else"))) == []

    asyncio.run(main())


def test_a_token_is_verified_once_and_then_let_in_by_haproxy() -> None:
    async def main() -> None:
        async with asyncio.timeout(120), AsyncExitStack() as stack:
            issuer = Issuer()
            issuer.add_key("k")
            gw = await issued(stack, issuer)
            replica = await serving(gw, stack, **guarded(key_entry("pk_a"), issuers=[issuer.entry()]))
            token = issuer.token()

            async def by_haproxy() -> bool:
                status, body, _ = await gw.infer(PATHS[0], headers=bearer(token))
                assert status == 200
                seen = {name.lower(): value for name, value in body["headers"].items()}
                assert "authorization" not in seen
                assert seen["x-penstock-caller"].startswith("jwt/")
                # The agent speaks to replicas by a library of its own, with a header that HAProxy does not send.
                return "accept-encoding" not in seen or seen.get("user-agent", "").startswith("Python")

            await until(by_haproxy)
            assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]
            for wrong in ("a.b.c", issuer.token(aud="else"), token[:-4] + "AAAA"):
                status, _, headers = await gw.infer(PATHS[0], headers=bearer(wrong))
                assert (status, headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')
            assert await ask(gw, headers=bearer("pk_a")) == 200
            await gw.declare("vision/m", access=guarded(issuers=[issuer.entry(requiredClaims={"team": "vision"})]))
            assert await ask(gw, headers=bearer(token)) == 401
            assert await ask(gw, headers=bearer(issuer.token(team="vision"))) == 200
            assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]
            assert replica.answered > 2

    asyncio.run(main())


AMBIGUOUS: dict[str, list[tuple[str, str]]] = {
    "a tab before the key": [("authorization", "Bearer \tpk_a"), ("x-api-key", "a.b")],
    "two keys": [("x-api-key", "pk_a"), ("x-api-key", "a.b")],
    "a hash of one's own": [
        ("authorization", "Bearer \tpk_a"),
        ("x-api-key", "a.b"),
        ("x-penstock-credential", key_entry("pk_a")["sha256"]),
    ],
}


@pytest.mark.parametrize("headers", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_a_credential_that_can_be_read_in_two_ways_is_none(headers: list[tuple[str, str]]) -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        issuer = {"issuer": "https://127.0.0.1:9", "audiences": ["a"]}
        access = guarded(key_entry("pk_a", requestsPerSecond=1), issuers=[issuer])
        replica = await serving(gw, stack, **access)
        for _ in range(5):
            async with gw.session.post(gw.url + PATHS[0], data=b"{}", headers=CIMultiDict(headers)) as response:
                assert response.status == 401
        assert replica.answered == 0
        assert await ask(gw, headers=bearer("pk_a")) == 200

    run(scenario)


def test_a_client_hands_replicas_no_word_of_the_gateways() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        await serving(gw, stack, required=False)
        status, body, _ = await gw.infer(PATHS[0], headers={"x-penstock-credential": "a", "X-Penstock-Other": "b"})
        seen = {name.lower() for name in body["headers"] if name.lower().startswith("x-penstock-")}
        assert (status, seen) == (200, {"x-penstock-gateway"})

    run(scenario)


def test_a_stranger_at_one_address_leaves_the_verification_of_tokens_to_others() -> None:
    async def main() -> None:
        async with asyncio.timeout(120), AsyncExitStack() as stack:
            issuer = Issuer()
            issuer.add_key("k", "ES256")
            gw = await issued(stack, issuer, "--agent-requests-per-second", "20")
            await serving(gw, stack, **guarded(issuers=[issuer.entry()]))
            connector = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
            stranger = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
            seen: Counter[int] = Counter()
            while seen[429] < 40:
                async with stranger.post(gw.url + PATHS[0], data=b"{}", headers=bearer("a.b.c")) as response:
                    seen[response.status] += 1
            assert set(seen) == {401, 429}
            assert await ask(gw, headers=bearer(issuer.token())) == 200

    asyncio.run(main())


def test_a_token_ends_with_its_exp_and_another_models_token_opens_nothing() -> None:
    async def main() -> None:
        async with asyncio.timeout(120), AsyncExitStack() as stack:
            issuer = Issuer()
            issuer.add_key("k", "ES256")
            gw = await issued(stack, issuer)
            await serving(gw, stack, **guarded(issuers=[issuer.entry()]))
            await serving(gw, stack, "vision/n", **guarded(issuers=[issuer.entry(audiences=["n"])]))
            short = issuer.token(exp=int(time.time()) - 20)
            assert await ask(gw, headers=bearer(short)) == 200

            async def refused() -> bool:
                return await ask(gw, headers=bearer(short)) == 401

            await until(refused)
            for _ in range(3):
                assert await ask(gw, "/vision/v2/models/n/infer", bearer(issuer.token())) == 401
            assert await ask(gw, headers=bearer(issuer.token())) == 200

    asyncio.run(main())


def test_an_issuer_that_does_not_answer_is_said_so() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        issuer = Issuer()
        issuer.add_key("k")
        with tempfile.TemporaryDirectory(prefix="iss-") as folder:
            await issuer.start(stack, Path(folder))
        await serving(gw, stack, **guarded(issuers=[issuer.entry()]))
        status, body, headers = await gw.infer(PATHS[0], headers=bearer(issuer.token()))
        assert (status, headers["retry-after"]) == (503, "1")
        assert_tells(body["error"], "127.0.0.1 public")
        assert issuer.asked == []

    run(scenario)


def test_refusals_are_counted_by_status_and_model() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        await serving(gw, stack, **guarded(key_entry("pk_a", requestsPerSecond=1)))
        await serving(gw, stack, "vision/n", **guarded(key_entry("pk_b", "bob")))
        assert [await ask(gw), await ask(gw, headers=bearer("pk_b"))] == [401, 403]
        statuses: list[int] = []
        while statuses.count(429) < 2:
            statuses.append(await ask(gw, headers=bearer("pk_a")))
        assert set(statuses) == {200, 429}
        assert await ask(gw, "/vision/v2/models/nothing/infer") == 404

        async def counted() -> bool:
            async with gw.session.get(gw.control + "/metrics") as response:
                lines = (await response.text()).splitlines()
            found = {
                line.split('code="')[1][:3]: float(line.split()[-1])
                for line in lines
                if line.startswith("penstock_gateway_refused_requests_total{") and 'model="m"' in line
            }
            assert not any("nothing" in line or "pk_" in line for line in lines)
            return found == {"401": 1, "403": 1, "429": 2}

        await until(counted)

    run(scenario)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        pytest.param(PATHS[2], {}, 401, id="no key"),
        pytest.param(PATHS[2], bearer("pk_other"), 401, id="a key that opens nothing"),
        pytest.param("/vision/v2/models/none", {}, 401, id="no key, to no model"),
        pytest.param("/nowhere", {}, 404, id="no path of ours"),
    ],
)
def test_a_stranger_keeps_no_connection(path: str, headers: dict[str, str], status: int) -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        await serving(gw, stack, **guarded(key_entry("pk_a")))
        for _ in range(40):
            # Were they kept, 16 of one address would be all that 64 connections leave it.
            connection = await asyncio.open_connection("127.0.0.1", gw.port)
            stack.callback(connection[1].close)
            given = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            connection[1].write(f"GET {path} HTTP/1.1\r\nhost: a\r\n{given}\r\n".encode())
            assert (await connection[0].readuntil(b"\r\n")).split()[1] == str(status).encode()
            await connection[0].read()
        assert await ask(gw, headers=bearer("pk_a")) == 200

    run(scenario, "--default-authentication", "Required", "--max-connections", "64")


def test_silent_connections_of_one_address_leave_others_to_the_rest() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        await serving(gw, stack, **guarded(key_entry("pk_a")))
        for _ in range(70):
            with suppress(ConnectionResetError):
                _, writer = await asyncio.open_connection("127.0.0.2", gw.port, local_addr=("127.0.0.2", 0))
                stack.callback(writer.close)
        assert [await ask(gw, headers=bearer("pk_a")) for _ in range(3)] == [200] * 3

    run(scenario, "--max-connections", "64", "--host", "0.0.0.0")


ADMIN = admin_token(SECRET)


def word(*keys: dict[str, Any], base: KeySet | None = None) -> tuple[KeySet, dict[str, Any]]:
    """The keys of the namespace, and the operator's word of them to a gateway that knows `base`."""
    wanted = KeySet.from_keys(NamespaceKey.model_validate(each) for each in keys)
    known = base or KeySet()
    return wanted, known.change_to(wanted, "vision", known=known.digest).model_dump(mode="json")


async def tell(gw: Gateway, body: object) -> int:
    return (await gw.call("PUT", "/v1/keys/vision", body, ADMIN))[0]


def test_a_namespaces_keys_are_told_once_for_all_its_models() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        await serving(gw, stack, required=True, shared=True)
        await serving(gw, stack, "vision/n", required=True, shared=True)
        paths, (a, b) = (PATHS[0], "/vision/v2/models/n/infer"), (bearer("pk_a"), bearer("pk_b"))

        async def got() -> list[int]:
            return [await ask(gw, path, headers) for headers in (a, b) for path in paths]

        assert await got() == [503] * 4
        both, first = word(key_entry("pk_a"), key_entry("pk_b", name="b", deployments=["n"]))
        assert await tell(gw, first) == 204
        assert await got() == [200, 200, 403, 200]
        only, change = word(key_entry("pk_b", name="b", deployments=["n"]), base=both)
        assert (change["added"], len(change["removed"])) == ([], 1)
        assert await tell(gw, change) == 204
        assert await got() == [401, 401, 403, 200]
        # Of other keys than are there, nothing is taken, and nothing changes.
        assert await tell(gw, change) == 403
        assert await got() == [401, 401, 403, 200]
        _, digests = await gw.call("GET", "/v1/keys", None, ADMIN)
        assert digests == {"digests": {"vision": only.digest}}

    run(scenario)


def test_where_word_of_keys_cannot_be_taken_no_key_counts_until_it_can() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        await serving(gw, stack, required=True, shared=True)
        _, right = word(key_entry("pk_a"))
        for wrong in (b"{", b"x" * (20 << 20), {**right, "digest": "0" * 64}, {**right, "namespace": "other"}):
            assert await tell(gw, right) == 204
            assert await ask(gw, headers=bearer("pk_a")) == 200
            assert await tell(gw, wrong) in (400, 413)
            assert await ask(gw, headers=bearer("pk_a")) == 503
        assert await gw.call("DELETE", "/v1/keys/vision", None, ADMIN) == (204, None)
        assert await ask(gw, headers=bearer("pk_a")) == 503

    run(scenario)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"{", 401, id="it is no JSON"),
        pytest.param(
            {"access": guarded(key_entry("pk_b")), "revisions": {"r": 101}}, 401, id="something else is wrong"
        ),
        pytest.param({"access": guarded(key_entry("pk_a")), "revisions": {"r": 101}}, 200, id="only something else is"),
        pytest.param({"access": {"required": True, "keys": [{}]}}, 401, id="a key is wrong"),
        pytest.param({"access": guarded(key_entry("pk_a")), "fromTheFuture": 1}, 200, id="a word is not known"),
    ],
)
def test_a_key_that_a_refused_route_does_not_name_ends_where(body: Any, status: int) -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        await serving(gw, stack, **guarded(key_entry("pk_a")))
        said = body if isinstance(body, bytes) else {"namespace": "vision", "model": "m", **body}
        assert (await gw.call("PUT", "/v1/routes/vision/m", said, ADMIN))[0] == 400
        assert await ask(gw, headers=bearer("pk_a")) == status

    run(scenario)


def test_an_operator_of_a_former_release_reads_no_word_that_it_does_not_know() -> None:
    async def scenario(gw: Gateway, _: AsyncExitStack) -> None:
        digests = {"r1": f"sha256:{'d' * 64}"}
        await gw.declare("vision/m", access={"required": True, "shared": True}, owner="u1", digests=digests)
        assert (await gw.routes())["vision/m"]["declared"].keys() & {"owner", "digests"} == set()
        assert "shared" not in (await gw.routes())["vision/m"]["declared"]["access"]
        headers = {"authorization": f"Bearer {ADMIN}", "x-penstock-features": " ".join(FEATURES)}
        async with gw.session.get(f"{gw.control}/v1/routes", headers=headers) as answer:
            (listed,) = (await answer.json())["routes"]
            assert "namespace-keys" in answer.headers["x-penstock-features"].split()
        assert (listed["declared"]["owner"], listed["declared"]["access"]["shared"]) == ("u1", True)
        assert listed["declared"]["digests"] == digests

    run(scenario)


def test_a_stranger_is_told_the_same_of_a_model_that_there_is_and_of_none() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        await serving(gw, stack, **guarded(key_entry("pk_a")))
        for headers in ({}, bearer("pk_other"), bearer("a.b.c"), {"x-api-key": "pk_other"}):
            seen = []
            for model in ("m", "none"):
                async with gw.session.get(f"{gw.url}/vision/v2/models/{model}", headers=headers) as answer:
                    seen.append((answer.status, sorted(answer.headers.items()), await answer.text()))
            assert seen[0][0] == 401
            assert seen[0] == seen[1]
        assert await ask(gw, "/vision/v2/models/none/infer", bearer("pk_a")) == 404

    run(scenario, "--default-authentication", "Required")
