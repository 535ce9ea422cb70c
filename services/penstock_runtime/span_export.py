"""Records as OpenTelemetry's spans, and the library's exporter with a shorter way from such spans to OTLP.

Its own encoder makes a message for each span, id, attribute and value, and hashes the resource once a span: four fifths of what a
kept trace cost a replica. Here spans are made where they are to lie, and an attribute is one message for all that have it.
`tests/unit/runtime/test_span_export.py` compares the bytes of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from opentelemetry import trace as otel
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags, Status
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from penstock.telemetry.spans import SpanContext, SpanKind, SpanRecord

_SCOPE: Final = InstrumentationScope("penstock")
_WELL: Final = otel.Status()
_FLAGS: Final = otel.TraceFlags(otel.TraceFlags.DEFAULT), otel.TraceFlags(otel.TraceFlags.SAMPLED)
_LOCAL: Final = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE: Final = _LOCAL | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
_LONGEST_KEPT: Final = 128
"""Characters of a text whose message is kept: most are those of many spans, and clients write the others."""
_LEANS_ON: Final = {"_client", "_max_request_size", "_shutdown"}
"""What the short way needs of the library's exporter. Where a release has not all of it, each batch goes its own way."""


class RecordedSpan(ReadableSpan):
    """A record, for any of the library's processors and exporters.

    Args:
        record: what the span tells. It is kept, whatever its context's flag says: the SDK drops spans without the flag.
        resource: whose span it is.
    """

    def __init__(self, record: SpanRecord, resource: Resource) -> None:
        parent = record.parent
        server = record.kind is SpanKind.SERVER
        super().__init__(
            name=record.name,
            context=_context(record.context, is_remote=False, sampled=True),
            parent=_context(parent, is_remote=server, sampled=parent.sampled) if parent else None,
            resource=resource,
            attributes=dict(record.attributes),
            links=[otel.Link(_context(link, is_remote=False, sampled=link.sampled)) for link in record.links],
            kind=otel.SpanKind.SERVER if server else otel.SpanKind.INTERNAL,
            status=_WELL if record.error is None else otel.Status(otel.StatusCode.ERROR, record.error),
            start_time=record.start_ns,
            end_time=record.end_ns,
            instrumentation_scope=_SCOPE,
        )
        self.record = record


class RecordExporter(OTLPSpanExporter):
    """The library's exporter, which settles all but the bytes of recorded spans. Of these batches it counts no metrics of its own."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch: of recorded spans what is written here, all that is peculiar by the library's own way, which says why."""
        ours = [each for each in spans if isinstance(each, RecordedSpan) and each.resource is spans[0].resource]
        if not ours or len(ours) < len(spans) or not vars(self).keys() >= _LEANS_ON or self._shutdown:
            return super().export(spans)
        try:
            encoded: bytes = encode_recorded(ours).SerializePartialToString()
        except (TypeError, ValueError):
            return super().export(spans)
        if 0 < self._max_request_size < len(encoded):
            return super().export(spans)
        return SpanExportResult.SUCCESS if self._client.export(encoded).success else SpanExportResult.FAILURE


def encode_recorded(spans: Sequence[RecordedSpan]) -> ExportTraceServiceRequest:
    """What OTLP sends of spans, and the library's encoder makes of them, but for text that is none: it is shown, not left out.

    Args:
        spans: of one resource, at least one.

    Raises:
        TypeError: of a type that no record has.
        ValueError: a number that OTLP has no room for.
    """
    bare = ReadableSpan("", otel.INVALID_SPAN_CONTEXT, resource=spans[0].resource, instrumentation_scope=_SCOPE)
    request = encode_spans([bare])
    told = request.resource_spans[0].scope_spans[0].spans
    del told[:]
    for record in (each.record for each in spans):
        parent = record.parent
        server = record.kind is SpanKind.SERVER
        span = told.add(
            **_identity(record.context),
            parent_span_id=parent.span_id.to_bytes(8) if parent else b"",
            name=record.name,
            kind=Span.SPAN_KIND_SERVER if server else Span.SPAN_KIND_INTERNAL,
            start_time_unix_nano=record.start_ns,
            end_time_unix_nano=record.end_ns,
            attributes=[_attribute(key, value) for key, value in record.attributes.items()],
            links=[Span.Link(**_identity(link), flags=_LOCAL) for link in record.links],
            flags=_REMOTE if server and parent else _LOCAL,
        )
        span.status.SetInParent()
        if record.error is not None:
            span.status.code, span.status.message = Status.STATUS_CODE_ERROR, _text(record.error)
    return request


def _context(context: SpanContext, *, is_remote: bool, sampled: bool) -> otel.SpanContext:
    return otel.SpanContext(context.trace_id, context.span_id, is_remote, _FLAGS[sampled])


def _identity(context: SpanContext) -> dict[str, Any]:
    return {"trace_id": context.trace_id.to_bytes(16), "span_id": context.span_id.to_bytes(8)}


def _attribute(key: str, value: object) -> KeyValue:
    # 0.0 is equal to -0.0, and has other bytes.
    if isinstance(value, float) or (isinstance(value, str) and len(value) > _LONGEST_KEPT):
        return _new_attribute(key, value)
    return _kept_attribute(key, value)


def _new_attribute(key: str, value: object) -> KeyValue:
    attribute = KeyValue(key=key)
    if isinstance(value, bool):
        attribute.value.bool_value = value
    elif isinstance(value, str):
        attribute.value.string_value = _text(value)
    elif isinstance(value, int):
        attribute.value.int_value = value
    elif isinstance(value, float):
        attribute.value.double_value = value
    else:
        raise TypeError(f"{value!r} is no attribute of a record")
    return attribute


_kept_attribute: Final = lru_cache(1024, typed=True)(_new_attribute)
"""By its type, too: True is equal to 1."""


def _text(text: str) -> str:
    """Without what no UTF-8 has: it may be a client's, and the other spans are to be sent."""
    return text.encode(errors="replace").decode()
