"""The chart's Collector gets a start and a request, each as one trace, from operator, gateway and replica."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from tests.chart.collector import IMAGE, TO_STANDARD_OUTPUT
from tests.chart.helm import NAMESPACE
from tests.cluster.binary import Report
from tests.cluster.cluster import Cluster
from tests.cluster.kuberay import program_archive
from tests.e2e.cluster.installation import GATEWAY, Installation, Tenant, deployment, pool, tenant, until
from tests.e2e.cluster.model_store import ModelStore

from penstock.telemetry import names
from penstock.telemetry.otlp import CollectedSpan, read_lines

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

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


@pytest.fixture(scope="module")
def collecting(installation: Installation, report: Report) -> Iterator[Installation]:
    """The release with a Collector that writes each span to its log."""
    image = installation.cluster.load_image(program_archive("otelcol", IMAGE, "otelcol", report))
    installation.upgrade({"collector": {"enabled": True, "image": image, "config": TO_STANDARD_OUTPUT}})
    yield installation
    installation.upgrade()


def test_a_start_and_a_request_arrive_as_one_trace_each(
    collecting: Installation, store: ModelStore, model_uri: str, body: Path
) -> None:
    with tenant(collecting, store.credentials()) as made:
        made.apply(pool(), deployment("dense", model_uri))
        ready = collecting.until_ready("infdep", made.namespace, "dense")
        trace, caller = secrets.randbits(128) | 1, secrets.randbits(64) | 1
        _ask(made, body, f"00-{trace:032x}-{caller:016x}-01")
        start = _until_whole(collecting.cluster, lambda spans: _start_in(spans, made.namespace), START)
        request = _until_whole(collecting.cluster, lambda _: trace, REQUEST)

    root = start.pop(names.SPAN_START).span
    assert root.parent is None
    assert root.attributes[names.ATTR_REVISION] == ready["status"]["activeRevision"]
    assert {name: each.span.parent for name, each in start.items()} == dict.fromkeys(start, root.context)
    assert start[names.SPAN_RESOLVE].span.attributes == {
        names.ATTR_FORMAT: "onnx",
        names.ATTR_DIGEST: ready["status"]["digest"],
    }
    assert {name: _parent(each) for name, each in request.items() if name in set().union(*REQUEST.values())} == {
        names.SPAN_GATEWAY: caller,
        names.SPAN_REQUEST: request[names.SPAN_GATEWAY].span.context.span_id,
        names.SPAN_QUEUE: request[names.SPAN_REQUEST].span.context.span_id,
        names.SPAN_EXECUTE: request[names.SPAN_REQUEST].span.context.span_id,
    }


def _ask(made: Tenant, body: Path, traceparent: str) -> None:
    namespace, name, port = GATEWAY
    with made.installation.cluster.forward(name, namespace, port) as url:
        answer = httpx.post(
            f"{url}{made.path('dense')}", content=body.read_bytes(), timeout=60,
            headers=made.headers | {"traceparent": traceparent},
        )  # fmt: skip
    assert answer.status_code == 200, answer.text


def _collected(cluster: Cluster) -> list[CollectedSpan]:
    """All spans that the Collector has written so far; its own messages are between them."""
    lines = cluster.whole_log(NAMESPACE, _COLLECTOR).splitlines(keepends=True)
    return read_lines(line for line in lines if line.startswith('{"resourceSpans"'))


def _start_in(spans: list[CollectedSpan], namespace: str) -> int | None:
    """The trace of the start in a namespace, of which there is one."""
    roots = [each.span for each in spans if each.span.name == names.SPAN_START]
    found = {each.context.trace_id for each in roots if each.attributes[names.ATTR_NAMESPACE] == namespace}
    assert len(found) <= 1, f"{len(found)} starts in {namespace}"
    return next(iter(found), None)


def _until_whole(
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


def _parent(collected: CollectedSpan) -> int | None:
    parent = collected.span.parent
    return None if parent is None else parent.span_id
