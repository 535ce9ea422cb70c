"""Unmodified gRPC clients of a real gateway, with real replicas behind it."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator
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
from tests.integration.behind_gateway import Served, behind_gateway
from tests.integration.grpc_parts import messages, raw_request, stub, triton_inputs
from tests.integration.replica_process import linear_weights, save_linear, save_model

ROWS = np.ones((1, 64), np.float32)
WANTED = linear_weights().sum(0)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with behind_gateway(save_linear(tmp_path_factory.mktemp("tiny") / "model.onnx")) as started:
        yield started


def refused(call: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def outputs(answer: Any) -> np.ndarray[Any, Any]:
    return np.frombuffer(answer.raw_output_contents[0], np.float32)


def test_tritons_own_client_asks_all_that_the_protocol_has(served: Served) -> None:
    with triton.InferenceServerClient(served.address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.get_server_metadata().name == "penstock"
        assert client.is_model_ready("tiny")
        assert client.is_model_ready("tiny", "1")
        assert client.get_model_metadata("tiny").inputs[0].name == "x"
        result = client.infer("tiny", triton_inputs({"x": ROWS}), request_id="seven")
        np.testing.assert_allclose(result.as_numpy("y")[0], WANTED, rtol=1e-3, atol=1e-3)
        assert result.get_response().id == "seven"


@pytest.mark.parametrize(
    ("name", "version", "metadata", "authority"),
    [
        ("tiny", "", [], None),
        ("tiny", "1", [], None),
        ("default/tiny", "", [], None),
        ("tiny", "", [("penstock-namespace", "default")], None),
        ("tiny", "", [], "default.models.example.com"),
        ("default/tiny", "", [("penstock-namespace", "other")], "other.models.example.com"),
    ],
    ids=[
        "a name alone",
        "with its version",
        "with its namespace",
        "the namespace as metadata",
        "the namespace as authority",
        "what stands in the name counts most",
    ],
)
def test_a_model_is_found_by_what_the_message_says(
    served: Served, name: str, version: str, metadata: list[tuple[str, str]], authority: str | None
) -> None:
    options = [("grpc.default_authority", authority)] if authority else []
    with grpc.insecure_channel(served.address, options=options) as channel:
        ask = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            messages.ModelInferRequest.SerializeToString,
            messages.ModelInferResponse.FromString,
        )
        answer = ask(raw_request(name, {"x": ROWS}, model_version=version), timeout=30, metadata=metadata)
        np.testing.assert_allclose(outputs(answer), WANTED, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "version", "metadata", "code"),
    [
        ("absent", "", [], grpc.StatusCode.NOT_FOUND),
        ("tiny", "9", [], grpc.StatusCode.NOT_FOUND),
        ("other/tiny", "", [], grpc.StatusCode.NOT_FOUND),
        ("tiny", "", [("penstock-namespace", "other")], grpc.StatusCode.NOT_FOUND),
        ("", "", [], grpc.StatusCode.INVALID_ARGUMENT),
        ("tiny/infer HTTP/1.1\r\nx-penstock-caller: root\r\n", "", [], grpc.StatusCode.INVALID_ARGUMENT),
        ("tiny?", "", [], grpc.StatusCode.INVALID_ARGUMENT),
        ("%74iny", "", [], grpc.StatusCode.INVALID_ARGUMENT),
        ("tiny", "1/../1", [], grpc.StatusCode.INVALID_ARGUMENT),
        ("a/b/tiny", "", [], grpc.StatusCode.INVALID_ARGUMENT),
    ],
    ids=[
        "an unknown model", "an unknown version", "another namespace's", "another namespace's by metadata", "no name",
        "a name that would be a header", "a name that would end the path", "a name in percent-encoding",
        "a version that would be a path", "two namespaces",
    ],
)  # fmt: skip
def test_what_names_no_model_has_its_code_and_words(
    served: Served, name: str, version: str, metadata: list[tuple[str, str]], code: grpc.StatusCode
) -> None:
    with stub(served.address) as asked:
        request = raw_request(name, {"x": ROWS}, model_version=version)
        error = refused(lambda: asked.ModelInfer(request, timeout=30, metadata=metadata))
        assert error.code() is code, error.details()
        assert "model" in error.details()
        asked.ServerLive(messages.ServerLiveRequest(), timeout=30)


def test_a_method_that_is_not_there_is_unimplemented(served: Served) -> None:
    with grpc.insecure_channel(served.address) as channel:
        for path in ("/inference.GRPCInferenceService/LogSettings", "/grpc.nothing.Here/Do"):
            error = refused(lambda path=path: channel.unary_unary(path)(b"", timeout=30))
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED
            assert "no method" in error.details()


def test_what_the_replica_refuses_reaches_the_client(served: Served) -> None:
    with stub(served.address) as asked:
        error = refused(lambda: asked.ModelInfer(raw_request("tiny", {"x": ROWS[:, :3]}), timeout=30))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "[1, 3]" in error.details()


def test_64_calls_at_once_and_rest_beside_them(served: Served) -> None:
    async def ask() -> None:
        body = {"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [1.0] * 64}]}
        async with triton_aio.InferenceServerClient(served.address) as client, httpx.AsyncClient() as rest:
            calls = [client.infer("tiny", triton_inputs({"x": ROWS})) for _ in range(64)]
            requests = [rest.post(f"{served.gateway.url}/v2/models/tiny/infer", json=body) for _ in range(16)]
            answers = await asyncio.gather(*calls)
            others = await asyncio.gather(*requests)
        for each in answers:
            np.testing.assert_allclose(each.as_numpy("y")[0], WANTED, rtol=1e-3, atol=1e-3)
        assert {each.status_code for each in others} == {200}

    asyncio.run(ask())


def test_messages_from_a_byte_to_25_megabytes_arrive_whole_both_ways(tmp_path: Path) -> None:
    model = save_model(
        tmp_path / "model.onnx",
        [helper.make_node("Identity", ["x"], ["y"])],
        {"x": (TensorProto.UINT8, ["n"])},
        {"y": (TensorProto.UINT8, ["n"])},
    )
    with behind_gateway(model) as served, stub(served.address) as asked:
        for size in (1, 200, 16_384, 65_536, 1_000_000, 25_000_000):
            x = np.random.default_rng(size).integers(0, 256, size, np.uint8)
            answer = asked.ModelInfer(raw_request("tiny", {"x": x}), timeout=60)
            assert answer.raw_output_contents[0] == x.tobytes(), size
        error = refused(
            lambda: asked.ModelInfer(raw_request("tiny", {"x": np.zeros(70_000_000, np.uint8)}), timeout=60)
        )
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_stream_answers_while_it_is_open(served: Served) -> None:
    found: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(served.address) as client:
        client.start_stream(lambda result, error: found.put((result, error)))
        for number in range(5):
            client.async_stream_infer("tiny", triton_inputs({"x": ROWS}), request_id=str(number))
            result, error = found.get(timeout=30)
            assert error is None, error
            assert result.get_response().id == str(number)
        client.stop_stream()


def test_reflection_and_health_are_the_gateways_own(served: Served) -> None:
    with grpc.insecure_channel(served.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert "inference.GRPCInferenceService" in database.get_services()
        assert "ModelInferRequest" in {
            message.name for message in database.FindFileContainingSymbol("inference.GRPCInferenceService").message_type
        }
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=30) == b"\x08\x01"


def test_a_call_past_its_deadline_ends_with_it(served: Served) -> None:
    with stub(served.address) as asked:
        request = raw_request("tiny", {"x": ROWS}, parameters={"timeout": {"int64_param": 1}})
        error = refused(lambda: asked.ModelInfer(request, timeout=30))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_the_trace_goes_on_through_metadata(served: Served) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    with stub(served.address) as asked:
        _, call = asked.ModelInfer.with_call(
            raw_request("tiny", {"x": ROWS}),
            timeout=30,
            metadata=[("traceparent", f"00-{trace}-b7ad6b7169203331-01")],
        )
        assert dict(call.initial_metadata())["traceresponse"].startswith(f"00-{trace}-")
