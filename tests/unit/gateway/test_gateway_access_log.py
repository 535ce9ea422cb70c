from __future__ import annotations

from collections.abc import Iterable

import pytest
from prometheus_client import CollectorRegistry

from penstock.routing.leases import Route
from penstock.routing.table import Table
from penstock.telemetry.spans import SpanContext, SpanKind, SpanRecord, gateway_context
from penstock_serving.gateway.haproxy.access_log import AccessLog, gateway_span
from penstock_serving.gateway.holding.forwarding import choose
from penstock_serving.gateway.table.traffic import Target

TABLE = Table().with_route(Route(namespace="ns", model="m"))


def line(
    flags: str = "00",
    answered: str = "00",
    *,
    status: str = "200",
    key: str = "ns/m",
    parent: str = "-",
    trace: str = "a" * 32,
    caller: str = "-",
    told: str = "-",
) -> bytes:
    start = "-" if trace == "-" else "1795226437414777"
    context = "-" if trace == "-" else f"{trace}/{parent}/{'b' * 16}/{flags}"
    answer = "-" if answered == "-" else f"00-{'a' * 32}-{'d' * 16}-{answered}"
    return f"{start} {'-' if start == '-' else 1000} {status} {told} {context} {answer} {key} m0/ra -- POST {caller} /v2/x".encode()


def usual(path: str = "/ns/v2/models/m/infer", status: str = "200", told: str = "-", server: str = "m0/ra") -> bytes:
    """The line of a request that HAProxy let pass by its whole path."""
    return f"1795226437414777 1000 {status} - - {told} - {server} -- POST - {path}".encode()


def log() -> tuple[AccessLog, list[SpanRecord], CollectorRegistry]:
    spans: list[SpanRecord] = []

    def emit(records: Iterable[SpanRecord]) -> None:
        spans.extend(records)

    taken = AccessLog(lambda: TABLE, emit, lambda: {("ns", "m"): 4})
    registry = CollectorRegistry()
    registry.register(taken)
    return taken, spans, registry


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (line(), False),
        (line(flags="01", answered="01"), True),
        (line(flags="00", answered="01"), True),
        (line(flags="01", answered="00"), False),
        (line(flags="01", answered="-"), True),
        (line(flags="03", answered="-"), True),
        (line(flags="02", answered="-"), False),
        (line(status="503"), True),
        (line(status="404"), False),
        (line(told="503"), True),
        (line(told="404"), False),
        (line(trace="-", flags="-", answered="-", status="400", key="-"), False),
        (line(trace="-", flags="-", answered="-", status="503", key="-"), False),
    ],
    ids=[
        "neither sampled nor kept by the replica",
        "sampled",
        "kept by the replica, which saw it slow",
        "the replica's word counts where it has spoken",
        "sampled and answered without a replica",
        "sampled, with another flag set",
        "another flag alone does not sample",
        "failed",
        "the client's fault is no failure",
        "a call that failed",
        "a call that the client did wrong",
        "without a trace there is no span",
        "nor for a failure without a trace",
    ],
)
def test_which_requests_leave_a_span(sent: bytes, *, kept: bool) -> None:
    taken, spans, _ = log()
    taken.take([sent])
    assert bool(spans) == kept
    assert taken.malformed == 0


def test_the_gateways_span() -> None:
    fields = line(flags="01", status="504", key="ns/m/7", parent="c" * 16).split(b" ")
    assert gateway_span(fields) == SpanRecord(
        name="gateway",
        context=SpanContext(int("a" * 32, 16), int("b" * 16, 16), sampled=True),
        parent=SpanContext(int("a" * 32, 16), int("c" * 16, 16), sampled=True),
        start_ns=1795226437414777000,
        end_ns=1795226437415777000,
        kind=SpanKind.SERVER,
        attributes={
            "http.request.method": "POST",
            "http.response.status_code": 504,
            "url.path": "/v2/x",
            "penstock.gateway.server": "m0/ra",
            "penstock.namespace": "ns",
            "penstock.model.name": "m",
            "penstock.model.version": "7",
            "error.type": "504",
        },
        error="status 504, HAProxy's termination state --",
    )


def test_all_are_counted_and_strangers_share_a_label() -> None:
    taken, _, registry = log()
    taken.take([usual(), usual("/ns/v2/models/m/versions/1/infer"), line(told="503"), line(status="-1"), b"cut short"])
    taken.take([line(key=f"ns/stranger-{n}", status="404") for n in range(2)])
    # Nobody looked at it: what it names is only what a client wrote.
    taken.take([usual(status="429", server="clients/<NOSRV>")])

    def requests(model: str, code: str) -> float | None:
        labels = {"namespace": "ns" if model else "", "model": model, "code": code}
        return registry.get_sample_value("penstock_gateway_requests_total", labels)

    assert [requests("m", code) for code in ("2xx", "5xx", "none")] == [2, 1, 1]
    assert (requests("", "4xx"), requests("m", "4xx")) == (3, None)
    assert taken.malformed == 1
    labels = {"namespace": "ns", "model": "m", "code": "2xx"}
    name = "penstock_gateway_request_duration_seconds"
    assert registry.get_sample_value(f"{name}_sum", labels) == pytest.approx(0.002)
    assert registry.get_sample_value(f"{name}_bucket", labels | {"le": "0.0005"}) == 0
    assert registry.get_sample_value(f"{name}_bucket", labels | {"le": "0.001"}) == 2
    assert registry.get_sample_value("penstock_gateway_held_requests", {"namespace": "ns", "model": "m"}) == 4


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/ns/v2/models/m/infer", {"penstock.namespace": "ns", "penstock.model.name": "m"}),
        (
            "/ns/v2/models/m/versions/7/infer",
            {"penstock.namespace": "ns", "penstock.model.name": "m", "penstock.model.version": "7"},
        ),
        ("/v2/models/m/infer", {"penstock.namespace": "default", "penstock.model.name": "m"}),
        (
            "/v2/models/versions/versions/7/infer",
            {"penstock.namespace": "default", "penstock.model.name": "versions", "penstock.model.version": "7"},
        ),
    ],
    ids=["a model's", "a version's", "without a namespace", "of a model that is called so"],
)
def test_the_path_of_a_usual_request_says_whose_it_is(path: str, named: dict[str, str]) -> None:
    replica = SpanContext(7, 8, sampled=True)
    span = gateway_span(usual(path, told=replica.traceparent()).split(b" "))
    assert {name: span.attributes[name] for name in span.attributes if name.startswith("penstock.")} == {
        "penstock.gateway.server": "m0/ra",
        **named,
    }
    # The replica made up the same span of its own, and took it for its parent.
    assert (span.context, span.parent) == (gateway_context(replica), None)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (usual(), False),
        (usual(told=SpanContext(7, 8, sampled=True).traceparent()), True),
        (usual(told=SpanContext(7, 8, sampled=False).traceparent()), False),
        (usual(status="502"), True),
    ],
    ids=["nobody kept it", "its replica kept it", "its replica says that it is not kept", "no replica answered it"],
)
def test_which_usual_requests_leave_a_span(sent: bytes, *, kept: bool) -> None:
    taken, spans, _ = log()
    taken.take([sent])
    assert (bool(spans), taken.malformed) == (kept, 0)
    assert all(span.context.trace_id and span.context.span_id for span in spans)


def test_a_target_is_chosen_among_those_not_tried() -> None:
    a, b = Target("a", "h:1", 1), Target("b", "h:2", 256)
    assert choose((a, b), {"b"}) == a
    assert choose((a, b), {"a", "b"}) is None
    assert choose((), ()) is None


@pytest.mark.parametrize(
    "sent",
    [
        line(flags="01", answered="-")[:60],
        line(flags="01", answered="-").rpartition(b" POST ")[0],
        line(flags="01", answered="01 x").replace(b"1795226437414777 ", b"then "),
        line(flags="01", answered="01", trace="no-trace"),
        line(flags="01", answered="01", status="20x"),
        b"\xff" * 5000,
        b" " * 5000,
        b"",
    ],
    ids=[
        "cut before it is counted",
        "cut where the path should be",
        "with words where numbers should be",
        "of a trace that is none",
        "of a status that is none",
        "of bytes",
        "of spaces",
        "empty",
    ],
)
def test_a_malformed_line_takes_no_other_with_it(sent: bytes) -> None:
    taken, spans, registry = log()
    taken.take([line(flags="01", answered="01"), sent, line(flags="01", answered="01")])
    labels = {"namespace": "ns", "model": "m", "code": "2xx"}
    assert registry.get_sample_value("penstock_gateway_requests_total", labels) >= 2
    assert (len(spans), taken.malformed) == (2, 1)


def test_series_end_with_their_model() -> None:
    tables = [TABLE]
    taken = AccessLog(lambda: tables[-1], None, dict)
    registry = CollectorRegistry()
    registry.register(taken)

    def count() -> float | None:
        labels = {"namespace": "ns", "model": "m", "code": "2xx"}
        return registry.get_sample_value("penstock_gateway_requests_total", labels)

    taken.take([line()])
    assert count() == 1
    tables.append(Table())
    assert count() == 1
    assert count() is None
    tables.append(TABLE)
    taken.take([line()])
    assert count() == 1
