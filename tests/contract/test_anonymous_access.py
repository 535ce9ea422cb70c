"""Who may open a model to callers without a key, where the chart's values bind that to a right: asked of a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.chart.helm import render
from tests.cluster.controlplane import ControlPlane
from tests.contract.test_tenant_quota import apply, until_refused
from tests.telling import assert_tells

KINDS = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
NAME = "penstock-anonymous-access"
RBAC = "rbac.authorization.k8s.io"


def deployment(authentication: str | None, labels: dict[str, str] | None = None) -> dict[str, Any]:
    access = {"access": {"authentication": authentication}} if authentication else {}
    model = {"storageUri": "s3://models/digits", "modelFormat": "onnx"}
    return {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "InferenceDeployment",
        "metadata": {"name": "digits", "labels": labels or {}},
        "spec": {"model": model, **access},
    }


def granted(user: str, *verbs: str) -> dict[str, Any]:
    rules = [{"apiGroups": ["penstock.dev"], "resources": ["inferencedeployments"], "verbs": list(verbs)}]
    reference = {"apiGroup": RBAC, "kind": "ClusterRole", "name": user}
    subjects = [{"apiGroup": RBAC, "kind": "User", "name": user}]
    items = [
        {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": user}, "rules": rules},
        {
            "apiVersion": f"{RBAC}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": user},
            "roleRef": reference, "subjects": subjects,
        },
    ]  # fmt: skip
    return {"apiVersion": "v1", "kind": "List", "items": items}


@pytest.fixture(scope="module")
def closed(crds: ControlPlane) -> Iterator[ControlPlane]:
    policy = [
        each for each in render({"access": {"anonymous": "ByRight"}}).all(*KINDS) if each["metadata"]["name"] == NAME
    ]
    assert len(policy) == 2
    crds.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(policy))
    writes = ("get", "create", "patch", "update")
    crds.kubectl("apply", "-f", "-", input=json.dumps(granted("anonymous-tenant", *writes)))
    crds.kubectl("apply", "-f", "-", input=json.dumps(granted("anonymous-platform", *writes, "allow-anonymous")))
    yield crds
    crds.kubectl("delete", *(f"{each['kind']}/{NAME}" for each in policy))


@pytest.mark.apiserver
def test_only_who_has_the_right_opens_a_model_and_what_is_open_can_be_changed(
    closed: ControlPlane, namespace: str
) -> None:
    tenant, platform = "--as=anonymous-tenant", "--as=anonymous-platform"
    until_refused(closed, namespace, deployment("Anonymous"), tenant)
    for authentication in ("Required", None):
        assert "digits" in apply(closed, namespace, deployment(authentication), tenant)
    said = apply(closed, namespace, deployment("Anonymous"), tenant, check=False)
    assert_tells(said, "spec.access.authentication allow-anonymous")  # nor one that is there
    apply(closed, namespace, deployment("Anonymous"), platform)
    apply(closed, namespace, deployment("Anonymous", {"team": "a"}), tenant)
    apply(closed, namespace, deployment("Required"), tenant)
    assert_tells(apply(closed, namespace, deployment("Anonymous"), tenant, check=False), "allow-anonymous")


def test_without_that_value_there_is_no_such_policy() -> None:
    assert NAME not in {each["metadata"]["name"] for each in render().all(*KINDS)}
