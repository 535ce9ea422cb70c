"""What faults did to a steady load, as rows of a table."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.report import publish
from tests.e2e.cluster.steady_load import SteadyLoad


def row(fault: str, load: SteadyLoad) -> dict[str, Any]:
    """What one fault did."""
    report = load.report
    return {
        "fault": fault,
        "requests": report.sent,
        "failed": report.failed,
        "reconnects": report.reconnects,
        "refused": report.refused,
        "p50 ms": report.p50_milliseconds,
        "p99 ms": report.p99_milliseconds,
        "longest ms": report.longest_milliseconds,
        "whole after s": load.whole_after_seconds,
    }


def publish_faults(rows: list[dict[str, Any]]) -> None:
    """Write `cluster-faults`."""
    publish(
        "cluster-faults",
        "A hundred requests a second through two gateways to two replicas on two workers, until all is whole again",
        rows,
        [
            "Reconnects: kept connections that were lost before an answer began, whose request the client sent on another.",
            "Refused: fresh connections that were refused or so lost; the client tried again after 50 ms.",
            "Whole: from the fault until pool, replicas, operators and gateways are all there again.",
        ],
    )  # fmt: skip
