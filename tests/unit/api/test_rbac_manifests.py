from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
OPERATOR = ROOT / "manifests" / "rbac" / "operator.yaml"


def rules(path: Path) -> list[tuple[str, Any]]:
    objects = yaml.safe_load_all(path.read_text())
    return [(o["kind"], rule) for o in objects if o["kind"] in ("Role", "ClusterRole") for rule in o["rules"]]


@pytest.mark.parametrize("path", sorted(OPERATOR.parent.glob("*.yaml")), ids=lambda path: path.name)
def test_every_rule_says_why_it_is_there(path: Path) -> None:
    lines = path.read_text().splitlines()
    groups = [index for index, line in enumerate(lines) if line.startswith("- apiGroups:")]
    commented = [index for index in groups if lines[index - 1].startswith("#")]
    # Two rules may share a comment where one verb cannot be limited as the other is.
    assert len(groups) - len(commented) <= 1


def test_no_rule_has_a_wildcard() -> None:
    for _, rule in rules(OPERATOR):
        assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])


def test_the_operator_reads_no_secret_and_no_pod() -> None:
    for _, rule in rules(OPERATOR):
        assert not {"secrets", "pods", "configmaps"} & set(rule["resources"])


def test_the_operator_deletes_nothing_but_what_it_made() -> None:
    deletes = [rule for _, rule in rules(OPERATOR) if {"delete", "deletecollection"} & set(rule["verbs"])]
    assert {resource for rule in deletes for resource in rule["resources"]} == {"optimizationruns", "jobs"}
    assert all("create" in rule["verbs"] for rule in deletes)
    assert not any("deletecollection" in rule["verbs"] for _, rule in rules(OPERATOR))


@pytest.mark.parametrize("resource", ["optimizationprofiles", "clusteroptimizationprofiles"])
def test_the_operator_only_reads_profiles(resource: str) -> None:
    verbs = {verb for _, rule in rules(OPERATOR) if resource in rule["resources"] for verb in rule["verbs"]}
    assert verbs == {"get", "list", "watch"}


def test_the_operator_cannot_change_a_pool() -> None:
    verbs = {verb for _, rule in rules(OPERATOR) if "servingpools" in rule["resources"] for verb in rule["verbs"]}
    assert verbs == {"get", "list", "watch"}


def test_the_example_grants_one_named_secret_in_one_namespace() -> None:
    (granted,) = rules(OPERATOR.parent / "pool-token.example.yaml")
    assert granted == (
        "Role",
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["ray-token"], "verbs": ["get"]},
    )
