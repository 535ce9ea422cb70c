"""Reads spans from OTLP's JSON form: one `ExportTraceServiceRequest` a line, as the collector's file exporter writes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from penstock.errors import Invalid
from penstock.telemetry.spans import SpanContext, SpanKind, SpanRecord

_KIND_SERVER = (2, "2", "SPAN_KIND_SERVER")
_STATUS_ERROR = (2, "2", "STATUS_CODE_ERROR")


@dataclass(frozen=True, slots=True)
class CollectedSpan:
    """A span as it arrived, and the service that sent it."""

    service: str
    """`service.name` of the resource; empty where it has none."""
    span: SpanRecord


def read_lines(lines: Iterable[str]) -> list[CollectedSpan]:
    """All spans of a file's lines, in their order. Empty lines are passed over.

    Raises:
        Invalid: a line is not OTLP JSON; the message names the line. A last line that was cut short is no error.
    """
    texts = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    found: list[CollectedSpan] = []
    for position, (number, line) in enumerate(texts):
        try:
            found.extend(read_request(json.loads(line)))
        except json.JSONDecodeError as error:
            if position == len(texts) - 1 and line.startswith("{") and not line.endswith("\n"):
                break
            raise Invalid("NotOtlp", f"line {number} is not JSON: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Invalid("NotOtlp", f"line {number} is JSON but not an OTLP trace request") from error
    return found


def read_request(request: Mapping[str, Any]) -> Iterator[CollectedSpan]:
    """The spans of one `ExportTraceServiceRequest` in its JSON form (ids in hex, 64-bit numbers as strings).

    Raises:
        KeyError: a span lacks its id or times.
        ValueError: an id or a number is malformed.
    """
    for group in request.get("resourceSpans", ()):
        service = str(_attributes(group.get("resource", {}).get("attributes", ())).get("service.name", ""))
        for scope in group.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                yield CollectedSpan(service, _span(span))


def _span(raw: Mapping[str, Any]) -> SpanRecord:
    context = _context(raw)
    parent = raw.get("parentSpanId")
    status = raw.get("status", {})
    error = (status.get("message") or "error") if status.get("code") in _STATUS_ERROR else None
    return SpanRecord(
        name=raw.get("name", ""),
        context=context,
        parent=SpanContext(context.trace_id, int(parent, 16), context.sampled) if parent else None,
        start_ns=int(raw["startTimeUnixNano"]),
        end_ns=int(raw["endTimeUnixNano"]),
        kind=SpanKind.SERVER if raw.get("kind") in _KIND_SERVER else SpanKind.INTERNAL,
        attributes=_attributes(raw.get("attributes", ())),
        links=tuple(_context(link) for link in raw.get("links", ())),
        error=error,
    )


def _context(raw: Mapping[str, Any]) -> SpanContext:
    return SpanContext(int(raw["traceId"], 16), int(raw["spanId"], 16), sampled=True)


def _attributes(raw: Iterable[Mapping[str, Any]]) -> dict[str, str | int | float | bool]:
    """Scalar attributes; arrays and maps, which Penstock does not send, are left out."""
    found: dict[str, str | int | float | bool] = {}
    for entry in raw:
        match entry.get("value", {}):
            case {"stringValue": str(text)}:
                found[entry["key"]] = text
            case {"boolValue": bool(flag)}:
                found[entry["key"]] = flag
            case {"intValue": number}:
                found[entry["key"]] = int(number)
            case {"doubleValue": number}:
                found[entry["key"]] = float(number)
            case _:
                pass
    return found
