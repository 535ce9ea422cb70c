"""At a steady hundred requests a second through the gateway, none fails while parts of the platform come and go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.binary import Report
from tests.e2e.cluster.faults import FAULTS, Fault, Served, head_killed
from tests.e2e.cluster.installation import GATEWAY, Installation, deployment, pool, tenant
from tests.e2e.cluster.model_store import ModelStore
from tests.e2e.cluster.redis import ADDRESS, redis_objects
from tests.e2e.cluster.steady_load import LoadReport, steady_load

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
_AROUND_SECONDS = 3.0


def two_workers(**managed: object) -> dict[str, object]:
    """A pool with two workers, each of which holds one replica of `two_replicas`."""
    group = {"name": "cpu", "cpu": "400m", "memory": "1Gi", "minWorkers": 2, "maxWorkers": 3}
    return pool(workerGroups=[group], **managed)


@pytest.fixture(scope="module")
def served(installation: Installation, store: ModelStore, model_uri: str, body: Path) -> Iterator[Served]:
    """A model with a replica on each of two workers."""
    with tenant(installation, store.credentials()) as made:
        yield _serve(Served(made, "dense", body), model_uri, two_workers())


@pytest.fixture(scope="module")
def served_with_redis(
    installation: Installation, store: ModelStore, model_uri: str, body: Path, report: Report
) -> Iterator[Served]:
    """The same in a pool whose head keeps its state in a Redis."""
    with tenant(installation, store.credentials()) as made:
        made.apply(*redis_objects(installation.cluster, report))
        spec = two_workers(gcsFaultTolerance={"redisAddress": ADDRESS})
        yield _serve(Served(made, "dense", body), model_uri, spec)


def _serve(served: Served, uri: str, pool_object: dict[str, object]) -> Served:
    scaling = {"minReplicas": 2, "maxReplicas": 2}
    served.tenant.apply(pool_object, deployment(served.model, uri, scaling=scaling, resources={"cpu": "250m"}))
    served.until_whole()
    return served


def _under_load(served: Served, fault: Fault) -> LoadReport:
    tenant = served.tenant
    path = tenant.path(served.model)
    with steady_load(tenant.installation.cluster, GATEWAY, path, served.body, headers=tenant.headers) as load:
        time.sleep(_AROUND_SECONDS)
        fault(served)
        time.sleep(_AROUND_SECONDS)
    return load.report


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_while(served: Served, fault: Fault) -> None:
    report = _under_load(served, fault)
    assert report.failed == 0, report
    assert set(report.statuses) == {"200"}


def test_while_the_head_is_lost_and_redis_kept_its_state(served_with_redis: Served) -> None:
    report = _under_load(served_with_redis, head_killed)
    assert report.failed == 0, report


def test_while_the_head_is_lost_with_its_state(served: Served) -> None:
    report = _under_load(served, head_killed)
    assert report.failed == 0, report
