"""Where a Redis keeps the head's state, no request fails while the head comes and goes.

Apart from the tests without one: two pools with two workers each are too much for one node, when the other is drained.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.binary import Report
from tests.e2e.cluster.faults import FAULTS_WITH_REDIS, Served, serve_twice, two_workers, under_load
from tests.e2e.cluster.figures import row
from tests.e2e.cluster.installation import Installation, tenant
from tests.e2e.cluster.model_store import ModelStore
from tests.e2e.cluster.redis import ADDRESS, redis_objects

pytestmark = [pytest.mark.cluster, pytest.mark.last, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def served(
    installation: Installation, store: ModelStore, model_uri: str, body: Path, report: Report
) -> Iterator[Served]:
    """A model with a replica on each of two workers, in a pool with a Redis."""
    with tenant(installation, store.credentials()) as made:
        made.apply(*redis_objects(installation.cluster, report))
        spec = two_workers(gcsFaultTolerance={"redisAddress": ADDRESS})
        yield serve_twice(Served(made, "dense", body), model_uri, spec)


@pytest.mark.parametrize("name", FAULTS_WITH_REDIS)
def test_while(served: Served, figures: list[dict[str, Any]], name: str) -> None:
    load = under_load(served, FAULTS_WITH_REDIS[name])
    figures.append(row(name, load))
    report = load.report
    assert report.failed == 0, report
    assert report.refused == 0, report
