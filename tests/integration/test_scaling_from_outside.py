"""`/scale` and whoever writes it: a HorizontalPodAutoscaler and kubectl, on a real API server, beside our own operator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster.controlplane import ControlPlane
from tests.contract.ray_rest_standin import RayStandIn
from tests.telling import assert_tells
from tests.waiting import eventually

from penstock_operator.kinds import INFERENCE_DEPLOYMENT, SERVING_POOL
from penstock_operator.operation import Operation
from penstock_operator.runtime.cluster import SECRET, Key, Manifest
from penstock_operator.runtime.cluster.kubernetes import KubernetesCluster
from penstock_operator.settings import Settings

pytestmark = pytest.mark.apiserver


class Watched:
    """A namespace of a real API server, with a pool, and an operator that watches it."""

    def __init__(self, plane: ControlPlane, namespace: str, cluster: KubernetesCluster) -> None:
        self.plane, self.namespace, self.cluster = plane, namespace, cluster

    def kubectl(self, *arguments: str, **more: Any) -> str:
        return self.plane.kubectl("-n", self.namespace, *arguments, **more).stdout

    def object(self) -> Manifest:
        return self.cluster.get(INFERENCE_DEPLOYMENT, Key(self.namespace, "digits")) or {}

    def scale(self) -> Manifest:
        path = f"/apis/penstock.dev/v1alpha1/namespaces/{self.namespace}/inferencedeployments/digits/scale"
        found: Manifest = json.loads(self.plane.kubectl("get", "--raw", path, check=False).stdout or "{}")
        return found

    def replicas(self) -> Manifest:
        found: Manifest = (self.object().get("status") or {}).get("replicas") or {}
        return found


@pytest.fixture
def watched(crds: ControlPlane, namespace: str) -> Iterator[Watched]:
    cluster = KubernetesCluster.connect(crds.kubeconfig)
    with RayStandIn() as ray:
        secret = {"metadata": {"name": "ray", "namespace": namespace}, "stringData": {"token": ray.token}}
        existing = {"address": ray.url, "tokenSecretRef": {"name": "ray", "key": "token"}}
        pool = {"metadata": {"name": "default", "namespace": namespace}, "spec": {"existing": existing}}
        typed = ((SECRET, secret), (SERVING_POOL, pool))
        for kind, manifest in typed:
            cluster.create(kind, {"apiVersion": kind.api_version, "kind": kind.kind, **manifest})
        operation = Operation(cluster, Settings(namespaces=(namespace,), workers=2), lambda *_: None, lambda: True)
        operation.start()
        yield Watched(crds, namespace, cluster)
        assert operation.stop(60)
    cluster.close()


BASE = {
    "apiVersion": "penstock.dev/v1alpha1",
    "kind": "InferenceDeployment",
    "metadata": {"name": "digits"},
    "spec": {
        "model": {"storageUri": "file:///models/digits/1", "modelFormat": "onnx"},
        "scaling": {"minReplicas": 1, "maxReplicas": 4},
    },
}
AUTOSCALER = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "digits"},
    "spec": {
        "scaleTargetRef": {"apiVersion": "penstock.dev/v1alpha1", "kind": "InferenceDeployment", "name": "digits"},
        "minReplicas": 2,
        "maxReplicas": 4,
        "metrics": [
            {
                "type": "External",
                "external": {
                    "metric": {"name": "penstock_requests"},
                    "target": {"type": "AverageValue", "averageValue": "10"},
                },
            }
        ],
    },
}


def test_an_autoscaler_takes_the_number_over_and_gives_it_back(watched: Watched) -> None:
    def apply(manifest: Manifest) -> str:
        return watched.kubectl("apply", "-f", "-", input=json.dumps(manifest))

    def condition() -> list[tuple[str, str]]:
        found = json.loads(watched.kubectl("get", "hpa", "digits", "-o", "json"))
        return [(each["type"], each["status"]) for each in (found.get("status") or {}).get("conditions", ())]

    apply(BASE)
    eventually(lambda: watched.scale().get("spec") == {"replicas": 1}, "the number is there though nobody wrote it")
    eventually(lambda: watched.replicas().get("desired") == 1, "it serves")
    metadata = watched.object()["metadata"]
    assert watched.object()["status"]["observedGeneration"] == metadata["generation"] == 2, (
        "the status is of our own write"
    )
    assert "unchanged" in apply(BASE)
    assert not watched.kubectl("diff", "-f", "-", input=json.dumps(BASE), check=False), "at rest nothing differs"

    apply(AUTOSCALER)
    eventually(lambda: watched.scale()["spec"] == {"replicas": 2}, "the autoscaler brings it to its minimum")
    eventually(lambda: watched.replicas().get("desired") == 2, "and that is what runs")
    eventually(lambda: ("AbleToScale", "True") in condition(), "it can be scaled")
    eventually(lambda: "penstock.dev/replicas" not in watched.object()["metadata"].get("annotations", {}), "given up")
    assert_tells(watched.replicas()["reason"], "2 spec.replicas from outside")
    assert watched.object()["status"]["scalingHistory"][-1]["rule"] == "Outside"

    watched.kubectl("delete", "hpa", "digits")
    apply(BASE)
    watched.kubectl("patch", "infdep/digits", "--type=merge", "-p", '{"spec": {"replicas": null}}')
    eventually(lambda: watched.replicas().get("desired") == 1, "load decides again")
    eventually(lambda: watched.scale().get("spec") == {"replicas": 1}, "and the number is there again")


def test_a_number_that_the_spec_fixes_is_told_and_refuses_another(watched: Watched) -> None:
    fixed = {**BASE, "spec": {**BASE["spec"], "scaling": {"replicas": 3}}}  # type: ignore[dict-item]  # test data
    watched.kubectl("apply", "-f", "-", input=json.dumps(fixed))
    eventually(lambda: watched.scale().get("spec") == {"replicas": 3}, "the number is the spec's")
    done = watched.plane.kubectl("-n", watched.namespace, "scale", "infdep/digits", "--replicas=5", check=False)
    assert done.returncode
    assert_tells(done.stderr, "spec.scaling.replicas fixes take it out")
