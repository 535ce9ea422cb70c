"""Which requests keep their trace, and the spans of those that do."""

from __future__ import annotations

import time
from collections.abc import Sequence

from penstock.protocol.refusals import STATUS, Refusal
from penstock.serving.settings import ReplicaSettings
from penstock.telemetry import names
from penstock.telemetry.spans import (
    SpanContext,
    SpanKind,
    SpanRecord,
    new_span_id,
    new_trace_id,
    parse_traceparent,
)
from penstock_runtime.spans import SpanSink
from penstock_serving.replica.cache.cache import CacheResult
from penstock_serving.replica.exchange import Exchange

_FIRST_FAILURE = 500
_FLAGS_END = 54
"""Where `traceparent` has the last digit of its flags; the lowest bit of it says that the caller samples."""
_ODD_DIGITS = frozenset(b"%c" % digit for digit in b"13579bdf")


def _caller(exchange: Exchange) -> SpanContext | None:
    """The caller's span, from the header as it came."""
    return parse_traceparent(exchange.traceparent.decode("latin-1")) if exchange.traceparent else None


class Tracer:
    """Decides at the end of each request, and builds spans from its timestamps only where the trace is kept."""

    def __init__(self, settings: ReplicaSettings, sink: SpanSink) -> None:
        self._sink = sink
        self._model: dict[str, str | int | float | bool] = {
            names.ATTR_MODEL: settings.model,
            names.ATTR_VERSION: settings.version,
        }
        self._slo_ns = 0
        self.set_slo(settings.slo_milliseconds)
        self._epoch_ns = 0
        self.synchronize()

    def set_slo(self, milliseconds: int | None) -> None:
        """Requests slower than this keep their trace; None: slowness is no reason."""
        self._slo_ns = milliseconds * 1_000_000 if milliseconds else 1 << 62

    def synchronize(self) -> None:
        """Learn anew what the wall clock shows when the monotonic one shows 0; called now and then."""
        self._epoch_ns = time.time_ns() - time.monotonic_ns()

    def decide(self, exchange: Exchange, status: int, now_ns: int) -> bytes:
        """Decide whether the trace is kept.

        Most are not, and for those nothing is parsed or made: this is on the hot path.

        Returns:
            The `traceresponse` header line of a trace that is kept, else nothing.
        """
        header = exchange.traceparent
        failed, slow = status >= _FIRST_FAILURE, now_ns - exchange.received_ns > self._slo_ns
        if not (failed or slow or header[_FLAGS_END : _FLAGS_END + 1] in _ODD_DIGITS):
            return b""
        parent = exchange.parent = _caller(exchange)
        sampled = parent is not None and parent.sampled
        if not (failed or slow or sampled):
            return b""
        exchange.kept = "sampled" if sampled else "failed" if failed else "slow"
        exchange.span = SpanContext(parent.trace_id if parent else new_trace_id(), new_span_id(), sampled=True)
        return b"traceresponse: %b\r\n" % exchange.span.traceparent().encode()

    def answered(self, exchange: Exchange) -> None:
        """A request that was in no batch is over: it failed, or the cache answered it."""
        if exchange.kept and self._sink.enabled:
            self._sink.emit(self._request_spans(exchange, None))

    def batch_answered(self, members: Sequence[Exchange], rows: int) -> None:
        """All members of a batch were answered."""
        if not self._sink.enabled or not any(member.kept for member in members):
            return
        batch = SpanContext(new_trace_id(), new_span_id(), sampled=True)
        spans: list[SpanRecord] = []
        links: list[SpanContext] = []
        for member in members:
            # A member whose trace is not kept, or who has none, is still linked: the batch shows all that ran in it.
            own = member.span or _caller(member)
            trace_id = own.trace_id if own is not None else new_trace_id()
            execute = SpanContext(trace_id, new_span_id(), bool(member.kept))
            links.append(execute)
            if member.kept:
                spans += self._request_spans(member, execute, batch)
        first = members[0]
        attributes = self._model | {names.ATTR_BATCH_ROWS: rows, names.ATTR_BATCH_REQUESTS: len(members)}
        spans.append(
            SpanRecord(
                names.SPAN_BATCH,
                batch,
                None,
                self._epoch_ns + first.execute_start_ns,
                self._epoch_ns + first.execute_end_ns,
                attributes=attributes,
                links=links,
            )
        )
        self._sink.emit(spans)

    def _request_spans(
        self, exchange: Exchange, execute: SpanContext | None, batch: SpanContext | None = None
    ) -> list[SpanRecord]:
        span = exchange.span
        if span is None:
            return []
        attributes = self._model | _attributes(exchange)
        error = f"HTTP {exchange.status}" if exchange.status >= _FIRST_FAILURE else None
        base = self._epoch_ns
        end_ns = exchange.written_ns
        spans = [
            SpanRecord(
                names.SPAN_REQUEST,
                span,
                exchange.parent,
                base + exchange.received_ns,
                base + end_ns,
                SpanKind.SERVER,
                attributes,
                error=error,
            )
        ]

        def part(name: str, start: int, end: int, context: SpanContext | None = None) -> None:
            own = context or SpanContext(span.trace_id, new_span_id(), sampled=True)
            links = (batch,) if context is not None and batch is not None else ()
            spans.append(SpanRecord(name, own, span, base + start, base + end, attributes=self._model, links=links))

        if exchange.decoded_ns:
            part(names.SPAN_DECODE, exchange.received_ns, exchange.decoded_ns)
            if exchange.cache in (CacheResult.HIT, CacheResult.SHARED):
                part(names.SPAN_CACHE, exchange.decoded_ns, exchange.served_ns or end_ns)
            elif exchange.status != STATUS[Refusal.QUEUE_FULL]:
                part(names.SPAN_QUEUE, exchange.decoded_ns, exchange.execute_start_ns or end_ns)
        if execute is not None:
            part(names.SPAN_EXECUTE, exchange.execute_start_ns, exchange.execute_end_ns, execute)
        if exchange.encoded_ns:
            part(names.SPAN_ENCODE, exchange.served_ns or exchange.execute_end_ns, exchange.encoded_ns)
        return spans


def _attributes(exchange: Exchange) -> dict[str, str | int | float | bool]:
    attributes: dict[str, str | int | float | bool] = {
        names.ATTR_HTTP_METHOD: exchange.method.decode("latin-1"),
        names.ATTR_URL_PATH: exchange.url.partition(b"?")[0].decode("latin-1"),
        names.ATTR_HTTP_STATUS: exchange.status,
        names.ATTR_KEPT: exchange.kept,
    }
    if exchange.request is not None:
        attributes[names.ATTR_REQUEST_ROWS] = exchange.request.rows
    if exchange.cache is not None:
        attributes[names.ATTR_CACHE] = exchange.cache.value
    if exchange.status >= _FIRST_FAILURE:
        attributes[names.ATTR_ERROR_TYPE] = str(exchange.status)
    return attributes
