"""What is kept of nodes and pods."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.planning.nodes import Taint
from penstock_operator.nodes.excerpts import node_excerpt, pod_excerpt, requests_of

GI = 2.0**30


def container(cpu: str, memory: str = "0", **more: Any) -> dict[str, Any]:
    return {"resources": {"requests": {"cpu": cpu, "memory": memory}}, **more}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({"containers": [container("1"), container("500m")]}, {"cpu": 1.5}, id="containers are added up"),
        pytest.param(
            {"containers": [container("1")], "initContainers": [container("3"), container("2")]},
            {"cpu": 3.0},
            id="of containers that start one after the other the largest counts",
        ),
        pytest.param(
            {
                "containers": [container("1")],
                "initContainers": [container("1", restartPolicy="Always"), container("2")],
            },
            {"cpu": 3.0},
            id="what starts after a sidecar runs beside it",
        ),
        pytest.param(
            {"containers": [container("1")], "initContainers": [container("1", restartPolicy="Always")]},
            {"cpu": 2.0},
            id="a sidecar runs on",
        ),
        pytest.param(
            {"containers": [{"resources": {"limits": {"nvidia.com/gpu": "2"}}}]},
            {"nvidia.com/gpu": 2.0},
            id="a limit without a request is the request",
        ),
        pytest.param(
            {"containers": [container("1", "1Gi")], "overhead": {"memory": "1Gi"}},
            {"cpu": 1.0, "memory": 2 * GI},
            id="the runtime's overhead comes on top",
        ),
        pytest.param(
            {"containers": [container("1")], "resources": {"requests": {"cpu": "4"}}},
            {"cpu": 4.0},
            id="what the pod asks for as a whole takes the containers' place",
        ),
        pytest.param({"containers": [{}]}, {}, id="a pod may ask for nothing"),
        pytest.param({"containers": [container("odd")]}, {}, id="what cannot be read counts nothing"),
    ],
)
def test_a_pod_requests(spec: dict[str, Any], expected: dict[str, float]) -> None:
    found = {name: amount for name, amount in requests_of(spec).items() if amount}
    assert found == {**expected, "pods": 1.0}


@pytest.mark.parametrize(
    ("phase", "node", "counts"),
    [
        pytest.param("Running", "n1", True, id="a running pod takes its part of its node"),
        pytest.param("Pending", "n1", True, id="so does one that is bound and starts"),
        pytest.param("Pending", None, False, id="one without a node takes nothing"),
        pytest.param("Succeeded", "n1", False, id="one that has ended takes nothing"),
        pytest.param("Failed", "n1", False, id="one that failed takes nothing"),
    ],
)
def test_a_pod_counts_while_it_is_on_a_node(phase: str, node: str | None, counts: bool) -> None:  # noqa: FBT001
    spec = {"containers": [container("1")]} | ({"nodeName": node} if node else {})
    kept = pod_excerpt({"metadata": {"name": "p", "namespace": "n", "annotations": {"a": "x" * 9999}}, "spec": spec,
                        "status": {"phase": phase}})  # fmt: skip
    assert ("node" in kept) is counts
    assert len(str(kept)) < 200


def test_of_a_node_little_is_kept() -> None:
    kept = node_excerpt(
        {
            "metadata": {"name": "n1", "labels": {"a": "b"}, "annotations": {"huge": "x" * 9999}},
            "spec": {"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}], "unschedulable": True},
            "status": {
                "allocatable": {"cpu": "3800m", "memory": "1Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "False"}],
                "images": [{"names": ["x" * 9999]}],
            },
        }
    )
    assert kept == {
        "metadata": {"name": "n1", "namespace": ""},
        "labels": {"a": "b"},
        "taints": (Taint("nvidia.com/gpu"),),
        "allocatable": {"cpu": 3.8, "memory": GI, "pods": 110.0},
        "ready": True,
        "unschedulable": True,
    }
