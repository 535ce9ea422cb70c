"""Requests that find no replica: held, counted, woken for, and none lost."""

from __future__ import annotations

import asyncio
import gzip
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from tests.integration.gateway_parts import GUARD_SECONDS, SECRET, Gateway, Replica, replica_process, run, until
from tests.ports import free_port
from tests.telling import Telling, assert_tells

from penstock.routing.tokens import admin_token


class Waker:
    """Serve's proxy: counts the calls, and blocks until `up`."""

    def __init__(self) -> None:
        self.calls = 0
        self.at_once = 0
        self.most_at_once = 0
        self.called = asyncio.Event()
        self.up = asyncio.Event()
        self.url = ""

    async def start(self, stack: AsyncExitStack) -> None:
        application = web.Application()
        application.router.add_get("/wake", self._wake)
        runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/wake"

    async def _wake(self, _: web.Request) -> web.Response:
        self.calls += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.called.set()
        try:
            await self.up.wait()
        finally:
            self.at_once -= 1
        return web.Response()


async def until_held(gw: Gateway, count: int, model: str = "default/m") -> None:
    async def held() -> bool:
        return bool((await gw.routes())[model]["heldRequests"] == count)

    await until(held)


def test_a_compressed_body_is_held_and_handed_on_as_it_came() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        await gw.declare(holdSeconds=GUARD_SECONDS)
        plain = b" " * 100_000
        sent = gzip.compress(plain)
        asking = asyncio.create_task(gw.infer(body=sent, headers={"content-encoding": "gzip"}))
        await until_held(gw, 1)
        replica = await stack.enter_async_context(Replica())
        await gw.lease("a", replica.address)
        status, seen, _ = await asking
        headers = {name.lower(): value for name, value in seen["headers"].items()}
        assert (status, seen["size"]) == (200, len(plain)), "the replica decompressed what came"
        assert (headers["content-encoding"], headers["content-length"]) == ("gzip", str(len(sent)))

    run(scenario)


DESCRIBED = '{"name":"m","inputs":[]}'
LOOKS: dict[str, tuple[str, str, bytes | None, int, str]] = {
    "metadata": ("GET", "", None, 200, DESCRIBED),
    "the head of metadata": ("HEAD", "", None, 200, ""),
    "metadata of a version": ("GET", "/versions/1", None, 200, DESCRIBED),
    "metadata of a version that nobody has told": ("GET", "/versions/9", None, 503, "no replica tell"),
    "configuration": ("GET", "/config", None, 503, "no replica configured"),
    "statistics": ("GET", "/stats", None, 503, "no replica counted"),
    "what is set of traces": ("GET", "/trace/setting", None, 200, '"trace_level":["OFF"]'),
    "a change of it": ("POST", "/trace/setting", b"{}", 405, "spec.tracing"),
    "readiness": ("GET", "/ready", None, 200, '"ready": true'),
    "a path that no replica has": ("GET", "/nothing", None, 404, "nothing /v2/models/m/nothing"),
    "the same with a body": ("POST", "/generate", b"x" * 300_000, 404, "nothing /v2/models/m/generate"),
    "a path with a slash too many": ("POST", "/infer/", b"{}", 404, "nothing /v2/models/m/infer/"),
    "GET of infer": ("GET", "/infer", None, 405, "/v2/models/m/infer POST"),
    "OPTIONS of infer": ("OPTIONS", "/infer", None, 405, "/v2/models/m/infer POST"),
    "PUT of infer with a body": ("PUT", "/infer", b"x" * 300_000, 405, "/v2/models/m/infer POST"),
    "POST of metadata": ("POST", "", b"{}", 405, "/v2/models/m GET"),
    "DELETE of readiness": ("DELETE", "/ready", None, 405, "/v2/models/m/ready GET"),
}


def test_a_look_at_a_model_that_sleeps_is_answered_and_wakes_nothing() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        waker = Waker()
        await waker.start(stack)
        await gw.declare(wakeUrl=waker.url, holdSeconds=GUARD_SECONDS)
        async with gw.session.get(f"{gw.url}/v2/models/m") as answer:
            assert (answer.status, answer.headers["retry-after"]) == (503, "1"), "no replica has told yet"
        await gw.lease("a", "127.0.0.1:9", metadata=DESCRIBED)
        await gw.release("a")
        for title, (method, path, body, status, facts) in LOOKS.items():
            async with gw.session.request(method, f"{gw.url}/v2/models/m{path}", data=body) as answer:
                assert (title, answer.status) == (title, status)
                assert_tells(await answer.text(), facts)
        assert waker.calls == 0
        assert (await gw.routes())["default/m"]["heldRequests"] == 0
        inferring = asyncio.create_task(gw.infer())
        await waker.called.wait()
        inferring.cancel()

    run(scenario)


def test_what_endless_bodies_bring_wakes_nothing_either() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        waker = Waker()
        await waker.start(stack)
        await gw.declare(wakeUrl=waker.url, holdSeconds=GUARD_SECONDS)
        reader, writer = await asyncio.open_connection(gw.address, gw.port)
        writer.write(b"PUT /v2/models/m/infer HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n")

        async def pour() -> None:
            while True:
                writer.write(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
                await asyncio.sleep(0.05)  # bytes on the way when it closes would make the answer unreadable

        pouring = asyncio.create_task(pour())
        assert (await reader.readline()).split()[1] == b"405"
        pouring.cancel()
        writer.close()
        assert waker.calls == 0

    run(scenario)


def test_fifty_requests_at_zero_replicas_are_all_answered_after_one_wake() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        waker = Waker()
        await waker.start(stack)
        await gw.declare("team/m", wakeUrl=waker.url)
        body = b"x" * 100_000
        path = "/team/v2/models/m/infer?q=1"
        requests = [asyncio.create_task(gw.infer(path, body, {"x-mark": str(n)})) for n in range(50)]
        await asyncio.wait_for(waker.called.wait(), GUARD_SECONDS)
        await until_held(gw, 50, "team/m")
        replica = await stack.enter_async_context(Replica("a"))
        await gw.lease("a", replica.address, "team/m")
        answers = [await request for request in requests]
        assert [status for status, _, _ in answers] == [200] * 50
        assert {(body["path"], body["size"]) for _, body, _ in answers} == {("/v2/models/m/infer?q=1", 100_000)}
        assert [body["headers"]["x-mark"] for _, body, _ in answers] == [str(n) for n in range(50)]
        assert all(body["headers"]["traceparent"] == headers["traceresponse"] for _, body, headers in answers)
        assert (waker.calls, waker.most_at_once) == (1, 1)
        await until_held(gw, 0, "team/m")

    run(scenario)


def test_a_failing_wake_is_repeated_while_requests_wait() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        waker = Waker()
        port = free_port()
        await gw.declare(wakeUrl=f"http://127.0.0.1:{port}/wake")
        request = asyncio.create_task(gw.infer())
        await until_held(gw, 1)
        waker.up.set()
        await waker.start(stack)
        await gw.declare(wakeUrl=waker.url)
        await asyncio.wait_for(waker.called.wait(), GUARD_SECONDS)
        replica = await stack.enter_async_context(Replica("a"))
        await gw.lease("a", replica.address)
        assert (await request)[0] == 200

    run(scenario)


def test_a_request_held_too_long_gets_503_and_when_to_retry() -> None:
    async def scenario(gw: Gateway, _: AsyncExitStack) -> None:
        await gw.declare(holdSeconds=0.2)
        status, body, headers = await gw.infer()
        assert (status, body) == (503, {"error": Telling("no replica model 'm' ready 0.2 s")})
        assert headers["retry-after"] == "1"
        assert headers["traceresponse"].endswith("-01")

    run(scenario)


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [((), {"maxHeldRequests": 1}), (("--max-held-bytes", "300"), {})],
    ids=["more requests than the route holds get 503", "more bytes than the gateway holds get 503"],
)
def test_bounds(arguments: tuple[str, ...], fields: dict[str, int]) -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        await gw.declare(**fields)
        first = asyncio.create_task(gw.infer(body=b"x" * 100))
        await until_held(gw, 1)
        status, body, headers = await gw.infer(body=b"x" * 100)
        assert (status, headers["retry-after"]) == (503, "1")
        assert "wait" in body["error"]
        replica = await stack.enter_async_context(Replica("a"))
        await gw.lease("a", replica.address)
        assert (await first)[0] == 200

    run(scenario, *arguments)


def test_a_client_that_goes_away_frees_its_place() -> None:
    async def scenario(gw: Gateway, _: AsyncExitStack) -> None:
        await gw.declare(maxHeldRequests=1)
        reader, writer = await asyncio.open_connection("127.0.0.1", gw.port)
        writer.write(b"POST /v2/models/m/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}")
        await until_held(gw, 1)
        writer.close()
        await until_held(gw, 0)
        assert reader is not None

    run(scenario)


def test_a_replica_that_fails_at_once_is_passed_over_for_another() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        process, dead = await stack.enter_async_context(replica_process("dead"))
        process.kill()
        await process.wait()
        await gw.declare()
        requests = [asyncio.create_task(gw.infer()) for _ in range(10)]
        await until_held(gw, 10)
        await gw.lease("dead", dead)
        replica = await stack.enter_async_context(Replica("a"))
        await gw.lease("a", replica.address)
        assert [(await request)[1]["replica"] for request in requests] == ["a"] * 10

    run(scenario)


def test_a_full_replica_is_asked_again_until_the_hold_ends() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        await gw.declare()
        request = asyncio.create_task(gw.infer())
        await until_held(gw, 1)
        replica = await stack.enter_async_context(Replica("a"))
        replica.status = 429
        await gw.lease("a", replica.address)
        await asyncio.wait_for(replica.arrived.wait(), GUARD_SECONDS)
        replica.status = 200
        assert (await request)[0] == 200
        assert replica.answered > 1

    run(scenario)


def test_a_model_that_cannot_start_is_refused_with_the_reason_and_frees_those_that_wait() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        await gw.declare()
        waiting = asyncio.create_task(gw.infer())
        await until_held(gw, 1)
        await gw.declare(unavailable="ModelNotFound: there is no file")
        wanted = {"error": Telling("model 'm'", "ModelNotFound: there is no file")}
        assert (await waiting)[:2] == (503, wanted)
        assert (await gw.infer())[:2] == (503, wanted)
        replica = await stack.enter_async_context(Replica("a"))
        await gw.lease("a", replica.address)
        assert (await gw.infer())[0] == 200

    run(scenario)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"wakeUrl": "http://127.0.0.1:9/wake"}, 200),
        ({}, 503),
        ({"wakeUrl": "http://127.0.0.1:9/wake", "unavailable": "Unschedulable: no node"}, 503),
    ],
    ids=["asleep: a request would wake it", "starting: not ready", "asleep and unable to start: not ready"],
)
def test_whether_a_model_without_replicas_is_ready_is_said_at_once(fields: dict[str, str], status: int) -> None:
    async def scenario(gw: Gateway, _: AsyncExitStack) -> None:
        await gw.declare(**fields)
        async with gw.session.get(f"{gw.url}/v2/models/m/ready") as response:
            assert response.status == status
        assert (await gw.routes())["default/m"]["heldRequests"] == 0

    run(scenario)


def test_a_withdrawn_route_lets_its_requests_go() -> None:
    async def scenario(gw: Gateway, _: AsyncExitStack) -> None:
        await gw.declare()
        request = asyncio.create_task(gw.infer())
        await until_held(gw, 1)

        assert (await gw.call("DELETE", "/v1/routes/default/m", None, admin_token(SECRET)))[0] == 204
        assert (await request)[:2] == (404, {"error": Telling("model 'm' not found namespace 'default'")})

    run(scenario)


def test_only_revisions_with_a_weight_end_the_wait() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        await gw.declare(revisions={"r2": 100})
        request = asyncio.create_task(gw.infer())
        await until_held(gw, 1)
        replica = await stack.enter_async_context(Replica("a"))
        await gw.lease("a", replica.address, revision="r1")
        await until_held(gw, 1)
        assert replica.answered == 0
        await gw.declare(revisions={"r1": 100})
        assert (await request)[0] == 200

    run(scenario)


class Streaming:
    """A replica that answers in pieces of a megabyte: the first one at once, the others as it is told."""

    def __init__(self, pieces: int, *, announced: int | None = None, breaks: bool = False) -> None:
        self.pieces = pieces
        self.announced = announced
        self.breaks = breaks
        self.go_on = asyncio.Semaphore(0)
        self.left = asyncio.Event()
        self.address = ""

    async def start(self, stack: AsyncExitStack) -> None:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.address = f"127.0.0.1:{runner.addresses[0][1]}"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = self.announced
        await response.prepare(request)
        try:
            await response.write(b"x" * (1 << 20))
            for _ in range(self.pieces - 1):
                await self.go_on.acquire()
                await response.write(b"x" * (1 << 20))
        except (ConnectionError, asyncio.CancelledError):
            self.left.set()
            raise
        if self.breaks:
            assert request.transport is not None
            request.transport.abort()
        return response


async def held_request(
    gw: Gateway, stack: AsyncExitStack, replica: Streaming
) -> asyncio.Task[aiohttp.client.ClientResponse]:
    """A request that waited for its replica, which has it now."""
    await replica.start(stack)
    await gw.declare()
    asked = asyncio.create_task(gw.session.post(f"{gw.url}/v2/models/m/infer", data=b"{}").__aenter__())
    await until_held(gw, 1)
    await gw.lease("a", replica.address)
    return asked


@pytest.mark.parametrize("announced", [None, 256 << 20], ids=["of unknown length", "of a length that is announced"])
def test_an_answer_of_any_size_passes_the_agent_as_it_comes(announced: int | None) -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        replica = Streaming(256, announced=announced)
        answer = await (await held_request(gw, stack, replica))
        # The replica goes on only once this has come through.
        got = len(await answer.content.readexactly(1 << 20))
        before = _peak_memory(gw)
        for _ in range(255):
            replica.go_on.release()
        async for chunk in answer.content.iter_any():
            got += len(chunk)
        assert (answer.status, got) == (200, 256 << 20)
        assert _peak_memory(gw) - before < 64 << 20

    run(scenario)


def _peak_memory(gw: Gateway) -> int:
    """The most memory that the agent has had, in bytes."""
    assert gw.process is not None
    lines = Path(f"/proc/{gw.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@pytest.mark.parametrize("announced", [None, 3 << 20], ids=["of unknown length", "of a length that is announced"])
def test_an_answer_that_breaks_off_does_not_look_whole(announced: int | None) -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        replica = Streaming(2, announced=announced, breaks=True)
        answer = await (await held_request(gw, stack, replica))
        await answer.content.readexactly(1 << 20)
        replica.go_on.release()
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.content.read(-1)

    run(scenario)


def test_a_replica_learns_that_the_client_of_its_answer_has_gone() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        replica = Streaming(2)
        answer = await (await held_request(gw, stack, replica))
        await answer.content.readexactly(1 << 20)
        answer.close()
        await asyncio.wait_for(replica.left.wait(), GUARD_SECONDS)

    run(scenario)


def test_answers_in_pieces_take_of_the_namespaces_share_of_memory() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        replica = Streaming(2)
        first = await (await held_request(gw, stack, replica))
        await first.content.readexactly(1 << 20)
        await gw.release("a")
        waiting = asyncio.create_task(gw.infer())
        await until_held(gw, 1)
        await gw.lease("a", replica.address)
        status, body, headers = await waiting
        assert (status, headers["retry-after"]) == (503, "1")
        assert_tells(body["error"], "many bytes")

    run(scenario, "--max-held-bytes", "600000")


def test_of_a_full_replicas_answer_little_is_kept() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        await gw.declare(holdSeconds=2)
        request = asyncio.create_task(gw.infer())
        await until_held(gw, 1)
        replica = await stack.enter_async_context(Replica("a" * 100_000))
        replica.status = 429
        await gw.lease("a", replica.address)
        status, body, headers = await request
        assert (status, body) == (429, {"error": "the replica is full"})
        assert headers["retry-after"] == "1"

    run(scenario)
