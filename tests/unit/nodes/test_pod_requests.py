"""What is kept of nodes and pods."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.api.pool import TaintEffect, Toleration, TolerationOperator
from penstock_operator.nodes.excerpts import node_excerpt, pod_excerpt
from penstock_operator.nodes.forecast import Taint
from penstock_operator.nodes.requests import requests_of

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
        pytest.param("Pending", None, False, id="one without a node takes nothing of any yet"),
        pytest.param("Succeeded", "n1", False, id="one that has ended takes nothing"),
        pytest.param("Failed", "n1", False, id="one that failed takes nothing"),
    ],
)
def test_a_pod_counts_while_it_is_on_a_node(phase: str, node: str | None, counts: bool) -> None:  # noqa: FBT001
    spec = {"containers": [container("1")]} | ({"nodeName": node} if node else {})
    kept = pod_excerpt({"metadata": {"name": "p", "namespace": "n", "annotations": {"a": "x" * 9999}}, "spec": spec,
                        "status": {"phase": phase}})  # fmt: skip
    assert ("node" in kept) is counts
    assert len(str(kept)) < 300


def test_of_a_pod_that_waits_is_kept_where_it_may_be() -> None:
    spec = {
        "containers": [container("1")],
        "nodeSelector": {"gpu": "l4"},
        "tolerations": [
            {
                "key": "node.kubernetes.io/not-ready",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 300,
            },
            {"key": "team", "value": "vision"},
            {"key": "level", "operator": "Gt", "value": "3"},
        ],
    }
    waiting = pod_excerpt({"metadata": {"name": "p", "namespace": "n"}, "spec": spec})["waiting"]
    assert waiting.requests == {"cpu": 1.0, "memory": 0.0, "pods": 1.0}
    assert waiting.node_selector == {"gpu": "l4"}
    assert waiting.tolerations == (
        Toleration(key="node.kubernetes.io/not-ready", effect=TaintEffect.NO_EXECUTE),
        Toleration(key="team", operator=TolerationOperator.EQUAL, value="vision"),
    )


NOT_WAITING = [
    ("one that has a node", {"nodeName": "n1"}, "Pending"),
    ("one that has ended without", {}, "Failed"),
    (
        "one that the scheduler is not to place yet",
        {"schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]},
        "Pending",
    ),
]


@pytest.mark.parametrize(("more", "phase"), [row[1:] for row in NOT_WAITING], ids=[row[0] for row in NOT_WAITING])
def test_no_room_is_kept_for(more: dict[str, Any], phase: str) -> None:
    spec = {"containers": [container("1")], **more}
    kept = pod_excerpt({"metadata": {"name": "p", "namespace": "n"}, "spec": spec, "status": {"phase": phase}})
    assert "waiting" not in kept


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
