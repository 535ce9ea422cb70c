"""What is deleted goes, whatever happens meanwhile: nothing is left, nothing is stuck."""

from __future__ import annotations

import json

import pytest
from tests.chart.helm import NAMESPACE
from tests.e2e.cluster.installation import Installation, Object, deployment, pool, tenant, until
from tests.e2e.cluster.model_store import ModelStore

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
_OURS = "infdep,servingpool,raycluster,pod,networkpolicy,job,optimizationrun,service"


def _left(installation: Installation, namespace: str) -> list[str]:
    kubectl = installation.cluster.kubectl
    found = json.loads(kubectl("get", _OURS, "-n", namespace, "-o", "json"))["items"]
    found += json.loads(kubectl("get", "secret", "-n", namespace, "-l", "penstock.dev/pool", "-o", "json"))["items"]
    return [f"{each['kind']}/{each['metadata']['name']}" for each in found]


def _restart_operators(installation: Installation) -> None:
    installation.cluster.kubectl("rollout", "restart", "deployment/penstock-operator", "-n", NAMESPACE)


def test_a_model_its_pool_and_what_they_made(installation: Installation, store: ModelStore, model_uri: str) -> None:
    with tenant(installation, store.credentials()) as made:
        made.apply(pool(), deployment("dense", model_uri))
        installation.until_ready("infdep", made.namespace, "dense")
        installation.cluster.kubectl("delete", "infdep,servingpool", "--all", "-n", made.namespace, "--wait=false")
        _restart_operators(installation)
        until("everything is gone", lambda: not _left(installation, made.namespace) or None, 180)


def test_a_hundred_models_of_ten_suspended_pools(installation: Installation, model_uri: str) -> None:
    names = [f"many-{number}" for number in range(10)]
    kubectl = installation.cluster.kubectl
    kubectl("apply", "-f", "-", manifest=[_namespace(name) for name in names])
    try:
        objects = [_placed(each, name) for name in names for each in _ten_models(model_uri)]
        kubectl("apply", "--server-side", "-f", "-", manifest=objects)
        until("all have a status", lambda: _with_status(installation) >= len(objects) or None, 120)
        kubectl("delete", "namespace", *names, "--wait=false")
        _restart_operators(installation)
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
