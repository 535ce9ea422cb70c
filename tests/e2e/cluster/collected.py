"""Traces in the chart's Collector, which writes each span to its log."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.chart.helm import NAMESPACE
from tests.cluster.cluster import Cluster
from tests.e2e.cluster.installation import until

from penstock.telemetry import names
from penstock_cli.traces.otlp import CollectedSpan, read_lines

START = {
    names.SERVICE_OPERATOR: {names.SPAN_START, names.SPAN_POOL, names.SPAN_VALIDATE, names.SPAN_RESOLVE},
    names.SERVICE_REPLICA: {
        names.SPAN_SCHEDULE, names.SPAN_SPAWN, names.SPAN_PULL, names.SPAN_LOAD, names.SPAN_WARM_UP,
        names.SPAN_REGISTER, names.SPAN_FIRST_ANSWER,
    },
}  # fmt: skip
"""Who tells which spans of a start, in a namespace whose pool was not there before."""
REQUEST = {
    names.SERVICE_GATEWAY: {names.SPAN_GATEWAY},
    names.SERVICE_REPLICA: {names.SPAN_REQUEST, names.SPAN_QUEUE, names.SPAN_EXECUTE},
}
_COLLECTOR = "app.kubernetes.io/component=collector"
_SECONDS = 120.0

Spans = dict[str, CollectedSpan]
"""A trace's spans by name."""


def _collected(cluster: Cluster) -> list[CollectedSpan]:
    """All spans that the Collector has written so far; its own messages are between them."""
    lines = cluster.whole_log(NAMESPACE, _COLLECTOR).splitlines(keepends=True)
    return read_lines(line for line in lines if line.startswith('{"resourceSpans"'))


def start_in(spans: list[CollectedSpan], namespace: str) -> int | None:
    """The trace of the start in a namespace, of which there is one."""
    roots = [each.span for each in spans if each.span.name == names.SPAN_START]
    found = {each.context.trace_id for each in roots if each.attributes[names.ATTR_NAMESPACE] == namespace}
    assert len(found) <= 1, f"{len(found)} starts in {namespace}"
    return next(iter(found), None)


def until_whole(
    cluster: Cluster, trace_in: Callable[[list[CollectedSpan]], int | None], parts: Mapping[str, set[str]]
) -> Spans:
    """Wait until a trace has these parts, each from its service."""
    wanted = {(service, name) for service, spans in parts.items() for name in spans}
    members: list[CollectedSpan] = []

    def whole() -> Spans | None:
        spans = _collected(cluster)
        trace = trace_in(spans)
        members[:] = [each for each in spans if each.span.context.trace_id == trace]
        complete = wanted <= {(each.service, each.span.name) for each in members}
        return {each.span.name: each for each in members} if complete else None

    try:
        return until("the trace is whole", whole, _SECONDS, pause=1.0)
    except TimeoutError as error:
        missing = sorted(wanted - {(each.service, each.span.name) for each in members})
        said = cluster.logs(NAMESPACE, "app.kubernetes.io/name=penstock")[-6000:]
        raise AssertionError(f"{error}: {missing} are missing\n{said}") from None


def parent(collected: CollectedSpan) -> int | None:
    """The id of a span's parent."""
    found = collected.span.parent
    return None if found is None else found.span_id
