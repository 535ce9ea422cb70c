"""`penstock validate` on files as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from penstock.errors import Invalid
from penstock_cli.main import app
from penstock_cli.validation.manifests import load_accepted

SAMPLE = Path(__file__).resolve().parents[3] / "manifests" / "samples" / "digits.yaml"
NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: vision}\n"


def validate(*arguments: str | Path, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["validate", *map(str, arguments)], input=stdin)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("# nothing\n", "nothing was checked: there is no object", id="a comment only"),
        pytest.param(NAMESPACE, "nothing was checked: none of 1 objects is of Penstock's kinds", id="a foreign kind"),
    ],
)
def test_nothing_checked_is_not_called_accepted(text: str, said: str) -> None:
    result = validate("-", stdin=text)
    assert said in result.output
    assert "accept" not in result.output


def test_an_object_that_stands_twice_is_named_at_both_places(tmp_path: Path) -> None:
    one, two = tmp_path / "a.yaml", tmp_path / "b.yaml"
    one.write_text(SAMPLE.read_text())
    two.write_text("---\n" + SAMPLE.read_text())
    result = validate(tmp_path)
    assert result.exit_code == 1
    assert f"InferenceDeployment/digits stands twice, first at {one}:" in result.output
    assert result.output.startswith(f"{two}:")
    with pytest.raises(Invalid, match="stands twice"):
        load_accepted([str(tmp_path)])


def test_the_same_name_in_two_namespaces_is_two_objects() -> None:
    text = SAMPLE.read_text()
    other = text.replace("namespace: default", "namespace: other")
    assert "namespace: other" in other
    assert validate("-", stdin=f"{text}\n---\n{other}").exit_code == 0


def test_a_folder_of_folders_says_that_they_are_not_searched(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    assert "sub-folders are not searched" in str(validate(tmp_path).exception)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(
            "kind: ServingPool\n", "apiVersion: Required value: such as penstock.dev/v1alpha1", id="no version"
        ),
        pytest.param(
            "apiVersion: penstock.dev/v1alpha1\n",
            "kind: Required value: such as InferenceDeployment",
            id="no kind",
        ),
    ],
)
def test_an_object_without_identity_is_one_problem(text: str, said: str) -> None:
    result = validate("-", stdin=text)
    assert result.output.splitlines() == [f"stdin:1: {said}"]
    assert result.exit_code == 1


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    file = tmp_path / "latin.yaml"
    file.write_bytes(b"# one\n# caf\xe9\n")
    assert f"{file}:2: not UTF-8 text (byte 0xe9)" in str(validate(file).exception)
    assert "stdin:1: not UTF-8 text" in str(validate("-", stdin=b"\xff").exception)


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        pytest.param("resources: {cpu: 0.5}", 'found 0.5: write "0.5", in quotes', id="half a core"),
        pytest.param("tracing: {samplingRatio: 0.1}", 'found 0.1: write "0.1", in quotes', id="a ratio"),
        pytest.param(
            "resources: {accelerator: {type: l4, count: 0.5}}", 'found 0.5: write "0.5", in quotes', id="half a GPU"
        ),
        pytest.param(
            'batching: {maxQueuedRequests: "8"}', 'found "8": write 8, without quotes', id="a number in quotes"
        ),
        pytest.param("batching: {maxQueuedRequests: many}", 'found "many"; expected a whole number', id="words"),
        pytest.param("batching: {maxQueuedRequests: 1.5}", "found 1.5; expected a whole number", id="a fraction"),
        pytest.param("resources: {cpu: yes}", "found true; expected a whole number, or text", id="a truth value"),
        pytest.param("poolRef: {name: 7}", 'found 7: write "7", in quotes', id="a number for a name"),
        pytest.param(
            "poolRef: {name: on}",
            'found on, which YAML reads as true: write "on", in quotes',
            id="a truth value for a name",
        ),
        pytest.param(
            "poolRef: {name: 12345e6}",
            'found 12345e6, which YAML reads as 12345000000: write "12345e6", in quotes',
            id="a hash that looks like a number",
        ),
        pytest.param("poolRef: {name: 010}", 'found 010, which YAML reads as 8: write "010"', id="octal digits"),
        pytest.param("scaling: [1]", "found [1]; expected an object, that is fields", id="a list"),
    ],
)
def test_a_wrong_type_says_what_to_write(fields: str, hint: str) -> None:
    text = (
        "apiVersion: penstock.dev/v1alpha1\nkind: InferenceDeployment\nmetadata: {name: a}\nspec:\n"
        f"  model: {{storageUri: file:///m, modelFormat: onnx}}\n  {fields}\n"
    )
    (line,) = validate("-", stdin=text).output.splitlines()
    assert "in body must be of type" in line
    assert f"({hint}" in line
