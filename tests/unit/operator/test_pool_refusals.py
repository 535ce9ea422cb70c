"""What a pool does and says where the API refuses the operator something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from tests.unit.operator.test_pool_homes import IMAGE, KEY, add_pool, reconciler, told

from penstock.errors import Unavailable
from penstock_operator.pool.kinds import POD, RAY_CLUSTER
from penstock_operator.runtime.cluster import FORBIDDEN, NO_LABELS, Listing, ResourceKind
from penstock_operator.runtime.embedded import EmbeddedCluster


class Strict(EmbeddedCluster):
    """An embedded cluster that refuses what it is told to, by verb and kind."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.refused: dict[tuple[str, ResourceKind], Unavailable] = {}

    def list(self, kind: ResourceKind, namespace: str | None = None, labels: Mapping[str, str] = NO_LABELS) -> Listing:
        self._ask("list", kind)
        return super().list(kind, namespace, labels)

    def _ask(self, verb: str, kind: ResourceKind) -> None:
        if (verb, kind) in self.refused:
            raise self.refused[verb, kind]

    def forbid(self, verb: str, kind: ResourceKind) -> None:
        self.refused[verb, kind] = Unavailable(FORBIDDEN, f"{kind.plural} is forbidden: may not {verb}")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Strict]:
    made = Strict(tmp_path / "cluster.sqlite")
    yield made
    made.close()


def test_a_pool_whose_pods_may_not_be_seen_starts_all_the_same(cluster: Strict) -> None:
    cluster.forbid("list", POD)
    add_pool(cluster)
    looks = reconciler(cluster, IMAGE)
    looks.reconcile(KEY)
    looks.reconcile(KEY)
    assert told(cluster) == ("StartingPool", "The head of RayCluster penstock-default is starting.")
    assert cluster.list(RAY_CLUSTER, KEY.namespace).items
