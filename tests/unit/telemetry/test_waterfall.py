"""One request's trace as rows and as lines."""

from __future__ import annotations

import pytest

from penstock.telemetry.spans import SpanContext, SpanRecord
from penstock_cli.traces.otlp import CollectedSpan
from penstock_cli.traces.waterfall import Row, render, rows, starts, summaries

TRACE, OTHER = 0xA, 0xB
MS = 1_000_000


def span(
    name: str,
    span_id: int,
    interval: tuple[int, int],
    parent: int | None = None,
    *,
    links: tuple[tuple[int, int], ...] = (),
    trace: int = TRACE,
    **more: object,
) -> CollectedSpan:
    return CollectedSpan(
        more.pop("service", "penstock-replica"),
        SpanRecord(
            name,
            SpanContext(trace, span_id, sampled=True),
            None if parent is None else SpanContext(trace, parent, sampled=True),
            interval[0] * MS,
            interval[1] * MS,
            links=tuple(SpanContext(t, s, sampled=True) for t, s in links),
            **more,
        ),
    )


GATEWAY = span("gateway", 1, (0, 10), service="penstock-gateway")
REQUEST = span("request", 2, (1, 9), 1)
QUEUE = span("queue", 3, (2, 4), 2)
EXECUTE = span("execute", 4, (4, 8), 2)
EXECUTE_LINKED = span("execute", 4, (4, 8), 2, links=((OTHER, 9),))
BATCH_BACK = span("batch", 9, (4, 8), links=((TRACE, 4),), trace=OTHER, attributes={"penstock.batch.rows": 3})
BATCH = span("batch", 9, (4, 8), trace=OTHER)


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        pytest.param([], [], id="nothing collected gives no rows"),
        pytest.param([BATCH], [], id="another trace gives no rows"),
        pytest.param(
            [EXECUTE, QUEUE, REQUEST, GATEWAY],
            [(0, "gateway", False), (1, "request", False), (2, "queue", False), (2, "execute", False)],
            id="children stand under their parent in order of start, however they arrived",
        ),
        pytest.param(
            [GATEWAY, REQUEST, EXECUTE, BATCH_BACK],
            [(0, "gateway", False), (1, "request", False), (2, "execute", False), (3, "batch", True)],
            id="a batch that links back stands under the execute span",
        ),
        pytest.param(
            [GATEWAY, REQUEST, EXECUTE_LINKED, BATCH],
            [(0, "gateway", False), (1, "request", False), (2, "execute", False), (3, "batch", True)],
            id="a batch that the execute span names stands under it",
        ),
        pytest.param(
            [GATEWAY, REQUEST, EXECUTE_LINKED, BATCH_BACK],
            [(0, "gateway", False), (1, "request", False), (2, "execute", False), (3, "batch", True)],
            id="a batch linked from both sides stands there once",
        ),
        pytest.param(
            [QUEUE, EXECUTE],
            [(0, "queue", False), (0, "execute", False)],
            id="spans whose parent never arrived stand at the root",
        ),
        pytest.param(
            [GATEWAY, REQUEST, REQUEST],
            [(0, "gateway", False), (1, "request", False)],
            id="a span that was exported twice stands there once",
        ),
    ],
)
def test_rows(spans: list[CollectedSpan], expected: list[tuple[int, str, bool]]) -> None:
    assert [(row.depth, row.name, row.linked) for row in rows(spans, TRACE)] == expected


def test_offsets_count_from_the_first_span() -> None:
    found = rows([span("late", 1, (100, 130)), span("early", 2, (90, 95))], TRACE)
    assert [(row.name, row.offset_ns, row.duration_ns) for row in found] == [
        ("early", 0, 5 * MS),
        ("late", 10 * MS, 30 * MS),
    ]


def test_a_batch_tells_its_rows() -> None:
    assert rows([GATEWAY, REQUEST, EXECUTE, BATCH_BACK], TRACE)[-1].note == "3 rows"


@pytest.mark.parametrize(
    ("attributes", "note"),
    [
        pytest.param({"penstock.model.format": "onnx"}, "onnx", id="the deployment's own"),
        pytest.param(
            {"penstock.model.format": "onnx", "penstock.optimization.run": "digits-5f3a"},
            "onnx made by digits-5f3a",
            id="what a search made of it",
        ),
    ],
)
def test_a_start_tells_what_the_model_became(attributes: dict[str, str], note: str) -> None:
    (row,) = rows([span("resolve", 1, (0, 1), attributes=attributes)], TRACE)
    assert row.note == note


def test_lines_stand_on_one_axis() -> None:
    lines = render(rows([GATEWAY, REQUEST, QUEUE, EXECUTE], TRACE), width=60)
    bars = [line.index("█") for line in lines]
    assert bars == sorted(bars)
    assert bars[0] < bars[1] < bars[2] < bars[3]
    assert [line.split()[0] for line in lines] == ["gateway", "request", "queue", "execute"]
    assert lines[0].endswith("0.000 +10.000 ms")


def test_a_failure_is_told() -> None:
    (line,) = render([Row(0, "request", "", 0, MS, error="engine died")])
    assert line.endswith("failed: engine died")


def test_spans_of_no_length_still_draw() -> None:
    (line,) = render([Row(0, "request", "", 0, 0)])
    assert "█" in line


def test_summaries_leave_batches_out_and_are_ordered_by_start() -> None:
    later = span("gateway", 7, (50, 70), trace=0xC, attributes={"penstock.model.name": "m"}, error="boom")
    found = summaries([later, BATCH, REQUEST, GATEWAY])
    assert [(s.trace_id, s.root, s.duration_ns, s.failed) for s in found] == [
        (TRACE, "gateway", 10 * MS, False),
        (0xC, "gateway", 20 * MS, True),
    ]
    assert found[1].model == "m"


def test_starts_are_traces_of_their_own_and_no_requests() -> None:
    begun = [span("start", 8, (0, 9000), trace=0xD), span("pull", 9, (10, 20), trace=0xD, parent=8)]
    later = [span("replica-start", 10, (500, 600), trace=0xE)]
    spans = [*later, GATEWAY, REQUEST, *begun]
    assert [(each.trace_id, each.root) for each in starts(spans)] == [(0xD, "start"), (0xE, "replica-start")]
    assert [each.trace_id for each in summaries(spans)] == [TRACE]
