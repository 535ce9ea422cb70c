"""Who may call a model by gRPC, how often, and what becomes of calls that find no replica."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.integration.access_parts import guarded, key_entry
from tests.integration.gateway_parts import GUARD_SECONDS, SECRET, Gateway, gateway, until
from tests.integration.grpc_parts import LARGE, messages, raw_request
from tests.integration.replica_process import replica, save_model
from tests.integration.test_gateway_holding import Waker, until_held
from tritonclient.grpc import service_pb2_grpc as stubs

from penstock.routing.tokens import replica_token

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


def test_a_stream_that_finds_no_replica_is_asked_to_come_again(model: Path) -> None:
    async def scenario(gw: Gateway, stack: AsyncExitStack, asked: Any) -> None:
        await gw.declare(owner="u1", revisions={"r1": 100}, holdSeconds=GUARD_SECONDS)

        async def requests() -> Any:
            yield raw_request("m", {"x": X})

        async def stream() -> list[Any]:
            return [each async for each in asked.ModelStreamInfer(requests(), timeout=60)]

        waiting = asyncio.ensure_future(code_of(stream()))
        await until_held(gw, 1)
        await asyncio.to_thread(serve, gw, stack, model)
        code, words = await waiting
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "open it anew" in words
        await until_received(gw)
        (answer,) = await stream()
        assert answer.infer_response.raw_output_contents[0] == X.tobytes()

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
