"""The API server's verdict on a manifest, without one: the schema and the CEL rules of the generated CRDs.

Checking needs `jsonschema` and `cel-python`, which the `cli` extra installs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

from penstock.api import API_VERSION, GROUP
from penstock.api.crds import root_schema
from penstock.api.documents import Document, load_documents
from penstock.api.kinds import KINDS
from penstock.api.meta import Manifest
from penstock.api.metadata import metadata_problems
from penstock.api.problems import Problem, wrong_type
from penstock.api.schema import Schema

_MOST_BYTES: Final = 3 * 2**19
"""etcd's bound on a request (`--max-request-bytes`): 1.5 MiB."""


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """What became of a file."""

    documents: tuple[Document, ...]
    problems: tuple[Problem, ...]
    """Each with file and line. Empty: the API server would take it."""
    not_checked: tuple[str, ...]
    """`Kind/name` of objects of other groups, which nothing here knows."""


def is_checked(manifest: Manifest) -> bool:
    """Whether the object is of Penstock's group, so that `validate` can judge it. Secrets and the like are not."""
    return str(manifest.get("apiVersion", "")).partition("/")[0] == GROUP


def validate(manifest: Manifest, old: Manifest | None = None) -> list[Problem]:
    """What the API server would refuse; empty where it would take the object, or where the group is not ours.

    Args:
        manifest: the object as a user wrote it.
        old: the object that is there already, for the rules about changes.

    Raises:
        ImportError: the `cli` extra is not installed.
    """
    nameless = _identity(manifest)
    if nameless:
        return nameless
    if not is_checked(manifest):
        return metadata_problems(manifest["metadata"], own_name=False) if "metadata" in manifest else []
    try:
        from penstock_cli.validation import cel, structural  # noqa: PLC0415 (an extra, and slow: only where asked)
    except ImportError as error:
        message = f"checking manifests needs {error.name}: install penstock[cli]"
        raise ImportError(message, name=error.name) from error
    kind = str(manifest["kind"])
    schema = _schema(kind)
    wrong = metadata_problems(manifest["metadata"], namespaced=KINDS[kind].namespaced)
    unknown = [*wrong, *structural.unknown_fields(manifest, schema)]
    if unknown:
        return unknown
    value = structural.stored_form(manifest, schema)
    violations = [*_size_problems(value), *structural.violations(value, schema)]
    if violations:
        # The server, too, runs the rules only over what the schema took.
        return violations
    before = None if old is None else structural.stored_form(old, schema)
    return list(cel.refusals(value, schema, before))


def validate_text(text: str, filename: str) -> ValidationResult:
    """Judge a whole file. A problem carries the line of the field, or of the nearest field around it.

    Raises:
        Invalid: the text cannot be read as manifests.
        ImportError: the `cli` extra is not installed.
    """
    documents = load_documents(text, filename)
    judged = [(document, validate(document.manifest)) for document in documents]
    problems = tuple(
        replace(_as_written(problem, document), filename=filename, line=document.line_of(problem.field))
        for document, found in judged
        for problem in found
    )
    foreign = tuple(_title(d.manifest) for d, found in judged if not found and not is_checked(d.manifest))
    return ValidationResult(tuple(documents), problems, foreign)


def _as_written(problem: Problem, document: Document) -> Problem:
    """The problem with what stands in the file, where YAML reads that as something else: `1e3`, `yes`."""
    text, hint = document.plain.get(problem.field), problem.hint
    found, wrote, _ = hint.removeprefix("found ").partition(": write ")
    if text is None or text == found or not (wrote and hint.endswith("in quotes")):
        return problem
    return replace(problem, hint=f'found {text}, which YAML reads as {found}: write "{text}", in quotes')


def find_repeated(documents: Iterable[Document]) -> list[Problem]:
    """Objects that stand twice, of which the API server would keep the last: a slip of whoever wrote them."""
    first: dict[tuple[str, str, str], Document] = {}
    found = []
    for document in documents:
        metadata: Any = document.manifest.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        if not name:
            continue
        group = str(document.manifest.get("apiVersion", "")).rpartition("/")[0]
        identity = (f"{group}/{document.manifest.get('kind')}", str(metadata.get("namespace", "")), str(name))
        earlier = first.setdefault(identity, document)
        if earlier is not document:
            message = f"{_title(document.manifest)} stands twice, first at {earlier.filename}:{earlier.line}: keep one"
            line = document.line_of("metadata.name")
            found.append(Problem("metadata.name", message, document.filename, line))
    return found


def default_spec(manifest: Manifest) -> Manifest:
    """An object of ours as the API server stores it, with the defaults of its spec; another's as it is.

    Raises:
        ImportError: the `cli` extra is not installed.
    """
    if not is_checked(manifest) or manifest.get("kind") not in KINDS or not isinstance(manifest.get("spec"), dict):
        return manifest
    from penstock_cli.validation import structural  # noqa: PLC0415 - optional libraries; the rest works without

    schema = _schema(str(manifest["kind"]))["properties"]["spec"]
    return {**manifest, "spec": structural.with_defaults(manifest["spec"], schema)}


def _identity(manifest: Manifest) -> list[Problem]:
    """What is wrong with `apiVersion`, `kind` and `metadata.name`."""
    kind, version = manifest.get("kind"), manifest.get("apiVersion")
    if not isinstance(kind, str) or not isinstance(version, str) or not kind or not version:
        if not isinstance(version, str) or not version:
            return [Problem("apiVersion", f"Required value: such as {API_VERSION}")]
        return [Problem("kind", f"Required value: such as {next(iter(KINDS))}")]
    known = f"known: {', '.join(KINDS)} in {API_VERSION}"
    if version.partition("/")[0] != GROUP:
        return [Problem("apiVersion", f'"{version}" has no kind "{kind}": {known}')] if kind in KINDS else []
    if version != API_VERSION or kind not in KINDS:
        field = "kind" if version == API_VERSION else "apiVersion"
        return [Problem(field, f'no matches for kind "{kind}" in version "{version}": {known}')]
    return _name_problems(manifest.get("metadata"))


def _name_problems(metadata: Any) -> list[Problem]:
    if not isinstance(metadata, dict | None):
        return [wrong_type("metadata", metadata, "object")]
    name = (metadata or {}).get("name")
    if name is None or name == "":
        return [Problem("metadata.name", "Required value: such as digits")]
    return [] if isinstance(name, str) else [wrong_type("metadata.name", name, "string")]


def _size_problems(value: Manifest) -> list[Problem]:
    """The API server could not store it, whatever is in it."""
    size = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
    if size <= _MOST_BYTES:
        return []
    return [Problem("", f"request is too large: the object has {size} bytes, and etcd takes {_MOST_BYTES} at most")]


def _title(manifest: Manifest) -> str:
    metadata: Any = manifest.get("metadata")
    name = metadata.get("name", "") if isinstance(metadata, dict) else ""
    return f"{manifest.get('kind', 'object')}/{name}"


@cache
def _schema(kind: str) -> Schema:
    return root_schema(KINDS[kind])
