"""Collected traces: finding one, waiting for one, and drawing it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

from penstock.errors import Invalid, Unavailable
from penstock.telemetry import names
from penstock_cli.traces.otlp import CollectedSpan, read_lines
from penstock_cli.traces.waterfall import Row, TraceSummary, render, requests, rows, starts, summaries

WHOLE_TRACE = (names.SPAN_GATEWAY, names.SPAN_REQUEST, names.SPAN_QUEUE, names.SPAN_EXECUTE, names.SPAN_BATCH)
"""Spans that a request's trace has when all of it has arrived."""
_POLL_SECONDS = 0.25


def load_spans(path: Path) -> list[CollectedSpan]:
    """The spans of a trace file and of the one that it was rotated to.

    Raises:
        Unavailable: there is no such file.
        Invalid: it is not OTLP JSON lines.
    """
    older = path.with_name(path.name + ".1")
    files = [each for each in (older, path) if each.is_file()]
    if not files:
        raise Unavailable(
            "NoTraces",
            f"{path}: no traces were collected here; `penstock run` collects them. Those of a cluster are where its Collector "
            "sends them: --file takes what the Collector's file exporter wrote",
        )
    found: list[CollectedSpan] = []
    for each in files:
        with each.open(encoding="utf-8", errors="replace") as lines:
            try:
                found.extend(read_lines(lines))
            except Invalid as error:
                raise Invalid(
                    error.reason, f"{each}: {error.message}: --file takes OTLP in JSON, one request a line"
                ) from error
    return found


def wait_for_trace(path: Path, trace_id: int, seconds: float) -> list[Row]:
    """Wait until a request's spans, and the batch that served it, have arrived; then its waterfall.

    Returns:
        What has arrived when the time is up, where that is not all.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = rows(load_spans(path), trace_id) if path.is_file() else []
        if {row.name for row in found}.issuperset(WHOLE_TRACE) or time.monotonic() > deadline:
            return found
        time.sleep(_POLL_SECONDS)


def choose_trace(spans: list[CollectedSpan], trace_id: str | None, *, slowest: bool, start: bool) -> TraceSummary:
    """The trace whose id begins with `trace_id`; else the slowest request's, the last start's, or the last request's.

    Raises:
        Invalid: no trace, or more than one, begins so.
        Unavailable: there is no trace.
    """
    looked_through = starts if start else requests
    found = looked_through(spans) if trace_id is None else [*summaries(spans), *starts(spans)]
    if start and not found:
        raise Unavailable("NoTraces", "no start has left a trace; the operator and replicas send them as they start")
    if not found:
        raise Unavailable("NoTraces", "no request has left a trace yet; slow, failed and sampled ones do")
    if trace_id is None:
        return max(found, key=lambda summary: summary.duration_ns) if slowest else found[-1]
    matching = [summary for summary in found if f"{summary.trace_id:032x}".startswith(trace_id.lower())]
    if len(matching) != 1:
        raise Invalid(
            "UnknownTrace",
            f"{len(matching)} traces have an id that begins with {trace_id!r}: `penstock trace --list` shows the last",
        )
    return matching[0]


def draw_trace(spans: list[CollectedSpan], summary: TraceSummary, width: int) -> list[str]:
    """A heading and the waterfall."""
    when = datetime.fromtimestamp(summary.start_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    about = ", ".join(part for part in (summary.model, summary.kept and f"kept: {summary.kept}", when) if part)
    heading = f"trace {summary.trace_id:032x}  ({about})"
    return [heading, *render(rows(spans, summary.trace_id), width)]


def summary_line(summary: TraceSummary) -> str:
    """A trace in one line: id, start, duration, model, and why it was kept."""
    when = datetime.fromtimestamp(summary.start_ns / 1e9, UTC).strftime("%H:%M:%S.%f")[:-3]
    failed = "  failed" if summary.failed else ""
    milliseconds = summary.duration_ns / 1e6
    return f"{summary.trace_id:032x}  {when}  {milliseconds:9.3f} ms  {summary.model}  {summary.kept}{failed}"
