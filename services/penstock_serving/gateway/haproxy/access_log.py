"""HAProxy's log, one line a request: counted always, made a span where the trace is kept."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock.routing.table import ModelKey, Table
from penstock.telemetry import names
from penstock.telemetry.spans import (
    SpanContext,
    SpanKind,
    SpanRecord,
    gateway_context,
    new_span_id,
    new_trace_id,
    parse_traceparent,
)

_FIELDS = 12
_COUNTED = 6
"""Fields after the times by which a request is counted, but for its path."""
_NONE = b"-"
_FAILED = b"5"
_REPLICAS = b"m"
"""How the backends of replicas begin; others had no usual request."""
_SERVER_ERROR = 500
_LABELS = ("namespace", "model", "code")
_REFUSED = (b"401", b"403", b"429")
_LONGEST = 512
"""Bytes of a line that is remembered: a client can make paths of a known model as long as it likes."""
_MOST_SERIES = 10_000
"""A client can name any version of a model that is known; past this many, each line finds its counters anew."""


@dataclass(slots=True)
class _Series:
    """One histogram: counts by bucket (the last one unbounded), and the sum in microseconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(names.SECONDS_BUCKETS) + 1))
    total_us: int = 0


_BUCKETS_US = tuple(bucket * 1e6 for bucket in names.SECONDS_BUCKETS)


class AccessLog(Collector):
    """Reads lines of `penstock_serving.gateway.haproxy.config.LOG_FORMAT`.

    Args:
        table: the current table; models that it does not know share one label, so that strangers cannot fill the memory.
        emit: takes the spans that are kept; None where nothing exports them.
        held: requests that wait now, by model.
        default_namespace: whose models have a path without a namespace, too.
    """

    def __init__(
        self,
        table: Callable[[], Table],
        emit: Callable[[Iterable[SpanRecord]], None] | None,
        held: Callable[[], dict[ModelKey, int]],
        default_namespace: str = "default",
    ) -> None:
        self._default_namespace = default_namespace
        self._table = table
        self._emit = emit
        self._held = held
        self._series: dict[tuple[bytes, bytes], _Series] = {}
        self._plain: dict[bytes, _Series] = {}
        """By all but the times of a line that leaves no span: most lines are like others."""
        self._by_labels: dict[tuple[str, str, str, str], _Series] = {}
        """By namespace, model, status class and, where a request was refused, its status."""
        self._gone_before: set[tuple[str, str]] = set()
        """Models with series that were gone when series were looked at last."""
        self.malformed = 0

    def take(self, lines: list[bytes]) -> None:
        """Count each line, and emit the spans of those kept."""
        kept = []
        plain = self._plain
        for line in lines:
            try:
                start, took, said = line.split(b" ", 2)
                found = plain.get(said)
                if found is None:
                    found, may_be_kept = self._find_series(said)
                    if may_be_kept and start != _NONE:
                        kept.append(line)
                # What is no request at all has no start.
                took_us = int(took) if start != _NONE else 0
            except ValueError:
                self.malformed += 1
                continue
            found.counts[bisect_left(_BUCKETS_US, took_us)] += 1
            found.total_us += took_us
        if kept and self._emit is not None:
            self._emit(list(self._spans(kept)))

    def _find_series(self, said: bytes) -> tuple[_Series, bool]:
        """The counters of a line, and whether it may leave a span.

        Args:
            said: the line without its times.

        Raises:
            ValueError: fields are missing.
        """
        status, told, context, answered, key, server, rest = said.split(b" ", _COUNTED)
        if told != _NONE:
            status = told
        if key == _NONE and server[:1] in _REPLICAS:
            key = rest[rest.rfind(b" ") + 1 :]
        found = self._series.get((key, status)) or self._new_series(key, status)
        may_be_kept = context != _NONE or answered != _NONE or status >= _FAILED
        if not may_be_kept and (key, status) in self._series and len(said) < _LONGEST:
            if len(self._plain) >= _MOST_SERIES:
                self._plain.clear()
            self._plain[said] = found
        return found, may_be_kept

    def _spans(self, lines: list[bytes]) -> Iterator[SpanRecord]:
        """The spans of those whose trace is kept. HAProxy cuts a line that is too long, and then the last fields lack."""
        for line in lines:
            fields = line.split(b" ", _FIELDS - 1)
            try:
                if _is_kept(fields):
                    yield gateway_span(fields, self._default_namespace)
            except ValueError:
                self.malformed += 1

    def _new_series(self, key: bytes, status: bytes) -> _Series:
        namespace, model, _ = _names(key.decode(errors="replace"), self._default_namespace)
        known = self._table().knows((namespace, model))
        code = f"{status[:1].decode()}xx" if status.isdigit() else "none"
        refused = status.decode() if status in _REFUSED else ""
        labels = (namespace, model, code, refused) if known else ("", "", code, refused)
        series = self._by_labels.setdefault(labels, _Series())
        if known and len(self._series) < _MOST_SERIES:
            self._series[key, status] = series
        return series

    def collect(self) -> Iterator[Metric]:
        """What `/metrics` shows."""
        requests = CounterMetricFamily(names.METRIC_GATEWAY_REQUESTS, "Requests by status class.", labels=_LABELS)
        seconds = HistogramMetricFamily(
            names.METRIC_GATEWAY_SECONDS, "From a request's arrival to its last byte out.", labels=_LABELS
        )
        refused = CounterMetricFamily(
            names.METRIC_GATEWAY_REFUSED,
            "Requests not let in: no valid key, not for this model, too many.",
            labels=_LABELS,
        )
        self._end_series()
        for labels, series in self._classes().items():
            running = 0
            buckets = []
            for bound, count in zip((*names.SECONDS_BUCKETS, float("inf")), series.counts, strict=True):
                running += count
                buckets.append(("+Inf" if bound == float("inf") else str(bound), running))
            requests.add_metric(labels, running)
            seconds.add_metric(labels, buckets, series.total_us / 1e6)
        for (namespace, model, _, status), series in self._by_labels.items():
            if status:
                refused.add_metric((namespace, model, status), sum(series.counts))
        yield requests
        yield seconds
        yield refused
        yield from self._gauges()

    def _end_series(self) -> None:
        """Forget those of models that were gone at the last look already: names that come and go fill no memory."""
        known = set(self._table().keys())
        named = {labels[:2] for labels in self._by_labels if any(labels[:2])}
        gone = named - known
        ended = {labels for labels in self._by_labels if labels[:2] in gone & self._gone_before}
        self._gone_before = gone
        if ended:
            self._by_labels = {labels: each for labels, each in self._by_labels.items() if labels not in ended}
            self._series = {}
            self._plain = {}

    def _classes(self) -> dict[tuple[str, str, str], _Series]:
        """The histograms by namespace, model and status class."""
        found: dict[tuple[str, str, str], _Series] = {}
        for labels, series in self._by_labels.items():
            whole = found.setdefault(labels[:3], _Series())
            whole.counts = [a + b for a, b in zip(whole.counts, series.counts, strict=True)]
            whole.total_us += series.total_us
        return found

    def _gauges(self) -> Iterator[Metric]:
        held = GaugeMetricFamily(names.METRIC_GATEWAY_HELD, "Requests waiting for a first replica.", labels=_LABELS[:2])
        replicas = GaugeMetricFamily(names.METRIC_GATEWAY_REPLICAS, "Replicas that receive.", labels=_LABELS[:2])
        waiting = self._held()
        table = self._table()
        for key in table.keys():  # noqa: SIM118 -- a table is no mapping
            held.add_metric(key, waiting.get(key, 0))
            replicas.add_metric(key, sum(table.receives(replica) for replica in table.replicas_of(key)))
        yield held
        yield replicas


def _is_odd(flags: bytes) -> bool:
    """Whether the last bit of a hexadecimal number is set."""
    return flags[-1:] in b"13579bdf" and flags != b""


def _names(key: str, default_namespace: str) -> tuple[str, str, str]:
    """Namespace, model and version, empty where there is none.

    Args:
        key: all three with `/` between, or the path of a usual request.
        default_namespace: of a path without one.
    """
    if not key.startswith("/"):
        namespace, _, rest = key.partition("/")
        model, _, version = rest.partition("/")
        return namespace, model, version
    namespace, _, rest = key[1:].partition("/")
    if namespace == "v2":
        namespace, rest = default_namespace, key[1:]
    parts = rest.split("/")
    # v2/models/MODEL/infer, or v2/models/MODEL/versions/VERSION/infer
    _, _, model, *asked = (*parts, "", "")[: max(3, len(parts))]
    return namespace, model, asked[1] if asked[:1] == ["versions"] and len(asked) > 1 else ""


def _is_kept(fields: Sequence[bytes]) -> bool:
    """The replica's word on the trace if it gave one, else the sampling decision; failures always."""
    status, told, context, answered = fields[2:6]
    failed = (status if told == _NONE else told)[:1] == _FAILED
    return _is_odd(context if answered == _NONE else answered) or failed


def _identify(context: str, answered: str) -> tuple[SpanContext, SpanContext | None]:
    """The gateway's span and the caller's.

    Where the request had no trace, its replica began one and made up our span from its own; where no replica did, nobody knows
    of the trace yet.

    Args:
        context: `penstock_serving.gateway.haproxy.tracing_rules.CONTEXT`, or `-`.
        answered: the replica's `traceresponse`, or `-`.
    """
    if context != "-":
        trace, parent, span, flags = context.split("/")
        own = SpanContext(int(trace, 16), int(span, 16), sampled=True)
        caller = SpanContext(own.trace_id, int(parent, 16), _is_odd(flags.encode())) if parent.strip("-") else None
        return own, caller
    replica = parse_traceparent(answered)
    if replica is None:
        return SpanContext(new_trace_id(), new_span_id(), sampled=True), None
    return gateway_context(replica), None


def gateway_span(fields: list[bytes], default_namespace: str = "default") -> SpanRecord:
    """The gateway's span of one request.

    Args:
        fields: a log line's, in the order of `LOG_FORMAT`.
        default_namespace: of a path without one.

    Raises:
        ValueError: fields are missing, or not what they should be.
    """
    start, took, status, told, context, answered, key, server, termination, method, caller, path = (
        part.decode(errors="replace") for part in fields
    )
    own, parent = _identify(context, answered)
    if told != "-":
        status = told
    attributes: dict[str, str | int | float | bool] = {
        names.ATTR_HTTP_METHOD: method,
        names.ATTR_HTTP_STATUS: int(status),
        names.ATTR_URL_PATH: path,
        names.ATTR_GATEWAY_SERVER: server,
    }
    if key == "-" and server.encode()[:1] in _REPLICAS:
        key = path
    if key != "-":
        namespace, model, version = _names(key, default_namespace)
        attributes |= {names.ATTR_NAMESPACE: namespace, names.ATTR_MODEL: model}
        if version:
            attributes[names.ATTR_VERSION] = version
    if caller != "-":
        attributes[names.ATTR_CALLER] = caller
    failed = int(status) >= _SERVER_ERROR
    if failed:
        attributes[names.ATTR_ERROR_TYPE] = status
    return SpanRecord(
        name=names.SPAN_GATEWAY,
        context=own,
        parent=parent,
        start_ns=int(start) * 1000,
        end_ns=(int(start) + int(took)) * 1000,
        kind=SpanKind.SERVER,
        attributes=attributes,
        error=f"status {status}, HAProxy's termination state {termination}" if failed else None,
    )
