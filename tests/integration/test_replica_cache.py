"""The prediction cache in a real replica process: headers, metrics, spans, and requests that share a run."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from onnx import TensorProto, helper
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from tests.integration.replica_collector import Collector, values
from tests.integration.replica_process import (
    ReplicaProcess,
    document,
    linear_weights,
    raw_request,
    replica,
    save_linear,
    save_model,
    save_slow,
)

from penstock.serving.control import Drain, Drained, Reconfigure
from penstock.serving.settings import BatchingSettings, CacheMode, CacheSettings
from penstock.telemetry import names

EXACT = CacheSettings(mode=CacheMode.EXACT)
HIT, MISS, SHARED = "penstock; hit", "penstock; fwd=miss", "penstock; fwd=miss; collapsed"
ROWS = np.random.default_rng(1).normal(size=(3, 64)).astype(np.float32)
PATIENCE = 30.0


def one(number: float, timeout_seconds: float | None = None) -> dict[str, Any]:
    body = document(np.full((1, 1), number, np.float32))
    return body if timeout_seconds is None else body | {"parameters": {"timeout": int(timeout_seconds * 1e6)}}


def samples(started: ReplicaProcess, name: str) -> list[Sample]:
    families = text_string_to_metric_families(started.get("/metrics").text)
    return [sample for family in families for sample in family.samples if sample.name == name]


def counted(started: ReplicaProcess, name: str, **labels: str) -> float:
    """A sample of the replica's metrics."""
    (found,) = (sample for sample in samples(started, name) if labels.items() <= sample.labels.items())
    return float(found.value)


def results(started: ReplicaProcess) -> dict[str, float]:
    """Requests by what the cache did, without those that are 0."""
    found = samples(started, names.METRIC_CACHE_REQUESTS)
    return {sample.labels["result"]: sample.value for sample in found if sample.value}


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
    return save_slow(tmp_path_factory.mktemp("slow-cached") / "model.onnx")


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


def pipelined(*bodies: dict[str, Any]) -> bytes:
    """Requests that, sent at once on one connection, are also read at once."""
    return b"".join(raw_request(json.dumps(body).encode()) for body in bodies)


def all_answers(connection: socket.socket, count: int) -> list[tuple[int, str | None, list[float] | None]]:
    """Status, Cache-Status and output of so many answers on a connection."""
    found = []
    with connection.makefile("rb") as stream:
        for _ in range(count):
            status = int(stream.readline().split()[1])
            lines = iter(lambda: stream.readline().strip().decode(), "")
            headers = dict(line.split(": ", 1) for line in lines)
            body = json.loads(stream.read(int(headers["Content-Length"])))
            data = body["outputs"][0]["data"] if status == 200 else None
            found.append((status, headers.get("Cache-Status"), data))
    return found


ONE_BY_ONE = BatchingSettings(max_batch_size=1)
BEFORE = tuple(one(-number) for number in range(1, 13))
"""Keep the engine from what comes after them for some seconds."""


@pytest.fixture
def occupied(slow_model: Path) -> Iterator[ReplicaProcess]:
    """A replica whose engine is busy with one request while three more are queued."""
    with replica(slow_model, cache=EXACT, batching=ONE_BY_ONE) as started, started.connect() as connection:
        connection.sendall(pipelined(*BEFORE))
        wait(lambda: led(started) == len(BEFORE))
        yield started
        assert [status for status, _, _ in all_answers(connection, len(BEFORE))] == [200] * len(BEFORE)


def led(started: ReplicaProcess) -> float:
    """How many requests have led a run so far, or are to."""
    return results(started).get("miss", 0)


def followed(started: ReplicaProcess) -> float:
    """How many requests wait, or have waited, for the answer of another."""
    return counted(started, names.METRIC_CACHE_WAITING) + results(started).get("shared", 0)


def test_identical_requests_at_once_run_once(slow_model: Path) -> None:
    with replica(slow_model, cache=EXACT) as started, started.connect() as connection:
        connection.sendall(pipelined(*[one(3)] * 8))
        answers = all_answers(connection, 8)
        assert answers == [(200, MISS, [3]), *[(200, SHARED, [3])] * 7]
        assert rows_run(started) == 1
        assert results(started) == {"miss": 1, "shared": 7}


def test_those_who_wait_are_answered_though_the_first_client_is_killed_in_the_queue(occupied: ReplicaProcess) -> None:
    with occupied.connect() as follower:
        with occupied.connect() as leader:
            leader.sendall(pipelined(one(4)))
            wait(lambda: led(occupied) > len(BEFORE))
            follower.sendall(pipelined(one(4)))
            wait(lambda: followed(occupied) == 1)
        assert all_answers(follower, 1) == [(200, SHARED, [4])]
    assert rows_run(occupied) == len(BEFORE) + 1


def test_what_nobody_waits_for_any_more_does_not_run(occupied: ReplicaProcess) -> None:
    with occupied.connect() as leader, occupied.connect() as follower:
        leader.sendall(pipelined(one(4)))
        wait(lambda: led(occupied) > len(BEFORE))
        follower.sendall(pipelined(one(4)))
        wait(lambda: followed(occupied) == 1)
    with occupied.connect() as last:
        last.sendall(pipelined(one(5)))
        assert all_answers(last, 1) == [(200, MISS, [5])]
    assert rows_run(occupied) == len(BEFORE) + 1


def test_those_who_come_after_one_whose_time_is_too_short_run_by_themselves(occupied: ReplicaProcess) -> None:
    with occupied.connect() as connection:
        connection.sendall(pipelined(one(5, timeout_seconds=0.1), one(5), one(5)))
        assert all_answers(connection, 3) == [(429, MISS, None), (200, MISS, [5]), (200, SHARED, [5])]
    assert rows_run(occupied) == len(BEFORE) + 1


def test_one_who_waits_waits_no_longer_than_it_may(occupied: ReplicaProcess) -> None:
    with occupied.connect() as connection:
        connection.sendall(pipelined(one(6), one(6, timeout_seconds=0.001), one(6)))
        assert all_answers(connection, 3) == [(200, MISS, [6]), (504, SHARED, None), (200, SHARED, [6])]
    assert output(occupied.infer(one(6))) == [6]


def test_leaving_answers_those_who_wait(slow_model: Path) -> None:
    with replica(slow_model, cache=EXACT) as started, started.connect() as connection:
        connection.sendall(pipelined(*[one(7)] * 4))
        wait(lambda: followed(started) == 3)
        started.send(Drain())
        assert all_answers(connection, 4) == [(200, MISS, [7]), *[(200, SHARED, [7])] * 3]
        assert isinstance(started.read(), Drained)


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
        assert [answer.status_code for answer in answers] == [400, 400]
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
