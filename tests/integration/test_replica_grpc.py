"""A real replica answers unmodified gRPC clients, behind the least HAProxy that speaks HTTP/2 for it."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from onnx import TensorProto, helper
from tests.integration.grpc_parts import ELEMENTS, http2, messages, raw_request, save_echo, stub, triton_inputs
from tests.integration.replica_process import (
    TRUST,
    ReplicaProcess,
    linear_weights,
    replica,
    save_linear,
    save_model,
    save_slow,
)
from tests.waiting import eventually
from tritonclient.utils import InferenceServerException

from penstock.serving.control import Drain, Drained
from penstock.serving.settings import BatchingSettings

ONE = np.ones((1, 1), np.float32)
ROWS = 'penstock_batch_rows_sum{model="tiny",namespace="default",version="1"}'


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of HAProxy before a replica of the linear model."""
    folder = tmp_path_factory.mktemp("tiny")
    with replica(save_linear(folder / "model.onnx")) as started, http2(started.address, folder) as address:
        yield address


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_slow(tmp_path_factory.mktemp("slow") / "model.onnx")


def rows_run(started: ReplicaProcess) -> float:
    lines = (line.rpartition(" ") for line in started.get("/metrics").text.splitlines())
    return next(float(value) for name, _, value in lines if name == ROWS)


def refused(call: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def test_tritons_own_client_asks_all_that_the_protocol_has(tiny: str) -> None:
    x = np.random.default_rng(1).normal(size=(3, 64)).astype(np.float32)
    with triton.InferenceServerClient(tiny) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny")
        assert client.is_model_ready("tiny", "1")
        assert client.get_server_metadata().name == "penstock"
        described = client.get_model_metadata("tiny")
        assert (described.name, list(described.versions), described.platform) == ("tiny", ["1"], "onnx_onnxv1")
        assert [(each.name, each.datatype, list(each.shape)) for each in described.inputs] == [("x", "FP32", [-1, 64])]
        outputs = [triton.InferRequestedOutput("y")]
        result = client.infer("tiny", triton_inputs({"x": x}), request_id="seven", outputs=outputs, priority=3)
        np.testing.assert_allclose(result.as_numpy("y"), x @ linear_weights(), rtol=1e-4, atol=1e-4)
        assert result.get_response().id == "seven"


def test_tritons_asyncio_client_gets_64_answers_at_once(tiny: str) -> None:
    async def ask() -> None:
        async with triton_aio.InferenceServerClient(tiny) as client:
            xs = [np.full((1, 64), number, np.float32) for number in range(64)]
            results = await asyncio.gather(*(client.infer("tiny", triton_inputs({"x": x})) for x in xs))
            for x, result in zip(xs, results, strict=True):
                np.testing.assert_allclose(result.as_numpy("y"), x @ linear_weights(), rtol=1e-3, atol=1e-3)

    asyncio.run(ask())


def test_every_datatype_goes_through_the_engine_raw_and_typed(tmp_path: Path) -> None:
    wanted = {name: values for name, (_, values) in ELEMENTS.items()}
    with (
        replica(save_echo(tmp_path / "model.onnx")) as started,
        http2(started.address, tmp_path) as address,
        triton.InferenceServerClient(address) as client,
    ):
        result = client.infer("tiny", triton_inputs({f"in_{name}": values for name, values in wanted.items()}))
        for name, values in wanted.items():
            assert result.as_numpy(f"out_{name}").tolist() == values.tolist(), name
    typed = {name: values for name, values in wanted.items() if name != "FP16"}
    with (
        replica(save_echo(tmp_path / "model.onnx", tuple(typed))) as started,
        http2(started.address, tmp_path) as address,
        stub(address) as asked,
    ):
        request = messages.ModelInferRequest(model_name="tiny")
        for name, values in typed.items():
            tensor = request.inputs.add(name=f"in_{name}", datatype=name, shape=values.shape)
            getattr(tensor.contents, contents_of(name)).extend(values.ravel().tolist())
        answer = asked.ModelInfer(request, timeout=30)
        assert not answer.raw_output_contents
        for output in answer.outputs:
            name = output.name.removeprefix("out_")
            assert output.datatype == name
            assert list(getattr(output.contents, contents_of(name))) == pytest.approx(typed[name].ravel().tolist()), (
                name
            )


def contents_of(datatype: str) -> str:
    narrow = {"INT8": "int", "INT16": "int", "INT32": "int", "UINT8": "uint", "UINT16": "uint", "UINT32": "uint"}
    return f"{narrow.get(datatype, datatype.lower())}_contents"


def test_bf16_goes_through_the_engine_raw(tmp_path: Path) -> None:
    bits = np.array([[0x3F80, 0xC000]], np.uint16)
    model = save_model(
        tmp_path / "model.onnx",
        [helper.make_node("Identity", ["x"], ["y"])],
        {"x": (TensorProto.BFLOAT16, ["n", 2])},
        {"y": (TensorProto.BFLOAT16, ["n", 2])},
    )
    with replica(model) as started, http2(started.address, tmp_path) as address, stub(address) as asked:
        tensor = {"name": "x", "datatype": "BF16", "shape": [1, 2]}
        request = messages.ModelInferRequest(model_name="tiny", inputs=[tensor], raw_input_contents=[bits.tobytes()])
        assert list(asked.ModelInfer(request, timeout=30).raw_output_contents) == [bits.tobytes()]


def test_messages_from_a_byte_to_25_megabytes_arrive_whole_both_ways(tmp_path: Path) -> None:
    model = save_model(
        tmp_path / "model.onnx",
        [helper.make_node("Identity", ["x"], ["y"])],
        {"x": (TensorProto.UINT8, ["n"])},
        {"y": (TensorProto.UINT8, ["n"])},
    )
    with replica(model) as started, http2(started.address, tmp_path) as address, stub(address) as asked:
        for size in (1, 100, 16_384, 65_536, 1_000_000, 25_000_000):
            x = np.random.default_rng(size).integers(0, 256, size, np.uint8)
            answer = asked.ModelInfer(raw_request("tiny", {"x": x}), timeout=60)
            assert answer.raw_output_contents[0] == x.tobytes(), size


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (messages.ModelInferRequest(model_name="other"), grpc.StatusCode.NOT_FOUND, "model 'other'"),
        (messages.ModelInferRequest(model_name="tiny", model_version="9"), grpc.StatusCode.NOT_FOUND, "version '9'"),
        (messages.ModelInferRequest(model_name="tiny"), grpc.StatusCode.INVALID_ARGUMENT, "'x' missing"),
        (raw_request("tiny", {"x": np.ones((1, 3), np.float32)}), grpc.StatusCode.INVALID_ARGUMENT, "[1, 3]"),
    ],
    ids=["another model", "another version", "no inputs", "a wrong shape"],
)
def test_what_cannot_be_answered_has_its_code_and_words(
    tiny: str, request_: Any, code: grpc.StatusCode, words: str
) -> None:
    with stub(tiny) as asked:
        error = refused(lambda: asked.ModelInfer(request_, timeout=30))
        assert error.code() is code
        assert words in error.details()
        # The connection goes on.
        asked.ServerLive(messages.ServerLiveRequest(), timeout=30)


def test_a_method_that_is_not_there_is_unimplemented(tiny: str) -> None:
    with stub(tiny) as asked:
        error = refused(lambda: asked.LogSettings(messages.LogSettingsRequest(), timeout=30))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "logs are set" in error.details()


def test_a_replica_tells_of_its_own_model_and_of_no_other(tiny: str) -> None:
    with triton.InferenceServerClient(tiny) as client:
        assert "model_configuration" in client.get_server_metadata().extensions
        assert client.get_model_config("tiny", "1").config.input[0].name == "x"
        assert [each.name for each in client.get_inference_statistics("tiny").model_stats] == ["tiny"]
        assert [each.state for each in client.get_model_repository_index().models] == ["READY"]
        assert list(client.get_trace_settings("tiny").settings["trace_level"].value) == ["OFF"]
        asking: list[Any] = [client.get_model_config, client.get_inference_statistics, client.get_trace_settings]
        for ask in asking:
            with pytest.raises(InferenceServerException, match="no model 'other'") as caught:
                ask("other")
            assert caught.value.status() == "StatusCode.NOT_FOUND"
        with pytest.raises(InferenceServerException, match=r"spec\.tracing") as caught:
            client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})
        assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


@pytest.mark.parametrize("how", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages_are_read(tiny: str, how: grpc.Compression) -> None:
    x = np.ones((9, 64), np.float32)
    with stub(tiny) as asked:
        answer = asked.ModelInfer(raw_request("tiny", {"x": x}), timeout=30, compression=how)
        found = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(9, 10)
        np.testing.assert_allclose(found, x @ linear_weights(), rtol=1e-3, atol=1e-3)
        requests = iter([raw_request("tiny", {"x": x})])
        (streamed,) = asked.ModelStreamInfer(requests, timeout=30, compression=how)
        assert streamed.infer_response.raw_output_contents == answer.raw_output_contents


def test_a_message_compressed_in_a_way_that_is_not_known_is_unimplemented(tmp_path: Path) -> None:
    with replica(save_linear(tmp_path / "model.onnx")) as started:
        headers = {"content-type": "application/grpc", "grpc-encoding": "snappy"}
        answer = httpx.post(f"{started.url}/inference.GRPCInferenceService/ModelInfer", headers=headers)
        assert answer.headers["grpc-status"] == str(grpc.StatusCode.UNIMPLEMENTED.value[0])
        assert "snappy" in answer.headers["grpc-message"]
        assert answer.headers["grpc-accept-encoding"] == "identity, deflate, gzip"


def test_a_gateway_that_takes_no_trailers_has_the_status_as_a_header(tmp_path: Path) -> None:
    message = raw_request("tiny", {"x": np.ones((1, 64), np.float32)}).SerializeToString()
    with replica(save_linear(tmp_path / "model.onnx")) as started:
        headers = {
            "content-type": "application/grpc",
            "x-penstock-call": "/inference.GRPCInferenceService/ModelInfer",
        }
        framed = b"\0" + len(message).to_bytes(4, "big") + message
        answer = httpx.post(f"{started.url}/v2/models/tiny/infer", headers=headers, content=framed)
        assert answer.headers["grpc-status"] == "0"
        found = messages.ModelInferResponse.FromString(answer.content[5:])
        assert found.outputs[0].name == "y"
        answer = httpx.post(f"{started.url}/v2/models/tiny/infer", headers=headers, content=framed[:-1])
        assert (answer.status_code, answer.headers["grpc-status"]) == (400, "3")


def test_what_unpacks_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    with (
        replica(save_linear(tmp_path / "model.onnx"), max_body_bytes=100_000) as started,
        http2(started.address, tmp_path) as address,
        stub(address) as asked,
    ):
        request = raw_request("tiny", {"x": np.zeros((10_000, 64), np.float32)})
        error = refused(lambda: asked.ModelInfer(request, timeout=30, compression=grpc.Compression.Gzip))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "decompressed" in error.details()


def test_a_message_over_the_limit_is_refused_while_it_comes(tmp_path: Path) -> None:
    with (
        replica(save_linear(tmp_path / "model.onnx"), max_body_bytes=100_000) as started,
        http2(started.address, tmp_path) as address,
        stub(address) as asked,
    ):
        request = raw_request("tiny", {"x": np.zeros((10_000, 64), np.float32)})
        error = refused(lambda: asked.ModelInfer(request, timeout=30))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "100000 bytes" in error.details()


def test_a_full_queue_is_resource_exhausted_and_says_when_to_come_again(slow_model: Path, tmp_path: Path) -> None:
    limits = BatchingSettings(max_batch_size=1, max_queued_requests=1)
    with (
        replica(slow_model, batching=limits) as started,
        http2(started.address, tmp_path) as address,
        stub(address) as asked,
    ):
        calls = [asked.ModelInfer.future(raw_request("tiny", {"x": ONE}), timeout=60) for _ in range(8)]
        codes = {call.code() for call in calls}
        assert codes == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        full = next(call for call in calls if call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert "the queue is full" in full.details()


@pytest.mark.parametrize("how", ["the caller's deadline", "the request's timeout", "no time at all"])
def test_a_call_whose_time_is_up_is_not_run(slow_model: Path, tmp_path: Path, how: str) -> None:
    with (
        replica(slow_model, batching=BatchingSettings(max_batch_size=1)) as started,
        http2(started.address, tmp_path) as address,
        stub(address) as asked,
    ):
        before = [asked.ModelInfer.future(raw_request("tiny", {"x": ONE}), timeout=60) for _ in range(8)]
        while not started.stats().queued:
            pass
        match how:
            case "the caller's deadline":
                late = refused(lambda: asked.ModelInfer(raw_request("tiny", {"x": ONE}), timeout=0.05)).code()
            case "the request's timeout":
                # Shorter than what is before it takes, longer than it takes to be read: a time that is up then is another answer.
                asking = raw_request("tiny", {"x": ONE}, parameters={"timeout": {"int64_param": 100_000}})
                error = refused(lambda: asked.ModelInfer(asking, timeout=60))
                late = error.code()
                assert late is grpc.StatusCode.RESOURCE_EXHAUSTED
            case _:
                # A client of its own would not even send it.
                late = asked_by_hand(started, b"0n")
                assert late is grpc.StatusCode.DEADLINE_EXCEEDED
        # The replica says at once that it cannot be in time; the client's own clock may be faster.
        assert late in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert [each.code() for each in before] == [grpc.StatusCode.OK] * 8
        assert rows_run(started) == 8


def asked_by_hand(started: ReplicaProcess, timeout: bytes) -> grpc.StatusCode:
    """The code of a call as HAProxy would hand it on."""
    message = raw_request("tiny", {"x": ONE}).SerializeToString()
    answer = httpx.post(
        f"{started.url}/inference.GRPCInferenceService/ModelInfer",
        content=b"\0" + len(message).to_bytes(4, "big") + message,
        headers={"content-type": "application/grpc", "te": "trailers", "grpc-timeout": timeout.decode()},
        timeout=60,
        verify=TRUST,
    )
    number = int(answer.headers["grpc-status"])
    return next(code for code in grpc.StatusCode if code.value[0] == number)


def test_a_cancelled_call_leaves_the_queue(slow_model: Path, tmp_path: Path) -> None:
    with (
        replica(slow_model, batching=BatchingSettings(max_batch_size=1)) as started,
        http2(started.address, tmp_path) as address,
        stub(address) as asked,
    ):
        before = [asked.ModelInfer.future(raw_request("tiny", {"x": ONE}), timeout=60) for _ in range(16)]

        def have_come() -> int:
            answered = sum(call.done() for call in before)
            return answered + int(started.stats().in_flight)

        # HAProxy hands each on over a connection of its own: only what is sent later is queued behind the others.
        eventually(lambda: have_come() == 16, "all are there", pause=0.001)
        unwanted = asked.ModelInfer.future(raw_request("tiny", {"x": ONE}), timeout=60)
        eventually(lambda: have_come() == 17, "the unwanted one is behind them", pause=0.001)
        unwanted.cancel()
        assert [each.code() for each in before] == [grpc.StatusCode.OK] * 16
        assert asked.ModelInfer(raw_request("tiny", {"x": ONE}), timeout=60)
        assert rows_run(started) == 17


def test_the_trace_goes_on_through_metadata(tiny: str) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    with stub(tiny) as asked:
        for flags, kept in (("01", True), ("00", False)):
            _, call = asked.ModelInfer.with_call(
                raw_request("tiny", {"x": np.ones((1, 64), np.float32)}),
                timeout=30,
                metadata=[("traceparent", f"00-{trace}-b7ad6b7169203331-{flags}")],
            )
            told = dict(call.initial_metadata()).get("traceresponse", "")
            assert told.startswith(f"00-{trace}-") is kept


def test_a_stream_answers_each_request_in_its_order_and_goes_on_after_an_error(tiny: str) -> None:
    found: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(tiny) as client:
        client.start_stream(lambda result, error: found.put((result, error)))
        inputs = triton_inputs({"x": np.ones((1, 64), np.float32)})
        client.async_stream_infer("tiny", inputs, request_id="first")
        # One is answered while the stream is open: nothing waits for its end.
        assert found.get(timeout=30)[0].get_response().id == "first"
        for number in range(20):
            client.async_stream_infer("tiny" if number != 7 else "other", inputs, request_id=str(number))
        for number in range(20):
            result, error = found.get(timeout=30)
            if number == 7:
                assert "there is no model 'other'" in str(error)
            else:
                assert result.get_response().id == str(number)
                np.testing.assert_allclose(result.as_numpy("y")[0], linear_weights().sum(0), rtol=1e-3, atol=1e-3)
        client.stop_stream()
        assert found.empty()


def test_a_stream_that_is_cancelled_takes_its_requests_out(slow_model: Path, tmp_path: Path) -> None:
    with (
        replica(slow_model, batching=BatchingSettings(max_batch_size=1)) as started,
        http2(started.address, tmp_path) as address,
        triton.InferenceServerClient(address) as client,
    ):
        found: queue.Queue[tuple[Any, Any]] = queue.Queue()
        client.start_stream(lambda result, error: found.put((result, error)))
        for _ in range(10):
            client.async_stream_infer("tiny", triton_inputs({"x": ONE}))
        found.get(timeout=60)
        client.stop_stream(cancel_requests=True)
        eventually(lambda: not started.stats().in_flight)
        assert rows_run(started) < 10


def test_a_replica_that_leaves_answers_what_came_and_ends_its_streams(slow_model: Path, tmp_path: Path) -> None:
    with (
        replica(slow_model, batching=BatchingSettings(max_batch_size=1)) as started,
        http2(started.address, tmp_path) as address,
        stub(address) as asked,
    ):
        sent: queue.Queue[Any] = queue.Queue()
        answers = asked.ModelStreamInfer(iter(sent.get, None), timeout=60)
        for _ in range(8):
            sent.put(raw_request("tiny", {"x": ONE}))
        while started.stats().queued < 2:  # what is still on its way when it leaves need not be answered
            time.sleep(0.01)
        started.send(Drain())
        told = []
        error = refused(lambda: told.extend(answers))
        assert len(told) >= 3
        assert {each.error_message for each in told} == {""}
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert isinstance(started.read(), Drained)
        sent.put(None)


def test_reflection_tells_any_client_what_there_is(tiny: str) -> None:
    with grpc.insecure_channel(tiny) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert "inference.GRPCInferenceService" in database.get_services()
        file = database.FindFileContainingSymbol("inference.GRPCInferenceService")
        assert "ModelInferRequest" in {message.name for message in file.message_type}
        with pytest.raises(KeyError):
            database.FindFileContainingSymbol("no.such.Thing")


def test_health_is_told_as_grpcs_own_probes_ask_for_it(tiny: str) -> None:
    with grpc.insecure_channel(tiny) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=30) == b"\x08\x01"
        assert check(b"\x0a\x1einference.GRPCInferenceService", timeout=30) == b"\x08\x01"
        error = refused(lambda: check(b"\x0a\x02no", timeout=30))
        assert error.code() is grpc.StatusCode.NOT_FOUND


def test_rest_and_grpc_share_the_port_and_its_connections(tiny: str) -> None:
    body = {"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [1.0] * 64}]}
    with stub(tiny) as asked, httpx.Client() as client, ThreadPoolExecutor(8) as pool:

        def by_rest(_: int) -> list[float]:
            return client.post(f"http://{tiny}/v2/models/tiny/infer", json=body).json()["outputs"][0]["data"]

        def by_grpc(_: int) -> list[float]:
            request = raw_request("tiny", {"x": np.ones((1, 64), np.float32)})
            return np.frombuffer(asked.ModelInfer(request, timeout=30).raw_output_contents[0], np.float32).tolist()

        both = [pool.submit(by_grpc if number % 2 else by_rest, number) for number in range(64)]
        for each in both:
            np.testing.assert_allclose(each.result(), linear_weights().sum(0), rtol=1e-3, atol=1e-3)
