"""Workers find the nodes that have their accelerators, and where none has, it is said which came closest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.cluster import Cluster
from tests.cluster.kwok import TOLERATION, fake_node, kwok
from tests.e2e.cluster.installation import Installation, Object, condition, deployment, pool, tenant, until
from tests.e2e.cluster.model_store import ModelStore

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]
_TYPE = "penstock.dev/accelerator-type"
_NODES = [
    fake_node("e2e-l4", {"nvidia.com/gpu": "8"}, {_TYPE: "nvidia-l4"}),
    fake_node("e2e-a100", {"nvidia.com/mig-1g.5gb": "7"}, {_TYPE: "nvidia-a100-mig-1g.5gb"}),
]


@pytest.fixture(scope="module")
def gpus(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A node with eight GPUs, and one with seven slices of one; nothing runs on them but in name."""
    folder: Path = tmp_path_factory.mktemp("kwok")
    names = [each["metadata"]["name"] for each in _NODES]
    with kwok(cluster.kubeconfig, folder):
        try:
            cluster.kubectl("apply", "-f", "-", manifest=_NODES)
            cluster.kubectl("wait", "--for=condition=Ready", "--timeout=60s", *(f"node/{name}" for name in names))
            yield
        finally:
            cluster.kubectl("delete", "node", *names, "--ignore-not-found")


def _group(name: str, kind: str, resource: str, count: int, minimum: int) -> Object:
    accelerator = {"type": kind, "resource": resource, "count": count}
    return {
        "name": name, "cpu": "1", "memory": "1Gi", "accelerator": accelerator, "minWorkers": minimum, "maxWorkers": 2,
        "tolerations": [TOLERATION],
    }  # fmt: skip


@pytest.mark.usefixtures("gpus")
def test_each_groups_workers_go_where_its_accelerators_are(installation: Installation, store: ModelStore) -> None:
    groups = [
        _group("l4", "nvidia-l4", "nvidia.com/gpu", 4, 2),
        _group("mig", "nvidia-a100-mig-1g.5gb", "nvidia.com/mig-1g.5gb", 1, 1),
    ]
    with tenant(installation, store.credentials()) as made:
        made.apply(pool(workerGroups=groups), deployment("unserved", "s3://models/none/model.onnx"))

        def placed() -> list[tuple[str, str]] | None:
            workers = installation.list("pod", made.namespace, "ray.io/node-type=worker")
            found = [(each["metadata"]["labels"]["ray.io/group"], each["spec"].get("nodeName")) for each in workers]
            return sorted(found) if len(found) == 3 and all(node for _, node in found) else None

        wanted = [("l4", "e2e-l4"), ("l4", "e2e-l4"), ("mig", "e2e-a100")]
        assert until("three workers have nodes", placed, 120) == wanted


@pytest.mark.usefixtures("gpus")
def test_what_no_node_can_hold_is_said_with_the_closest_nodes(
    installation: Installation, store: ModelStore, model_uri: str
) -> None:
    groups = [*pool()["spec"]["managed"]["workerGroups"], _group("h100", "nvidia-h100", "nvidia.com/gpu", 8, 0)]
    with tenant(installation, store.credentials()) as made:
        accelerator = {"type": "nvidia-h100", "count": 1}
        resources = {"cpu": "100m", "memory": "256Mi", "accelerator": accelerator}
        made.apply(pool(workerGroups=groups), deployment("big", model_uri, resources=resources))

        def told() -> str | None:
            said = condition(installation.get("infdep", made.namespace, "big"), "Progressing")
            return said["message"] if said.get("reason") == "Unschedulable" else None

        message = until("it is said that nothing can hold it", told, 180)
        assert "e2e-l4" in message
        assert "nvidia" in message
