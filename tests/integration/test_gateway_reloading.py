"""What a reload of the real HAProxy leaves behind: an old worker with requests under way, and slots that change hands."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Self

import pytest
from tests.integration.access_parts import guarded, key_entry
from tests.integration.gateway_parts import GUARD_SECONDS, Gateway, Replica, run, token_of, until
from tests.telling import Telling

from penstock.errors import Unavailable
from penstock_serving.gateway.haproxy.runtime_socket import apply, execute


class Fading:
    """A replica that takes a request and dies without an answer, when told."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.die = asyncio.Event()
        self.address = ""
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await reader.read(65536)).startswith(b"POST"):
            assert self._server is not None
            self._server.close()
            self.arrived.set()
            await self.die.wait()
        writer.close()


def test_a_request_under_way_at_a_reload_never_reaches_the_next_tenant_of_its_slot() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        theirs = await stack.enter_async_context(Fading())
        ours = await stack.enter_async_context(Replica("ours"))
        await gw.lease("a", theirs.address, "one/m")
        asked = asyncio.create_task(gw.infer("/one/v2/models/m/infer", b"secret"))
        await asyncio.wait_for(theirs.arrived.wait(), GUARD_SECONDS)
        await gw.release("a", "one/m")
        # Both slots rest now, so that another tenant's model needs a reload.
        _, workers = gw.haproxy_pids()
        await gw.lease("b", ours.address, "two/m")
        theirs.die.set()
        status, body, _ = await asked
        assert (status, body) == (404, {"error": Telling("model 'm' not found namespace 'one'")})
        assert ours.answered == 0
        assert (await gw.infer("/two/v2/models/m/infer"))[1]["replica"] == "ours"
        assert not set(gw.haproxy_pids()[1]) <= set(workers)

    run(scenario, "--slots", "2")


class Kept:
    """A client that keeps its connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, gw: Gateway, stack: AsyncExitStack) -> Self:
        reader, writer = await asyncio.open_connection("127.0.0.1", gw.port)
        stack.callback(writer.close)
        return cls(reader, writer)

    async def ask(self, path: str, headers: str = "") -> tuple[int, Any]:
        self._writer.write(f"POST {path} HTTP/1.1\r\nhost: a\r\n{headers}content-length: 2\r\n\r\n{{}}".encode())
        head = (await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), GUARD_SECONDS)).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        return int(head.split()[1]), json.loads(await self._reader.readexactly(length))


def test_a_kept_connection_of_before_a_reload_goes_by_what_holds_after_it() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        before = await stack.enter_async_context(Replica("before"))
        after = await stack.enter_async_context(Replica("after"))
        await gw.declare("one/m", access=guarded(key_entry("pk_a")))
        await gw.lease("a", before.address, "one/m")
        kept = await Kept.connect(gw, stack)
        ended = await Kept.connect(gw, stack)
        path, header = "/one/v2/models/m/infer?q=1", "authorization: Bearer pk_a\r\n"
        for client in (kept, ended):
            assert (await client.ask(path, header))[1]["replica"] == "before"
        await gw.lease("b", after.address, "two/m")
        await gw.release("a", "one/m")
        await gw.lease("a2", after.address, "one/m")
        status, body = await kept.ask(path, header)
        assert (status, body["replica"], body["path"]) == (200, "after", "/one/v2/models/m/infer?q=1")
        assert body["headers"]["x-penstock-caller"] == "key/alice"
        await gw.declare("one/m", access=guarded())
        assert (await ended.ask(path, header))[0] == 401
        assert before.answered == 2

    run(scenario, "--slots", "2")


def test_a_gateway_that_stops_answers_what_still_comes_on_kept_connections() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        a = await stack.enter_async_context(Replica("a"))
        await gw.lease("a", a.address)
        kept = await Kept.connect(gw, stack)
        assert (await kept.ask("/v2/models/m/infer"))[0] == 200
        a.go_on.clear()
        under_way = asyncio.create_task(gw.infer())
        await asyncio.wait_for(a.arrived.wait(), GUARD_SECONDS)
        assert gw.process is not None
        gw.process.send_signal(signal.SIGTERM)
        await until(partial(_refuses, gw))
        a.go_on.set()
        assert (await kept.ask("/v2/models/m/infer"))[0] == 200
        assert (await under_way)[0] == 200

    run(scenario, "--drain-seconds", "60")


async def _refuses(gw: Gateway) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", gw.port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


def test_only_a_worker_of_the_edition_is_commanded() -> None:
    async def scenario(gw: Gateway, _: AsyncExitStack) -> None:
        folder = gw.state / "s" / "run"
        edition = (folder / "haproxy.cfg").read_text().split("proc.edition str(")[1].split(")")[0]
        socket, routes = folder / "haproxy.sock", folder / "routes.map"
        with pytest.raises(Unavailable, match="another worker"):
            await apply(socket, [f"add map {routes} one/m m0|0"], "another")
        held = await execute(socket, [f"show map {routes}", "get var proc.leaving"], edition)
        assert ("one/m" in held, "proc.leaving" in held) == (False, True)

    run(scenario)


def test_one_models_token_cannot_make_haproxy_reload_over_and_over() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        a = await stack.enter_async_context(Replica("a"))
        workers = gw.haproxy_pids()
        for number in range(8):
            await gw.lease("a", a.address, version=f"v{number}")
            await gw.release("a")
        body = {"namespace": "default", "model": "m", "version": "v8", "revision": "r", "address": a.address}
        url, headers = f"{gw.control}/v1/replicas/a", {"authorization": f"Bearer {token_of('default/m')}"}
        async with gw.session.put(url, json=body, headers=headers) as answer:
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert "8 versions" in (await answer.json())["error"]
        # A version that comes back finds its own slot, which rests for nobody else.
        for _ in range(3):
            await gw.lease("a", a.address, version="v3")
            assert (await gw.infer("/v2/models/m/versions/v3/infer"))[0] == 200
            await gw.release("a")
        assert gw.haproxy_pids() == workers

    run(scenario, "--slots", "9")
