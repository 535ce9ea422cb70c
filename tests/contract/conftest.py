"""The two clusters that one contract holds: the embedded one and a real API server."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.cluster.controlplane import ControlPlane

from penstock_operator.runtime.cluster import NAMESPACE, Cluster, Key, ResourceKind
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
from penstock_operator.runtime.cluster.kubernetes import KubernetesCluster

WIDGET = ResourceKind("testing.penstock.dev", "v1", "Widget", "widgets", has_status=True)
_ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_CONDITIONS = {
    "type": "array",
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["type"],
    "items": {"type": "object", "required": ["type"], "properties": {"type": {"type": "string"}}} | _ANYTHING,
}
_SPEC = _ANYTHING | {"properties": {"size": {"type": "integer", "minimum": 0}}}
_STATUS = _ANYTHING | {"properties": {"conditions": _CONDITIONS}}
_SCHEMA = {"type": "object", "properties": {"spec": _SPEC, "status": _STATUS}}
_WIDGET_CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.testing.penstock.dev"},
    "spec": {
        "group": WIDGET.group,
        "scope": "Namespaced",
        "names": {"kind": WIDGET.kind, "plural": WIDGET.plural, "singular": "widget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": _SCHEMA},
                "subresources": {"status": {}},
            }
        ],
    },
}


def refuse_negative_sizes(manifest: dict[str, object], _old: dict[str, object] | None) -> list[str]:
    """What the widget's schema says, for the embedded cluster."""
    spec = manifest.get("spec")
    negative = isinstance(spec, dict) and spec.get("size", 0) < 0
    return ["spec.size: should be greater than or equal to 0"] if negative else []


@dataclass(frozen=True)
class Connections:
    """A cluster, another connection to the same one, and a fresh namespace in it."""

    cluster: Cluster
    other: Cluster
    namespace: str


@pytest.fixture(params=["embedded", pytest.param("kubernetes", marks=pytest.mark.apiserver)])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connections]:
    """Each contract test runs once on each cluster."""
    if request.param == "embedded":
        path = tmp_path / "cluster.sqlite"
        cluster: Cluster = EmbeddedCluster(path, refuse_negative_sizes, keep_events=50)
        other: Cluster = EmbeddedCluster(path, refuse_negative_sizes, keep_events=50)
    else:
        kubeconfig = request.getfixturevalue("widgets").kubeconfig
        cluster, other = KubernetesCluster.connect(kubeconfig), KubernetesCluster.connect(kubeconfig)
    namespace = f"contract-{secrets.token_hex(4)}"
    cluster.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    yield Connections(cluster, other, namespace)
    cluster.delete(NAMESPACE, Key("", namespace))
    cluster.close()
    other.close()


@pytest.fixture(scope="module")
def widgets(api_server: ControlPlane) -> ControlPlane:
    """The API server, once it serves widgets."""
    manifest = api_server.folder / "widgets.json"
    manifest.write_text(json.dumps(_WIDGET_CRD))
    api_server.serve_once(manifest)
    return api_server
