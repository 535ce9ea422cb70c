"""One request's trace as lines of text: who did what, when, and for how long."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from penstock.telemetry import names
from penstock_cli.traces.otlp import CollectedSpan

_NANOSECONDS_PER_MILLISECOND = 1_000_000
_EIGHTHS = " ▏▎▍▌▋▊▉"
_FULL = "█"
_LEAST_BAR, _MOST_BAR = 8, 48
_GAP = 2
_START_NAMES = frozenset({names.SPAN_START, names.SPAN_SCHEDULE, names.SPAN_SPAWN, names.SPAN_REPLICA_START})
"""One of these is in each trace of a start."""
_REQUEST_NAMES = frozenset({names.SPAN_GATEWAY, names.SPAN_REQUEST})
"""One of these is in each trace of a request."""
_REMARK = 24
"""Columns that are kept for what is said of a span; the rest of a longer remark runs past the width."""


@dataclass(frozen=True, slots=True)
class Row:
    """A span's place in the waterfall. Times are nanoseconds; the offset is from the first span's start."""

    depth: int
    name: str
    service: str
    offset_ns: int
    duration_ns: int
    note: str = ""
    linked: bool = False
    """The span is of another trace and stands under the span that it is linked with."""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """A trace in one line."""

    trace_id: int
    root: str
    model: str
    start_ns: int
    duration_ns: int
    kept: str
    failed: bool


def requests(spans: Iterable[CollectedSpan]) -> list[TraceSummary]:
    """The requests' traces, oldest first."""
    return _summaries(spans, lambda each: not each.isdisjoint(_REQUEST_NAMES))


def summaries(spans: Iterable[CollectedSpan]) -> list[TraceSummary]:
    """All traces but starts', oldest first: requests', rollouts'. A batch's own is shown under the requests that it served."""
    return _summaries(spans, lambda each: each.isdisjoint(_START_NAMES) and each != {names.SPAN_BATCH})


def starts(spans: Iterable[CollectedSpan]) -> list[TraceSummary]:
    """The traces of revisions' and replicas' starts, oldest first."""
    return _summaries(spans, lambda each: not each.isdisjoint(_START_NAMES))


def _summaries(spans: Iterable[CollectedSpan], wanted: Callable[[frozenset[str]], bool]) -> list[TraceSummary]:
    by_trace: dict[int, list[CollectedSpan]] = defaultdict(list)
    for collected in spans:
        by_trace[collected.span.context.trace_id].append(collected)
    found = [
        _summary(trace_id, members)
        for trace_id, members in by_trace.items()
        if wanted(frozenset(each.span.name for each in members))
    ]
    return sorted(found, key=lambda summary: summary.start_ns)


def rows(spans: Sequence[CollectedSpan], trace_id: int) -> list[Row]:
    """The spans of a trace, each parent before its children, in order of their starts.

    A span of another trace that is linked with one of these (a batch with its members' execute spans, from either
    side) stands under it. A span whose parent never arrived stands at the root.
    """
    members = {c.span.context.span_id: c for c in spans if c.span.context.trace_id == trace_id}
    if not members:
        return []
    origin = min(c.span.start_ns for c in members.values())
    children: dict[int, list[CollectedSpan]] = defaultdict(list)
    for collected in members.values():
        parent = collected.span.parent
        children[parent.span_id if parent and parent.span_id in members else 0].append(collected)
    linked = _linked_spans(spans, members)
    found: list[Row] = []
    seen: set[int] = set()

    def visit(collected: CollectedSpan, depth: int) -> None:
        span_id = collected.span.context.span_id
        if span_id in seen:
            return
        seen.add(span_id)
        found.append(_row(collected, depth, origin, linked=False))
        found.extend(_row(other, depth + 1, origin, linked=True) for other in linked.get(span_id, ()))
        for child in _sort_by_start(children.get(span_id, ())):
            visit(child, depth + 1)

    for root in _sort_by_start(children[0]):
        visit(root, 0)
    return found


def render(waterfall: Sequence[Row], width: int = 100) -> list[str]:
    """Lines of about `width` columns: name, service, a bar on a common time axis, start and duration, remark.

    A remark longer than the room for it, such as an error, is not cut.
    """
    if not waterfall:
        return []
    labels = [f"{'  ' * row.depth}{'↳ ' if row.linked else ''}{row.name}" for row in waterfall]
    services = [row.service.removeprefix("penstock-") for row in waterfall]
    label_width, service_width = max(map(len, labels)), max(map(len, services))
    times = [f"{_milliseconds(row.offset_ns)} +{_milliseconds(row.duration_ns)} ms" for row in waterfall]
    time_width = max(map(len, times))
    remarks = [f"failed: {row.error}" if row.error else row.note for row in waterfall]
    remark_width = min(_REMARK, max(map(len, remarks)))
    taken = label_width + service_width + time_width + remark_width + 4 * _GAP
    bar_width = max(_LEAST_BAR, min(_MOST_BAR, width - taken))
    start = min(row.offset_ns for row in waterfall)
    end = max(row.offset_ns + row.duration_ns for row in waterfall)
    lines: list[str] = []
    for row, label, service, time, remark in zip(waterfall, labels, services, times, remarks, strict=True):
        bar = _bar(row.offset_ns - start, row.duration_ns, end - start, bar_width)
        line = f"{label:<{label_width}}  {service:<{service_width}}  {bar}  {time:>{time_width}}"
        lines.append(f"{line}  {remark}".rstrip())
    return lines


def _summary(trace_id: int, members: Sequence[CollectedSpan]) -> TraceSummary:
    ids = {c.span.context.span_id for c in members}
    root = min(members, key=lambda c: (c.span.parent is not None and c.span.parent.span_id in ids, c.span.start_ns))
    start = min(c.span.start_ns for c in members)
    return TraceSummary(
        trace_id=trace_id,
        root=root.span.name,
        model=_first(members, names.ATTR_MODEL),
        start_ns=start,
        duration_ns=max(c.span.end_ns for c in members) - start,
        kept=_first(members, names.ATTR_KEPT),
        failed=any(c.span.error for c in members),
    )


def _first(members: Iterable[CollectedSpan], attribute: str) -> str:
    return next((str(c.span.attributes[attribute]) for c in members if attribute in c.span.attributes), "")


def _linked_spans(
    spans: Iterable[CollectedSpan], members: Mapping[int, CollectedSpan]
) -> dict[int, list[CollectedSpan]]:
    """Spans of other traces, by the id of the member that they are linked with."""
    wanted = {
        (link.trace_id, link.span_id): span_id for span_id, member in members.items() for link in member.span.links
    }
    found: dict[int, list[CollectedSpan]] = defaultdict(list)
    for other in spans:
        context = other.span.context
        member = members.get(context.span_id)
        if member is not None and member.span.context == context:
            continue
        named = wanted.get((context.trace_id, context.span_id))
        naming = next((k.span_id for k in other.span.links if _links_to(k.trace_id, k.span_id, members)), None)
        host = named if named is not None else naming
        if host is not None:
            found[host].append(other)
    return found


def _links_to(trace_id: int, span_id: int, members: Mapping[int, CollectedSpan]) -> bool:
    member = members.get(span_id)
    return member is not None and member.span.context.trace_id == trace_id


def _row(collected: CollectedSpan, depth: int, origin: int, *, linked: bool) -> Row:
    span = collected.span
    return Row(
        depth=depth,
        name=span.name,
        service=collected.service,
        offset_ns=span.start_ns - origin,
        duration_ns=max(0, span.end_ns - span.start_ns),
        note=_note(span.attributes),
        linked=linked,
        error=span.error,
    )


def _note(attributes: Mapping[str, str | int | float | bool]) -> str:
    """What is worth saying about a span: a batch's size, a request's model and status, what a model became."""
    if names.ATTR_BATCH_ROWS in attributes:
        requests = attributes.get(names.ATTR_BATCH_REQUESTS)
        together = f" of {_pluralize(requests, 'request')}" if requests is not None else ""
        return f"{_pluralize(attributes[names.ATTR_BATCH_ROWS], 'row')}{together}"
    if names.ATTR_FORMAT in attributes:
        maker = f" made by {attributes[names.ATTR_RUN]}" if names.ATTR_RUN in attributes else ""
        return f"{attributes[names.ATTR_FORMAT]}{maker}"
    status = attributes.get(names.ATTR_HTTP_STATUS)
    cache = attributes.get(names.ATTR_CACHE)
    parts = (
        attributes.get(names.ATTR_MODEL),
        status if status is None else f"HTTP {status}",
        cache if cache is None else f"cache {cache}",
    )
    return " ".join(str(part) for part in parts if part is not None)


def _pluralize(number: str | float, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _sort_by_start(spans: Iterable[CollectedSpan]) -> list[CollectedSpan]:
    return sorted(spans, key=lambda c: (c.span.start_ns, -c.span.end_ns))


def _milliseconds(nanoseconds: int) -> str:
    return f"{nanoseconds / _NANOSECONDS_PER_MILLISECOND:.3f}"


def _bar(offset: int, duration: int, total: int, width: int) -> str:
    """A bar on an axis of `total` nanoseconds and `width` columns; a span that is too short still leaves a mark."""
    if total <= 0:
        return _FULL * width
    first = min(width - 1, offset * width // total)
    eighths = max(1, round(duration * width * 8 / total))
    whole, rest = divmod(min(eighths, (width - first) * 8), 8)
    drawn = " " * first + _FULL * whole + (_EIGHTHS[rest] if rest else "")
    return f"{drawn:<{width}}"
