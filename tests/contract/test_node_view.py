"""The view of nodes and pods, against a real API server; and without the right to see them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.cluster.controlplane import ControlPlane
from tests.telling import assert_tells
from tests.waiting import eventually

from penstock.api.meta import Manifest
from penstock_operator.nodes.forecast import KubernetesNode, PodDemand, Taint, describe_closest
from penstock_operator.nodes.view import ClusterView
from penstock_operator.runtime.cluster.kubernetes import KubernetesCluster

PREFIX = "view-of-nodes"
GPU = "nvidia.com/gpu"
GI = 2.0**30
SEEN = """\
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  nodeName: NODE
  automountServiceAccountToken: false
  containers:
  - {name: one, image: one, resources: {requests: {cpu: 500m, memory: 1Gi}, limits: {nvidia.com/gpu: 1}}}
  - {name: two, image: two, resources: {requests: {cpu: "1"}}}
"""


def node(name: str, gpus: int) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": f"{PREFIX}-{name}", "labels": {"penstock.dev/accelerator-type": "nvidia-l4"}},
        "spec": {"taints": [{"key": GPU, "effect": "NoSchedule"}]},
        "status": {
            "allocatable": {"cpu": "3800m", "memory": "16Gi", "pods": "110", GPU: str(gpus)},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


@pytest.fixture
def plane(api_server: ControlPlane, namespace: str) -> Iterator[ControlPlane]:
    """The API server with two nodes, and a pod on the first."""
    names = []
    for each in (node("a", 1), node("b", 4)):
        names.append(each["metadata"]["name"])
        api_server.kubectl("create", "-f", "-", input=json.dumps(each))
        patch = ("--subresource=status", "--type=merge", "-p", json.dumps({"status": each["status"]}))
        api_server.kubectl("patch", "node", names[-1], *patch)
    create(api_server, namespace, "first", names[0])
    yield api_server
    api_server.kubectl("delete", "node", *names, "--wait=false")


def create(plane: ControlPlane, namespace: str, name: str, on: str) -> None:
    """A pod bound to a node. A fresh namespace takes pods once its service account is there."""
    plane.kubectl("wait", "--for=create", "serviceaccount/default", "-n", namespace, "--timeout=60s")
    text = SEEN.replace("NAME", name).replace("NODE", on)
    plane.kubectl("create", "-n", namespace, "-f", "-", input=text)


def ours(view: ClusterView) -> dict[str, KubernetesNode]:
    return {each.name.removeprefix(f"{PREFIX}-"): each for each in view.nodes() or () if each.name.startswith(PREFIX)}


@pytest.mark.apiserver
def test_nodes_are_seen_with_what_pods_request_of_them(plane: ControlPlane, namespace: str) -> None:
    cluster = KubernetesCluster.connect(plane.kubeconfig)
    view = ClusterView(cluster)
    assert view.nodes() is None
    view.start()
    try:
        assert view.wait_synced(30)
        first = ours(view)["a"]
        assert first.requested == {"cpu": 1.5, "memory": GI, GPU: 1.0, "pods": 1.0}
        assert (first.taints[0], first.ready, first.allocatable["cpu"]) == (Taint(GPU), True, 3.8)
        demand = PodDemand("a worker of group l4", {GPU: 8.0}, {"penstock.dev/accelerator-type": "nvidia-l4"})
        assert_tells(describe_closest(demand, tuple(ours(view).values())) or "", f"{PREFIX}-a has 1 {GPU} 8")

        create(plane, namespace, "second", f"{PREFIX}-b")
        eventually(lambda: ours(view)["b"].requested, "the new pod is seen")
        plane.kubectl("delete", "pod", "first", "-n", namespace, "--force")
        eventually(lambda: not ours(view)["a"].requested, "the deleted pod is seen no more")
    finally:
        view.stop()
        cluster.close()


@pytest.mark.apiserver
def test_without_the_right_nothing_is_seen_and_nothing_breaks(
    plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    plane.kubectl("wait", "--for=create", "serviceaccount/default", "-n", namespace, "--timeout=60s")
    token = plane.kubectl("create", "token", "default", "-n", namespace).stdout.strip()
    config = yaml.safe_load(plane.kubeconfig.read_text())
    config["users"] = [{"name": each["name"], "user": {"token": token}} for each in config["users"]]
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    cluster = KubernetesCluster.connect(tmp_path / "kubeconfig")
    view = ClusterView(cluster)
    view.start()
    try:
        assert not view.wait_synced(3)
        assert view.nodes() is None
    finally:
        view.stop()
        cluster.close()
