"""A steady load through the gateway while parts of the platform are killed, drained and replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.benchmarks.report import progress
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
from tests.e2e.cluster.figures import publish_faults, row
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
        publish_faults(rows)


def _row(served: Served, name: str, fault: Fault) -> dict[str, Any]:
    progress(name)
    return row(name, under_load(served, fault))
