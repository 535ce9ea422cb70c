"""The replica as a process, over its real socket: answers, errors, life cycle."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from onnx import TensorProto, helper
from tests.integration.replica_process import (
    ReplicaProcess,
    document,
    error_of,
    failure,
    linear_weights,
    raw_request,
    read_answer,
    replica,
    save_linear,
    save_model,
    save_slow,
)
from tests.telling import Telling, assert_tells

from penstock.api.conditions import Reason
from penstock.serving.control import Drain, Drained, Reconfigure
from penstock.serving.settings import BatchingSettings

ROWS = np.random.default_rng(1).normal(size=(3, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaProcess]:
    """A replica of the linear model; every test that uses it leaves it answering."""
    model = save_linear(tmp_path_factory.mktemp("tiny") / "model.onnx")
    with replica(model, max_body_bytes=1 << 20) as started:
        yield started


def assert_answers(started: ReplicaProcess) -> None:
    answer = started.infer(document(ROWS))
    assert answer.status_code == 200, answer.text
    (output,) = answer.json()["outputs"]
    got = np.array(output["data"], np.float32).reshape(output["shape"])
    np.testing.assert_allclose(got, ROWS @ linear_weights(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("binary", [False, True], ids=["as JSON", "as binary tensors"])
def test_tritons_own_client_gets_the_models_output(tiny: ReplicaProcess, *, binary: bool) -> None:
    with triton.InferenceServerClient(tiny.address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny")
        assert client.is_model_ready("tiny", "1")
        assert client.get_server_metadata()["name"] == "penstock"
        assert client.get_model_metadata("tiny")["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}]
        tensor = triton.InferInput("x", list(ROWS.shape), "FP32")
        tensor.set_data_from_numpy(ROWS, binary_data=binary)
        wanted = [triton.InferRequestedOutput("y", binary_data=binary)]
        result = client.infer("tiny", [tensor], outputs=wanted, request_id="42", timeout=10_000_000, priority=1)
        assert result.get_response()["id"] == "42"
        np.testing.assert_allclose(result.as_numpy("y"), ROWS @ linear_weights(), rtol=1e-4, atol=1e-5)
        result = client.infer("tiny", [tensor], model_version="1")
        np.testing.assert_allclose(result.as_numpy("y"), ROWS @ linear_weights(), rtol=1e-4, atol=1e-5)


def test_several_inputs_and_outputs_and_strings(tmp_path: Path) -> None:
    model = save_model(
        tmp_path / "model.onnx",
        [
            helper.make_node("Identity", ["text"], ["echo"]),
            helper.make_node("Mul", ["a", "b"], ["product"]),
            helper.make_node("Cast", ["a"], ["whole"], to=TensorProto.INT64),
        ],
        {
            "text": (TensorProto.STRING, ["n", 1]),
            "a": (TensorProto.FLOAT, ["n", 2]),
            "b": (TensorProto.FLOAT, ["n", 2]),
        },
        {
            "echo": (TensorProto.STRING, ["n", 1]),
            "product": (TensorProto.FLOAT, ["n", 2]),
            "whole": (TensorProto.INT64, ["n", 2]),
        },
    )
    text = np.array([[b"gr\xc3\xbc\xc3\x9fe"], [b""]], dtype=object)
    numbers = np.array([[1.5, 2], [3, 4]], np.float32)
    with replica(model) as started, triton.InferenceServerClient(started.address) as client:
        for binary in (True, False):
            inputs = []
            for name, datatype, value in (("text", "BYTES", text), ("a", "FP32", numbers), ("b", "FP32", numbers)):
                tensor = triton.InferInput(name, list(value.shape), datatype)
                tensor.set_data_from_numpy(value, binary_data=binary)
                inputs.append(tensor)
            outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("whole", "product", "echo")]
            result = client.infer("tiny", inputs, outputs=outputs)
            assert result.as_numpy("whole").tolist() == [[1, 2], [3, 4]]
            assert result.as_numpy("product").tolist() == [[2.25, 4], [9, 16]]
            echoed = [item if isinstance(item, bytes) else item.encode() for item in result.as_numpy("echo").ravel()]
            assert echoed == [b"gr\xc3\xbc\xc3\x9fe", b""]


DATATYPES = {
    "BOOL": (TensorProto.BOOL, np.array([[True, False]])),
    "UINT8": (TensorProto.UINT8, np.array([[0, 255]], np.uint8)),
    "UINT16": (TensorProto.UINT16, np.array([[0, 65535]], np.uint16)),
    "UINT32": (TensorProto.UINT32, np.array([[0, 2**32 - 1]], np.uint32)),
    "UINT64": (TensorProto.UINT64, np.array([[0, 2**64 - 1]], np.uint64)),
    "INT8": (TensorProto.INT8, np.array([[-128, 127]], np.int8)),
    "INT16": (TensorProto.INT16, np.array([[-(2**15), 2**15 - 1]], np.int16)),
    "INT32": (TensorProto.INT32, np.array([[-(2**31), 2**31 - 1]], np.int32)),
    "INT64": (TensorProto.INT64, np.array([[-(2**63), 2**63 - 1]], np.int64)),
    "FP16": (TensorProto.FLOAT16, np.array([[0.5, -2]], np.float16)),
    "BF16": (TensorProto.BFLOAT16, np.array([[0x3F80, 0xC000]], np.uint16)),
    "FP32": (TensorProto.FLOAT, np.array([[0.1, -3e38]], np.float32)),
    "FP64": (TensorProto.DOUBLE, np.array([[0.1, -1e308]], np.float64)),
}


def test_every_numeric_datatype_goes_through_the_engine_in_both_forms(tmp_path: Path) -> None:
    names = {name: name.lower() for name in DATATYPES}
    # Identity over each type, joined in one model; Reshape keeps ONNX Runtime from dropping the nodes.
    model = save_model(
        tmp_path / "model.onnx",
        [helper.make_node("Identity", [f"{low}_in"], [f"{low}_out"]) for low in names.values()],
        {f"{names[name]}_in": (kind, ["n", 2]) for name, (kind, _) in DATATYPES.items()},
        {f"{names[name]}_out": (kind, ["n", 2]) for name, (kind, _) in DATATYPES.items()},
    )
    with replica(model) as started:
        blobs = [value.tobytes() for _, value in DATATYPES.values()]
        header = {
            "parameters": {"binary_data_output": True},
            "inputs": [
                {
                    "name": f"{low}_in",
                    "datatype": name,
                    "shape": [1, 2],
                    "parameters": {"binary_data_size": len(blob)},
                }
                for (name, low), blob in zip(names.items(), blobs, strict=True)
            ],
        }
        text = json.dumps(header).encode()
        answer = httpx.post(
            f"{started.url}/v2/models/tiny/infer",
            content=text + b"".join(blobs),
            headers={"Inference-Header-Content-Length": str(len(text))},
        )
        assert answer.status_code == 200, answer.text
        length = int(answer.headers["Inference-Header-Content-Length"])
        assert answer.content[length:] == b"".join(blobs)
        inputs = [
            {"name": f"{low}_in", "datatype": name, "shape": [1, 2], "data": json_of(name)}
            for name, low in names.items()
        ]
        outputs = {item["name"]: item["data"] for item in started.infer({"inputs": inputs}).json()["outputs"]}
        for name, low in names.items():
            assert outputs[f"{low}_out"] == pytest.approx(json_of(name)), name


def json_of(name: str) -> list[Any]:
    value = DATATYPES[name][1]
    if name == "BF16":
        return list((value.astype(np.uint32) << 16).view(np.float32).ravel().tolist())
    return list(value.ravel().tolist())


@pytest.mark.parametrize(
    ("path", "status", "facts"),
    [
        ("/v2/models/other/infer", 404, "model 'tiny' version '1' namespace 'default'"),
        ("/v2/models/tiny/versions/9/infer", 404, "version '1'"),
        ("/elsewhere/v2/models/tiny/infer", 404, "namespace 'default'"),
        ("/nothing", 404, "nothing /nothing"),
        ("/v2/models/t%69ny/infer", 404, "percent-encoding /v2/models/t%69ny/infer"),
        ("/v2/models/tiny/%76ersions/1/infer", 404, "percent-encoding"),
        ("/v2/models/tiny", 405, "/v2/models/tiny GET"),
    ],
)
def test_a_wrong_path_gets_the_protocols_error(tiny: ReplicaProcess, path: str, status: int, facts: str) -> None:
    answer = tiny.infer(document(ROWS), path)
    assert answer.status_code == status
    assert_tells(error_of(answer), facts)
    assert_answers(tiny)


@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH", "OPTIONS"])
def test_another_method_gets_405(tiny: ReplicaProcess, method: str) -> None:
    assert httpx.request(method, f"{tiny.url}/v2/health/live").status_code == 405
    assert_answers(tiny)


@pytest.mark.parametrize(
    ("path", "status"), [("/v2/models/tiny", 200), ("/v2/models/tiny/infer", 405), ("/v2/nothing", 404)]
)
def test_head_gets_what_get_does_without_its_body(tiny: ReplicaProcess, path: str, status: int) -> None:
    with tiny.connect() as connection, connection.makefile("rb") as stream:
        request = f"HEAD {path} HTTP/1.1\r\nHost: m\r\n\r\n" * 2
        connection.sendall(request.encode() + b"GET /v2/health/live HTTP/1.1\r\nHost: m\r\n\r\n")
        for _ in range(2):
            head = b"".join(iter(stream.readline, b"\r\n"))
            assert head.startswith(b"HTTP/1.1 %d " % status)
            assert b"Content-Length: 0\r\n" not in head, "it is that of what GET would get"
        assert next_answer(stream) == (200, b'{"live":true}'), "the connection goes on"


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/tiny/infer",
        "/v2/models/tiny/versions/1/infer",
        "/default/v2/models/tiny/infer",
        "/default/v2/models/tiny/versions/1/infer",
        "/v2/models/tiny/infer?trace=1",
    ],
)
def test_every_way_to_write_the_models_path_answers(tiny: ReplicaProcess, path: str) -> None:
    assert tiny.infer(document(ROWS), path).status_code == 200


@pytest.mark.parametrize(
    ("target", "status"),
    [("http://tiny:80/v2/models/tiny?a=1", 200), ("http://tiny/v2/models/other", 404), ("http://tiny", 404)],
)
def test_a_target_may_name_the_host_too(tiny: ReplicaProcess, target: str, status: int) -> None:
    with tiny.connect() as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: tiny\r\n\r\n".encode())
        assert read_answer(connection)[0] == status


@pytest.mark.parametrize(
    ("body", "facts"),
    [
        (b'{"inputs":[{"name":"x","shape":[1,64],"datatype":"FP32","data":[NaN]}]}', "JSON NaN"),
        (json.dumps(document(ROWS[:, :63])).encode(), "'x' shape [3, 63] [-1, 64]"),
        (json.dumps(document(ROWS, name="z")).encode(), "inputs[0] 'z'"),
        (json.dumps(document(ROWS, datatype="FP64")).encode(), "datatype 'FP64' 'FP32'"),
        (b"{", "valid JSON"),
        (b"[" * 100_000, "valid JSON"),
    ],
    ids=["NaN", "wrong shape", "wrong name", "wrong datatype", "no JSON", "deep nesting"],
)
def test_a_wrong_body_gets_400_and_the_connection_goes_on(tiny: ReplicaProcess, body: bytes, facts: str) -> None:
    with tiny.connect() as connection:
        connection.sendall(raw_request(body))
        status, _, answer = read_answer(connection)
        assert (status, json.loads(answer)) == (400, {"error": Telling(facts)})
        connection.sendall(raw_request(json.dumps(document(ROWS)).encode()))
        assert read_answer(connection)[0] == 200


def test_a_gigabyte_announced_is_refused_before_it_is_sent(tiny: ReplicaProcess) -> None:
    with tiny.connect() as connection:
        connection.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: r\r\nContent-Length: 1073741824\r\n\r\n")
        status, headers, body = read_answer(connection)
        assert status == 413
        assert headers["connection"] == "close"
        assert_tells(json.loads(body)["error"], "limit 1048576 bytes")
        assert connection.recv(1) == b""
    assert_answers(tiny)


def test_another_limit_on_bodies_holds_at_once_on_connections_that_are_open(tiny: ReplicaProcess) -> None:
    body = json.dumps(document(ROWS)).encode()
    with tiny.connect() as connection:
        for limit, expected in ((len(body), 200), (len(body) - 1, 413)):
            tiny.send(Reconfigure(max_body_bytes=limit))
            tiny.stats()
            connection.sendall(raw_request(body))
            assert read_answer(connection)[0] == expected
    tiny.send(Reconfigure(max_body_bytes=1 << 20))
    assert_answers(tiny)


def test_a_chunked_body_over_the_limit_is_refused_while_it_comes(tiny: ReplicaProcess) -> None:
    with tiny.connect() as connection:
        connection.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"%x\r\n%b\r\n" % (1 << 16, b" " * (1 << 16))
        for _ in range(17):
            connection.sendall(chunk)
        assert read_answer(connection)[0] == 413
    assert_answers(tiny)


def test_a_chunked_body_is_answered(tiny: ReplicaProcess) -> None:
    body = json.dumps(document(ROWS)).encode()
    with tiny.connect() as connection:
        connection.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(body), 500):
            part = body[start : start + 500]
            connection.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        connection.sendall(b"0\r\n\r\n")
        assert read_answer(connection)[0] == 200


def test_a_client_that_expects_100_continue_gets_it(tiny: ReplicaProcess) -> None:
    body = json.dumps(document(ROWS)).encode()
    head, _, _ = raw_request(body, headers=["Expect: 100-continue"]).partition(b"\r\n\r\n")
    with tiny.connect() as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert read_answer(connection)[0] == 200


def test_a_body_cut_short_and_a_killed_client_leave_nothing_behind(tiny: ReplicaProcess) -> None:
    for end in (b"", b"x" * 100):
        connection = tiny.connect()
        connection.sendall(raw_request(b"x" * 1000)[:-1000] + end)
        # A linger of zero resets the connection, as a killed client's machine may.
        if end:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    assert_answers(tiny)
    assert tiny.stats().queued == 0


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"GARBAGE\r\n\r\n",
    ],
    ids=["TLS", "negative length", "no request line"],
)
def test_what_is_not_http_gets_400(tiny: ReplicaProcess, garbage: bytes) -> None:
    with tiny.connect() as connection:
        connection.sendall(garbage)
        assert read_answer(connection)[0] == 400
    assert_answers(tiny)


def test_endless_headers_get_431(tiny: ReplicaProcess) -> None:
    with tiny.connect() as connection:
        connection.sendall(b"GET /v2 HTTP/1.1\r\nHost: r\r\n")
        line = b"X-Filler: " + b"a" * 4000 + b"\r\n"
        for _ in range(10):
            connection.sendall(line)
            time.sleep(0.01)
        assert read_answer(connection)[0] == 431
    assert_answers(tiny)


def test_a_body_in_a_coding_that_is_not_known_gets_415(tiny: ReplicaProcess) -> None:
    answer = tiny.infer(document(ROWS), headers={"Content-Encoding": "br"})
    assert answer.status_code == 415


def test_pipelined_requests_are_answered_in_order(tiny: ReplicaProcess) -> None:
    with tiny.connect() as connection:
        good = raw_request(json.dumps(document(ROWS)).encode())
        connection.sendall(good + b"GET /v2/health/live HTTP/1.1\r\nHost: r\r\n\r\n" + raw_request(b"{") + good)
        with connection.makefile("rb") as stream:
            statuses = [next_answer(stream)[0] for _ in range(4)]
        assert statuses == [200, 200, 400, 200]


def next_answer(stream: BinaryIO) -> tuple[int, bytes]:
    """The next of several answers on a connection: status and body."""
    status = int(stream.readline().split()[1])
    length = 0
    while (line := stream.readline().strip()) != b"":
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return status, stream.read(length)


def test_connection_close_is_honoured(tiny: ReplicaProcess) -> None:
    with tiny.connect() as connection:
        connection.sendall(raw_request(json.dumps(document(ROWS)).encode(), headers=["Connection: close"]))
        status, headers, _ = read_answer(connection)
        assert (status, headers["connection"]) == (200, "close")
        assert connection.recv(1) == b""


def test_metrics_count_requests_batches_and_failures(tiny: ReplicaProcess) -> None:
    before = samples(tiny)
    assert_answers(tiny)
    tiny.infer({})
    after = samples(tiny)
    labels = 'model="tiny",namespace="default",version="1"'
    ok = 'penstock_requests_total{model="tiny",namespace="default",status="200",version="1"}'
    assert after[ok] == before.get(ok, 0) + 1
    rows = f"penstock_batch_rows_sum{{{labels}}}"
    assert after[rows] == before[rows] + 3
    bucket = f'penstock_request_duration_seconds_bucket{{le="0.00025",{labels}}}'
    assert bucket in after
    whole = 'model="tiny",namespace="default",revision="r1",version="1"'
    assert after[f"penstock_replica_cpu_seconds_total{{{whole}}}"] > 0


def samples(started: ReplicaProcess) -> dict[str, float]:
    text = started.get("/metrics").text
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_slow(tmp_path_factory.mktemp("slow") / "model.onnx")


ONE = np.ones((1, 1), np.float32)


def test_requests_that_come_while_the_engine_runs_become_one_batch(slow_model: Path) -> None:
    with replica(slow_model) as started, ThreadPoolExecutor(9) as pool:
        answers = list(pool.map(lambda _: started.infer(document(ONE)), range(9)))
        assert [answer.status_code for answer in answers] == [200] * 9
        counted = samples(started)
        labels = '{model="tiny",namespace="default",version="1"}'
        assert counted[f"penstock_batch_rows_sum{labels}"] == 9
        assert counted[f"penstock_batch_rows_count{labels}"] < 9


def test_requests_without_rows_are_answered_however_many_come(slow_model: Path) -> None:
    # Enough for the batcher to learn from, which once divided by their rows and then answered nobody.
    with replica(slow_model) as started:
        for _ in range(40):
            answer = started.infer(document(np.ones((0, 1), np.float32)))
            assert answer.status_code == 200, answer.text
            assert answer.json()["outputs"][0]["shape"] == [0, 1]
        assert started.infer(document(ONE)).json()["outputs"][0]["data"] == [1.0]


def test_a_full_queue_gets_429_with_retry_after_and_reconfigure_lifts_it_in_place(slow_model: Path) -> None:
    limits = BatchingSettings(max_batch_size=1, max_queued_requests=1)
    with replica(slow_model, batching=limits) as started, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: started.infer(document(ONE)), range(8)))
        statuses = {answer.status_code for answer in answers}
        assert statuses == {200, 429}
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert int(refused.headers["Retry-After"]) >= 1
        assert_tells(error_of(refused), "queue full")
        started.send(Reconfigure(batching=BatchingSettings(max_batch_size=4, max_queued_requests=100)))
        started.stats()
        answers = list(pool.map(lambda _: started.infer(document(ONE)), range(8)))
        assert {answer.status_code for answer in answers} == {200}


def test_a_request_that_cannot_keep_its_timeout_gets_429_at_once_without_running(slow_model: Path) -> None:
    # Some before it, one by one: however long the machine takes to ask for the load, the engine is not free yet.
    with replica(slow_model, batching=BatchingSettings(max_batch_size=1)) as started, ThreadPoolExecutor(8) as pool:
        before = [pool.submit(started.infer, document(ONE)) for _ in range(8)]
        while not started.stats().queued:
            pass
        # Shorter than what is before it takes, longer than it takes to be read: a time that is up then is another answer.
        late = started.infer(document(ONE) | {"parameters": {"timeout": 100_000}})
        assert late.status_code == 429
        assert int(late.headers["Retry-After"]) >= 1
        assert "within" in error_of(late)
        assert {each.result().status_code for each in before} == {200}
        assert samples(started)['penstock_batch_rows_sum{model="tiny",namespace="default",version="1"}'] == 8


def test_statistics_count_requests_and_runs_and_explain_batches_and_refusals(slow_model: Path) -> None:
    limits = BatchingSettings(max_batch_size=1, max_queued_requests=1)
    with replica(slow_model, batching=limits, slo_milliseconds=60_000) as started, ThreadPoolExecutor(8) as pool:
        statuses = [answer.status_code for answer in pool.map(lambda _: started.infer(document(ONE)), range(8))]
        (told,) = started.get("/v2/models/tiny/stats").json()["model_stats"]
        answered, refused = statuses.count(200), statuses.count(429)
        assert (told["name"], told["version"]) == ("tiny", "1")
        assert told["inference_count"] == told["execution_count"] == answered
        counts = {name: each["count"] for name, each in told["inference_stats"].items()}
        assert counts == {
            "success": answered, "fail": refused, "queue": answered,
            "compute_input": answered, "compute_infer": answered, "compute_output": answered,
        }  # fmt: skip
        assert told["inference_stats"]["success"]["ns"] >= told["inference_stats"]["compute_infer"]["ns"] > 0
        assert [(each["batch_size"], each["compute_infer"]["count"]) for each in told["batch_stats"]] == [(1, answered)]
        ours = told["penstock"]
        assert ours["refused"] == {"QueueFull": refused}
        assert (ours["batch_rows"], ours["objective_milliseconds"]) == (1, 60_000)
        assert ours["room_for_requests"] >= 1
        assert ours["batch_reason"]
        alone = "one run: it has one thread"
        assert (ours["runs_at_once"], ours["threads_a_run"], ours["runs_reason"]) == (1, 1, alone)
        assert (ours["waits_for_more"], bool(ours["wait_reason"])) == (False, True)
        assert [point["rows"] for point in ours["curve"]] == [1]


@pytest.mark.parametrize("threads", [2, 4])
def test_with_several_cores_it_says_how_many_runs_there_are_at_once_and_answers_the_same(
    threads: int, tmp_path: Path
) -> None:
    rows = np.random.default_rng(1).standard_normal((1, 64)).astype(np.float32)
    with (
        replica(save_linear(tmp_path / "model.onnx"), engine_threads=threads) as started,
        ThreadPoolExecutor(8) as pool,
    ):
        answers = list(pool.map(lambda _: started.infer(document(rows)).json()["outputs"][0]["data"], range(32)))
        (told,) = started.get("/v2/models/tiny/stats").json()["model_stats"]
    for answer in answers:
        assert np.allclose(answer, (rows @ linear_weights())[0], rtol=1e-4, atol=1e-4)
    ours = told["penstock"]
    assert (ours["runs_at_once"], ours["threads_a_run"]) in [(1, threads), (threads, 1)]
    assert "a lone row takes" in ours["runs_reason"]


def test_a_killed_clients_request_leaves_the_queue(slow_model: Path) -> None:
    sent = raw_request(json.dumps(document(ONE)).encode())
    # Some before it, one by one: the engine comes to none that was sent after them before it is known that its client went.
    with replica(slow_model, batching=BatchingSettings(max_batch_size=1)) as started, started.connect() as before:
        before.sendall(sent * 8)
        while not started.stats().queued:
            pass
        with started.connect() as killed:
            killed.sendall(sent)
            started.stats()
        with before.makefile("rb") as stream:
            assert [next_answer(stream)[0] for _ in range(8)] == [200] * 8
        assert started.infer(document(ONE)).status_code == 200
        assert samples(started)['penstock_batch_rows_sum{model="tiny",namespace="default",version="1"}'] == 9


@pytest.mark.parametrize("how", ["drain", "end of input", "SIGTERM"])
def test_leaving_answers_all_that_is_in_flight(slow_model: Path, how: str) -> None:
    with replica(slow_model, batching=BatchingSettings(max_batch_size=1)) as started, ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(started.infer, document(ONE)) for _ in range(4)]
        # However slow this machine is to send: what was answered before all four were there is asked anew.
        while started.stats().queued < 3:
            answered = sum(future.done() for future in waiting)
            waiting += [pool.submit(started.infer, document(ONE)) for _ in range(4 + answered - len(waiting))]
        match how:
            case "drain":
                started.send(Drain())
            case "SIGTERM":
                started.process.send_signal(signal.SIGTERM)
            case _:
                started.commands.close()
        assert isinstance(started.read(), Drained)
        assert {future.result().status_code for future in waiting} == {200}
        assert started.process.wait(30) == 0


def test_a_request_that_the_model_refuses_does_not_fail_its_batch(tmp_path: Path) -> None:
    # Gather raises for an index outside the table, and only then.
    model = save_model(
        tmp_path / "model.onnx",
        [helper.make_node("Gather", ["table", "i"], ["y"])],
        {"i": (TensorProto.INT64, ["n"])},
        {"y": (TensorProto.FLOAT, ["n"])},
        {"table": np.array([1, 2, 3], np.float32)},
    )
    # Pipelined, the three are read at once and meet in one batch.
    bodies = [json.dumps(document(np.array([i]), "i", "INT64")).encode() for i in (0, 99, 2)]
    with replica(model) as started, started.connect() as connection, connection.makefile("rb") as stream:
        connection.sendall(b"".join(map(raw_request, bodies)))
        answers = [next_answer(stream) for _ in bodies]
        assert [status for status, _ in answers] == [200, 400, 200]
        assert b"the model refuses this input" in answers[1][1]
        assert json.loads(answers[2][1])["outputs"][0]["data"] == [3]


def test_a_nan_in_the_answer_is_an_error_in_json_and_bytes_in_binary(tmp_path: Path) -> None:
    model = save_model(
        tmp_path / "model.onnx",
        [helper.make_node("Log", ["x"], ["y"])],
        {"x": (TensorProto.FLOAT, ["n", 1])},
        {"y": (TensorProto.FLOAT, ["n", 1])},
    )
    with replica(model) as started:
        answer = started.infer(document(-ONE))
        assert answer.status_code == 406
        assert_tells(error_of(answer), "output 'y' NaN JSON binary")
        answer = started.infer(document(-ONE) | {"parameters": {"binary_data_output": True}})
        assert answer.status_code == 200
        assert np.isnan(np.frombuffer(answer.content[-4:], "<f4")).all()


def test_the_digest_is_enforced(tmp_path: Path) -> None:
    model = save_linear(tmp_path / "model.onnx")
    digest = f"sha256:{hashlib.sha256(model.read_bytes()).hexdigest()}"
    with replica(tmp_path, digest=digest) as started:
        assert started.event.digest == digest
    failed = failure(storage_uri=tmp_path.as_uri(), digest="sha256:" + "0" * 64)
    assert failed.reason == Reason.DIGEST_MISMATCH
    assert digest in failed.message
