"""A steady load through the gateway while parts of the platform are killed, drained and replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.benchmarks.report import progress, publish
from tests.cluster.tools import say
from tests.e2e.cluster.faults import (
    FAULTS,
    FAULTS_WITH_REDIS,
    Fault,
    Served,
    head_killed,
    serve_twice,
    two_workers,
    under_load,
)
from tests.e2e.cluster.installation import Installation, build_images, tenant
from tests.e2e.cluster.model_store import ModelStore
from tests.e2e.cluster.redis import ADDRESS, redis_objects


def main(installation: Installation, store: ModelStore, uri: str, body: Path) -> None:
    """Measure, and write `cluster-faults`."""
    rows = []
    with tenant(installation, store.credentials()) as made:
        later = build_images(installation.cluster, say, tag="later")
        served = serve_twice(Served(made, "dense", body, later), uri, two_workers())
        faults = FAULTS | {"head killed, its state with it": head_killed}
        rows += [_row(served, name, fault) for name, fault in faults.items()]
    with tenant(installation, store.credentials()) as made:
        made.apply(*redis_objects(installation.cluster, say))
        spec = two_workers(gcsFaultTolerance={"redisAddress": ADDRESS})
        served = serve_twice(Served(made, "dense", body), uri, spec)
        rows += [_row(served, name, fault) for name, fault in FAULTS_WITH_REDIS.items()]
        _publish(rows)


def _publish(rows: list[dict[str, Any]]) -> None:
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


def _row(served: Served, name: str, fault: Fault) -> dict[str, Any]:
    progress(name)
    load = under_load(served, fault)
    report = load.report
    return {
        "fault": name,
        "requests": report.sent,
        "failed": report.failed,
        "reconnects": report.reconnects,
        "refused": report.refused,
        "p50 ms": report.p50_milliseconds,
        "p99 ms": report.p99_milliseconds,
        "longest ms": report.longest_milliseconds,
        "whole after s": load.whole_after_seconds,
    }
