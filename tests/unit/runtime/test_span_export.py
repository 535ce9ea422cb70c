"""Our spans are written as the library's encoder writes them, and sent as its exporter sends them."""

from __future__ import annotations

import gzip
import logging
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from tests.certificates import Authority
from tests.ports import free_port

from penstock.telemetry.spans import SpanContext, SpanKind, SpanRecord
from penstock_runtime.span_export import RecordedSpan, RecordExporter, encode_recorded
from penstock_runtime.spans import SpanSink

RESOURCE = Resource({"service.name": "replica", "list": ("a", "b"), "number": 1}, schema_url="https://example.org/1")
OWN = SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, sampled=True)
OTHER = SpanContext((1 << 128) - 1, (1 << 64) - 1, sampled=False)
PLAIN = SpanRecord("a", OWN, OTHER, 1, 2, attributes={"one": 1, "text": "b"}, links=[OTHER], error="c")

TEXT = st.text(st.characters(exclude_categories=()), max_size=9)
WHOLE = st.integers(0, (1 << 64) - 1)
CONTEXTS = st.builds(SpanContext, st.integers(0, (1 << 128) - 1), WHOLE, sampled=st.booleans())
VALUES = st.one_of(
    TEXT, st.sampled_from(["ä" * 128, "ä" * 129, "a" * 20_000]), st.booleans(), st.floats(), st.integers(-(1 << 63), (1 << 63) - 1),
    st.sampled_from([0, 1, 0.0, -0.0, 1.0, True, False, SpanKind.SERVER]),
)  # fmt: skip
RECORDS = st.builds(
    SpanRecord, st.text(max_size=9), CONTEXTS, st.none() | CONTEXTS, WHOLE, WHOLE, st.sampled_from(SpanKind),
    st.dictionaries(st.text(max_size=9), VALUES, max_size=5), st.lists(CONTEXTS, max_size=2), st.none() | TEXT,
)  # fmt: skip


def told(*records: SpanRecord, resource: Resource = RESOURCE) -> list[RecordedSpan]:
    return [RecordedSpan(each, resource) for each in records]


def shown(text: str) -> str:
    """With a question mark for what no UTF-8 has."""
    return text.encode(errors="replace").decode()


def writable(record: SpanRecord) -> SpanRecord:
    """Such that the library leaves nothing out."""
    texts = {key: shown(value) for key, value in record.attributes.items() if isinstance(value, str)}
    return replace(record, attributes={**record.attributes, **texts}, error=record.error and shown(record.error))


@given(st.lists(RECORDS, min_size=1, max_size=2))
@example([replace(PLAIN, attributes={"zero": each}) for each in (0, 0.0, -0.0, False)])
def test_spans_are_written_as_the_library_writes_them(records: list[SpanRecord]) -> None:
    expected = encode_spans(told(*map(writable, records))).SerializeToString(deterministic=True)
    assert encode_recorded(told(*records)).SerializeToString(deterministic=True) == expected


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(replace(PLAIN, name="b"), id="a name"),
        pytest.param(replace(PLAIN, context=replace(OWN, trace_id=1)), id="a trace"),
        pytest.param(replace(PLAIN, context=replace(OWN, span_id=1)), id="a span's id"),
        pytest.param(replace(PLAIN, parent=OWN), id="a parent"),
        pytest.param(replace(PLAIN, parent=None), id="no parent"),
        pytest.param(replace(PLAIN, start_ns=0), id="a start"),
        pytest.param(replace(PLAIN, end_ns=3), id="an end"),
        pytest.param(replace(PLAIN, kind=SpanKind.SERVER), id="a server's"),
        pytest.param(replace(PLAIN, attributes={"one": 1}), id="fewer attributes"),
        pytest.param(replace(PLAIN, attributes={"one": True, "text": "b"}), id="true, not one"),
        pytest.param(replace(PLAIN, attributes={"one": 1.0, "text": "b"}), id="one and no whole number"),
        pytest.param(replace(PLAIN, links=[OWN]), id="a link"),
        pytest.param(replace(PLAIN, links=[]), id="no link"),
        pytest.param(replace(PLAIN, error=""), id="no word about what failed"),
        pytest.param(replace(PLAIN, error=None), id="nothing failed"),
    ],
)
def test_the_comparison_finds(changed: SpanRecord) -> None:
    expected = encode_spans(told(PLAIN))
    assert encode_recorded(told(PLAIN)) == expected
    assert encode_recorded(told(changed)) != expected
    assert encode_recorded(told(PLAIN, resource=Resource({}))) != expected


@dataclass
class Collector:
    """What a collector answers by turns, the last for ever, and what came to it."""

    answers: list[tuple[int, dict[str, str]]] = field(default_factory=lambda: [(200, {})])
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    released: threading.Event = field(default_factory=threading.Event)
    """Until then it answers nothing."""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        sent = handler.rfile.read(int(handler.headers["content-length"]))
        self.received.append(({key.lower(): value for key, value in handler.headers.items()}, sent))
        status, headers = self.answers[min(len(self.received), len(self.answers)) - 1]
        self.arrived.release()
        self.released.wait()
        handler.send_response(status)
        for each in headers.items():
            handler.send_header(*each)
        handler.end_headers()

    @property
    def names(self) -> list[list[str]]:
        """Of the spans of each request."""
        requests = [ExportTraceServiceRequest.FromString(sent) for _, sent in self.received]
        return [[span.name for span in each.resource_spans[0].scope_spans[0].spans] for each in requests]


@contextmanager
def serve(collector: Collector, context: ssl.SSLContext | None = None) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.answer(self)

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that went, or trusts us not."""

    server = Server(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()
    try:
        yield f"http{'s' if context else ''}://127.0.0.1:{server.server_port}"
    finally:
        collector.released.set()
        server.shutdown()
        server.server_close()


RETRIED = (429, {"Retry-After": "0"})
SOON = {"OTEL_EXPORTER_OTLP_TIMEOUT": "0.3"}
"""Seconds, less than the library's first pause. Whether a collector answers within them changes nothing."""


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")


@pytest.mark.parametrize(
    ("answers", "environment", "records", "requests"),
    [
        pytest.param([(200, {})], {}, [PLAIN], 1, id="takes it"),
        pytest.param(
            [(200, {})],
            {"OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=one,authorization=two", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"},
            [PLAIN] * 9,
            1,
            id="is told headers and wants less",
        ),
        pytest.param([(307, {"Location": "/"})], {}, [PLAIN], 1, id="is elsewhere"),
        pytest.param([(400, {})], {}, [PLAIN], 1, id="finds it malformed"),
        pytest.param([(413, {})], {}, [PLAIN], 1, id="finds it too large"),
        pytest.param([(500, {})], {}, [PLAIN], 1, id="fails"),
        pytest.param([RETRIED, RETRIED, (200, {})], {}, [PLAIN], 3, id="has no room for a moment"),
        pytest.param([RETRIED], {}, [PLAIN], 6, id="has no room for ever"),
        pytest.param([(429, {"Retry-After": "600"})], {}, [PLAIN], 1, id="has no room for too long"),
        pytest.param([(503, {})], SOON, [PLAIN], 1, id="is unavailable"),
        pytest.param([], SOON, [PLAIN], 1, id="does not answer"),
        pytest.param([(200, {})], {}, [replace(PLAIN, name="a\udc80")], 0, id="would get a name that is no text"),
        pytest.param(
            [(200, {})], {}, [PLAIN, replace(PLAIN, attributes={"long": 1 << 63, "one": 1})], 1, id="has no room for a number"
        ),
    ],
)  # fmt: skip
def test_a_collector_meets_the_librarys_exporter(
    *,
    answers: list[tuple[int, dict[str, str]]],
    environment: dict[str, str],
    records: list[SpanRecord],
    requests: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for each in environment.items():
        monkeypatch.setenv(*each)

    def meet(kind: type[OTLPSpanExporter]) -> Any:
        collector = Collector(answers or [(200, {})])
        if answers:
            collector.released.set()
        with serve(collector) as url:
            found = attempt(kind, f"{url}/v1/traces", records, caplog)
            assert all(collector.arrived.acquire(timeout=60) for _ in range(requests))
        return found, [
            ({key: value for key, value in headers.items() if key != "host"}, spans_of(headers, sent))
            for headers, sent in collector.received
        ]

    expected = meet(OTLPSpanExporter)
    assert len(expected[1]) == requests
    assert meet(RecordExporter) == expected


def attempt(
    kind: type[OTLPSpanExporter], url: str, records: list[SpanRecord], caplog: pytest.LogCaptureFixture, **settings: Any
) -> Any:
    """What an export says, and what is logged of it."""
    caplog.clear()
    exporter = kind(url, **settings)
    result = exporter.export(told(*records))
    exporter.shutdown()
    return result, exporter.export(told(*records)), [(each.name, each.levelno, each.msg) for each in caplog.records]


def spans_of(headers: dict[str, str], sent: bytes) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest.FromString(gzip.decompress(sent) if "content-encoding" in headers else sent)


@pytest.mark.parametrize("most", [1, "all but a byte", "all", 0])
def test_a_batch_that_is_too_large_is_dropped_as_by_the_library(
    most: int | str, caplog: pytest.LogCaptureFixture
) -> None:
    records = [PLAIN] * 9
    size = len(encode_recorded(told(*records)).SerializeToString())
    limit = most if isinstance(most, int) else size - (most != "all")
    collector = Collector()
    collector.released.set()
    with serve(collector) as url:
        expected = attempt(OTLPSpanExporter, url, records, caplog, max_request_size=limit)
        assert attempt(RecordExporter, url, records, caplog, max_request_size=limit) == expected
    assert len(collector.received) == (0 if 0 < limit < size else 2)


def test_without_a_collector_it_says_what_the_library_says(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for each in SOON.items():
        monkeypatch.setenv(*each)
    url = f"http://127.0.0.1:{free_port()}"
    expected = attempt(OTLPSpanExporter, url, [PLAIN], caplog)
    assert attempt(RecordExporter, url, [PLAIN], caplog) == expected
    assert any(each.levelno == logging.ERROR for each in caplog.records)


def test_it_trusts_whom_the_library_trusts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for each in SOON.items():
        monkeypatch.setenv(*each)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        # It goes before what is named for OTLP.
        monkeypatch.delenv(name, raising=False)
    authority = Authority()
    shown = authority.sign().write(tmp_path / "pair")
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown / "tls.crt", shown / "tls.key")
    collector = Collector()
    collector.released.set()
    with serve(collector, context) as url:
        expected = attempt(OTLPSpanExporter, url, [PLAIN], caplog)
        assert attempt(RecordExporter, url, [PLAIN], caplog) == expected
        assert not collector.received
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "ca.crt"))
        assert attempt(RecordExporter, url, [PLAIN], caplog) == attempt(OTLPSpanExporter, url, [PLAIN], caplog)
        assert len(collector.received) == 2


def test_a_queue_that_a_slow_collector_fills_drops_and_counts_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")

    def fill(kind: type[OTLPSpanExporter]) -> Any:
        reader = InMemoryMetricReader()
        collector = Collector()
        with serve(collector) as url:
            processor = BatchSpanProcessor(
                kind(url),
                max_queue_size=8,
                schedule_delay_millis=600_000,
                max_export_batch_size=4,
                meter_provider=MeterProvider([reader]),
            )
            for number in range(4):
                processor.on_end(*told(replace(PLAIN, name=str(number))))
            assert collector.arrived.acquire(timeout=60)
            for number in range(4, 24):
                processor.on_end(*told(replace(PLAIN, name=str(number))))
            collector.released.set()
            processor.shutdown()
        return collector.names, counts(reader)

    expected = fill(OTLPSpanExporter)
    assert expected[0] == [[str(number) for number in each] for each in (range(4), range(16, 20), range(20, 24))]
    assert ({"error.type": "queue_full"}, 12) in expected[1]
    assert fill(RecordExporter) == expected


def counts(reader: InMemoryMetricReader) -> list[tuple[dict[str, Any], int]]:
    """Of spans that a processor has done with: what tells them apart, and how many."""
    found = reader.get_metrics_data()
    assert found is not None
    metrics = [each for all_ in found.resource_metrics for scope in all_.scope_metrics for each in scope.metrics]
    points: list[Any] = [
        point for each in metrics if each.name == "otel.sdk.processor.span.processed" for point in each.data.data_points
    ]
    return [
        ({key: value for key, value in point.attributes.items() if key.startswith("error")}, point.value)
        for point in points
    ]


def test_the_sink_sends_what_is_written_so(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector()
    collector.released.set()
    monkeypatch.delenv("OTEL_SDK_DISABLED", raising=False)
    with serve(collector) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        sink = SpanSink.from_env("service", {})
        sink.emit([replace(PLAIN, error="/\udc80")])
        sink.shutdown(60.0)
    ((_, sent),) = collector.received
    (span,) = ExportTraceServiceRequest.FromString(sent).resource_spans[0].scope_spans[0].spans
    assert span.status.message == "/?"
