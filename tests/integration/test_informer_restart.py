"""An informer goes on after the API server was killed and came back."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
from tests.cluster.controlplane import ControlPlane
from tests.waiting import eventually

from penstock.errors import Unavailable
from penstock_operator.runtime.cluster import CONFIG_MAP, Key
from penstock_operator.runtime.cluster.kubernetes import KubernetesCluster
from penstock_operator.runtime.copies.change import Change
from penstock_operator.runtime.copies.informer import Informer

pytestmark = pytest.mark.apiserver


def test_an_informer_survives_a_restart_of_the_api_server(control_plane_binary: Path) -> None:
    with ControlPlane(control_plane_binary) as plane:
        cluster = KubernetesCluster.connect(plane.kubeconfig)
        seen: dict[str, int] = {}
        lock = threading.Lock()

        def changed(changes: Iterable[Change]) -> None:
            with lock:
                for manifest in (each for change in changes for each in change.objects):
                    seen[manifest["metadata"]["name"]] = seen.get(manifest["metadata"]["name"], 0) + 1

        informer = Informer(cluster, CONFIG_MAP, changed, namespace="default")
        informer.start()
        assert informer.wait_synced(60)
        plane.kubectl("create", "configmap", "before")
        assert eventually(lambda: "before" in seen)
        plane.kill_api_server()
        with pytest.raises(Unavailable):
            cluster.get(CONFIG_MAP, Key("default", "before"))
        plane.start_api_server()
        plane.kubectl("create", "configmap", "after")
        assert eventually(lambda: "after" in seen)
        plane.kubectl("delete", "configmap", "before")
        assert eventually(lambda: informer.mirror.get(Key("default", "before")) is None)
        assert informer.mirror.get(Key("default", "after")) is not None
        informer.stop()
        cluster.close()
        assert informer.join(30)
