from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.api import API_VERSION, crds
from penstock.api.kinds import KINDS, Kind
from penstock.api.rules import FIELD_RULES, MODEL_RULES

ROOT = Path(__file__).parents[3]


@cache
def schema(kind: str) -> Any:
    return crds.crd(KINDS[kind])["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def field(kind: str, path: str) -> Any:
    node = schema(kind)
    for name in path.split("."):
        node = node["properties"][name]
    return node


def nodes(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], path + "[]")


def test_the_committed_crds_are_those_that_the_types_give() -> None:
    assert crds.differences(ROOT / "manifests" / "crds") == ""


def test_generation_gives_the_same_bytes_each_time() -> None:
    once = crds.files()
    assert once == crds.files()
    assert [yaml.load(text, yaml.CSafeLoader) for text in once.values()] == [crds.crd(kind) for kind in KINDS.values()]


def test_check_passes_on_what_was_written_and_names_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert crds.main([str(tmp_path)]) == 0
    assert crds.main(["--check", str(tmp_path)]) == 0
    changed = tmp_path / "penstock.dev_servingpools.yaml"
    changed.write_text(changed.read_text().replace("spool", "pool"))
    capsys.readouterr()

    assert crds.main(["--check", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "-    - pool\n" in said
    assert "+    - spool\n" in said


@pytest.mark.parametrize("name", ["penstock.dev_gone.yaml", "stray.yaml"])
def test_check_finds_a_file_that_should_not_be_there(tmp_path: Path, name: str) -> None:
    crds.main([str(tmp_path)])
    (tmp_path / name).write_text("kind: Gone\n")

    assert crds.main(["--check", str(tmp_path)]) == 1


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_the_types_are_of_the_version_that_is_served(kind: Kind) -> None:
    fields = kind.model.model_fields
    assert (fields["api_version"].default, fields["kind"].default) == (API_VERSION, kind.name)


def test_check_of_an_empty_folder_fails_and_writes_nothing(tmp_path: Path) -> None:
    assert crds.main(["--check", str(tmp_path)]) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_crd_that_is_no_longer_generated_is_removed(tmp_path: Path) -> None:
    (tmp_path / "penstock.dev_gone.yaml").write_text("kind: Gone\n")
    crds.main([str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(crds.files())


@pytest.mark.parametrize(
    ("kind", "path", "expected"),
    [
        pytest.param("InferenceDeployment", "spec.cache.mode", {"enum": ["Off", "Exact"]}, id="an enum"),
        pytest.param(
            "InferenceDeployment",
            "spec.batching.maxQueuedRequests",
            {"type": "integer", "default": 512, "minimum": 1, "maximum": 1_000_000},
            id="bounds and a default",
        ),
        pytest.param(
            "InferenceDeployment",
            "spec.batching.maxBatchSize",
            {"x-kubernetes-int-or-string": True, "default": "Auto", "maxLength": 32},
            id="a number or a word",
        ),
        pytest.param(
            "InferenceDeployment", "spec.tracing", {"default": {"samplingRatio": "0.01"}}, id="an object's default"
        ),
        pytest.param("InferenceDeployment", "spec.poolRef", {"default": {"name": "default"}}, id="a filled default"),
        pytest.param(
            "InferenceDeployment",
            "spec.resources.accelerator.count",
            {"x-kubernetes-int-or-string": True, "default": "1"},
            id="a number in or out of quotes",
        ),
        pytest.param(
            "InferenceDeployment",
            "status.conditions",
            {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
            id="conditions are a map by type",
        ),
        pytest.param(
            "InferenceDeployment",
            "spec.scaling.replicas",
            {"description": "A fixed number. While set, nothing scales by load, and `/scale` takes no other."},
            id="a docstring is the description",
        ),
        pytest.param("ServingPool", "spec.existing.tokenSecretRef", {"required": ["name"]}, id="a required field"),
        pytest.param(
            "ServingPool",
            "status.capacity.accelerators",
            {"type": "object", "additionalProperties": {"type": "string"}},
            id="a map",
        ),
    ],
)
def test_a_type_becomes_a_schema(kind: str, path: str, expected: dict[str, Any]) -> None:
    found = field(kind, path)
    assert {key: found.get(key) for key in expected} == expected


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_described_and_typed_and_none_is_unknown(kind: str) -> None:
    for path, node in nodes(schema(kind)):
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        assert "x-kubernetes-preserve-unknown-fields" not in node or ".podTemplate.spec." in path, path
        if path not in (".metadata", "") and not path.endswith(("[]", "[].status")):
            assert node.get("description"), path


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.status is not None])
def test_a_status_is_never_filled_in_by_defaults(kind: str) -> None:
    assert [path for path, node in nodes(field(kind, "status")) if "default" in node] == []


def test_every_rule_stands_in_a_crd() -> None:
    declared = {rule.rule for rules in (*MODEL_RULES.values(), *FIELD_RULES.values()) for rule in rules}
    generated = {
        entry["rule"]
        for kind in KINDS
        for _, node in nodes(schema(kind))
        for entry in node.get("x-kubernetes-validations", ())
    }
    assert generated == declared


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("InferenceDeployment", ["Ready", "Model", "Replicas", "URL", "Age"]),
        ("ServingPool", ["Ready", "Nodes", "CPU", "Deployments", "Age"]),
        ("APIKey", ["Ready", "Deployments", "Limit", "Expires", "Age"]),
        ("TenantQuota", ["Deployments", "Replicas", "Of", "Accelerators", "Memory", "Exceeded", "Age"]),
        ("OptimizationRun", ["Verdict", "Speedup", "Stage", "Accuracy", "Age"]),
        ("OptimizationProfile", ["Objective", "Strategy", "Minutes", "Minimum", "Age"]),
    ],
)
def test_get_shows_the_columns_that_people_need(kind: str, columns: list[str]) -> None:
    version = crds.crd(KINDS[kind])["spec"]["versions"][0]
    shown = [c["name"] for c in version["additionalPrinterColumns"] if not c.get("priority")]
    assert shown == columns


def test_scale_reads_and_writes_fields_that_exist() -> None:
    version = crds.crd(KINDS["InferenceDeployment"])["spec"]["versions"][0]
    for path in version["subresources"]["scale"].values():
        assert field("InferenceDeployment", path.removeprefix("."))["type"] in ("integer", "string")


@pytest.mark.parametrize(
    ("kind", "scope"), [("OptimizationProfile", "Namespaced"), ("ClusterOptimizationProfile", "Cluster")]
)
def test_a_profile_is_of_a_namespace_or_of_the_cluster_and_has_no_status(kind: str, scope: str) -> None:
    spec = crds.crd(KINDS[kind])["spec"]
    assert spec["scope"] == scope
    assert spec["versions"][0]["subresources"] == {}
    assert "status" not in schema(kind)["properties"]
