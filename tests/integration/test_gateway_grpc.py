"""Unmodified gRPC clients of a real gateway, with real replicas behind it."""

from __future__ import annotations

import asyncio
import gzip
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from google.protobuf.json_format import ParseDict
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from onnx import TensorProto, helper
from tests.integration.behind_gateway import Served, behind_gateway
from tests.integration.grpc_parts import messages, raw_request, stub, triton_inputs
from tests.integration.replica_process import linear_weights, save_linear, save_model
from tritonclient.utils import InferenceServerException

from penstock_serving.rpc.framing import frame

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
        assert "%" not in error.details()
        asked.ServerLive(messages.ServerLiveRequest(), timeout=30)


def rest(served: Served, method: str, path: str) -> Any:
    answer = httpx.request(method, served.gateway.url + path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def without_its_time(statistics: Any) -> Any:
    """It is of a clock that is adjusted."""
    for each in statistics.model_stats:
        each.ClearField("last_inference")
    return statistics


def test_tritons_clients_are_told_what_rest_tells(served: Served) -> None:
    models = ("/v2/models/tiny", "/v2/models/tiny/versions/1")
    configurations, statistics, metadata = (
        [rest(served, "GET", path + what) for path in models] for what in ("/config", "/stats", "")
    )
    index = rest(served, "POST", "/v2/repository/index")
    traces = {
        name: each if type(each) is list else [each] for name, each in rest(served, "GET", "/v2/trace/setting").items()
    }

    def wanted(kind: Any, document: Any) -> Any:
        return ParseDict(document, kind(), ignore_unknown_fields=True)

    async def ask() -> list[Any]:
        async with triton_aio.InferenceServerClient(served.address) as client:
            return [
                await client.get_server_metadata(),
                await client.get_model_metadata("tiny"),
                await client.get_model_config("tiny"),
                without_its_time(await client.get_inference_statistics("tiny")),
                await client.get_model_repository_index(),
                await client.get_trace_settings(),
            ]

    with triton.InferenceServerClient(served.address) as client:
        for version, name in ((0, "tiny"), (1, "tiny"), (0, "default/tiny")):
            asked = name, str(version or "")
            found = [
                client.get_server_metadata(),
                client.get_model_metadata(*asked),
                client.get_model_config(*asked),
                without_its_time(client.get_inference_statistics(*asked)),
                client.get_model_repository_index(headers={"penstock-namespace": "default"}),
                client.get_trace_settings(name),
            ]
            assert found == [
                wanted(messages.ServerMetadataResponse, rest(served, "GET", "/v2")),
                wanted(messages.ModelMetadataResponse, metadata[version]),
                wanted(messages.ModelConfigResponse, {"config": configurations[version]}),
                without_its_time(wanted(messages.ModelStatisticsResponse, statistics[version])),
                wanted(messages.RepositoryIndexResponse, {"models": index}),
                wanted(
                    messages.TraceSettingResponse,
                    {"settings": {name: {"value": each} for name, each in traces.items()}},
                ),
            ]
            assert found[2].config.max_batch_size == 32
            assert found[3].model_stats[0].inference_stats.HasField("queue")
            assert [each.name for each in found[4].models] == ["tiny"]
    assert asyncio.run(ask()) == found


def test_an_index_lists_models_that_are_ready_alone_and_no_other_namespaces(served: Served) -> None:
    with stub(served.address) as asked:

        def names(namespace: str, **more: Any) -> list[str]:
            request = messages.RepositoryIndexRequest(**more)
            found = asked.RepositoryIndex(request, timeout=30, metadata=[("penstock-namespace", namespace)])
            return [each.name for each in found.models]

        assert names("default", ready=True) == ["tiny"]
        assert names("elsewhere") == []
        error = refused(lambda: names("default", repository_name="models"))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "'repository_name' is 'models'" in error.details()
        assert "penstock-namespace" in error.details()


REFUSED: dict[str, tuple[str, tuple[Any, ...], str]] = {
    "loading": ("load_model", ("tiny",), "kubectl apply"),
    "unloading": ("unload_model", ("tiny",), "kubectl"),
    "the status of shared memory": ("get_system_shared_memory_status", (), "in the message"),
    "shared memory": ("register_system_shared_memory", ("name", "/key", 8), "in the message"),
    "no more shared memory": ("unregister_system_shared_memory", (), "in the message"),
    "the status of a GPU's shared memory": ("get_cuda_shared_memory_status", (), "in the message"),
    "a GPU's shared memory": ("register_cuda_shared_memory", ("name", b"aGFuZGxl", 0, 8), "in the message"),
    "no more of a GPU's shared memory": ("unregister_cuda_shared_memory", (), "in the message"),
    "log settings": ("get_log_settings", (), "chart's values"),
    "other log settings": ("update_log_settings", ({"log_info": True},), "chart's values"),
    "other trace settings": ("update_trace_settings", (None, {"trace_level": ["OFF"]}), "spec.tracing"),
    "other trace settings of a model": ("update_trace_settings", ("tiny", {"trace_level": ["OFF"]}), "spec.tracing"),
}
"""What Triton's client asks for, and a word of what it is told to do instead."""


@pytest.mark.parametrize("title", REFUSED)
def test_what_rest_refuses_is_unimplemented_and_says_what_to_do(served: Served, title: str) -> None:
    method, arguments, remedy = REFUSED[title]
    with triton.InferenceServerClient(served.address) as client, pytest.raises(InferenceServerException) as caught:
        getattr(client, method)(*arguments)
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
    assert remedy in caught.value.message()


@pytest.mark.parametrize("method", ["ModelConfig", "ModelStatistics", "TraceSetting"])
def test_a_look_at_a_model_that_is_not_there_is_not_found(served: Served, method: str) -> None:
    field = "model_name" if method == "TraceSetting" else "name"
    with stub(served.address) as asked:
        for name, code in (
            ("absent", grpc.StatusCode.NOT_FOUND),
            ("other/tiny", grpc.StatusCode.NOT_FOUND),
            ("a/b/c", grpc.StatusCode.INVALID_ARGUMENT),
        ):
            request = getattr(messages, f"{method}Request")(**{field: name})
            error = refused(lambda request=request: getattr(asked, method)(request, timeout=30))
            assert error.code() is code, error.details()


@pytest.mark.parametrize("method", ["ModelConfig", "ModelStatistics", "ModelMetadata", "ModelReady"])
def test_what_a_look_does_not_name_is_said(served: Served, method: str) -> None:
    with stub(served.address) as asked:
        error = refused(lambda: getattr(asked, method)(getattr(messages, f"{method}Request")(), timeout=30))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "names no model" in error.details()


def by_hand(served: Served, method: str, flag: int, message: bytes) -> tuple[int, str]:
    """The code and words of a call that no client would make."""
    answer = httpx.post(
        f"{served.gateway.url}/inference.GRPCInferenceService/{method}",
        headers={"content-type": "application/grpc", "te": "trailers", "grpc-encoding": "gzip"},
        content=bytes([flag]) + len(message).to_bytes(4, "big") + message,
    )
    return int(answer.headers["grpc-status"]), answer.headers["grpc-message"]


def test_a_look_that_is_compressed_is_told_to_come_as_it_is(served: Served) -> None:
    for method in ("RepositoryIndex", "TraceSetting"):
        code, words = by_hand(served, method, 1, gzip.compress(b""))
        assert code == cast(Any, grpc.StatusCode.UNIMPLEMENTED.value)[0]
        assert "as it is" in words


@pytest.mark.parametrize("how", [grpc.Compression.Gzip, grpc.Compression.Deflate], ids=["gzip", "deflate"])
def test_a_compressed_messages_model_is_named_by_metadata(served: Served, how: grpc.Compression) -> None:
    request = raw_request("tiny", {"x": np.ones((9, 64), np.float32)})
    with stub(served.address) as asked:
        for metadata in (
            [("penstock-model", "tiny")],
            [("penstock-model", "default/tiny")],
            [("penstock-model", "tiny"), ("penstock-namespace", "default")],
        ):
            answer = asked.ModelInfer(request, timeout=30, compression=how, metadata=metadata)
            np.testing.assert_allclose(outputs(answer)[:10], WANTED, rtol=1e-3, atol=1e-3)
            (streamed,) = asked.ModelStreamInfer(iter([request]), timeout=30, compression=how, metadata=metadata)
            assert streamed.infer_response == answer
        for metadata, code, words in (
            ([], grpc.StatusCode.INVALID_ARGUMENT, "penstock-model"),
            ([("penstock-model", "absent")], grpc.StatusCode.NOT_FOUND, "absent"),
            ([("penstock-model", "tiny"), ("penstock-namespace", "other")], grpc.StatusCode.NOT_FOUND, "tiny"),
            ([("penstock-model", "tiny?")], grpc.StatusCode.INVALID_ARGUMENT, "model"),
        ):
            error = refused(
                lambda metadata=metadata: asked.ModelInfer(request, timeout=30, compression=how, metadata=metadata)
            )
            assert error.code() is code, (metadata, error.details())
            assert words in error.details()


def test_what_the_message_says_counts_more_than_metadata(served: Served) -> None:
    with stub(served.address) as asked:
        answer = asked.ModelInfer(raw_request("tiny", {"x": ROWS}), timeout=30, metadata=[("penstock-model", "absent")])
        np.testing.assert_allclose(outputs(answer), WANTED, rtol=1e-3, atol=1e-3)
        # One that names none is routed by metadata; a replica goes by the message.
        error = refused(
            lambda: asked.ModelInfer(raw_request("", {"x": ROWS}), timeout=30, metadata=[("penstock-model", "tiny")])
        )
        assert error.code() is grpc.StatusCode.NOT_FOUND


def test_bytes_that_are_said_to_be_compressed_are_not_read_as_a_name(served: Served) -> None:
    message = raw_request("tiny", {"x": ROWS}).SerializeToString()
    code, words = by_hand(served, "ModelInfer", 1, message)
    assert code == cast(Any, grpc.StatusCode.INVALID_ARGUMENT.value)[0]
    assert "penstock-model" in words


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
        assert check(b"\n\x1einference.GRPCInferenceService", timeout=30) == b"\x08\x01"
        error = refused(lambda: check(b"\n\x04nope", timeout=30))
        assert (error.code(), "'nope'" in error.details()) == (grpc.StatusCode.NOT_FOUND, True)


def test_a_call_past_its_deadline_ends_with_it(served: Served) -> None:
    with stub(served.address) as asked:
        request = raw_request("tiny", {"x": ROWS}, parameters={"timeout": {"int64_param": 1}})
        error = refused(lambda: asked.ModelInfer(request, timeout=30))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "0.000001 s" in error.details()


def test_the_trace_goes_on_through_metadata(served: Served) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    with stub(served.address) as asked:
        _, call = asked.ModelInfer.with_call(
            raw_request("tiny", {"x": ROWS}),
            timeout=30,
            metadata=[("traceparent", f"00-{trace}-b7ad6b7169203331-01")],
        )
        assert dict(call.initial_metadata())["traceresponse"].startswith(f"00-{trace}-")


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ({"content-type": "application/grpc"}, 200),
        ({"content-type": "application/grpc+proto"}, 200),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/grpc-web+proto"}, 415),
        ({"content-type": "application/grpc+json"}, 415),
        ({}, 415),
    ],
    ids=["a call", "a call that names its form", "text", "a browser's form", "JSON", "nothing"],
)
@pytest.mark.parametrize("method", ["ModelInfer", "ServerLive"])
def test_what_is_no_call_on_a_path_of_calls_is_told_so_by_its_status(
    served: Served, method: str, content_type: dict[str, str], status: int
) -> None:
    url = f"{served.gateway.url}/inference.GRPCInferenceService/{method}"
    request = raw_request("tiny", {"x": ROWS}) if method == "ModelInfer" else messages.ServerLiveRequest()
    answer = httpx.post(url, content=frame(request.SerializeToString()), headers=content_type)
    assert answer.status_code == status
    if status != 200:
        assert answer.headers["content-type"] == "application/json"
        assert "application/grpc" in answer.json()["error"]
