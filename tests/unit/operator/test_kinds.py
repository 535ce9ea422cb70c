"""Every kind of the API is watched, and each that has a status is reconciled."""

from __future__ import annotations

from pathlib import Path

from penstock_operator.kinds import OURS
from penstock_operator.operation import Operation
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
from penstock_operator.settings import Settings


def test_every_kind_is_watched_and_each_with_a_status_reconciled(tmp_path: Path) -> None:
    cluster = EmbeddedCluster(tmp_path / "cluster.sqlite")
    operation = Operation(cluster, Settings(), lambda *_: None, lambda: True)
    reconciled = {each.kind for each in operation.controllers}
    watched = {kind for each in operation.controllers for kind in each.followed}
    assert reconciled == {kind for kind in OURS.values() if kind.has_status}
    assert watched >= set(OURS.values())
    assert operation.stop(1.0)
    cluster.close()
