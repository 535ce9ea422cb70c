"""Many that are deleted together go, whatever happens meanwhile: nothing is stuck."""

from __future__ import annotations

import json

import pytest
from tests.e2e.cluster.deleting import restart_operators
from tests.e2e.cluster.installation import Installation, Object, deployment, pool, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]


def test_a_hundred_models_of_ten_suspended_pools(installation: Installation, model_uri: str) -> None:
    names = [f"many-{number}" for number in range(10)]
    kubectl = installation.cluster.kubectl
    kubectl("apply", "-f", "-", manifest=[_namespace(name) for name in names])
    try:
        objects = [_placed(each, name) for name in names for each in _ten_models(model_uri)]
        kubectl("apply", "--server-side", "-f", "-", manifest=objects)
        until("all have a status", lambda: _with_status(installation) >= len(objects) or None, 120)
        kubectl("delete", "namespace", *names, "--wait=false")
        restart_operators(installation)
        kubectl("wait", "--for=delete", "--timeout=180s", *(f"namespace/{name}" for name in names))
    finally:
        kubectl("delete", "namespace", *names, "--ignore-not-found", "--wait=false")


def _namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _ten_models(uri: str) -> list[Object]:
    given = pool()
    return [given | {"spec": given["spec"] | {"suspend": True}}, *(deployment(f"m{n}", uri) for n in range(10))]


def _placed(each: Object, namespace: str) -> Object:
    return each | {"metadata": each["metadata"] | {"namespace": namespace}}


def _with_status(installation: Installation) -> int:
    found = json.loads(installation.cluster.kubectl("get", "infdep,servingpool", "-A", "-o", "json"))["items"]
    ours = (each for each in found if each["metadata"]["namespace"].startswith("many-"))
    return sum(bool(each.get("status", {}).get("conditions")) for each in ours)
