"""The writers of Ray clusters: one for each, for as long as it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.ray_rest_standin import RayStandIn
from tests.unit.pool.pools import pool

from penstock_operator.pool.clusters import Addresses, RayClusters
from penstock_operator.pool.directory import PoolDirectory
from penstock_operator.pool.writer import PoolWriter
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster


@pytest.fixture
def ray() -> Iterator[RayStandIn]:
    with RayStandIn() as made:
        yield made


class Asking:
    """A directory whose clock is set by hand."""

    def __init__(self, cluster: EmbeddedCluster, ray: RayStandIn) -> None:
        rays = RayClusters(cluster, None, "s", lambda name, _: Addresses(ray.url, f"http://{name}"))
        self.now = 0.0
        self.directory = PoolDirectory(cluster, rays, clock=lambda: self.now)
        ray.token = rays.token(pool())

    def writer(self, name: str, *, at: float) -> PoolWriter:
        self.now = at
        return self.directory.writer_at(pool(), name)


@pytest.fixture
def asking(tmp_path: Path, ray: RayStandIn) -> Iterator[Asking]:
    cluster = EmbeddedCluster(tmp_path / "cluster.sqlite")
    made = Asking(cluster, ray)
    yield made
    made.directory.close()
    cluster.close()


def test_a_raycluster_that_is_asked_for_keeps_its_one_writer(asking: Asking) -> None:
    first = asking.writer("stays", at=0.0)
    for minute in range(1, 60):
        assert asking.writer("stays", at=60.0 * minute) is first
    assert first.client.version()


def test_the_writer_of_one_that_is_gone_gives_its_connections_back(asking: Asking) -> None:
    gone = asking.writer("goes", at=0.0)
    assert gone.client.version()
    asking.writer("stays", at=500.0)
    assert gone.client.version(), "somebody may have it still"
    asking.writer("stays", at=1000.0)
    with pytest.raises(RuntimeError, match="closed"):
        gone.client.version()
    assert asking.writer("goes", at=1001.0) is not gone
