"""What the view of nodes says of pods that have none yet."""

from __future__ import annotations

from pathlib import Path

from penstock.api.meta import Manifest
from penstock_operator.nodes.excerpts import NODE, POD
from penstock_operator.nodes.view import ClusterView
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster


def pod(name: str, **spec: str) -> Manifest:
    container = {"name": "c", "resources": {"requests": {"cpu": "2"}}}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"containers": [container], **spec}}


def test_a_pod_without_a_node_is_expected_where_it_fits_and_requests_nothing_yet(tmp_path: Path) -> None:
    cluster = EmbeddedCluster(tmp_path / "cluster.sqlite")
    cluster.create(NODE, {"metadata": {"name": "n1"}})
    status = {"allocatable": {"cpu": "4", "pods": "110"}, "conditions": [{"type": "Ready", "status": "True"}]}
    cluster.apply_status(NODE, {"metadata": {"name": "n1"}, "status": status}, "kubelet")
    cluster.create(POD, pod("bound", nodeName="n1"))
    cluster.create(POD, pod("waiting"))
    view = ClusterView(cluster)
    assert view.expected_nodes() is None
    view.start()
    try:
        assert view.wait_synced(10)
        (seen,), (expected,) = view.nodes() or (), view.expected_nodes() or ()
        assert seen.free("cpu") == 2
        assert expected.free("cpu") == 0
    finally:
        view.stop()
        cluster.close()
