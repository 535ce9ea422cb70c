"""OTLP JSON lines, as the collector's file exporter writes them."""

from __future__ import annotations

import json

import pytest
from tests.telling import telling

from penstock.errors import Invalid
from penstock.telemetry.spans import SpanContext, SpanKind
from penstock_cli.traces.otlp import read_lines

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


def line(**changes: object) -> str:
    span = {
        "traceId": TRACE_ID,
        "spanId": "00f067aa0ba902b7",
        "parentSpanId": "00f067aa0ba902b8",
        "name": "request",
        "kind": 2,
        "startTimeUnixNano": "1700000000000000000",
        "endTimeUnixNano": "1700000000005000000",
        "attributes": [
            {"key": "text", "value": {"stringValue": "s"}},
            {"key": "int", "value": {"intValue": "3"}},
            {"key": "float", "value": {"doubleValue": 0.5}},
            {"key": "flag", "value": {"boolValue": True}},
            {"key": "list", "value": {"arrayValue": {"values": []}}},
        ],
        "links": [{"traceId": TRACE_ID, "spanId": "00000000000000ff"}],
        "status": {"code": 2, "message": "no"},
    } | changes
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "penstock-replica"}}]}
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}) + "\n"


def test_every_field_is_read() -> None:
    (collected,) = read_lines([line()])
    span = collected.span
    trace = int(TRACE_ID, 16)
    assert collected.service == "penstock-replica"
    assert span.context == SpanContext(trace, 0x00F067AA0BA902B7, sampled=True)
    assert span.parent == SpanContext(trace, 0x00F067AA0BA902B8, sampled=True)
    assert (span.start_ns, span.end_ns) == (1_700_000_000_000_000_000, 1_700_000_000_005_000_000)
    assert span.attributes == {"text": "s", "int": 3, "float": 0.5, "flag": True}
    assert span.links == (SpanContext(trace, 0xFF, sampled=True),)
    assert (span.kind, span.error) == (SpanKind.SERVER, "no")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        pytest.param({"status": {}}, None, id="no status is no error"),
        pytest.param({"status": {"code": 1}}, None, id="ok is no error"),
        pytest.param({"status": {"code": 2}}, "error", id="an error needs no message"),
        pytest.param({"status": {"code": "STATUS_CODE_ERROR", "message": "m"}}, "m", id="a status may be named"),
    ],
)
def test_status(changes: dict[str, object], error: str | None) -> None:
    assert read_lines([line(**changes)])[0].span.error == error


@pytest.mark.parametrize(
    ("lines", "facts"),
    [
        pytest.param(["nonsense\n"], "line 1 not JSON", id="text"),
        pytest.param([line(), "{\n", line()], "line 2 not JSON", id="a broken line in the middle"),
        pytest.param([line(traceId="xyz")], "line 1 JSON OTLP", id="an id that is not hex"),
        pytest.param(["[]\n"], "line 1 JSON OTLP", id="a list"),
    ],
)
def test_what_is_not_otlp_is_refused_by_its_line(lines: list[str], facts: str) -> None:
    with pytest.raises(Invalid, match=telling(facts)):
        read_lines(lines)


def test_a_last_line_that_is_being_written_is_passed_over() -> None:
    assert len(read_lines([line(), line()[:40]])) == 1
