"""The replica's spans, as a real OTLP receiver gets them over the wire."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.integration.replica_collector import Collector, values
from tests.integration.replica_process import (
    ReplicaProcess,
    document,
    raw_request,
    read_answer,
    replica,
    save_linear,
    save_slow,
)

from penstock.telemetry import names
from penstock.telemetry.spans import gateway_context, parse_traceparent

ROWS = np.ones((2, 64), np.float32)
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def collector() -> Iterator[Collector]:
    started = Collector()
    yield started
    started.close()


@pytest.fixture
def traced(tmp_path: Path, collector: Collector) -> Iterator[ReplicaProcess]:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test",
    }
    with replica(save_linear(tmp_path / "model.onnx"), environment, slo_milliseconds=600_000) as started:
        yield started


def parent(*, sampled: bool) -> dict[str, str]:
    return {"traceparent": f"00-{TRACE}-{PARENT}-{int(sampled):02x}"}


def by_name(spans: list[Span]) -> dict[str, Span]:
    return {span.name: span for span in spans}


def test_a_sampled_request_leaves_its_spans_with_parents_links_and_attributes(
    traced: ReplicaProcess, collector: Collector
) -> None:
    answer = traced.infer(document(ROWS), headers=parent(sampled=True))
    spans = by_name(collector.wait(6))
    assert set(spans) == {"request", "decode", "queue", "execute", "encode", "batch"}
    request, execute, batch = spans["request"], spans["execute"], spans["batch"]
    assert answer.headers["traceresponse"] == f"00-{TRACE}-{request.span_id.hex()}-01"
    assert request.trace_id.hex() == TRACE
    assert request.parent_span_id.hex() == PARENT
    assert request.kind == Span.SPAN_KIND_SERVER
    assert values(request.attributes) == {
        names.ATTR_MODEL: "tiny",
        names.ATTR_VERSION: "1",
        names.ATTR_HTTP_METHOD: "POST",
        names.ATTR_HTTP_STATUS: 200,
        names.ATTR_URL_PATH: "/v2/models/tiny/infer",
        names.ATTR_KEPT: "sampled",
        names.ATTR_REQUEST_ROWS: 2,
    }
    for name in ("decode", "queue", "execute", "encode"):
        assert spans[name].parent_span_id == request.span_id, name
        assert request.start_time_unix_nano <= spans[name].start_time_unix_nano, name
        assert spans[name].start_time_unix_nano <= spans[name].end_time_unix_nano <= request.end_time_unix_nano, name
    assert batch.trace_id != request.trace_id
    assert batch.parent_span_id == b""
    assert [link.span_id for link in batch.links] == [execute.span_id]
    assert [link.span_id for link in execute.links] == [batch.span_id]
    assert values(batch.attributes)[names.ATTR_BATCH_ROWS] == 2
    resource, _ = collector.spans[0]
    assert resource["service.name"] == "penstock-replica"
    assert resource["deployment.environment"] == "test"
    assert resource[names.ATTR_MODEL] == "tiny"
    assert resource[names.ATTR_REPLICA] == "replica-1"


def test_an_unsampled_request_leaves_nothing_but_an_answer_that_says_so(
    traced: ReplicaProcess, collector: Collector
) -> None:
    answer = traced.infer(document(ROWS), headers=parent(sampled=False))
    assert "traceresponse" not in answer.headers
    assert "traceresponse" not in traced.infer(document(ROWS)).headers
    assert "traceresponse" not in traced.infer(document(ROWS), headers={"traceparent": "nonsense"}).headers
    traced.close()
    assert collector.spans == []


def test_a_slow_request_is_kept_though_its_caller_did_not_sample_it(tmp_path: Path, collector: Collector) -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    model = save_slow(tmp_path / "model.onnx")
    with replica(model, environment, slo_milliseconds=1) as started:
        body = document(np.ones((1, 1), np.float32))
        answer = started.infer(body, headers=parent(sampled=False))
        assert answer.headers["traceresponse"].endswith("-01")
        request = by_name(collector.wait(6))["request"]
        assert values(request.attributes)[names.ATTR_KEPT] == "slow"
        assert request.trace_id.hex() == TRACE
        assert started.infer(body).headers["traceresponse"].endswith("-01")


def test_a_trace_that_the_replica_begins_goes_on_at_the_gateway_that_passed_the_request_on(
    tmp_path: Path, collector: Collector
) -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with replica(save_slow(tmp_path / "model.onnx"), environment, slo_milliseconds=1) as started:
        body = document(np.ones((1, 1), np.float32))
        for headers in ({"x-penstock-gateway": "default/"}, {}):
            told = parse_traceparent(started.infer(body, headers=headers).headers["traceresponse"])
            assert told is not None
            spans = collector.wait(6)
            request = by_name(spans)["request"]
            assert (request.trace_id.hex(), request.span_id.hex()) == (f"{told.trace_id:032x}", f"{told.span_id:016x}")
            assert request.parent_span_id.hex() == (f"{gateway_context(told).span_id:016x}" if headers else "")
            collector.spans.clear()


def test_a_failed_request_is_kept_with_its_error(tmp_path: Path, collector: Collector) -> None:
    environment = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.url}/v1/traces", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with replica(save_slow(tmp_path / "model.onnx"), environment) as started:
        body = document(np.ones((1, 1), np.float32))
        # An idle replica lets it in, and it is over before the engine gets it.
        late = json.dumps(body | {"parameters": {"timeout": 1}}).encode()
        unsampled = f"traceparent: 00-{TRACE}-{PARENT}-00"
        with started.connect() as connection:
            connection.sendall(raw_request(late, headers=[unsampled]))
            assert read_answer(connection)[0] == 504
        spans = by_name(collector.wait(3))
        assert set(spans) == {"request", "decode", "queue"}
        assert spans["request"].status.code == Status.STATUS_CODE_ERROR
        attributes = values(spans["request"].attributes)
        assert attributes[names.ATTR_KEPT] == "failed"
        assert attributes[names.ATTR_ERROR_TYPE] == "504"


def test_a_batch_links_to_every_member_with_a_trace_and_each_kept_member_to_the_batch(
    traced: ReplicaProcess, collector: Collector
) -> None:
    body = json.dumps(document(ROWS)).encode()
    traces = [f"{index:032x}" for index in range(1, 4)]
    requests = [
        raw_request(body, headers=[f"traceparent: 00-{trace}-{PARENT}-{sampled}"])
        for trace, sampled in zip(traces, ("01", "00", "01"), strict=True)
    ]
    requests.append(raw_request(body))
    # The connection is not the only one, so that the four, read at once, wait for each other.
    with traced.connect() as other, traced.connect() as connection:
        other.sendall(b"GET /v2 HTTP/1.1\r\nHost: r\r\n\r\n")
        assert other.recv(4096)
        connection.sendall(b"".join(requests))
        spans = collector.wait(11)
    (batch,) = [span for span in spans if span.name == "batch"]
    assert values(batch.attributes)[names.ATTR_BATCH_REQUESTS] == 4
    assert [link.trace_id.hex() for link in batch.links] == traces
    executes = [span for span in spans if span.name == "execute"]
    assert [span.trace_id.hex() for span in executes] == [traces[0], traces[2]]
    assert {span.span_id for span in executes} <= {link.span_id for link in batch.links}
    assert all(span.links[0].span_id == batch.span_id for span in executes)
