"""The prediction cache in a real replica process: headers, metrics, spans, and requests that share a run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from onnx import TensorProto, helper
from prometheus_client.parser import text_string_to_metric_families
from tests.integration.replica_collector import Collector, values
from tests.integration.replica_process import (
    ReplicaProcess,
    document,
    error_of,
    linear_weights,
    raw_request,
    replica,
    save_linear,
    save_model,
    save_slow,
)

from penstock.serving.settings import BatchingSettings, CacheMode, CacheSettings, Drain, Drained, Reconfigure
from penstock.telemetry import names

EXACT = CacheSettings(mode=CacheMode.EXACT)
HIT, MISS, SHARED = "penstock; hit", "penstock; fwd=miss", "penstock; fwd=miss; collapsed"
ROWS = np.random.default_rng(1).normal(size=(3, 64)).astype(np.float32)
PATIENCE = 30.0


def one(number: float, timeout_seconds: float | None = None) -> dict[str, Any]:
    body = document(np.full((1, 1), number, np.float32))
    return body if timeout_seconds is None else body | {"parameters": {"timeout": int(timeout_seconds * 1e6)}}


def counted(started: ReplicaProcess, name: str, **labels: str) -> float:
    """A sample of the replica's metrics."""
    families = text_string_to_metric_families(httpx.get(f"{started.url}/metrics").text)
    (found,) = (
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
    return float(found)


def results(started: ReplicaProcess) -> dict[str, float]:
    """Requests by what the cache did, without those that are 0."""
    found = {
        result: counted(started, names.METRIC_CACHE_REQUESTS, result=result)
        for result in ("hit", "miss", "shared", "bypass")
    }
    return {result: count for result, count in found.items() if count}


def rows_run(started: ReplicaProcess) -> float:
    return counted(started, f"{names.METRIC_BATCH_ROWS}_sum")


def output(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"][0]["data"]


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the state that the test waits for did not come"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_slow(tmp_path_factory.mktemp("slow-cached") / "model.onnx", size=900)


def test_identical_inputs_get_the_kept_answer_in_whatever_form_they_ask(tmp_path: Path) -> None:
    with replica(save_linear(tmp_path / "model.onnx"), cache=EXACT) as started:
        first = started.infer(document(ROWS) | {"id": "1"})
        assert first.headers["Cache-Status"] == MISS
        again = started.infer(document(ROWS) | {"id": "2"})
        assert again.headers["Cache-Status"] == HIT
        assert output(again) == output(first)
        assert again.json()["id"] == "2"
        with triton.InferenceServerClient(started.address) as client:
            tensor = triton.InferInput("x", list(ROWS.shape), "FP32")
            tensor.set_data_from_numpy(ROWS, binary_data=True)
            result = client.infer("tiny", [tensor])
            assert result.get_response()["outputs"][0]["parameters"]["binary_data_size"] == 120
            np.testing.assert_allclose(result.as_numpy("y"), ROWS @ linear_weights(), rtol=1e-4, atol=1e-5)
        other = started.infer(document(ROWS + 1))
        assert other.headers["Cache-Status"] == MISS
        assert output(other) != output(first)
        assert "Cache-Status" not in started.infer({}).headers
        assert results(started) == {"hit": 2, "miss": 2}
        # Hits are requests, and in nothing that says how fast the model is.
        assert counted(started, names.METRIC_REQUESTS, status="200") == 4
        assert counted(started, f"{names.METRIC_EXECUTE_SECONDS}_count") == 2
        assert counted(started, f"{names.METRIC_QUEUE_SECONDS}_count") == 2
        assert counted(started, names.METRIC_CACHE_ENTRIES) == 2
        assert counted(started, names.METRIC_CACHE_BYTES) > 0


def test_it_is_off_unless_asked_for_and_changes_in_place(tmp_path: Path) -> None:
    with replica(save_linear(tmp_path / "model.onnx")) as started:
        body = document(ROWS)
        assert [started.infer(body).headers.get("Cache-Status") for _ in range(2)] == [None, None]
        started.send(Reconfigure(batching=BatchingSettings(), cache=EXACT))
        started.stats()
        assert [started.infer(body).headers.get("Cache-Status") for _ in range(2)] == [MISS, HIT]
        started.send(Reconfigure(batching=BatchingSettings(), cache=EXACT.model_copy(update={"ttl_seconds": 0.001})))
        started.stats()
        assert [started.infer(body).headers.get("Cache-Status")] == [MISS]
        started.send(Reconfigure(batching=BatchingSettings()))
        started.stats()
        assert started.infer(body).headers.get("Cache-Status") is None
        assert counted(started, names.METRIC_CACHE_BYTES) == 0
        assert results(started) == {"hit": 1, "miss": 2}


def test_identical_requests_at_once_run_once(slow_model: Path) -> None:
    # Pipelined, they are read at once.
    with replica(slow_model, cache=EXACT) as started, started.connect() as connection:
        connection.sendall(raw_request(json.dumps(one(3)).encode()) * 8)
        received = b""
        while received.count(b'"data":[3.0]') < 8:
            received += connection.recv(65536)
        assert received.count(b"HTTP/1.1 200 OK") == 8
        assert received.count(b"Cache-Status: penstock; fwd=miss\r\n") == 1
        assert received.count(b"Cache-Status: penstock; fwd=miss; collapsed\r\n") == 7
        assert rows_run(started) == 1
        assert results(started) == {"miss": 1, "shared": 7}


def shared(started: ReplicaProcess, pool: ThreadPoolExecutor, body: dict[str, Any]) -> Future[httpx.Response]:
    """Send a request and wait until it is in flight as another's follower: then nothing more is queued for it."""
    future = pool.submit(started.infer, body)
    time.sleep(0.05)
    return future


def busy(started: ReplicaProcess, pool: ThreadPoolExecutor) -> Future[httpx.Response]:
    """Occupy the engine with another request."""
    future = pool.submit(started.infer, one(-1))
    wait(lambda: started.stats().in_flight > 0 and not started.stats().queued)
    return future


def test_those_who_wait_are_answered_though_the_first_client_is_killed_in_the_queue(slow_model: Path) -> None:
    with replica(slow_model, cache=EXACT) as started, ThreadPoolExecutor(4) as pool:
        before = busy(started, pool)
        with started.connect() as leader:
            leader.sendall(raw_request(json.dumps(one(4)).encode()))
            wait(lambda: before.done() or started.stats().queued == 1)
            follower = shared(started, pool, one(4))
        assert output(follower.result()) == [4]
        assert follower.result().headers["Cache-Status"] == SHARED
        assert output(before.result()) == [-1]
        assert rows_run(started) == 2


def test_those_who_wait_run_by_themselves_when_the_firsts_time_is_up(slow_model: Path) -> None:
    with replica(slow_model, cache=EXACT) as started, ThreadPoolExecutor(4) as pool:
        before = busy(started, pool)
        leader = pool.submit(started.infer, one(5, timeout_seconds=0.12))
        time.sleep(0.03)
        followers = [shared(started, pool, one(5)) for _ in range(2)]
        assert [output(follower.result()) for follower in followers] == [[5], [5]]
        assert output(before.result()) == [-1]
        if leader.result().status_code == 504:  # else the engine was free before its time was up
            assert sorted(each.result().headers["Cache-Status"] for each in followers) == [MISS, SHARED]
        assert rows_run(started) == 2


def test_one_who_waits_waits_no_longer_than_it_may(slow_model: Path) -> None:
    with replica(slow_model, cache=EXACT) as started, ThreadPoolExecutor(4) as pool:
        leader = pool.submit(started.infer, one(6))
        wait(lambda: started.stats().in_flight > 0)
        late = started.infer(one(6, timeout_seconds=0.001))
        assert late.status_code == 504
        assert "timeout of 0.001 s" in error_of(late)
        assert late.headers["Cache-Status"] == SHARED
        assert output(leader.result()) == [6]
        assert started.infer(one(6, timeout_seconds=0.001)).headers["Cache-Status"] == HIT


def test_leaving_answers_those_who_wait(slow_model: Path) -> None:
    with replica(slow_model, cache=EXACT) as started, ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(started.infer, one(7)) for _ in range(4)]
        wait(lambda: started.stats().in_flight > 0)
        time.sleep(0.05)
        started.send(Drain())
        assert isinstance(started.read(), Drained)
        assert [output(each.result()) for each in waiting] == [[7]] * 4


def test_a_failure_is_never_kept(tmp_path: Path) -> None:
    # Gather raises for an index outside the table, and only then.
    model = save_model(
        tmp_path / "model.onnx",
        [helper.make_node("Gather", ["table", "i"], ["y"])],
        {"i": (TensorProto.INT64, ["n"])},
        {"y": (TensorProto.FLOAT, ["n"])},
        {"table": np.array([1, 2, 3], np.float32)},
    )
    body = document(np.array([99]), "i", "INT64")
    with replica(model, cache=EXACT) as started:
        answers = [started.infer(body) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [500, 500]
        assert [answer.headers["Cache-Status"] for answer in answers] == [MISS, MISS]
        assert counted(started, names.METRIC_CACHE_ENTRIES) == 0


def test_inputs_that_never_repeat_end_the_asking(tmp_path: Path) -> None:
    with replica(save_linear(tmp_path / "model.onnx"), cache=EXACT) as started, httpx.Client() as client:
        url = f"{started.url}/v2/models/tiny/infer"
        statuses = [
            client.post(url, json=document(np.full((1, 64), number, np.float32))).headers["Cache-Status"]
            for number in range(700)
        ]
        assert set(statuses[:512]) == {MISS}
        assert statuses[512:].count("penstock; fwd=bypass") > 150
        assert counted(started, f"{names.METRIC_EXECUTE_SECONDS}_count") == 700


def test_spans_say_what_the_cache_did_and_a_hit_has_no_execution(tmp_path: Path) -> None:
    collector = Collector()
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    try:
        with replica(save_linear(tmp_path / "model.onnx"), environment, cache=EXACT) as started:
            started.infer(document(ROWS), headers=headers)
            first = collector.wait(6)
            assert {span.name for span in first} == {"request", "decode", "queue", "execute", "encode", "batch"}
            started.infer(document(ROWS), headers=headers)
            second = collector.wait(10)[len(first) :]
    finally:
        collector.close()
    spans = {span.name: span for span in second}
    assert set(spans) == {"request", "decode", "cache", "encode"}
    (missed,) = (span for span in first if span.name == "request")
    assert values(missed.attributes)[names.ATTR_CACHE] == "miss"
    assert values(spans["request"].attributes)[names.ATTR_CACHE] == "hit"
    assert spans["decode"].end_time_unix_nano <= spans["cache"].start_time_unix_nano
    assert spans["cache"].end_time_unix_nano <= spans["encode"].start_time_unix_nano
    assert spans["encode"].end_time_unix_nano <= spans["request"].end_time_unix_nano
