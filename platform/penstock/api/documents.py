"""YAML manifests with the line of every field, read as strictly as `kubectl` reads them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from penstock.api.conditions import Reason
from penstock.api.meta import Manifest
from penstock.errors import Invalid

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

    def line_of(self, field: str) -> int:
        """The line of a field, or of the nearest field around it that is written down."""
        while field:
            if field in self.lines:
                return self.lines[field]
            field = field[: max(field.rfind("."), field.rfind("["), 0)]
        return self.line


class _Loader(yaml.SafeLoader):
    """YAML as JSON has it: a date is a string, since no Kubernetes field is anything else."""


def _as_written(_loader: yaml.SafeLoader, node: Node) -> str:
    return str(node.value)


_Loader.add_constructor("tag:yaml.org,2002:timestamp", _as_written)


def load_documents(text: str, filename: str) -> list[Document]:
    """The objects of a file that may hold several documents and `List`s. Empty documents are skipped.

    Raises:
        Invalid: the text is not YAML, a key stands twice, or a document is no object; the message begins with
            `filename:line:`.
    """
    documents: list[Document] = []
    try:
        loader = _Loader(text)
        while loader.check_node():
            node: Node | None = loader.get_node()
            if node is not None and not _is_null(node):
                documents += _documents(loader, node, filename)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise _invalid(filename, line, f"not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise _invalid(filename, 1, f"not YAML: {error}") from error
    except ValueError as error:
        raise _invalid(filename, 1, f"not YAML that JSON can hold: {error}") from error
    except RecursionError as error:
        raise _invalid(filename, 1, "nested too deeply") from error
    return documents


def _documents(loader: _Loader, node: Node, filename: str) -> Iterator[Document]:
    line = node.start_mark.line + 1
    if not isinstance(node, MappingNode):
        raise _invalid(filename, line, "a document must be an object with apiVersion, kind, metadata and spec")
    lines: dict[str, int] = {}
    _Walk(filename, lines).visit(node, "")
    manifest: Any = _as_json(loader.construct_document(node))
    if manifest.get("kind") == "List" and isinstance(manifest.get("items"), list):
        for index, item in enumerate(manifest["items"]):
            prefix = f"items[{index}]"
            if not isinstance(item, dict):
                raise _invalid(filename, lines[prefix], "an item of a List must be an object")
            inner = {path.removeprefix(prefix + "."): at for path, at in lines.items() if path.startswith(prefix + ".")}
            yield Document(item, filename, lines[prefix], inner)
        return
    yield Document(manifest, filename, line, lines)


class _Walk:
    """Goes through a document's nodes, noting lines and refusing what `kubectl` refuses."""

    def __init__(self, filename: str, lines: dict[str, int]) -> None:
        self._filename = filename
        self._lines = lines
        self._seen = 0

    def visit(self, node: Node, path: str) -> None:
        self._seen += 1
        if path.count(".") + path.count("[") > _MAX_DEPTH:
            raise _invalid(self._filename, node.start_mark.line + 1, "nested too deeply")
        if self._seen > _MAX_NODES:
            raise _invalid(self._filename, node.start_mark.line + 1, "too large once its aliases are followed")
        match node:
            case MappingNode():
                self._mapping(node, path)
            case SequenceNode():
                for index, item in enumerate(node.value):
                    self._lines[f"{path}[{index}]"] = item.start_mark.line + 1
                    self.visit(item, f"{path}[{index}]")
            case _:
                pass

    def _mapping(self, node: MappingNode, path: str) -> None:
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
            self._lines[child] = line
            self.visit(value, child)


def _as_json(value: Any) -> Any:
    """YAML's value as JSON can hold it: keys become strings.

    Raises:
        ValueError: JSON has no such value (a set, bytes, NaN).
    """
    match value:
        case dict():
            return {json.dumps(k) if isinstance(k, bool) else str(k): _as_json(inner) for k, inner in value.items()}
        case list():
            return [_as_json(item) for item in value]
        case float() if not math.isfinite(value):
            raise ValueError(f"JSON has no {value}")
        case None | bool() | int() | float() | str():
            return value
        case _:
            raise ValueError(f"JSON has no {type(value).__name__}")


def _is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _invalid(filename: str, line: int, message: str) -> Invalid:
    return Invalid(Reason.INVALID_SPEC, f"{filename}:{line}: {message}")
