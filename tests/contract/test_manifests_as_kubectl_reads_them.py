"""Files as people write them: what `penstock validate` says of each, and what kubectl and the real API server say.

The rows are text, since much of what goes wrong is how YAML is read: `y` is true, `1e3` a number, and a hash such as
`12345e6` too.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from tests.cluster.controlplane import ControlPlane

from penstock.errors import Invalid
from penstock_cli.validation.admission import validate_text

DEPLOYMENT: Final = """\
apiVersion: penstock.dev/v1alpha1
kind: InferenceDeployment
metadata:
  name: NAME
  namespace: default
METADATA
spec:
  model: {storageUri: "file:///models/digits/1", modelFormat: onnx}
SPEC
"""


class Row(NamedTuple):
    """A file."""

    name: str
    text: str
    refused: bool


def _indented(text: str, by: int = 2) -> str:
    return "\n".join(" " * by + line for line in text.splitlines())


def _metadata(name: str, fragment: str, *, refused: bool) -> Row:
    return Row(name, DEPLOYMENT.replace("METADATA", _indented(fragment)).replace("SPEC", ""), refused)


def _label(text: str, *, refused: bool) -> Row:
    return _metadata(f"the label {text!r}", f"labels: {{a: {text}}}", refused=refused)


def _key(text: str, *, refused: bool) -> Row:
    return _metadata(f"the label's key {text[:80]!r}", f"labels: {{? {text} : x}}", refused=refused)


def _spec(name: str, fragment: str, *, refused: bool) -> Row:
    return Row(name, DEPLOYMENT.replace("METADATA", "").replace("SPEC", _indented(fragment)), refused)


def _whole(name: str, text: str, *, refused: bool) -> Row:
    return Row(name, text, refused)


def _named(text: str, *, refused: bool) -> Row:
    given = DEPLOYMENT.replace("name: NAME", f"name: {text}").replace("METADATA", "").replace("SPEC", "")
    return Row(f"the name {text[:70]}", given, refused)


PLAIN: Final = DEPLOYMENT.replace("METADATA", "").replace("SPEC", "")
OWNER: Final = "apiVersion: v1, kind: ConfigMap, name: a, uid: b"

LABELS_TAKEN: Final = (
    '"2"', "v2", "''", "null", "~", "1.2.3", "2026-01-31", "0x", "1_a", "a_b.c-d", "x" * 63, "1.e", "e3", "Y1", "'yes'",
    "x.-x", "0b2", "00x", "09a", "1e999",
)  # fmt: skip
LABELS_REFUSED: Final = (
    "2", "2.0", "0.5", "true", "yes", "no", "on", "Off", "y", "n", "Y", "N", "1e3", "12345e6", "08", "0o14", "0x1F", "1_000", "+1",
    "-1", ".5", "5.", "0b11", "9223372036854775808", "18446744073709551616", "x" * 64, "a b", "a+b", "a.", "-a", "ü", "[a]",
    "{a: b}", "'a/b'", '"a\\n"', "2026-01-31T10:00:00Z",
)  # fmt: skip
KEYS_TAKEN: Final = ("a", "a.b/c", "1", "true", "0.5", "A_b.C", "example.com/" + "x" * 63, "x." * 126 + "x/y", "1e3")
KEYS_REFUSED: Final = ("''", "a/b/c", "/a", "a/", "A.b/c", "a b", "x" * 64, "x" * 254 + "/y", "-a", "a-", "ü", "~")
NAMES_TAKEN: Final = ("digits-1", "'1'", "x" * 40, "0x")
NAMES_REFUSED: Final = (
    "1", "y", "1e3", "Digits", "a_b", "-a", "a-", "a..b", "x" * 41, "x" * 254, "''", "'a/b'", "~", "[a]", "true",
)  # fmt: skip

ROWS: Final = (
    *(_label(text, refused=False) for text in LABELS_TAKEN),
    *(_label(text, refused=True) for text in LABELS_REFUSED),
    *(_key(text, refused=False) for text in KEYS_TAKEN),
    *(_key(text, refused=True) for text in KEYS_REFUSED),
    *(_named(text, refused=False) for text in NAMES_TAKEN),
    *(_named(text, refused=True) for text in NAMES_REFUSED),
    _metadata("labels that are null", "labels:", refused=False),
    _metadata("labels that are a list", "labels: [a]", refused=True),
    _metadata("labels that are text", "labels: a", refused=True),
    # Annotations.
    _metadata("an annotation of any text", "annotations: {example.com/A: 'any text: ü\\n'}", refused=False),
    _metadata("an annotation's key in capitals", "annotations: {EXAMPLE.com/Key: x}", refused=False),
    _metadata("annotations that look like numbers of base 60, and a sign of equality", "annotations: {a: 12:30, b: 1:2:3.5, c: =}",
              refused=False),
    _metadata("an annotation that is a number", "annotations: {a: 1}", refused=True),
    _metadata("an annotation that is an object", "annotations: {a: {b: c}}", refused=True),
    _metadata("an annotation that is null", "annotations: {a: }", refused=False),
    _metadata("an annotation's key with two strokes", "annotations: {a/b/c: x}", refused=True),
    _metadata("annotations of more than 256 KiB", f"annotations: {{a: {'x' * 262_144}}}", refused=True),
    # Other fields of metadata.
    _metadata("an unknown field", "label: {a: b}", refused=True),
    _metadata("a field in the wrong case", "Labels: {a: b}", refused=True),
    _metadata("a finalizer", "finalizers: [example.com/keep]", refused=False),
    _metadata("a finalizer with a blank", "finalizers: ['a b']", refused=True),
    _metadata("a finalizer that is null", "finalizers: [~]", refused=True),
    _metadata("a finalizer that is a number", "finalizers: [1]", refused=True),
    _metadata("finalizers that are text", "finalizers: a.b/c", refused=True),
    _metadata("both finalizers that exclude each other", "finalizers: [orphan, foregroundDeletion]", refused=True),
    _metadata("an owner", f"ownerReferences: [{{{OWNER}}}]", refused=False),
    _metadata("an owner that controls", f"ownerReferences: [{{{OWNER}, controller: true}}]", refused=False),
    _metadata("an owner with an unknown field", f"ownerReferences: [{{{OWNER}, namespace: a}}]", refused=True),
    _metadata("an owner without uid", "ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: a}]", refused=True),
    _metadata("an owner without version", "ownerReferences: [{kind: ConfigMap, name: a, uid: b}]", refused=True),
    _metadata("an owner whose version has two strokes",
              "ownerReferences: [{apiVersion: a/b/c, kind: C, name: a, uid: b}]", refused=True),
    _metadata("an owner that is an Event", "ownerReferences: [{apiVersion: v1, kind: Event, name: a, uid: b}]", refused=True),
    _metadata("two owners that control", "ownerReferences:\n"
              f"- {{{OWNER}, controller: true}}\n- {{apiVersion: v1, kind: Secret, name: c, uid: d, controller: true}}",
              refused=True),
    _metadata("an owner whose truth is text", f"ownerReferences: [{{{OWNER}, controller: 'true'}}]", refused=True),
    _metadata("owners that are an object", f"ownerReferences: {{{OWNER}}}", refused=True),
    _metadata("a generateName beside the name", "generateName: digits-", refused=False),
    _metadata("a generateName in capitals", "generateName: Digits-", refused=True),
    _metadata("a uid of one's own", "uid: 5b1c", refused=False),
    _metadata("a uid that is a number", "uid: 5", refused=True),
    _metadata("a generation of one's own", "generation: 7", refused=False),
    _metadata("a generation that is whole, with a point", "generation: 7.0", refused=False),
    _metadata("a generation of text", "generation: '7'", refused=True),
    _metadata("a generation of a half", "generation: 0.5", refused=True),
    _metadata("a creationTimestamp", "creationTimestamp: 2026-01-31T10:00:00Z", refused=False),
    _metadata("a creationTimestamp that is null", "creationTimestamp: null", refused=False),
    _metadata("a creationTimestamp that is a day", "creationTimestamp: 2026-01-31", refused=True),
    _metadata("a creationTimestamp that is a number", "creationTimestamp: 5", refused=True),
    _metadata("a selfLink", "selfLink: /x", refused=False),
    _metadata("managedFields as they were read", "managedFields: []", refused=False),
    _metadata("managedFields that are an object", "managedFields: {}", refused=True),
    # How YAML is read.
    _spec("a replica count with a point", "scaling: {replicas: 2.0}", refused=False),
    _spec("a replica count of a half", "scaling: {replicas: 2.5}", refused=True),
    _spec("a replica count in quotes", "scaling: {replicas: '2'}", refused=True),
    _spec("a replica count by an exponent", "scaling: {replicas: 1e1}", refused=False),
    _spec("a replica count in octal digits", "scaling: {replicas: 010}", refused=False),
    _spec("a replica count with an underscore", "scaling: {replicas: 1_0}", refused=False),
    _spec("a replica count that is null", "scaling: {replicas: ~}", refused=False),
    _spec("a replica count that is yes", "scaling: {replicas: yes}", refused=True),
    _spec("a count beyond 64 bits", "batching: {maxQueuedRequests: 99999999999999999999}", refused=True),
    _spec("a quantity that is a whole number", "resources: {cpu: 2}", refused=False),
    _spec("a quantity that is a whole number with a point", "resources: {cpu: 2.0}", refused=False),
    _spec("a quantity that is a fraction", "resources: {cpu: 0.5}", refused=True),
    _spec("a quantity in quotes", "resources: {cpu: '0.5'}", refused=False),
    _spec("a quantity by an exponent in quotes", "resources: {memory: '1e9'}", refused=False),
    _spec("a quantity with a small suffix", "resources: {memory: 1gi}", refused=True),
    _spec("a quantity with a blank", "resources: {memory: '1 Gi'}", refused=True),
    _spec("a quantity that is empty", "resources: {memory: ''}", refused=True),
    _spec("an enum in the wrong case", "scaling: {replicas: 1}\ncache: {mode: exact}", refused=True),
    _spec("an enum that is null", "cache: {mode: }", refused=False),
    _spec("an object that is null", "batching:", refused=False),
    _spec("an object that is empty text", "batching: ''", refused=True),
    _spec("a field in the wrong case", "Batching: {}", refused=True),
    _spec("an anchor and its alias", "resources: {cpu: &n 2, memory: 2Gi}\nscaling: {replicas: *n}", refused=False),
    _spec("an alias of nothing", "scaling: {replicas: *n}", refused=True),
    _spec("a merged object", "resources: {<<: {cpu: 2}, memory: 2Gi}", refused=False),
    _spec("a tag that says text", "poolRef: {name: !!str 7}", refused=False),
    _spec("a tab for a blank", "scaling:\n\treplicas: 2", refused=True),
    _spec("NaN", "resources: {cpu: .nan}", refused=True),
    _spec("half of a character", 'poolRef: {name: "\\ud800"}', refused=True),
    _spec("a text of more than 256 KiB", f"poolRef: {{name: {'x' * 300_000}}}", refused=True),
    _spec("a null in a map", "resources: {nodeLabels: {zone: ~}}", refused=False),
    _spec("a number in a map of text", "resources: {nodeLabels: {zone: 5}}", refused=True),
    _spec("a null in a list", "access: {jwt: [~]}", refused=True),
    _spec("a list for a map", "resources: {nodeLabels: [zone]}", refused=True),
    # Documents.
    _whole("a leading line of dashes", "---\n" + PLAIN, refused=False),
    _whole("empty documents around", "---\n---\n# nothing\n---\n" + PLAIN + "---\n", refused=False),
    _whole("a version that is a number", PLAIN.replace("penstock.dev/v1alpha1", "1"), refused=True),
    _whole("a kind in the wrong case", PLAIN.replace("InferenceDeployment", "inferencedeployment"), refused=True),
    _whole("metadata that is a list", PLAIN.replace("metadata:\n  name: NAME\n  namespace: default", "metadata: [a]"), refused=True),
    _whole("metadata that is null", PLAIN.replace("metadata:\n  name: NAME\n  namespace: default", "metadata:"), refused=True),
    _whole("JSON", json.dumps({"apiVersion": "penstock.dev/v1alpha1", "kind": "ServingPool", "metadata": {"name": "NAME"},
           "spec": {"existing": {"address": "http://ray:8265"}}}), refused=False),
    _whole("JSON that is indented by tabs", json.dumps({"apiVersion": "penstock.dev/v1alpha1", "kind": "ServingPool",
           "metadata": {"name": "NAME"}, "spec": {"existing": {"address": "http://ray:8265"}}}, indent="\t"), refused=False),
    _whole("JSON with a character of two escapes", json.dumps({"apiVersion": "penstock.dev/v1alpha1", "kind": "ServingPool",
           "metadata": {"name": "NAME", "annotations": {"a": "\U0001f600"}},
           "spec": {"existing": {"address": "http://ray:8265"}}}), refused=False),
    _whole("YAML in braces", "{apiVersion: penstock.dev/v1alpha1, kind: ServingPool, metadata: {name: NAME},\n"
           "spec: {existing: {address: 'http://ray:8265'}}}\n", refused=False),
    _whole("a List", "apiVersion: v1\nkind: List\nitems:\n- " + _indented(PLAIN).strip(), refused=False),
    _whole("a List in a List", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: List\n  items:\n  - "
           + _indented(PLAIN, 4).strip(), refused=True),
    _whole("a List of the kind", "apiVersion: penstock.dev/v1alpha1\nkind: InferenceDeploymentList\nitems:\n- "
           + _indented(PLAIN).strip(), refused=False),
    _whole("a List whose item has a label that is a number", "apiVersion: v1\nkind: List\nitems:\n- "
           + _indented(PLAIN.replace("  namespace: default", "  labels: {a: 1}")).strip(), refused=True),
    _whole("a kind of no namespace in a namespace", "apiVersion: penstock.dev/v1alpha1\nkind: ClusterOptimizationProfile\n"
           "metadata: {name: NAME, namespace: default}\nspec: {}\n", refused=False),
    # Objects that are not ours, beside ours.
    _whole("another's spec is its own", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME}\ndata: {a: b}\n", refused=False),
    _whole("another's label that is a number",
           "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME, labels: {a: 1}}\ndata: {a: b}\n", refused=True),
    _whole("another's name by its own rule",
           "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: 'NAME:of:X'}\nrules: []\n", refused=False),
)  # fmt: skip


def _text(index: int, row: Row) -> str:
    return row.text.replace("NAME", f"row-{index}")


def _said(text: str) -> str:
    """What our validation says of a file; empty: the API server would take it."""
    try:
        found = validate_text(text, "file.yaml")
    except Invalid as error:
        return error.message
    return "\n".join(map(str, found.problems))


@pytest.mark.parametrize(("index", "row"), [*enumerate(ROWS)], ids=lambda each: getattr(each, "name", "")[:90])
def test_our_validation_gives_the_verdict_with_file_and_line(index: int, row: Row) -> None:
    said = _said(_text(index, row))
    assert bool(said) == row.refused, said
    assert not said or re.match(r"file\.yaml:\d+: ", said), said


@pytest.mark.apiserver
def test_kubectl_and_the_real_api_server_give_the_same(crds: ControlPlane, tmp_path: Path) -> None:
    for index, row in enumerate(ROWS):
        (tmp_path / f"row-{index}.yaml").write_text(_text(index, row))
    answer = crds.kubectl("apply", "--dry-run=server", "-f", str(tmp_path), check=False)
    taken = {int(number) for number in re.findall(r"/row-(\d+)\S* \w+ \(server dry run\)", answer.stdout)}
    wrong: dict[str, Any] = {}
    for index, row in enumerate(ROWS):
        own_name = "name: NAME" in row.text
        refused = index not in taken if own_name else f"row-{index}.yaml" in answer.stderr
        if refused != row.refused:
            lines = [line[:400] for line in answer.stderr.splitlines() if f"row-{index}.yaml" in line]
            wrong[row.name] = lines
    assert wrong == {}
