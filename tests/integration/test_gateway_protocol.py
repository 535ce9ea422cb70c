"""What clients, replicas and tracers see of the gateway: errors, tokens, trace context, spans, metrics."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.integration.gateway_parts import GUARD_SECONDS, SECRET, Gateway, Replica, gateway, token_of, until
from tests.telling import Telling, assert_tells

from penstock.protocol.server import EXTENSIONS
from penstock.routing.fleet import GatewayState
from penstock.routing.tokens import admin_token, former_replica_token, word_for
from penstock.telemetry.spans import gateway_context, parse_traceparent
from penstock_serving.gateway.memory import connection_bytes

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


def run(scenario: Callable[[Gateway, AsyncExitStack], Awaitable[None]], *arguments: str, **environment: str) -> None:
    async def main() -> None:
        async with asyncio.timeout(120), gateway(*arguments, **environment) as running, AsyncExitStack() as stack:
            await scenario(running, stack)

    asyncio.run(main())


async def raw(gw: Gateway, sent: bytes) -> tuple[int, dict[str, str], Any]:
    """Send bytes; status, headers and JSON of what comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gw.port)
    try:
        writer.write(sent)
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), GUARD_SECONDS)).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await asyncio.wait_for(reader.readexactly(int(headers["content-length"])), GUARD_SECONDS)
        return int(head[0].split()[1]), headers, json.loads(body)
    finally:
        writer.close()


async def every_error(gw: Gateway, stack: AsyncExitStack) -> None:
    a = await stack.enter_async_context(Replica("a"))
    await gw.lease("a", a.address)
    head = b"POST /v2/models/%s/infer HTTP/1.1\r\nhost: a\r\n"
    quoted = b'a"\\'
    cases = {
        "a slow body": (
            head % b"m" + b"content-length: 9\r\n\r\n{",
            408,
            "request time",
        ),
        "an announced gigabyte": (
            head % b"m" + b"content-length: 1000000000\r\n\r\n",
            413,
            "body larger gateway",
        ),
        "an unknown model": (
            head % quoted + b"content-length: 0\r\n\r\n",
            404,
            "model 'a\"\\' not found namespace 'default'",
        ),
        "an encoded name": (
            head % b"%6d" + b"content-length: 0\r\n\r\n",
            404,
            "path percent-encoding /v2/models/%6d/infer",
        ),
        "no path of ours": (
            b"GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n",
            404,
            "no path /v2/models/ /NAMESPACE/v2/models/",
        ),
        "a wrong method": (b"DELETE /v2 HTTP/1.1\r\nhost: a\r\n\r\n", 405, "/v2 GET"),
    }
    for name, (sent, status, facts) in cases.items():
        got_status, headers, body = await raw(gw, sent)
        assert (name, got_status, body) == (name, status, {"error": Telling(facts)})
        assert headers["content-type"].startswith("application/json")
    a.go_on.clear()
    status, headers, body = await raw(gw, head % b"m" + b"content-length: 2\r\n\r\n{}")
    assert (status, body) == (504, {"error": Telling("replica not answer time")})
    a.go_on.set()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"x" * 70_000 + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\n", 408),
    ],
    ids=["what is not HTTP gets 400", "headers larger than the buffer get 400", "headers that do not end get 408"],
)
def test_what_cannot_be_read_is_answered_and_ends(sent: bytes, status: int) -> None:
    async def scenario(gw: Gateway, _: AsyncExitStack) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", gw.port)
        writer.write(sent)
        async with asyncio.timeout(GUARD_SECONDS):
            answer = await reader.readline()
            # Where more was sent than it read, the end is a reset.
            with suppress(ConnectionResetError):
                await reader.read(-1)
        writer.close()
        # HAProxy's parser has an answer of its own, before any configured one applies.
        assert int(answer.split()[1]) == status

    run(scenario, "--header-timeout-seconds", "0.5")


def test_every_error_is_json_in_the_protocols_form() -> None:
    run(every_error, "--header-timeout-seconds", "0.5", "--request-timeout-seconds", "1", "--max-body-bytes", "1000000")


def test_a_chunked_body_over_the_limit_is_refused_while_it_waits() -> None:
    async def scenario(gw: Gateway, _: AsyncExitStack) -> None:
        await gw.declare()

        async def chunks() -> Any:
            for _ in range(3):
                yield b"x" * 100_000

        async with gw.session.post(f"{gw.url}/v2/models/m/infer", data=chunks()) as response:
            assert (response.status, await response.json()) == (413, {"error": Telling("body 100000 bytes")})

    run(scenario, "--max-body-bytes", "100000")


@pytest.mark.parametrize(
    "arguments",
    [("--max-requests-per-second-per-client", "5"), ("--max-connections-per-client", "2")],
    ids=["too many requests a second get 429", "too many connections get 429"],
)
def test_bounds_per_client(arguments: tuple[str, ...]) -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        a = await stack.enter_async_context(Replica("a", delay=0.05))
        await gw.lease("a", a.address)
        answers = await asyncio.gather(*(gw.infer() for _ in range(20)))
        refused = [(body, headers["retry-after"]) for status, body, headers in answers if status == 429]
        assert refused
        assert refused[0] == ({"error": Telling("many requests connections client")}, "1")
        assert {status for status, _, _ in answers} <= {200, 429}

    run(scenario, *arguments)


def test_a_replica_is_shown_its_models_token_and_nothing_that_a_client_said() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        a = await stack.enter_async_context(Replica("a"))
        await gw.declare(holdSeconds=60)
        held = asyncio.create_task(gw.infer(headers={"x-penstock-gateway": "default/x"}))
        await gw.lease("a", a.address)
        for _, body, _ in (await held, await gw.infer(headers={"x-penstock-gateway": "default/x"})):
            assert body["headers"]["x-penstock-gateway"] == word_for(SECRET, ("default", "m"), "")

    run(scenario)


@pytest.mark.parametrize("path", ["/nowhere", "/v2/models/none/infer", "/v2/health/live/more"])
def test_of_what_is_not_there_no_body_is_waited_for(path: str) -> None:
    async def scenario(gw: Gateway, _: AsyncExitStack) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", gw.port)
        writer.write(f"POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        assert (await reader.readline()).split()[1] == b"404"
        writer.close()

    run(scenario)


def test_strangers_paths_do_not_keep_anyone_from_asking_whether_the_gateway_is_well() -> None:
    async def scenario(gw: Gateway, _: AsyncExitStack) -> None:
        async def ask(path: str) -> int:
            async with gw.session.get(gw.url + path) as response:
                await response.read()
                return response.status

        async def ready() -> bool:
            return await ask("/v2/health/ready") == 200

        await until(ready)
        strangers = [f"/{what}-{each}" for each in range(100) for what in ("nowhere", "v2/models/none")]
        seen = Counter(await asyncio.gather(*(ask(path) for path in strangers)))
        assert seen.keys() <= {404, 429}
        assert seen[429] > 0
        assert await ask("/v2/health/live") == 200
        await until(ready)

    run(scenario, "--agent-requests-per-second", "20")


def test_connections_with_full_buffers_take_no_more_memory_than_is_calculated() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        a = await stack.enter_async_context(Replica("a"))
        await gw.lease("a", a.address)
        _, (worker,) = gw.haproxy_pids()

        def resident() -> int:
            return int(Path(f"/proc/{worker}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        await gw.infer()
        before = resident()
        for number in range(120):
            # Each of an address of its own, and with a body that never comes whole.
            local = (f"127.0.0.{2 + number}", 0)
            _, writer = await asyncio.open_connection("127.0.0.1", gw.port, local_addr=local)
            stack.callback(writer.close)
            writer.write(
                b"POST /v2/models/m/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 60_000
            )
            await writer.drain()
        assert (await gw.infer())[0] == 200
        assert resident() - before <= 121 * connection_bytes()

    run(scenario)


def test_the_gateways_own_paths_answer_for_every_namespace() -> None:
    async def scenario(gw: Gateway, _: AsyncExitStack) -> None:
        async def get(path: str) -> tuple[int, Any]:
            async with gw.session.get(gw.url + path) as response:
                return response.status, await response.json()

        async def ready() -> bool:
            return (await get("/v2/health/ready"))[0] == 200

        await until(ready)
        for prefix in ("", "/team"):
            status, body = await get(f"{prefix}/v2")
            assert (status, body["name"], body["extensions"]) == (200, "penstock", list(EXTENSIONS))
            assert await get(f"{prefix}/v2/health/live") == (200, {"live": True})
            assert await get(f"{prefix}/v2/health/ready") == (200, {"ready": True})

    run(scenario)


async def trace_rules(gw: Gateway, stack: AsyncExitStack) -> None:
    a = await stack.enter_async_context(Replica("a"))
    await gw.lease("a", a.address)
    for flags in ("00", "01"):
        sent = {"traceparent": f"00-{TRACE}-{PARENT}-{flags}", "tracestate": "v=1"}
        _, body, headers = await gw.infer(headers=sent)
        trace, span = headers["traceresponse"].split("-")[1:3]
        assert (trace, headers["traceresponse"][-2:]) == (TRACE, flags)
        assert span != PARENT
        assert body["headers"]["traceparent"] == headers["traceresponse"]
        assert body["headers"]["tracestate"] == "v=1"
    malformed = [
        f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more", f"00-{TRACE.upper()}-{PARENT}-01", f"00-{TRACE}-{PARENT}", "nonsense",
    ]  # fmt: skip
    for header in malformed:
        _, body, _ = await gw.infer(headers={"traceparent": header, "tracestate": "v=1"})
        assert (header, {"traceparent", "tracestate"} & set(body["headers"])) == (header, set())
    future = await gw.infer(headers={"traceparent": f"01-{TRACE}-{PARENT}-01-more"})
    assert future[1]["headers"]["traceparent"].startswith(f"00-{TRACE}-")
    await gw.declare(samplingRatio=1)
    seen = set()
    for header in ({}, {"traceparent": malformed[0], "tracestate": "v=1"}):
        _, body, headers = await gw.infer(headers=header)
        version, trace, span, flags = body["headers"]["traceparent"].split("-")
        assert (version, flags, len(trace), len(span), headers["traceresponse"][-2:]) == ("00", "01", 32, 16, "01")
        assert "tracestate" not in body["headers"]
        seen |= {trace, span}
    assert len(seen) == 4
    assert TRACE not in seen
    await gw.declare(samplingRatio=0.5)
    flags = [(await gw.infer())[2].get("traceresponse", "-none")[-3:] for _ in range(100)]
    assert {"-01", "one"} == set(flags)


def test_trace_context_is_kept_or_made() -> None:
    run(trace_rules)


class Collector:
    """An OTLP receiver over HTTP."""

    def __init__(self) -> None:
        self.spans: dict[str, Any] = {}
        self.resource: dict[str, str] = {}
        self.endpoint = ""

    async def start(self, stack: AsyncExitStack) -> None:
        application = web.Application()
        application.router.add_post("/v1/traces", self._take)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def _take(self, request: web.Request) -> web.Response:
        for group in ExportTraceServiceRequest.FromString(await request.read()).resource_spans:
            self.resource = {a.key: a.value.string_value for a in group.resource.attributes}
            for scope in group.scope_spans:
                self.spans |= {f"{s.trace_id.hex()} {s.name}": s for s in scope.spans}
        return web.Response(content_type="application/x-protobuf")


def test_kept_traces_leave_the_gateways_spans_over_otlp_and_no_others() -> None:
    async def main() -> None:
        async with asyncio.timeout(120), AsyncExitStack() as stack:
            collector = Collector()
            await collector.start(stack)
            a = await stack.enter_async_context(Replica("a"))
            async with gateway(OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint, OTEL_BSP_SCHEDULE_DELAY="100") as gw:
                traces = [f"{n:032x}" for n in range(1, 6)]
                await gw.declare("team/m", holdSeconds=60)
                held = asyncio.create_task(
                    gw.infer("/team/v2/models/m/infer", headers={"traceparent": f"00-{traces[0]}-{PARENT}-01"})
                )

                async def is_held() -> bool:
                    return bool((await gw.routes())["team/m"]["heldRequests"])

                await until(is_held)
                await gw.lease("a", a.address, "team/m")
                await held
                for trace, sampled, path in (
                    (traces[1], "01", "/team/v2/models/m/versions/1/infer"),
                    (traces[2], "00", "/team/v2/models/m/infer"),
                ):
                    await gw.infer(path, headers={"traceparent": f"00-{trace}-{PARENT}-{sampled}"})
                a.sampled = "01"
                await gw.infer("/team/v2/models/m/infer", headers={"traceparent": f"00-{traces[3]}-{PARENT}-00"})
                await gw.infer("/team/v2/models/m/infer")
                a.status, a.sampled = 500, "00"
                await gw.infer("/team/v2/models/m/infer", headers={"traceparent": f"00-{traces[4]}-{PARENT}-00"})
            begun = parse_traceparent(a.own_trace)
            assert begun is not None
            kept = (traces[0], traces[1], traces[3], traces[4], f"{begun.trace_id:032x}")
            wanted = {f"{trace} gateway" for trace in kept} | {f"{traces[0]} hold"}
            assert set(collector.spans) == wanted
            assert collector.resource["service.name"] == "penstock-gateway"
            span = collector.spans[f"{traces[1]} gateway"]
            attributes = {a.key: a.value for a in span.attributes}
            assert (span.parent_span_id.hex(), span.kind) == (PARENT, 2)
            assert attributes["penstock.namespace"].string_value == "team"
            assert attributes["penstock.model.name"].string_value == "m"
            assert attributes["penstock.model.version"].string_value == "1"
            assert attributes["url.path"].string_value == "/team/v2/models/m/versions/1/infer"
            assert attributes["http.response.status_code"].int_value == 200
            assert span.start_time_unix_nano < span.end_time_unix_nano
            hold, outer = collector.spans[f"{traces[0]} hold"], collector.spans[f"{traces[0]} gateway"]
            assert hold.parent_span_id == outer.span_id
            assert collector.spans[f"{traces[4]} gateway"].status.code == 2
            # The replica began this one, and took this span for its own's parent.
            of_replica = collector.spans[f"{kept[-1]} gateway"]
            assert (of_replica.span_id.hex(), of_replica.parent_span_id) == (
                f"{gateway_context(begun).span_id:016x}",
                b"",
            )

    asyncio.run(main())


LEASE = {"namespace": "default", "model": "m", "version": "1", "revision": "r", "address": "127.0.0.1:9"}
ROUTE = {"namespace": "default", "model": "m"}
ADMIN = admin_token(SECRET)
OURS, THEIRS = token_of("default/m"), token_of("other/m")
FORMER = former_replica_token(SECRET, "default", "m")


@pytest.mark.parametrize(
    ("call", "status", "facts"),
    [
        (("PUT", "/v1/replicas/a", LEASE, None), 401, "Bearer"),
        (("PUT", "/v1/replicas/a", LEASE, "wrong"), 403, "token"),
        (("PUT", "/v1/replicas/a", LEASE, THEIRS), 403, "token"),
        (("PUT", "/v1/replicas/a", LEASE, ADMIN), 403, "token"),
        (("DELETE", "/v1/replicas/held", None, "wrong"), 403, "token"),
        (("PUT", "/v1/replicas/a", LEASE | {"padding": "x" * 8192}, FORMER), 413, "more than 4096 bytes"),
        (("PUT", "/v1/replicas/a", LEASE, former_replica_token(SECRET, "other", "m")), 403, "token"),
        (("PUT", "/v1/nothing", b"x" * (1 << 20), None), 404, "Not Found"),
        (("DELETE", "/v1/replicas/held", None, None), 401, "Bearer"),
        (("PUT", "/v1/routes/default/m", ROUTE, OURS), 403, "token"),
        (("DELETE", "/v1/routes/default/m", None, OURS), 403, "token"),
        (("GET", "/v1/routes", None, OURS), 403, "token"),
        (("GET", "/v1/routes", None, None), 401, "Bearer"),
        (("PUT", "/v1/replicas/a", b"{not json", OURS), 400, "JSON"),
        (("PUT", "/v1/replicas/a", LEASE | {"extra": 1}, OURS), 400, "extra"),
        (("PUT", "/v1/replicas/a", LEASE | {"leaseSeconds": 0}, OURS), 400, "leaseSeconds"),
        (("PUT", "/v1/replicas/a", LEASE | {"address": "10.0.0.1:1 weight 9;shutdown"}, OURS), 400, "IP:port"),
        (("PUT", "/v1/replicas/a", LEASE | {"version": "1 x"}, OURS), 400, "version"),
        (("PUT", "/v1/replicas/a", LEASE | {"model": "a b"}, token_of("default/a b")), 400, "model"),
        (("PUT", "/v1/replicas/a", LEASE | {"revision": "r" * 254}, OURS), 400, "revision 253"),
        (("PUT", f"/v1/replicas/{'a' * 254}", LEASE, OURS), 400, "253 254"),
        (("PUT", "/v1/routes/default/m", b"[]", ADMIN), 400, "object"),
        (("PUT", "/v1/routes/default/x", ROUTE, ADMIN), 400, "path"),
        (("PUT", "/v1/routes/default/m", ROUTE | {"revisions": {"r": 101}}, ADMIN), 400, "weight 101 'r' 0 100"),
        (("PUT", "/v1/routes/v2/m", ROUTE | {"namespace": "v2"}, ADMIN), 400, "reserved"),
        (("PUT", "/v1/replicas/a", b"x" * (2 << 20), OURS), 413, "65536 bytes"),
        (("GET", "/v1/nothing", None, ADMIN), 404, "Not Found"),
    ],
)  # fmt: skip
def test_the_control_api_refuses(
    shared: Callable[..., tuple[int, Any]], call: tuple[str, str, object, str | None], status: int, facts: str
) -> None:
    got, answer = shared(*call)
    assert got == status
    assert set(answer) == {"error"}
    assert_tells(answer["error"], facts)
    _, routes = shared("GET", "/v1/routes", None, ADMIN)
    assert [replica["replicaId"] for route in routes["routes"] for replica in route["replicas"]] == ["held"]


def test_a_token_is_worth_its_own_models_replicas_alone() -> None:
    async def scenario(gw: Gateway, _: AsyncExitStack) -> None:
        async def held() -> list[str]:
            return [name for name, route in (await gw.routes()).items() if route["replicas"]]

        await gw.lease("held", "127.0.0.1:9")
        assert (await gw.call("PUT", "/v1/replicas/held", LEASE | {"namespace": "other"}, THEIRS))[0] == 200
        assert await held() == ["default/m", "other/m"]
        for token, left in ((THEIRS, ["default/m"]), (THEIRS, ["default/m"]), (FORMER, [])):
            assert await gw.call("DELETE", "/v1/replicas/held", None, token) == (204, None)
            assert await held() == left
        assert (await gw.call("PUT", "/v1/replicas/held", LEASE, FORMER))[0] == 200

    run(scenario)


def test_a_former_releases_tokens_can_be_refused() -> None:
    async def scenario(gw: Gateway, _: AsyncExitStack) -> None:
        assert (await gw.call("PUT", "/v1/replicas/a", LEASE, FORMER))[0] == 403
        assert (await gw.call("PUT", "/v1/replicas/a", LEASE, OURS))[0] == 200

    run(scenario, "--refuse-former-tokens")


HEAD = "PUT /v1/replicas/a HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n"


@pytest.mark.parametrize(
    ("token", "length", "status"),
    [
        pytest.param("wrong", "content-length: 1000000", 403, id="no token holds"),
        pytest.param("wrong", "transfer-encoding: chunked", 403, id="no token holds, and the body has no end"),
        pytest.param(OURS, "content-length: 1000000", 413, id="it is too long"),
    ],
)
def test_no_body_is_waited_for_where(token: str, length: str, status: int) -> None:
    async def scenario(gw: Gateway, _: AsyncExitStack) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", gw.control_port)
        writer.write((HEAD.format(token=token) + length + "\r\n\r\n").encode())
        answer = await reader.readuntil(b"\r\n")
        assert answer.split()[1] == str(status).encode()
        # Whatever else came would be the rest of the body: the connection ends.
        assert b"\r\n\r\n" in await reader.read()
        writer.close()

    run(scenario)


def test_silent_connections_make_room_for_others() -> None:
    async def scenario(gw: Gateway, _: AsyncExitStack) -> None:
        silent = [await asyncio.open_connection("127.0.0.1", gw.control_port) for _ in range(80)]
        assert (await gw.call("PUT", "/v1/replicas/a", LEASE, OURS))[0] == 200
        assert await silent[0][0].read() == b""
        for _, writer in silent:
            writer.close()

    run(scenario)


def test_http2_is_not_spoken_where_it_is_turned_off() -> None:
    async def scenario() -> None:
        async with gateway("--no-http2") as gw:
            reader, writer = await asyncio.open_connection("127.0.0.1", gw.port)
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
            writer.close()

    asyncio.run(scenario())


def test_a_route_can_be_declared_without_waiting_until_requests_go_that_way() -> None:
    async def scenario() -> None:
        async with gateway() as gw, Replica() as replica:
            await gw.lease("a", replica.address)
            _, (worker,) = gw.haproxy_pids()
            os.kill(worker, signal.SIGSTOP)
            try:
                headers = {"authorization": f"Bearer {ADMIN}", "prefer": "respond-async"}
                path = f"{gw.control}/v1/routes/default/m"
                async with gw.session.put(path, json=ROUTE | {"revisions": {"r2": 100}}, headers=headers) as answer:
                    status = await answer.json()
                assert (answer.status, status["declared"]["revisions"]) == (202, {"r2": 100})
                assert [replica["receiving"] for replica in status["replicas"]] == [False]
                assert status["settled"] is False
                assert (await gw.routes())["default/m"]["settled"] is False
            finally:
                os.kill(worker, signal.SIGCONT)

            async def settled() -> bool:
                return bool((await gw.routes())["default/m"]["settled"])

            await until(settled)
            # How often traces are kept changes nothing about where requests go.
            async with gw.session.put(
                path, json=ROUTE | {"revisions": {"r2": 100}, "samplingRatio": 0.5}, headers=headers
            ) as answer:
                assert (answer.status, (await answer.json())["settled"]) == (202, True)

    asyncio.run(scenario())


def test_a_gateway_has_all_routes_only_once_requests_go_that_way() -> None:
    async def scenario() -> None:
        async with gateway("--await-operator-seconds", "60") as gw:
            headers = {"authorization": f"Bearer {ADMIN}", "prefer": "respond-async"}
            async with gw.session.head(f"{gw.control}/v1/routes", headers=headers) as answer:
                completion = {"instance": GatewayState.read(answer.headers).instance}
            _, (worker,) = gw.haproxy_pids()
            os.kill(worker, signal.SIGSTOP)
            try:
                async with gw.session.put(f"{gw.control}/v1/routes/default/m", json=ROUTE, headers=headers) as answer:
                    assert answer.status == 202
                completing = asyncio.create_task(gw.call("PUT", "/v1/complete", completion, ADMIN))
                assert (await gw.routes())["default/m"]["settled"] is False
                assert not completing.done()
            finally:
                os.kill(worker, signal.SIGCONT)
            assert await completing == (204, None)
            assert (await gw.routes())["default/m"]["settled"] is True

    asyncio.run(scenario())


@pytest.fixture(scope="module")
def shared() -> Any:
    """One gateway with the replica `held` of `default/m`, called from synchronous tests."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        gw = runner.run(stack.enter_async_context(gateway()))
        runner.run(gw.lease("held", "127.0.0.1:9"))

        async def call(*arguments: Any) -> tuple[int, Any]:
            await gw.lease("held", "127.0.0.1:9")
            return await gw.call(*arguments)

        yield lambda *arguments: runner.run(call(*arguments))
        runner.run(stack.aclose())


def test_metrics_count_known_models_by_name_and_strangers_together() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        a = await stack.enter_async_context(Replica("a"))
        await gw.lease("a", a.address, "team/m")
        for _ in range(3):
            await gw.infer("/team/v2/models/m/infer")
        for number in range(3):
            await gw.infer(f"/v2/models/stranger-{number}/infer")
        known = 'penstock_gateway_requests_total{code="2xx",model="m",namespace="team"} 3.0'
        async with asyncio.timeout(GUARD_SECONDS):
            while True:
                async with gw.session.get(f"{gw.control}/metrics") as response:
                    text = await response.text()
                if known in text and 'code="4xx",model="",namespace=""} 3.0' in text:
                    break
                await asyncio.sleep(0.05)
        assert "stranger" not in text
        assert 'penstock_gateway_replicas{model="m",namespace="team"} 1.0' in text
        assert (
            'penstock_gateway_request_duration_seconds_bucket{code="2xx",le="+Inf",model="m",namespace="team"} 3.0'
            in text
        )
        assert "haproxy_process_uptime_seconds" in text

    run(scenario)


async def counted(gw: Gateway, model: str, code: str) -> float:
    """How many requests of a model the metrics show."""
    async with gw.session.get(f"{gw.control}/metrics") as response:
        text = await response.text()
    namespace, name = model.split("/")
    start = f'penstock_gateway_requests_total{{code="{code}",model="{name}",namespace="{namespace}"}} '
    return sum(float(line.removeprefix(start)) for line in text.splitlines() if line.startswith(start))


def test_no_request_however_long_ends_metrics_and_spans() -> None:
    async def main() -> None:
        async with asyncio.timeout(120), AsyncExitStack() as stack:
            collector = Collector()
            await collector.start(stack)
            a = await stack.enter_async_context(Replica("a"))
            async with gateway(OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint, OTEL_BSP_SCHEDULE_DELAY="100") as gw:
                await gw.lease("a", a.address)
                sampled = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
                for length in range(3900, 4000, 5):
                    await gw.infer(f"/v2/models/{'m' * length}/infer", headers=sampled)
                await gw.infer(headers={"traceparent": f"00-{TRACE[::-1]}-{PARENT}-01"})

                async def seen() -> bool:
                    spans = f"{TRACE[::-1]} gateway" in collector.spans
                    return spans and await counted(gw, "default/m", "2xx") == 1

                await until(seen)

    asyncio.run(main())


def test_a_replicas_word_on_a_trace_writes_nothing_else_into_the_log() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack) -> None:
        a = await stack.enter_async_context(Replica("a"))
        await gw.declare("other/m")
        await gw.lease("a", a.address)
        a.sampled = "01 1 2 other/m 500 1 -- x/y POST - /z"
        assert (await gw.infer())[0] == 200

        async def seen() -> bool:
            assert await counted(gw, "other/m", "5xx") == 0
            return await counted(gw, "default/m", "2xx") == 1

        await until(seen)

    run(scenario)
