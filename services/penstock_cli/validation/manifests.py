"""Reads manifests from files and judges them as the API server would."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from penstock.api import API_VERSION
from penstock.api.documents import Document
from penstock.api.meta import Manifest
from penstock.api.problems import Problem
from penstock.engines import FORMATS, Servability
from penstock.errors import Invalid
from penstock.names import model_of
from penstock.serving.manifest import ModelFormat
from penstock_cli.files import decode, read_text
from penstock_cli.objects.resources import kind_of, with_namespace
from penstock_cli.validation.admission import ValidationResult, find_repeated, validate, validate_text
from penstock_operator.runtime.cluster import NAMESPACE, Cluster, Key, ResourceKind, key_of

_SUFFIXES = {".yaml", ".yml", ".json"}
_MODELS = {facts.suffix: name for name, facts in FORMATS.items()}
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
            yield "stdin", decode("stdin", sys.stdin.buffer.read())
            continue
        for path in _expand(Path(name)):
            if path.suffix in _MODELS and path.is_file():
                raise Invalid("NoManifest", _suggest(path, _MODELS[path.suffix]))
            yield str(path), read_text(path)


def _suggest(model: Path, model_format: ModelFormat) -> str:
    """What to name where a model itself was named."""
    if FORMATS[model_format].served is not Servability.AS_IS:
        return f"{model}: this is a model, not a manifest: `penstock optimize` makes a manifest of it, with a model that is served"
    example = f"""apiVersion: {API_VERSION}
kind: InferenceDeployment
metadata: {{name: {model_of(model.stem)}}}
spec:
  model: {{storageUri: "{model.absolute().as_uri()}", modelFormat: {model_format}}}"""
    return f"{model}: this is a model, not a manifest. Name a file that says how to serve it, such as\n\n{example}"


def _expand(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(each for each in path.iterdir() if each.suffix in _SUFFIXES)
    if not found:
        inner = any(each.is_dir() for each in path.iterdir())
        hint = "; sub-folders are not searched: name them" if inner else ""
        raise Invalid("NothingToApply", f"{path}: no .yaml, .yml or .json file in this folder{hint}")
    return found
