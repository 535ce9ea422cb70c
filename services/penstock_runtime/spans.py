"""From finished span records to OpenTelemetry's exporter, on a thread of its own.

Spans are built from records after the fact, with ids and times that the data path has chosen, so the SDK's tracer and its
samplers have no part in it: what arrives here was decided to be kept. The standard `OTEL_*` variables configure the rest.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Self

from penstock.telemetry.spans import SpanContext, SpanKind, SpanRecord

if TYPE_CHECKING:
    from opentelemetry import trace as otel
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

logger = logging.getLogger(__name__)


class SpanSink:
    """Takes span records and exports them, or does nothing where no exporter is configured.

    `emit` never blocks: the SDK's queue is bounded and drops the oldest spans when the receiver cannot keep up.
    """

    def __init__(self, processor: BatchSpanProcessor | None, translation: SpanTranslation | None) -> None:
        self._processor = processor
        self._translation = translation

    @property
    def enabled(self) -> bool:
        """Whether anything is exported. Where not, a caller need not build records at all."""
        return self._processor is not None

    @classmethod
    def from_env(cls, service_name: str, attributes: Mapping[str, str]) -> Self:
        """A sink configured by the standard variables.

        Args:
            service_name: the resource's `service.name`, unless OTEL_SERVICE_NAME says otherwise.
            attributes: further attributes of the resource.
        """
        kind = _exporter_kind(os.environ)
        if kind == "none":
            return cls(None, None)
        # Imported only where spans are exported: the SDK and its HTTP client cost some 20 MB and 0.3 s.
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415 -- see above
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 -- see above

        named = Resource.create({**attributes, "service.name": service_name})
        translation = SpanTranslation(named.merge(OTELResourceDetector().detect()))
        return cls(BatchSpanProcessor(_exporter(kind)), translation)

    def emit(self, spans: Iterable[SpanRecord]) -> None:
        """Queue spans for export."""
        if self._processor is None or self._translation is None:
            return
        for span in spans:
            self._processor.on_end(self._translation.translate(span))

    def shutdown(self, timeout_seconds: float) -> None:
        """Export what is queued and stop, waiting at most this long."""
        if self._processor is None:
            return
        # The processor's own shutdown waits up to 30 s and takes no deadline.
        closing = threading.Thread(target=self._processor.shutdown, daemon=True, name="span-sink-shutdown")
        closing.start()
        closing.join(timeout_seconds)
        if closing.is_alive():
            logger.warning("the trace receiver did not take all spans within %.1f s; the rest is lost", timeout_seconds)


def _exporter_kind(env: Mapping[str, str]) -> str:
    """`otlp`, `console` or `none`, from the OTEL_* variables. Without an endpoint nothing is exported over OTLP."""
    if env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return "none"
    chosen = env.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() or "otlp"
    if chosen not in ("otlp", "console", "none"):
        logger.warning("OTEL_TRACES_EXPORTER=%s is not supported (otlp, console, none); no spans are exported", chosen)
        return "none"
    endpoint = env.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or env.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return "none" if chosen == "otlp" and not endpoint else chosen


def _exporter(kind: str) -> SpanExporter:
    if kind == "console":
        import sys  # noqa: PLC0415 -- only here

        from opentelemetry.sdk.trace.export import ConsoleSpanExporter  # noqa: PLC0415 -- as in from_env

        # Standard output may be a control pipe.
        return ConsoleSpanExporter(out=sys.stderr)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 -- as in from_env

    return OTLPSpanExporter()


class SpanTranslation:
    """Makes the SDK's spans of records.

    All of a request whose trace is kept pass here, so what is the same for each is found once: the SDK's names, which nobody
    who exports nothing imports, and the scope. To find them anew took half of a span's time.

    Args:
        resource: whose spans they are.
    """

    def __init__(self, resource: Resource) -> None:
        from opentelemetry import trace as otel  # noqa: PLC0415 -- as in from_env
        from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415 -- as in from_env
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415 -- as in from_env

        self._resource = resource
        self._otel = otel
        self._readable = ReadableSpan
        self._scope = InstrumentationScope("penstock")
        self._well = otel.Status()
        self._flags = otel.TraceFlags(otel.TraceFlags.DEFAULT), otel.TraceFlags(otel.TraceFlags.SAMPLED)

    def translate(self, span: SpanRecord) -> ReadableSpan:
        """One span."""
        otel = self._otel
        parent = span.parent
        server = span.kind is SpanKind.SERVER
        return self._readable(
            name=span.name,
            # A span that is here is kept, whatever its parent's flag said: the SDK drops those without the flag.
            context=self._context(span.context, is_remote=False, sampled=True),
            parent=self._context(parent, is_remote=server, sampled=parent.sampled) if parent else None,
            resource=self._resource,
            attributes=dict(span.attributes),
            links=[otel.Link(self._context(link, is_remote=False, sampled=link.sampled)) for link in span.links],
            kind=otel.SpanKind.SERVER if server else otel.SpanKind.INTERNAL,
            status=self._well if span.error is None else otel.Status(otel.StatusCode.ERROR, span.error),
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=self._scope,
        )

    def _context(self, context: SpanContext, *, is_remote: bool, sampled: bool) -> otel.SpanContext:
        return self._otel.SpanContext(context.trace_id, context.span_id, is_remote, self._flags[sampled])
