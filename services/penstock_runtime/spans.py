"""From finished span records to OpenTelemetry's exporter, on a thread of its own.

Spans are built from records after the fact, with ids and times that the data path has chosen, so the SDK's tracer and its
samplers have no part in it: what arrives here was decided to be kept. The standard `OTEL_*` variables configure the rest.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Self

from penstock.telemetry.spans import SpanRecord

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

    from penstock_runtime.span_export import RecordedSpan

logger = logging.getLogger(__name__)


class SpanSink:
    """Takes span records and exports them, or does nothing where no exporter is configured.

    `emit` never blocks: the SDK's queue is bounded and drops the oldest spans when the receiver cannot keep up.
    """

    def __init__(
        self, processor: BatchSpanProcessor | None, translate: Callable[[SpanRecord], RecordedSpan] | None
    ) -> None:
        self._processor = processor
        self._translate = translate

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

        from penstock_runtime.span_export import RecordedSpan  # noqa: PLC0415 -- see above

        named = Resource.create({**attributes, "service.name": service_name})
        resource = named.merge(OTELResourceDetector().detect())
        return cls(BatchSpanProcessor(_exporter(kind)), partial(RecordedSpan, resource=resource))

    def emit(self, spans: Iterable[SpanRecord]) -> None:
        """Queue spans for export."""
        if self._processor is None or self._translate is None:
            return
        for span in spans:
            self._processor.on_end(self._translate(span))

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
    from penstock_runtime.span_export import RecordExporter  # noqa: PLC0415 -- as in from_env

    return RecordExporter()
