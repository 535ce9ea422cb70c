"""YAML manifests with the line of every field, read as strictly as `kubectl` reads them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from penstock.api.conditions import Reason
from penstock.api.meta import Manifest
from penstock.api.scalars import Scalar, scalar, tag
from penstock.errors import Invalid

Value = TypeVar("Value", int, str)
_TEXT: Final = "tag:yaml.org,2002:str"
_MAX_NODES: Final = 100_000
"""Nodes in a document once its aliases are followed: beyond, it is an attack and no manifest."""

_MAX_DEPTH: Final = 100
"""Levels of nesting; an alias of itself has no end."""


@dataclass(frozen=True, slots=True)
class Document:
    """One object of a file, and where its fields stand."""

    manifest: Manifest
    filename: str
    line: int
    """Line of the document's first field, from 1."""
    lines: Mapping[str, int]
    """Line by field path: `spec.model.storageUri`, `spec.list[0]`."""
    plain: Mapping[str, str] = field(default_factory=dict)
    """By field path, how what is no text was written: `1e3`, `yes`."""

    def line_of(self, field: str) -> int:
        """The line of a field, or of the nearest field around it that is written down."""
        while field:
            if field in self.lines:
                return self.lines[field]
            field = field[: max(field.rfind("."), field.rfind("["), 0)]
        return self.line


class _Resolver(yaml.resolver.Resolver):
    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """The tag of a node that has none, or that a scalar would be read as."""
        if kind is ScalarNode and implicit[0]:
            return tag(value)
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]  # the library's stubs leave it so


class _Loader(_Resolver, yaml.SafeLoader):
    """YAML as `kubectl` reads it, which differs from the library in plain scalars (`penstock.api.scalars`)."""


def _construct_scalar(_loader: yaml.SafeLoader, node: Node) -> Scalar:
    """A number or a word, whether it was told by its form or by a tag before it."""
    value = scalar(str(node.value))
    wanted = node.tag.rpartition(":")[2]
    number = isinstance(value, int) and not isinstance(value, bool)
    if not (wanted == "float" and number) and tag(str(node.value)) != node.tag:
        raise ConstructorError(None, None, f"{node.value!r} is no {wanted}", node.start_mark)
    return value


def _construct_text(_loader: yaml.SafeLoader, node: Node) -> str:
    return str(node.value)


for _kind in ("null", "bool", "int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _construct_scalar)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _construct_text)


class _Dumper(_Resolver, yaml.SafeDumper):
    """Quotes what `kubectl` would read as another thing than text: a model may be called `1e3`, or a label be `y`."""

    def ignore_aliases(self, data: Any) -> bool:
        """Two equal parts are written twice: people read it."""
        del data
        return True


def write_yaml(value: Any, *, sort_keys: bool = False, width: int = 80) -> str:
    """A JSON value as YAML that `kubectl` reads as the same value."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=sort_keys, width=width, allow_unicode=True)
    return text


def read_yaml(text: str) -> Any:
    """One YAML document's value, as `kubectl` reads it. Raises `yaml.YAMLError`, or `ValueError` where JSON has no such value."""
    return _to_json(yaml.load(text, Loader=_Loader))  # noqa: S506 -- it is a safe one


def describe_error(error: yaml.YAMLError | ValueError) -> tuple[int, str]:
    """In which line reading YAML failed, from 1 and 1 where that is not known, and in words why."""
    if isinstance(error, yaml.MarkedYAMLError):
        return error.problem_mark.line + 1 if error.problem_mark else 1, f"not YAML: {error.problem or error.context}"
    return 1, f"not YAML: {error}" if isinstance(error, yaml.YAMLError) else f"not YAML that JSON can hold: {error}"


def load_documents(text: str, filename: str) -> list[Document]:
    """The objects of a file that may hold several documents and `List`s. Empty documents are skipped.

    Raises:
        Invalid: the text is not YAML, a key stands twice, or a document is no object; the message begins with
            `filename:line:`.
    """
    documents: list[Document] = []
    if text.lstrip().startswith("{"):
        text = text.replace("\t", " ")  # between JSON's values; in its text none can stand
    try:
        loader = _Loader(text)
        while loader.check_node():
            node: Node | None = loader.get_node()
            if node is not None and not _is_null(node):
                documents += _documents(loader, node, filename)
    except (yaml.YAMLError, ValueError) as error:
        raise _invalid(filename, *describe_error(error)) from error
    except RecursionError as error:
        raise _invalid(filename, 1, "nested too deeply") from error
    return documents


def _documents(loader: _Loader, node: Node, filename: str) -> Iterator[Document]:
    line = node.start_mark.line + 1
    if not isinstance(node, MappingNode):
        raise _invalid(filename, line, "a document must be an object with apiVersion, kind, metadata and spec")
    walk = _Walk(filename)
    walk.visit(node, "")
    try:
        manifest: Any = _to_json(loader.construct_document(node))
    except ValueError as error:
        raise _invalid(filename, line, f"not YAML that JSON can hold: {error}") from error
    yield from _flatten(Document(manifest, filename, line, walk.lines, walk.plain))


def _flatten(document: Document) -> Iterator[Document]:
    """The objects of a list; one that is no list stands for itself."""
    manifest = document.manifest
    kind = manifest.get("kind")
    if not (isinstance(kind, str) and kind.endswith("List") and isinstance(manifest.get("items"), list)):
        yield document
        return
    # An item of, say, an InferenceDeploymentList need not repeat what it is.
    told = {"apiVersion": manifest.get("apiVersion"), "kind": kind.removesuffix("List")} if kind != "List" else {}
    for index, item in enumerate(manifest["items"]):
        prefix = f"items[{index}]"
        line = document.lines[prefix]
        if not isinstance(item, dict):
            raise _invalid(document.filename, line, "an item of a List must be an object")
        inner = Document({**told, **item}, document.filename, line, _select_below(prefix, document.lines))
        if isinstance(item.get("items"), list) and str(item.get("kind")).endswith("List"):
            raise _invalid(
                document.filename, line, "a List in a List, which kubectl does not take: write its items here"
            )
        yield replace(inner, plain=_select_below(prefix, document.plain))


def _select_below(prefix: str, by_path: Mapping[str, Value]) -> dict[str, Value]:
    """What is said of the fields of one item, by their paths in it."""
    return {path.removeprefix(prefix + "."): value for path, value in by_path.items() if path.startswith(prefix + ".")}


class _Walk:
    """Goes through a document's nodes, noting lines and refusing what `kubectl` refuses."""

    def __init__(self, filename: str) -> None:
        self.lines: dict[str, int] = {}
        self.plain: dict[str, str] = {}
        self._filename = filename
        self._seen = 0

    def visit(self, node: Node, path: str, depth: int = 0) -> None:
        self._seen += 1
        if depth > _MAX_DEPTH:
            raise _invalid(self._filename, node.start_mark.line + 1, "nested too deeply")
        if self._seen > _MAX_NODES:
            raise _invalid(self._filename, node.start_mark.line + 1, "too large once its aliases are followed")
        match node:
            case MappingNode():
                self._visit_mapping(node, path, depth + 1)
            case SequenceNode():
                for index, item in enumerate(node.value):
                    self.lines[f"{path}[{index}]"] = item.start_mark.line + 1
                    self.visit(item, f"{path}[{index}]", depth + 1)
            case ScalarNode() if node.style is None and tag(str(node.value)) != _TEXT:
                self.plain[path] = str(node.value)
            case _:
                pass

    def _visit_mapping(self, node: MappingNode, path: str, depth: int) -> None:
        keys: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode):
                raise _invalid(self._filename, line, "a key must be a string")
            name = str(key.value)
            child = f"{path}.{name}" if path else name
            if name in keys:
                raise _invalid(self._filename, line, f'key "{child}" stands twice: keep one')
            keys.add(name)
            self.lines[child] = line
            self.visit(value, child, depth)


def _to_json(value: Any) -> Any:
    """YAML's value as JSON can hold it: keys become strings.

    Raises:
        ValueError: JSON has no such value (a set, bytes, NaN).
    """
    match value:
        case dict():
            return {_key(key): _to_json(inner) for key, inner in value.items()}
        case list():
            return [_to_json(item) for item in value]
        case float() if not math.isfinite(value):
            raise ValueError(f"JSON has no {value}")
        case str():
            return _text(value)
        case None | bool() | int() | float():
            return value
        case _:
            raise ValueError(f"JSON has no {type(value).__name__}")


def _key(key: Any) -> str:
    match key:
        case str():
            return _text(key)
        case bool():
            return json.dumps(key)
        case int() | float():
            return f"{key:g}" if isinstance(key, float) else str(key)
        case _:
            raise ValueError(f"a key must be a string, not {json.dumps(key, default=str)}")


def _text(value: str) -> str:
    try:
        # JSON writes what is beyond 16 bits as two escapes, which YAML's reader leaves apart.
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as error:
        raise ValueError("text has half of a character") from error


def _is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _invalid(filename: str, line: int, message: str) -> Invalid:
    return Invalid(Reason.INVALID_SPEC, f"{filename}:{line}: {message}")
