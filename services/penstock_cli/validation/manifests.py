"""Reads manifests from files and judges them as the API server would."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from penstock.api.documents import Document
from penstock.api.meta import Manifest
from penstock.errors import Invalid
from penstock_cli.objects.resources import kind_of, with_namespace
from penstock_cli.validation.admission import Problem, ValidationResult, find_repeated, validate, validate_text
from penstock_operator.runtime.cluster import NAMESPACE, Cluster, Key, ResourceKind, key_of

_SUFFIXES = {".yaml", ".yml", ".json"}
_IDENTITY = ("apiVersion", "kind", "metadata.name")


def validate_files(files: Iterable[str]) -> list[ValidationResult]:
    """The verdict on each file.

    Args:
        files: paths; a folder stands for the manifests in it, `-` for standard input.

    Raises:
        Invalid: a file cannot be read, or is not YAML.
    """
    return [validate_text(text, name) for name, text in _read(files)]


def load_accepted(files: Iterable[str]) -> list[Document]:
    """The objects of the files, in their order.

    Raises:
        Invalid: the API server would refuse one of them; the message has a line for each problem.
    """
    verdicts = validate_files(files)
    problems = problems_of(verdicts)
    if problems:
        raise Invalid("InvalidManifest", "\n".join(map(str, problems)))
    documents = [document for each in verdicts for document in each.documents]
    if not documents:
        raise Invalid("NothingToApply", "the files hold no object")
    return documents


def load_identified(files: Iterable[str]) -> list[Document]:
    """The objects of the files, whatever their specs say: enough to name them.

    Raises:
        Invalid: one has no known kind or no name; the message has a line for each problem.
    """
    verdicts = validate_files(files)
    problems = [str(p) for each in verdicts for p in each.problems if p.field in _IDENTITY]
    if problems:
        raise Invalid("InvalidManifest", "\n".join(problems))
    return [document for each in verdicts for document in each.documents]


def refuse(
    cluster: Cluster, documents: Sequence[Document], namespace: str = "default", passed_over: Sequence[Key] = ()
) -> None:
    """Refuse what the store would refuse: changes that are not allowed, unknown kinds, and namespaces that there are not.

    Args:
        cluster: the store, which need not run anything yet.
        documents: that are well in themselves.
        namespace: of those that name none.
        passed_over: objects that will be replaced, whatever they are now.

    Raises:
        Invalid: a line for each problem, with file and line.
    """
    made = {
        document.manifest["metadata"]["name"] for document in documents if document.manifest["kind"] == NAMESPACE.kind
    }
    found = [problem for each in documents for problem in _problems(cluster, each, (namespace, made), passed_over)]
    if found:
        raise Invalid("InvalidManifest", "\n".join(map(str, found)))


def _problems(
    cluster: Cluster, document: Document, namespaces: tuple[str, set[str]], passed_over: Sequence[Key]
) -> Iterable[Problem]:
    usual, made = namespaces
    try:
        kind = kind_of(document.manifest)
    except Invalid as error:
        yield Problem("kind", error.message, document.filename, document.line_of("kind"))
        return
    manifest = with_namespace(document.manifest, kind, usual)
    namespace = manifest["metadata"].get("namespace", "")
    if kind.namespaced and namespace not in made and cluster.get(NAMESPACE, Key("", namespace)) is None:
        message = (
            f'namespaces "{namespace}" not found: put a Namespace of this name into the files, or leave the field out'
        )
        yield Problem("metadata.namespace", message, document.filename, document.line_of("metadata.namespace"))
        return
    old = _stored_object(cluster, kind, key_of(manifest), passed_over)
    for problem in validate(manifest, old) if old is not None else ():
        yield replace(problem, filename=document.filename, line=document.line_of(problem.field))


def _stored_object(cluster: Cluster, kind: ResourceKind, key: Key, passed_over: Sequence[Key]) -> Manifest | None:
    return None if key in passed_over else cluster.get(kind, key)


def problems_of(verdicts: list[ValidationResult]) -> list[Problem]:
    """What is wrong with each object, and which stand twice among all files."""
    found = [problem for each in verdicts for problem in each.problems]
    return found + find_repeated(document for each in verdicts for document in each.documents)


def _read(files: Iterable[str]) -> Iterable[tuple[str, str]]:
    for name in files:
        if name == "-":
            yield "stdin", _text("stdin", sys.stdin.buffer.read())
            continue
        for path in _expand(Path(name)):
            try:
                yield str(path), _text(str(path), path.read_bytes())
            except FileNotFoundError as error:
                raise Invalid("FileNotFound", f"{path}: there is no such file") from error
            except OSError as error:
                raise Invalid("FileUnreadable", f"{path}: {error.strerror}") from error


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"{name}:{line}: not UTF-8 text (byte 0x{content[error.start]:02x}): save the file as UTF-8"
        raise Invalid("FileUnreadable", message) from error


def _expand(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(each for each in path.iterdir() if each.suffix in _SUFFIXES)
    if not found:
        inner = any(each.is_dir() for each in path.iterdir())
        hint = "; sub-folders are not searched: name them" if inner else ""
        raise Invalid("NothingToApply", f"{path}: no .yaml, .yml or .json file in this folder{hint}")
    return found
