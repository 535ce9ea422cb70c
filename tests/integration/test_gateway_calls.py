"""Who may call a model by gRPC, how often, and what becomes of calls that find no replica."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.integration.access_parts import Issuer, guarded, key_entry
from tests.integration.gateway_parts import GUARD_SECONDS, SECRET, Gateway, gateway, until
from tests.integration.grpc_parts import LARGE, messages, raw_request
from tests.integration.replica_process import replica, save_model
from tests.integration.test_gateway_holding import Waker, until_held
from tritonclient.grpc import service_pb2_grpc as stubs

from penstock.routing.tokens import replica_token
from penstock.serving.control import Drain

X = np.arange(3, dtype=np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y is x, of any length."""
    return save_model(
        tmp_path_factory.mktemp("echo") / "model.onnx",
        [helper.make_node("Identity", ["x"], ["y"])],
        {"x": (TensorProto.UINT8, ["n"])},
        {"y": (TensorProto.UINT8, ["n"])},
    )


def run(scenario: Callable[[Gateway, AsyncExitStack, Any], Awaitable[None]], *arguments: str) -> None:
    """With a gateway, and a stub of it."""

    async def main() -> None:
        async with (
            asyncio.timeout(120),
            gateway(*arguments) as gw,
            AsyncExitStack() as stack,
            grpc.aio.insecure_channel(gw.url.removeprefix("http://"), options=LARGE) as channel,
        ):
            await scenario(gw, stack, stubs.GRPCInferenceServiceStub(channel))

    asyncio.run(main())


def serve(gw: Gateway, stack: AsyncExitStack, model: Path, **settings: Any) -> None:
    """Start a replica of the model `m`."""
    token = replica_token(SECRET, "default", "m", "u1")
    stack.enter_context(replica(model, model="m", gateways=(gw.control,), registration_token=token, **settings))


async def until_received(gw: Gateway) -> None:
    async def received() -> bool:
        return any(each["receiving"] for each in (await gw.routes())["default/m"]["replicas"])

    await until(received)


async def code_of(call: Any) -> tuple[grpc.StatusCode, str]:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""


def infer(asked: Any, x: np.ndarray[Any, Any] = X, **metadata: str) -> Any:
    named = [(name.replace("_", "-"), value) for name, value in metadata.items()]
    return asked.ModelInfer(raw_request("m", {"x": x}), timeout=60, metadata=named)


def test_keys_open_a_model_to_calls_as_they_do_to_requests(model: Path) -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack, asked: Any) -> None:
        keys = guarded(key_entry("pk_a"))
        await gw.declare(owner="u1", revisions={"r1": 100}, access=keys)
        await gw.declare("default/n", access=guarded(key_entry("pk_b", "bob")))
        serve(gw, stack, model)
        await until_received(gw)
        for metadata, code in (
            ({}, grpc.StatusCode.UNAUTHENTICATED),
            ({"authorization": "Bearer pk_x"}, grpc.StatusCode.UNAUTHENTICATED),
            ({"authorization": "Bearer pk_b"}, grpc.StatusCode.PERMISSION_DENIED),
            ({"x_penstock_caller": "key/alice"}, grpc.StatusCode.UNAUTHENTICATED),
            ({"authorization": "Bearer pk_a"}, grpc.StatusCode.OK),
            ({"x_api_key": "pk_a"}, grpc.StatusCode.OK),
            ({}, grpc.StatusCode.UNAUTHENTICATED),
        ):
            found, words = await code_of(infer(asked, **metadata))
            assert found is code, (metadata, words)
            assert bool(words) is (code is not grpc.StatusCode.OK)
        assert (await asked.ServerLive(messages.ServerLiveRequest(), timeout=30)).live
        for metadata, visible in (({}, []), ({"authorization": "Bearer pk_a"}, ["m"]), ({"x-api-key": "pk_b"}, ["n"])):
            index = asked.RepositoryIndex(
                messages.RepositoryIndexRequest(), timeout=30, metadata=list(metadata.items())
            )
            assert [each.name for each in (await index).models] == visible, metadata
        code, _ = await code_of(asked.ModelConfig(messages.ModelConfigRequest(name="m"), timeout=30))
        assert code is grpc.StatusCode.UNAUTHENTICATED

    run(scenario)


def test_a_caller_that_asks_too_often_is_told_so(model: Path) -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack, asked: Any) -> None:
        access = guarded(key_entry("pk_a", requestsPerSecond=2))
        await gw.declare(owner="u1", revisions={"r1": 100}, access=access)
        serve(gw, stack, model)
        await until_received(gw)
        found = [await code_of(infer(asked, authorization="Bearer pk_a")) for _ in range(8)]
        assert {code for code, _ in found} == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}

    run(scenario)


def watch(channel: Any, service: str = "") -> Any:
    name = service.encode()
    return channel.unary_stream("/grpc.health.v1.Health/Watch")(
        b"\x0a%c%b" % (len(name), name) if name else b"", timeout=60
    )


SERVING, NOT_SERVING, SERVICE_UNKNOWN = b"\x08\x01", b"\x08\x02", b"\x08\x03"


def test_who_watches_hears_of_the_gateway_until_it_leaves() -> None:
    async def main() -> None:
        async with asyncio.timeout(120), gateway("--client-timeout-seconds", "1.5", "--drain-seconds", "5") as gw:
            # One that is live has not taken all it knows yet, and says to who watches that it is not ready.
            await gw.until_live("ready")
            address = gw.url.removeprefix("http://")
            options = [
                (
                    "grpc.service_config",
                    '{"loadBalancingConfig":[{"round_robin":{}}],"healthCheckConfig":{"serviceName":""}}',
                )
            ]
            async with (
                grpc.aio.insecure_channel(address) as channel,
                grpc.aio.insecure_channel(address, options) as own,
            ):
                # A client that watches by itself, and goes by what it hears.
                live = own.unary_unary("/inference.GRPCInferenceService/ServerLive")
                assert await live(b"", timeout=30) == b"\x08\x01"
                watches = [watch(channel, name) for name in ("", "inference.GRPCInferenceService")]
                unknown = watch(channel, "no")
                assert await unknown.read() == SERVICE_UNKNOWN
                unknown.cancel()
                for each in watches:
                    # It is said again before HAProxy takes a watch for dead.
                    assert [await each.read() for _ in range(5)] == [SERVING] * 5
                await gw.stop()
                for each in watches:
                    heard = []
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        while (told := await each.read()) is not grpc.aio.EOF:
                            heard.append(told)
                    assert heard[-1] == NOT_SERVING
                    assert set(heard[:-1]) <= {SERVING}
                    assert await each.code() is grpc.StatusCode.UNAVAILABLE
                    assert "leaving" in (await each.details() or "")

    asyncio.run(main())


def test_who_finds_no_place_to_watch_takes_the_gateway_for_well() -> None:
    async def main() -> None:
        async with asyncio.timeout(120), gateway("--max-connections", "64") as gw:
            await gw.until_live("ready")
            address = gw.url.removeprefix("http://")
            async with grpc.aio.insecure_channel(address) as channel:
                first = watch(channel)
                assert await first.read() == SERVING
                code, words = await code_of(watch(channel).read())
                assert (code, "Check" in words) == (grpc.StatusCode.UNIMPLEMENTED, True)
                first.cancel()

                async def has_place() -> bool:
                    return (await code_of(watch(channel).read()))[0] is grpc.StatusCode.OK

                await until(has_place)

    asyncio.run(main())


def test_calls_over_http2_leave_room_for_others() -> None:
    async def scenario(gw: Gateway, _: AsyncExitStack, asked: Any) -> None:
        await gw.declare(holdSeconds=GUARD_SECONDS)
        waiting = [asyncio.ensure_future(code_of(infer(asked))) for _ in range(2)]
        await until_held(gw, 2)
        code, words = await code_of(infer(asked))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "too many" in words
        # What comes over HTTP/1.1 is bounded by its connections.
        assert (await gw.infer("/v2/models/none/infer"))[0] == 404
        for each in waiting:
            each.cancel()

    run(scenario, "--max-connections", "8", "--max-connections-per-client", "8")


@pytest.mark.parametrize("size", [3, 5_000_000], ids=["a few bytes", "megabytes"])
def test_a_call_that_finds_no_replica_is_held_and_answered(model: Path, size: int) -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack, asked: Any) -> None:
        waker = Waker()
        await waker.start(stack)
        await gw.declare(owner="u1", revisions={"r1": 100}, wakeUrl=waker.url, holdSeconds=GUARD_SECONDS)
        x = np.random.default_rng(size).integers(0, 256, size, np.uint8)
        waiting = asyncio.ensure_future(infer(asked, x))
        wrong = asyncio.ensure_future(code_of(asked.ModelInfer(raw_request("m", {"z": x[:3]}), timeout=60)))
        await until_held(gw, 2)
        await waker.called.wait()
        await asyncio.to_thread(serve, gw, stack, model)
        assert (await waiting).raw_output_contents[0] == x.tobytes()
        code, words = await wrong
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "'z'" in words

    run(scenario)


def test_a_call_that_is_cancelled_is_not_held_any_more() -> None:
    async def scenario(gw: Gateway, _: AsyncExitStack, asked: Any) -> None:
        await gw.declare(holdSeconds=GUARD_SECONDS)
        waiting = infer(asked)
        await until_held(gw, 1)
        waiting.cancel()
        await until_held(gw, 0)

    run(scenario)


class Conversation:
    """A stream, message by message."""

    def __init__(self, asked: Any, **metadata: str) -> None:
        named = [(name.replace("_", "-"), value) for name, value in metadata.items()]
        self.call = asked.ModelStreamInfer(timeout=60, metadata=named)

    async def say(self, x: np.ndarray[Any, Any] = X, name: str = "x", model: str = "m") -> None:
        await self.call.write(raw_request(model, {name: x}))

    async def hear(self) -> Any:
        return await self.call.read()

    async def end(self) -> tuple[grpc.StatusCode, str]:
        await self.call.done_writing()
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await self.call.read() is not grpc.aio.EOF:
                pass
        return await self.call.code(), await self.call.details() or ""


@pytest.mark.parametrize("size", [3, 5_000_000], ids=["a few bytes", "megabytes"])
def test_a_stream_that_finds_no_replica_is_held_and_goes_on(model: Path, size: int) -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack, asked: Any) -> None:
        waker = Waker()
        await waker.start(stack)
        await gw.declare(owner="u1", revisions={"r1": 100}, wakeUrl=waker.url, holdSeconds=GUARD_SECONDS)
        x = np.random.default_rng(size).integers(0, 256, size, np.uint8)
        stream = Conversation(asked)
        saying = asyncio.ensure_future(stream.say(x))
        await until_held(gw, 1)
        await waker.called.wait()
        await asyncio.to_thread(serve, gw, stack, model)
        await saying
        assert (await stream.hear()).infer_response.raw_output_contents[0] == x.tobytes()
        assert (await gw.routes())["default/m"]["heldRequests"] == 0
        await stream.say(name="z")
        assert "'z'" in (await stream.hear()).error_message
        for number in range(3):
            await stream.say(x + number)
            assert (await stream.hear()).infer_response.raw_output_contents[0] == (x + number).tobytes()
        assert await stream.end() == (grpc.StatusCode.OK, "")

    run(scenario)


def test_a_stream_that_waits_for_nothing_or_for_too_long_is_told_so() -> None:
    async def scenario(gw: Gateway, _: AsyncExitStack, asked: Any) -> None:
        await gw.declare(holdSeconds=GUARD_SECONDS)
        stream = Conversation(asked)
        await stream.say()
        await until_held(gw, 1)
        stream.call.cancel()
        await until_held(gw, 0)
        await gw.declare(holdSeconds=0.2)
        code, words = await Conversation(asked).end()
        assert code is grpc.StatusCode.INVALID_ARGUMENT, words
        stream = Conversation(asked)
        await stream.say()
        code, words = await stream.end()
        assert (code, "no replica" in words) == (grpc.StatusCode.UNAVAILABLE, True)
        await gw.declare(unavailable="Unschedulable: no node")
        stream = Conversation(asked)
        await stream.say()
        code, words = await stream.end()
        assert (code, "no node" in words) == (grpc.StatusCode.UNAVAILABLE, True)

    run(scenario)


def test_a_stream_ends_with_the_replica_that_it_waited_for(model: Path) -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack, asked: Any) -> None:
        await gw.declare(owner="u1", revisions={"r1": 100}, holdSeconds=GUARD_SECONDS)
        token = replica_token(SECRET, "default", "m", "u1")
        stream = Conversation(asked)
        await stream.say()
        await until_held(gw, 1)
        started = replica(model, model="m", gateways=(gw.control,), registration_token=token)
        running = await asyncio.to_thread(stack.enter_context, started)
        assert (await stream.hear()).infer_response.raw_output_contents[0] == X.tobytes()
        running.send(Drain())
        with contextlib.suppress(grpc.aio.AioRpcError):
            assert await stream.hear() is grpc.aio.EOF
        code, words = await stream.call.code(), await stream.call.details()
        assert (code, "open the stream anew" in words) == (grpc.StatusCode.UNAVAILABLE, True)

    run(scenario)


ANSWERED = b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\n%bTransfer-Encoding: chunked\r\n\r\n0\r\ngrpc-status: 0\r\n\r\n"


REPLICAS: dict[str, tuple[bytes, grpc.StatusCode]] = {
    "nothing": (b"", grpc.StatusCode.UNAVAILABLE),
    "another protocol": (b"220 mail\r\n\r\n", grpc.StatusCode.UNAVAILABLE),
    "a change of protocols": (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", grpc.StatusCode.UNAVAILABLE),
    "an endless head": (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 100_000 + b"\r\n\r\n", grpc.StatusCode.UNAVAILABLE),
    "a refusal": (
        b"HTTP/1.1 503 No\r\ngrpc-status: 14\r\ngrpc-message: no\r\nContent-Length: 0\r\n\r\n",
        grpc.StatusCode.UNAVAILABLE,
    ),
    "an end": (ANSWERED % b"", grpc.StatusCode.OK),
    "headers that are none of its business": (
        ANSWERED % b"Connection: keep-alive\r\nSet-Cookie: a=b\r\nX-Penstock-Caller: root\r\nServer: x\r\n",
        grpc.StatusCode.OK,
    ),
}
"""What replicas answer, and what the client of a stream is told."""


def test_what_a_replica_answers_to_a_stream_that_waited_for_it() -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack, asked: Any) -> None:
        for number, (title, (told, code)) in enumerate(REPLICAS.items()):

            async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, told: bytes = told) -> None:
                head = await reader.readuntil(b"\r\n\r\n")
                assert b"\r\nTE: trailers\r\n" in head
                assert b"authorization" not in head.lower()
                writer.write(told)
                await writer.drain()
                writer.close()

            name = f"default/m{number}"
            await gw.declare(name, holdSeconds=GUARD_SECONDS)
            stream = Conversation(asked, authorization="Bearer x")
            await stream.say(model=f"m{number}")
            await until_held(gw, 1, name)
            server = await stack.enter_async_context(await asyncio.start_server(speak, "127.0.0.1", 0))
            await gw.lease(f"a{number}", f"127.0.0.1:{server.sockets[0].getsockname()[1]}", name)
            found, words = await stream.end()
            assert (found, bool(words)) == (code, code is not grpc.StatusCode.OK), (title, words)
            headers = dict(await stream.call.initial_metadata())
            assert {"set-cookie", "x-penstock-caller", "server"}.isdisjoint(headers), title
        assert (await gw.infer("/v2/models/none/infer"))[0] == 404

    run(scenario)


def test_tokens_of_an_issuer_open_a_model_to_calls_as_they_do_to_requests(model: Path) -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack, asked: Any) -> None:
        entry = guarded(key_entry("pk_a"), issuers=[issuer.entry()])
        await gw.declare(owner="u1", revisions={"r1": 100}, access=entry)
        await gw.declare("default/team", access=guarded(issuers=[issuer.entry(requiredClaims={"team": "x"})]))
        await gw.declare("default/open", access={"required": False})
        serve(gw, stack, model)
        await until_received(gw)
        unknown, denied, fine = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.OK
        good, now = issuer.token(), int(time.time())
        rows: list[tuple[str, dict[str, str], grpc.StatusCode]] = [
            ("no token", {}, unknown),
            ("no JWT", {"authorization": "Bearer a.b.c"}, unknown),
            ("for another audience", {"authorization": f"Bearer {issuer.token(aud='else')}"}, unknown),
            ("that has ended", {"authorization": f"Bearer {issuer.token(exp=now - 3600)}"}, unknown),
            ("that does not count yet", {"authorization": f"Bearer {issuer.token(nbf=now + 3600)}"}, unknown),
            ("of another issuer", {"authorization": f"Bearer {issuer.token(iss='https://other')}"}, unknown),
            ("with another signature", {"authorization": f"Bearer {good[:-4]}AAAA"}, unknown),
            ("that is right and new", {"authorization": f"Bearer {good}"}, fine),
            ("that is known", {"authorization": f"Bearer {good}"}, fine),
            ("in the other header", {"x_api_key": good}, fine),
            ("a key", {"authorization": "Bearer pk_a"}, fine),
            ("none after it", {}, unknown),
        ]
        for title, metadata, wanted in rows:
            code, words = await code_of(infer(asked, **metadata))
            assert (code, bool(words)) == (wanted, wanted is not fine), (title, words)
        # A stream whose token is new, and one whose token is known, and one that is not let in.
        fresh = {"authorization": f"Bearer {issuer.token(sub='bob')}"}
        for metadata, wanted in (
            (fresh, fine),
            (fresh, fine),
            ({"authorization": "Bearer a.b.c"}, unknown),
            ({}, unknown),
        ):
            stream = Conversation(asked, **metadata)
            await stream.say()
            if wanted is fine:
                assert (await stream.hear()).infer_response.raw_output_contents[0] == X.tobytes()
            assert (await stream.end())[0] is wanted
        # Looks, and the index, are the caller's own.
        bearer = [("authorization", f"Bearer {good}")]
        index = asked.RepositoryIndex(messages.RepositoryIndexRequest(), timeout=30, metadata=bearer)
        assert [each.name for each in (await index).models] == ["m", "open"]
        look = messages.ModelConfigRequest(name="m")
        assert (await asked.ModelConfig(look, timeout=30, metadata=bearer)).config.name == "m"
        assert (await code_of(asked.ModelConfig(look, timeout=30)))[0] is unknown
        # Whose claims are not asked for, and who names one model where the message names another.
        team = messages.ModelInferRequest(model_name="team")
        assert (await code_of(asked.ModelInfer(team, timeout=30, metadata=bearer)))[0] in (unknown, denied)
        assert (await code_of(infer(asked, penstock_model="open")))[0] is unknown

    issuer = Issuer()
    issuer.add_key("k")

    async def main() -> None:
        async with asyncio.timeout(120), AsyncExitStack() as stack:
            trusted = await issuer.start(stack, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="iss-"))))
            arguments = ("--allow-private-issuers", "--issuer-ca-file", str(trusted))
            gw = await stack.enter_async_context(gateway(*arguments))
            address = gw.url.removeprefix("http://")
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options=LARGE))
            await scenario(gw, stack, stubs.GRPCInferenceServiceStub(channel))

    asyncio.run(main())


def test_a_compressed_message_is_let_in_by_what_metadata_name_and_answered_by_what_it_says(model: Path) -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack, asked: Any) -> None:
        await gw.declare(owner="u1", revisions={"r1": 100})
        await gw.declare("vision/m", access=guarded(key_entry("pk_v")))
        serve(gw, stack, model)
        await until_received(gw)

        async def ask(name: str, *metadata: tuple[str, str]) -> grpc.StatusCode:
            request = raw_request(name, {"x": np.zeros(9000, np.uint8)})
            how = grpc.Compression.Gzip
            return (await code_of(asked.ModelInfer(request, timeout=30, metadata=metadata, compression=how)))[0]

        assert await ask("m", ("penstock-model", "m")) is grpc.StatusCode.OK
        # It is the open model's replica that is asked, and that serves no other.
        assert await ask("vision/m", ("penstock-model", "m")) is grpc.StatusCode.NOT_FOUND
        assert await ask("n", ("penstock-model", "m")) is grpc.StatusCode.NOT_FOUND
        # A guarded one's key is asked for, whatever the message says.
        for metadata in ([("penstock-model", "vision/m")], [("penstock-model", "m"), ("penstock-namespace", "vision")]):
            assert await ask("m", *metadata) is grpc.StatusCode.UNAUTHENTICATED
            assert await ask("m", *metadata, ("authorization", "Bearer pk_x")) is grpc.StatusCode.UNAUTHENTICATED

    run(scenario)


@pytest.mark.parametrize(
    ("route", "ready", "words"),
    [
        ({"wakeUrl": "http://127.0.0.1:9/wake"}, True, ""),
        ({}, False, ""),
        ({"wakeUrl": "http://127.0.0.1:9/wake", "unavailable": "Unschedulable: no node"}, False, "no node"),
    ],
    ids=["asleep", "not there yet", "cannot start"],
)
def test_a_look_at_a_model_without_replicas_wakes_none(route: dict[str, Any], ready: bool, words: str) -> None:  # noqa: FBT001 -- a row's
    async def scenario(gw: Gateway, _: AsyncExitStack, asked: Any) -> None:
        await gw.declare(**route)
        assert (await asked.ModelReady(messages.ModelReadyRequest(name="m"), timeout=30)).ready is ready
        code, told = await code_of(asked.ModelMetadata(messages.ModelMetadataRequest(name="m"), timeout=30))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert words in told
        for look in (
            asked.ModelConfig(messages.ModelConfigRequest(name="m"), timeout=30),
            asked.ModelStatistics(messages.ModelStatisticsRequest(name="m"), timeout=30),
        ):
            code, told = await code_of(look)
            assert code is grpc.StatusCode.UNAVAILABLE
            assert words in told
        assert (await asked.TraceSetting(messages.TraceSettingRequest(model_name="m"), timeout=30)).settings
        states = [each.state for each in (await asked.RepositoryIndex(messages.RepositoryIndexRequest())).models]
        assert states == ["READY" if ready else "UNAVAILABLE"]
        if words:
            code, told = await code_of(infer(asked))
            assert code is grpc.StatusCode.UNAVAILABLE
            assert words in told
        assert (await gw.routes())["default/m"]["heldRequests"] == 0

    run(scenario)


def test_a_model_that_sleeps_is_described_by_what_its_last_replica_said(model: Path) -> None:
    async def scenario(gw: Gateway, _: AsyncExitStack, asked: Any) -> None:
        await gw.declare(owner="u1", revisions={"r1": 100})
        async with AsyncExitStack() as once:
            serve(gw, once, model)
            await until_received(gw)
            asking = messages.ModelMetadataRequest(name="m")
            awake = await asked.ModelMetadata(asking, timeout=30)

        async def asleep() -> bool:
            return not (await gw.routes())["default/m"]["replicas"]

        await until(asleep)
        assert await asked.ModelMetadata(asking, timeout=30) == awake
        assert awake.inputs[0].datatype == "UINT8"

    run(scenario)


def test_metrics_tell_calls_by_what_became_of_them(model: Path) -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack, asked: Any) -> None:
        await gw.declare(owner="u1", revisions={"r1": 100}, access=guarded(key_entry("pk_a")))
        serve(gw, stack, model)
        await until_received(gw)
        await code_of(infer(asked, authorization="Bearer pk_a"))
        await code_of(infer(asked, authorization="Bearer pk_x"))
        wrong = asked.ModelInfer(raw_request("m", {"z": X}), timeout=30, metadata=[("authorization", "Bearer pk_a")])
        await code_of(wrong)

        async def counted() -> bool:
            async with gw.session.get(f"{gw.control}/metrics") as response:
                lines = (await response.text()).splitlines()
            found = {
                line.split('code="')[1][:3]: float(line.rpartition(" ")[2])
                for line in lines
                if line.startswith("penstock_gateway_requests_total{") and 'model="m"' in line
            }
            return found == {"2xx": 1.0, "4xx": 2.0}

        await until(counted)

    run(scenario)


def test_a_message_that_does_not_end_is_refused_as_grpc_has_it() -> None:
    async def scenario(gw: Gateway, _: AsyncExitStack, __: Any) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", gw.port)
        writer.write(
            b"POST /inference.GRPCInferenceService/ModelInfer HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\n"
            b"te: trailers\r\ncontent-length: 1000\r\n\r\n\0\0\0\0\7abc"
        )
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), GUARD_SECONDS)
        writer.close()
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"\r\ngrpc-status: 14\r\n" in head
        assert b"\r\ngrpc-message: " in head
        assert b"\r\ncontent-length: 0\r\n" in head

    run(scenario, "--header-timeout-seconds", "0.5")
