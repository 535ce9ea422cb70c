"""What the chart's roles grant, as rules; tests/contract asks a real API server the same by request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.chart.helm import CHART, EVERYTHING, Object, render

from penstock.api.kinds import KINDS, Kind

EXAMPLE = Path(__file__).parents[3] / "manifests" / "rbac" / "pool-token.example.yaml"


def _rules(values: Object | None = None) -> list[Any]:
    """Of the operator's roles."""
    roles = render(values).all("ClusterRole", "Role")
    return [rule for each in roles if "operator" in each["metadata"]["name"] for rule in each["rules"]]


def _verbs(resource: str) -> set[str]:
    return {verb for rule in _rules() if resource in rule["resources"] for verb in rule["verbs"]}


@pytest.mark.parametrize("values", [pytest.param({}, id="as it comes"), pytest.param(EVERYTHING, id="with everything")])
def test_no_rule_of_the_operator_has_a_wildcard(values: Object) -> None:
    assert [each for each in _rules(values) if "*" in {*each["apiGroups"], *each["resources"], *each["verbs"]}] == []


@pytest.mark.parametrize(
    "path",
    [CHART / "templates" / "operator-rights.yaml", CHART / "templates" / "tenant-roles.yaml", EXAMPLE],
    ids=lambda path: path.name,
)
def test_every_rule_says_why_it_is_there(path: Path) -> None:
    lines = path.read_text().splitlines()
    groups = [index for index, line in enumerate(lines) if line.startswith("- apiGroups:")]
    # The reason is above the rule, or above the role where the rule is its only one. Two rules may share a comment where
    # one verb cannot be limited as the other is.
    bare = [index + 1 for index in groups if not lines[index - 1].startswith("#") and lines[index - 1] != "rules:"]
    assert [each for each in bare if "resourceNames" not in lines[each + 1]] == []


def test_the_operator_deletes_nothing_but_what_it_made() -> None:
    deletes = [rule for rule in _rules() if {"delete", "deletecollection"} & set(rule["verbs"])]
    assert {resource for rule in deletes for resource in rule["resources"]} == _MADE_AND_DELETED
    assert all("create" in rule["verbs"] for rule in deletes)
    assert not any("deletecollection" in rule["verbs"] for rule in _rules())


_MADE_AND_DELETED = {"optimizationruns", "jobs", "rayclusters"}


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_the_operator_sees_every_kind_and_writes_the_status_of_each_that_has_one(kind: Kind) -> None:
    assert _verbs(kind.plural) >= {"get", "list", "watch"}
    assert _verbs(f"{kind.plural}/status") == ({"get", "patch", "update"} if kind.status is not None else set())


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_someone_may_see_and_make_each_kind_that_users_make(kind: Kind) -> None:
    roles = [each for each in render().all("ClusterRole") if "operator" not in each["metadata"]["name"]]
    verbs = {
        verb for each in roles for rule in each["rules"] if kind.plural in rule["resources"] for verb in rule["verbs"]
    }
    assert verbs >= {"get", "list", "watch", "delete"}
    assert ("create" in verbs) == (kind.name != "OptimizationRun"), "runs are the operator's to make"


@pytest.mark.parametrize(
    ("resource", "verbs"),
    [
        pytest.param("secrets", {"create"}, id="makes Secrets, and reads none"),
        pytest.param("networkpolicies", {"create", "list", "patch", "watch"}, id="deletes no NetworkPolicy"),
        pytest.param("configmaps", set(), id="reads no ConfigMap"),
        pytest.param("pods", {"get", "list", "watch"}, id="only looks at pods"),
        pytest.param("nodes", {"get", "list", "watch"}, id="only looks at nodes"),
        pytest.param("optimizationprofiles", {"get", "list", "watch"}, id="only reads profiles"),
        pytest.param("clusteroptimizationprofiles", {"get", "list", "watch"}, id="only reads the cluster's profiles"),
        pytest.param("apikeys", {"get", "list", "watch"}, id="only reads keys' hashes"),
        pytest.param("tenantquotas", {"get", "list", "watch"}, id="sets no quota"),
        pytest.param(
            "servingpools", {"get", "list", "watch", "create", "patch"}, id="makes a pool, and holds it by a finalizer"
        ),
        pytest.param("inferencedeployments", {"get", "list", "watch", "patch"}, id="makes no deployment"),
    ],
)
def test_the_operator(resource: str, verbs: set[str]) -> None:
    assert _verbs(resource) == verbs


@pytest.mark.parametrize(
    ("spec", "verbs"),
    [
        pytest.param(
            {"existing": {"address": "http://ray.shared.svc:8265"}}, {"use-foreign-address"}, id="a shared Ray"
        ),
        pytest.param(
            {"managed": {"cache": {"hostPath": "/mnt/nvme"}}}, {"use-any-host-path"}, id="a folder of the nodes"
        ),
        pytest.param(
            {"managed": {"cache": {"hostPath": "/var/cache/penstock"}}}, set(), id="the folder that all may use"
        ),
        pytest.param({"managed": {}}, set(), id="nothing that others may not ask for"),
    ],
)
def test_the_operator_may_make_the_default_pool_that_the_values_say(spec: Object, verbs: set[str]) -> None:
    rules = _rules({"defaultPool": {"spec": spec | {"managed": spec.get("managed")}}})
    found = {verb for rule in rules if "servingpools" in rule["resources"] for verb in rule["verbs"]}
    assert {each for each in found if each.startswith("use-")} == verbs


def test_the_example_grants_one_named_secret_in_one_namespace() -> None:
    objects = yaml.safe_load_all(EXAMPLE.read_text())
    (granted,) = [rule for each in objects if each["kind"] == "Role" for rule in each["rules"]]
    assert granted == {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["ray-token"], "verbs": ["get"]}


def test_rights_are_bound_in_the_watched_namespaces_alone_where_there_are_some() -> None:
    chart = render({"operator": {"watchNamespaces": ["vision", "speech"]}})
    bound = [
        each["metadata"]["namespace"] for each in chart.all("RoleBinding") if each["roleRef"]["kind"] == "ClusterRole"
    ]
    assert sorted(bound) == ["speech", "vision"]
    assert "penstock-operator" not in {each["metadata"]["name"] for each in chart.all("ClusterRoleBinding")}


def test_no_tenants_role_lets_them_change_a_quota_or_a_run() -> None:
    for each in render().all("ClusterRole"):
        if each["metadata"]["name"] not in {"penstock-operator", "penstock-operator-cluster", "penstock-platform"}:
            for rule in each["rules"]:
                changing = set(rule["verbs"]) - {"get", "list", "watch"}
                assert not changing or not {"tenantquotas", "clusteroptimizationprofiles"} & set(rule["resources"])
                assert not [resource for resource in rule["resources"] if resource.endswith("/status")]
