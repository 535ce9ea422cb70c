from __future__ import annotations

import builtins
import textwrap
from pathlib import Path
from typing import Any

import pytest
from tests.telling import assert_tells, telling

from penstock.api.documents import load_documents
from penstock.api.reading import read
from penstock.api.v1alpha1 import InferenceDeployment
from penstock.errors import Invalid
from penstock_cli.validation.admission import is_checked, validate, validate_text

ROOT = Path(__file__).parents[3]

FILE = """\
# a comment
apiVersion: v1
kind: Secret
metadata: {name: ray-token}
---
---
apiVersion: penstock.dev/v1alpha1
kind: InferenceDeployment
metadata:
  name: digits
spec:
  model:
    storageUri: ftp://models/digits
    modelFormat: onnx
  scaling:
    minReplicas: 3
"""


def test_a_problem_names_file_line_and_field() -> None:
    judged = validate_text(FILE, "digits.yaml")

    assert [(p.filename, p.line, p.field) for p in judged.problems] == [
        ("digits.yaml", 13, "spec.model.storageUri"),
        ("digits.yaml", 16, "spec.scaling.minReplicas"),
    ]
    assert str(judged.problems[0]).startswith("digits.yaml:13: spec.model.storageUri: Invalid value: ")
    assert judged.not_checked == ("Secret/ray-token",)
    assert [document.line for document in judged.documents] == [2, 7]


def test_a_missing_field_stands_at_what_should_hold_it() -> None:
    text = FILE.replace("    storageUri: ftp://models/digits\n", "").replace("minReplicas: 3", "minReplicas: 0")

    (problem,) = validate_text(text, "f.yaml").problems

    assert (problem.line, problem.field, problem.message) == (12, "spec.model.storageUri", "Required value")


@pytest.mark.parametrize("sample", sorted((ROOT / "manifests" / "samples").glob("*.yaml")), ids=lambda path: path.name)
def test_the_samples_are_taken(sample: Path) -> None:
    judged = validate_text(sample.read_text(), sample.name)

    assert judged.problems == ()
    assert len(judged.documents) == 1


def test_a_list_is_taken_apart() -> None:
    inner = textwrap.indent(FILE.split("---\n")[2], "  ").replace("  apiVersion", "- apiVersion", 1)
    text = "apiVersion: v1\nkind: List\nitems:\n" + inner

    assert [p.line for p in validate_text(text, "l.yaml").problems] == [10, 13]


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        pytest.param("a: 1\nb: 2\na: 3\n", 'f.yaml:3: "a" twice keep one', id="a key that stands twice"),
        pytest.param("s:\n  m:\n    x: 1\n    x: 1\n", 'f.yaml:4: "s.m.x" twice', id="a key twice, deep"),
        pytest.param("a: [1\nb: 2\n", "f.yaml:2: YAML", id="a bracket that stays open"),
        pytest.param("a: b: c\n", "f.yaml:1: YAML", id="two colons"),
        pytest.param("a: !!python/object:os.system {}\n", "f.yaml:1: YAML", id="a Python object"),
        pytest.param("- a\n", "f.yaml:1: document object", id="a list as document"),
        pytest.param("---\njust words\n", "f.yaml:2: document object", id="words"),
        pytest.param("? [a]\n: 1\n", "f.yaml:1:", id="a list as a key"),
        pytest.param("a: \x00\n", "f.yaml:1: YAML", id="a character that YAML forbids"),
        pytest.param(
            "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)),
            "f.yaml:1: too large aliases",
            id="a billion laughs",
        ),
        pytest.param("a: .nan\n", "f.yaml:1: JSON nan", id="not a number"),
        pytest.param("a: !!set {x}\n", "f.yaml:1: JSON set", id="a set"),
        pytest.param("a: !!binary aGk=\n", "f.yaml:1: JSON bytes", id="bytes"),
        pytest.param("a: &a [*a]\n", "f.yaml:1: nested deeply", id="an alias of itself"),
        pytest.param("a: " + "[" * 150 + "]" * 150, "f.yaml:1: nested deeply", id="150 brackets"),
        pytest.param("a: " + "[" * 9000 + "]" * 9000, "f.yaml:1: nested deeply", id="9,000 brackets"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(text: str, facts: str) -> None:
    with pytest.raises(Invalid, match=telling(facts)):
        load_documents(text, "f.yaml")


def test_nothing_is_no_document() -> None:
    assert load_documents("# only a comment\n---\n---\nnull\n", "f.yaml") == []


def test_keys_are_strings() -> None:
    (document,) = load_documents("7: a\ntrue: {2.5: b}\n", "f.yaml")
    assert document.manifest == {"7": "a", "true": {"2.5": "b"}}


def test_a_date_stays_a_string() -> None:
    (document,) = load_documents("a: 2026-01-01\n", "f.yaml")
    assert document.manifest == {"a": "2026-01-01"}


@pytest.mark.parametrize(
    ("manifest", "facts"),
    [
        pytest.param({}, "apiVersion: Required value", id="nothing"),
        pytest.param({"apiVersion": "penstock.dev/v1alpha1"}, "kind: Required value", id="no kind"),
        pytest.param(
            {"apiVersion": "penstock.dev/v1alpha1", "kind": "Model"},
            'kind: "Model" "penstock.dev/v1alpha1" InferenceDeployment ServingPool',
            id="an unknown kind",
        ),
        pytest.param(
            {"apiVersion": "v1", "kind": "ServingPool"},
            'apiVersion: "v1" "ServingPool" InferenceDeployment ServingPool',
            id="our kind in another group",
        ),
        pytest.param(
            {"apiVersion": "penstock.dev/v1alpha1", "kind": "ServingPool", "metadata": {}, "spec": {}},
            "metadata.name: Required value",
            id="no name",
        ),
        pytest.param(
            {"apiVersion": "penstock.dev/v1alpha1", "kind": "ServingPool", "metadata": 3, "spec": {}},
            'metadata: "integer" object',
            id="metadata that is no object",
        ),
    ],
)
def test_an_object_without_identity_is_refused(manifest: dict[str, Any], facts: str) -> None:
    (problem,) = validate(manifest)
    assert str(problem).startswith(facts.split(":", maxsplit=1)[0])
    assert_tells(str(problem), facts)


def test_objects_of_others_pass_unchecked() -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "vision"}}
    assert not is_checked(namespace)
    assert validate(namespace) == []


def manifest(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "a", "namespace": "vision", "managedFields": []},
        "spec": spec,
    }


def test_a_manifest_becomes_a_typed_resource() -> None:
    model = {"storageUri": "file:///m", "modelFormat": "onnx"}
    resources = {"cpu": 2, "accelerator": {"type": "x", "count": 1}}
    deployment = read(InferenceDeployment, manifest("InferenceDeployment", {"model": model, "resources": resources}))

    assert deployment.spec.resources.cpu == "2"
    assert deployment.spec.resources.accelerator is not None
    assert deployment.spec.resources.accelerator.count == "1"
    assert deployment.spec.pool_ref.name == "default"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        pytest.param(
            {"model": {"modelFormat": "onnx"}}, r"spec\.model\.storageUri: Field required", id="a field missing"
        ),
        pytest.param(
            {"model": {"storageUri": "file:///m", "modelFormat": "tf"}},
            r"spec\.model\.modelFormat: ",
            id="a wrong value",
        ),
        pytest.param(
            {"model": {"storageUri": "file:///m", "modelFormat": "onnx"}, "resources": {"cpu": 0.5}},
            r"spec\.resources\.cpu: ",
            id="a float for a quantity",
        ),
        pytest.param(
            {"model": {"storageUri": "file:///m", "modelFormat": "onnx"}, "resources": {"cpu": True}},
            r"spec\.resources\.cpu: ",
            id="a truth value for a quantity",
        ),
    ],
)
def test_what_is_no_such_resource_is_named_by_its_field(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        read(InferenceDeployment, manifest("InferenceDeployment", spec))


def test_without_the_cli_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without_cel(name: str, *rest: Any, **more: Any) -> Any:
        if name == "penstock_cli.validation" and "cel" in (rest[2] or ()):
            raise ImportError("No module named 'celpy'", name="celpy")
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_cel)

    with pytest.raises(ImportError, match=telling("celpy install penstock[cli]")):
        validate(manifest("ServingPool", {"existing": {"address": "http://ray:8265"}}))
