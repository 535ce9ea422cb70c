"""`penstock validate` on files as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.telling import Telling, assert_tells, telling
from typer.testing import CliRunner, Result

from penstock.errors import Invalid
from penstock_cli.main import app
from penstock_cli.validation.manifests import load_accepted

SAMPLE = Path(__file__).resolve().parents[3] / "manifests" / "samples" / "digits.yaml"
NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: vision}\n"


def validate(*arguments: str | Path, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["validate", *map(str, arguments)], input=stdin)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        pytest.param("# nothing\n", "nothing checked no object", id="a comment only"),
        pytest.param(NAMESPACE, "nothing checked none of 1 objects kinds", id="a foreign kind"),
    ],
)
def test_nothing_checked_is_not_called_accepted(text: str, facts: str) -> None:
    result = validate("-", stdin=text)
    assert_tells(result.output, facts)
    assert "accept" not in result.output


def test_an_object_that_stands_twice_is_named_at_both_places(tmp_path: Path) -> None:
    one, two = tmp_path / "a.yaml", tmp_path / "b.yaml"
    one.write_text(SAMPLE.read_text())
    two.write_text("---\n" + SAMPLE.read_text())
    result = validate(tmp_path)
    assert result.exit_code == 1
    assert_tells(result.output, f"InferenceDeployment/digits twice {one}:")
    assert result.output.startswith(f"{two}:")
    with pytest.raises(Invalid, match=telling("InferenceDeployment/digits twice")):
        load_accepted([str(tmp_path)])


def test_the_same_name_in_two_namespaces_is_two_objects() -> None:
    text = SAMPLE.read_text()
    other = text.replace("namespace: default", "namespace: other")
    assert "namespace: other" in other
    assert validate("-", stdin=f"{text}\n---\n{other}").exit_code == 0


def test_a_folder_of_folders_says_that_they_are_not_searched(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    assert_tells(str(validate(tmp_path).exception), str(tmp_path), "sub-folders not")


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        pytest.param("kind: ServingPool\n", "apiVersion: Required value: penstock.dev/v1alpha1", id="no version"),
        pytest.param(
            "apiVersion: penstock.dev/v1alpha1\n",
            "kind: Required value: InferenceDeployment",
            id="no kind",
        ),
    ],
)
def test_an_object_without_identity_is_one_problem(text: str, facts: str) -> None:
    result = validate("-", stdin=text)
    assert result.output.splitlines() == [Telling("stdin:1:", facts)]
    assert result.exit_code == 1


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    file = tmp_path / "latin.yaml"
    file.write_bytes(b"# one\n# caf\xe9\n")
    assert_tells(str(validate(file).exception), f"{file}:2: UTF-8 0xe9")
    assert_tells(str(validate("-", stdin=b"\xff").exception), "stdin:1: UTF-8 0xff")


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        pytest.param("resources: {cpu: 0.5}", '0.5 write "0.5" quotes', id="half a core"),
        pytest.param("tracing: {samplingRatio: 0.1}", '0.1 write "0.1" quotes', id="a ratio"),
        pytest.param("resources: {accelerator: {type: l4, count: 0.5}}", '0.5 write "0.5" quotes', id="half a GPU"),
        pytest.param('batching: {maxQueuedRequests: "8"}', '"8" write 8 without quotes', id="a number in quotes"),
        pytest.param("batching: {maxQueuedRequests: many}", '"many" whole number', id="words"),
        pytest.param("batching: {maxQueuedRequests: 1.5}", "1.5 whole number", id="a fraction"),
        pytest.param("resources: {cpu: yes}", "true whole number text", id="a truth value"),
        pytest.param("poolRef: {name: 7}", '7 write "7" quotes', id="a number for a name"),
        pytest.param(
            "poolRef: {name: on}",
            'on YAML true write "on" quotes',
            id="a truth value for a name",
        ),
        pytest.param(
            "poolRef: {name: 12345e6}",
            '12345e6 YAML 12345000000 write "12345e6" quotes',
            id="a hash that looks like a number",
        ),
        pytest.param("poolRef: {name: 010}", '010 YAML 8 write "010"', id="octal digits"),
        pytest.param("scaling: [1]", "[1] object fields", id="a list"),
    ],
)
def test_a_wrong_type_says_what_to_write(fields: str, facts: str) -> None:
    text = (
        "apiVersion: penstock.dev/v1alpha1\nkind: InferenceDeployment\nmetadata: {name: a}\nspec:\n"
        f"  model: {{storageUri: file:///m, modelFormat: onnx}}\n  {fields}\n"
    )
    (line,) = validate("-", stdin=text).output.splitlines()
    assert "in body must be of type" in line
    assert_tells(line[line.index("(") :], facts)
