"""The trace receiver, over the wire, with OpenTelemetry's own exporter and by hand."""

from __future__ import annotations

import gzip
import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from penstock.telemetry.spans import SpanKind as ReadKind
from penstock_cli.standalone.collector import Collector, TraceFile
from penstock_cli.traces.reading import load_spans


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    return tmp_path / "traces.jsonl"


@pytest.fixture
def collector(traces: Path) -> Iterator[Collector]:
    started = Collector(traces)
    yield started
    started.stop()


def post(collector: Collector, body: bytes, **headers: str) -> tuple[int, bytes]:
    host = collector.endpoint.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=10)
    try:
        path = headers.pop("path", "/v1/traces")
        connection.request("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_what_opentelemetry_exports_is_read_back(collector: Collector, traces: Path) -> None:
    provider = TracerProvider(resource=Resource.create({"service.name": "penstock-replica"}), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{collector.endpoint}/v1/traces")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("batch") as batch:
        pass
    with (
        tracer.start_as_current_span("request", kind=SpanKind.SERVER, attributes={"penstock.batch.rows": 3}) as parent,
        tracer.start_as_current_span("execute", links=[Link(batch.get_span_context())]) as child,
    ):
        child.set_status(Status(StatusCode.ERROR, "no"))
    provider.shutdown()

    found = {each.span.name: each for each in load_spans(traces)}
    assert set(found) == {"batch", "request", "execute"}
    assert found["request"].service == "penstock-replica"
    assert found["request"].span.kind is ReadKind.SERVER
    assert found["request"].span.attributes == {"penstock.batch.rows": 3}
    execute = found["execute"].span
    assert execute.parent is not None
    assert execute.context.trace_id == parent.get_span_context().trace_id
    assert execute.parent.span_id == parent.get_span_context().span_id
    assert [link.span_id for link in execute.links] == [batch.get_span_context().span_id]
    assert execute.error == "no"


def test_json_is_taken_too(collector: Collector, traces: Path) -> None:
    body = gzip.compress(json.dumps({"resourceSpans": []}).encode())
    assert post(collector, body, Content_Type="application/json", Content_Encoding="gzip") == (200, b"{}")
    assert traces.read_text() == '{"resourceSpans":[]}\n'


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        pytest.param(b"\xff\xff", {"Content_Type": "application/x-protobuf"}, 400, id="no protobuf"),
        pytest.param(b"{", {"Content_Type": "application/json"}, 400, id="no JSON"),
        pytest.param(b"[]", {"Content_Type": "application/json"}, 400, id="a list"),
        pytest.param(b"x", {"Content_Encoding": "gzip"}, 400, id="no gzip"),
        pytest.param(b"x", {"path": "/v1/metrics"}, 404, id="another signal"),
        pytest.param(b"", {}, 413, id="no body"),
    ],
)
def test_what_is_no_trace_request_is_refused(
    collector: Collector, traces: Path, body: bytes, headers: dict[str, str], status: int
) -> None:
    assert post(collector, body, **headers)[0] == status
    assert not traces.exists()
    assert post(collector, b"{}", Content_Type="application/json")[0] == 200


def test_the_file_is_bounded(traces: Path) -> None:
    file = TraceFile(traces, rotate_bytes=100)
    for number in range(50):
        file.append({"number": number})
    kept = traces.with_name("traces.jsonl.1").read_text() + traces.read_text()
    numbers = [json.loads(line)["number"] for line in kept.splitlines()]
    assert numbers == list(range(numbers[0], 50))
    assert 0 < len(kept) <= 200
