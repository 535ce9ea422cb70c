"""Which requests keep their trace, and the spans of those that do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from penstock.protocol.refusals import Refusal, is_fault
from penstock.serving.control import ReplicaSettings
from penstock.telemetry import names
from penstock.telemetry.spans import (
    SpanContext,
    SpanKind,
    SpanRecord,
    gateway_context,
    new_span_id,
    new_trace_id,
)
from penstock_runtime.spans import SpanSink
from penstock_serving.replica.cache.cache import CacheResult
from penstock_serving.replica.call import Call

_NOT_QUEUED: Final = (Refusal.QUEUE_FULL, Refusal.OVERLOADED)


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

    @property
    def exports(self) -> bool:
        """Whether spans go anywhere."""
        return self._sink.enabled

    def set_slo(self, milliseconds: int | None) -> None:
        """Requests slower than this keep their trace; None: slowness is no reason."""
        self._slo_ns = milliseconds * 1_000_000 if milliseconds else 1 << 62

    def synchronize(self) -> None:
        """Learn anew what the wall clock shows when the monotonic one shows 0; called now and then."""
        self._epoch_ns = time.time_ns() - time.monotonic_ns()

    def decide(self, call: Call, now_ns: int) -> None:
        """Decide whether the trace is kept; then the call gets its span.

        Most are not, and for those nothing is parsed or made: this is on the hot path.
        """
        failed, slow = call.reason != "" and is_fault(call.reason), now_ns - call.received_ns > self._slo_ns
        if not (failed or slow or call.sampled):
            return
        parent = call.parent = call.caller()
        sampled = parent is not None and parent.sampled
        if not (failed or slow or sampled):
            return
        call.kept = "sampled" if sampled else "failed" if failed else "slow"
        call.span = SpanContext(parent.trace_id if parent else new_trace_id(), new_span_id(), sampled=True)
        if parent is None and call.passed_on:
            # A gateway hands on no trace that nobody keeps; it makes up its span of this one as we do.
            call.parent = gateway_context(call.span)

    def export(self, call: Call) -> None:
        """A request that was in no batch is over: it failed, or the cache answered it."""
        if call.kept and self._sink.enabled:
            self._sink.emit(self._request_spans(call, None))

    def export_batch(self, members: Sequence[Call], rows: int) -> None:
        """All members of a batch were answered."""
        if not self._sink.enabled or not any(member.kept for member in members):
            return
        batch = SpanContext(new_trace_id(), new_span_id(), sampled=True)
        spans: list[SpanRecord] = []
        links: list[SpanContext] = []
        for member in members:
            # A member whose trace is not kept is still linked: its caller may keep it. One who has none leaves nothing that a link
            # could lead to, and most have none: sixteen such links cost as much to export as all spans of a request.
            own = member.span or member.caller()
            if own is None:
                continue
            execute = SpanContext(own.trace_id, new_span_id(), bool(member.kept))
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
        self, call: Call, execute: SpanContext | None, batch: SpanContext | None = None
    ) -> list[SpanRecord]:
        span = call.span
        if span is None:
            return []
        attributes = self._model | _attributes(call)
        error = call.failure() if call.reason and is_fault(call.reason) else None
        base = self._epoch_ns
        end_ns = call.written_ns
        spans = [
            SpanRecord(
                names.SPAN_REQUEST,
                span,
                call.parent,
                base + call.received_ns,
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

        if call.decoded_ns:
            part(names.SPAN_DECODE, call.received_ns, call.decoded_ns)
            if call.cache in (CacheResult.HIT, CacheResult.SHARED):
                part(names.SPAN_CACHE, call.decoded_ns, call.served_ns or end_ns)
            elif call.reason not in _NOT_QUEUED:
                part(names.SPAN_QUEUE, call.decoded_ns, call.execute_start_ns or end_ns)
        if execute is not None:
            part(names.SPAN_EXECUTE, call.execute_start_ns, call.execute_end_ns, execute)
        if call.encoded_ns:
            part(names.SPAN_ENCODE, call.served_ns or call.execute_end_ns, call.encoded_ns)
        return spans


def _attributes(call: Call) -> dict[str, str | int | float | bool]:
    attributes = call.attributes() | {names.ATTR_KEPT: call.kept}
    if call.request is not None:
        attributes[names.ATTR_REQUEST_ROWS] = call.request.rows
    if call.cache is not None:
        attributes[names.ATTR_CACHE] = call.cache.value
    return attributes
