"""Which files beside an ONNX file serve with it, read from its protobuf without a library for it.

Weights may lie in other files (`TensorProto.external_data`), and so may a part that was compiled for an accelerator (the
operator `EPContext` with `embed_mode` 0). Their names, relative to the model's folder, are looked for wherever a tensor can
be: in graphs, those within operators, functions and training. Source: onnx/onnx.proto3; protobuf.dev, Encoding.

It is strict: what protobuf's own parser would read in another way than this one is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock_runtime.protobuf import LENGTH, VARINT, MalformedError, Span, Wire

_DEEPEST: Final = 100
"""Messages within messages, as protobuf's own parser has it."""
_MOST_FILES: Final = 16_384
"""One for each tensor is what some exporters write."""
_LONGEST_NAME: Final = 1024
_LONGEST_TEXT: Final = 1 << 16
_EXTERNAL: Final = 1
"""`TensorProto.EXTERNAL`."""

_MODEL, _TRAINING, _FUNCTION, _GRAPH, _NODE, _ATTRIBUTE, _SPARSE, _TENSOR = range(8)
_WITHIN: Final[Mapping[int, Mapping[int, int]]] = {
    _MODEL: {7: _GRAPH, 20: _TRAINING, 25: _FUNCTION},
    _TRAINING: {1: _GRAPH, 2: _GRAPH},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
}
"""By kind of message, the fields that lead to tensors."""
_ONCE: Final = frozenset({(_ATTRIBUTE, 5), (_ATTRIBUTE, 22), (_SPARSE, 1), (_SPARSE, 2)})
"""Fields that protobuf would join when they stand twice; no writer of ONNX does that."""

_POINTER: Final = b"version https://git-lfs"


def external_files(path: Path) -> tuple[str, ...]:
    """The files that an ONNX file names, in the order of their names; they need not be there.

    Raises:
        Invalid: ModelInvalid: it is no protobuf, or names a file that is not in its folder.
        OSError: it cannot be read.
    """
    found: set[str] = set()
    with path.open("rb") as file:
        data = Wire(file, path.stat().st_size)
        if not data.size:
            raise Invalid(
                Reason.MODEL_INVALID, f"{path.name} is empty, and no ONNX file: copy or export the model again"
            )
        if file.read(len(_POINTER)) == _POINTER:
            raise Invalid(
                Reason.MODEL_INVALID,
                f"{path.name} is a pointer of Git LFS, and no ONNX file: fetch the model itself by `git lfs pull`",
            )
        try:
            for name in _names(data, _MODEL, (0, data.size), 0):
                found.add(_plain_name(name, path))
                if len(found) > _MOST_FILES:
                    raise Invalid(Reason.MODEL_INVALID, f"{path.name} names more than {_MOST_FILES} files beside it")
        except MalformedError as error:
            raise Invalid(
                Reason.MODEL_INVALID, f"{path.name} is no ONNX file that can be read ({error}): export the model again"
            ) from error
    return tuple(sorted(found - {path.name}))


def _names(data: Wire, kind: int, span: Span, depth: int) -> Iterator[str]:
    """The files that a message and those within it name."""
    if depth > _DEEPEST:
        raise MalformedError("its graphs are too deep within each other")
    within = _WITHIN[kind]
    once: set[int] = set()
    for key, _, part in data.fields(span):
        number = key >> 3
        below = within.get(number)
        if below is None:
            continue
        if key & 7 != LENGTH or number in once:
            raise MalformedError("a part of it is written in an unusual way")
        if (kind, number) in _ONCE:
            once.add(number)
        yield from _files_of_tensor(data, part) if below == _TENSOR else _names(data, below, part, depth + 1)
    if kind == _NODE:
        yield from _files_of_node(data, span)


def _files_of_tensor(data: Wire, span: Span) -> Iterator[str]:
    """Where a tensor's numbers lie, if not in itself."""
    external, entries = False, []
    for key, value, part in data.fields(span):
        if key == 14 << 3 | VARINT:
            external = value == _EXTERNAL
        elif key == 13 << 3 | LENGTH:
            entries.append(part)
    for entry in entries if external else ():
        said = {key >> 3: data.text(part) for key, _, part in data.fields(entry) if key & 7 == LENGTH}
        if said.get(1) == "location":
            yield said.get(2, "")


def _files_of_node(data: Wire, span: Span) -> Iterator[str]:
    """The file of a compiled part."""
    kinds = [part for key, _, part in data.fields(span) if key == 4 << 3 | LENGTH]
    if not kinds or kinds[-1][1] - kinds[-1][0] != len("EPContext") or data.text(kinds[-1]) != "EPContext":
        return
    named, embedded = "", True
    for key, _, attribute in data.fields(span):
        if key != 5 << 3 | LENGTH:
            continue
        fields = list(data.fields(attribute))
        name = next((data.text(part) for each, _, part in fields if each == 1 << 3 | LENGTH), "")
        if name == "embed_mode":
            embedded = any(value for each, value, _ in fields if each == 3 << 3 | VARINT)
        elif name == "ep_cache_context":
            texts = [part for each, _, part in fields if each == 4 << 3 | LENGTH]
            named = data.text(texts[-1]) if texts and texts[-1][1] - texts[-1][0] <= _LONGEST_TEXT else ""
    if not embedded and named:
        yield named


def _plain_name(name: str, path: Path) -> str:
    """A file's name in its plain form.

    Raises:
        Invalid: ModelInvalid; it is not in the model's folder, or could not stand in a list of files.
    """
    parts = PurePosixPath(name).parts
    odd = any(not each.isprintable() or each == "\\" for each in name)
    if not parts or name.startswith("/") or ".." in parts or odd or len(name) > _LONGEST_NAME:
        raise Invalid(
            Reason.MODEL_INVALID,
            f"{path.name} keeps weights in {name[:200]!r}, which is no path in its folder: save it again with the weights "
            "beside it, under a plain name",
        )
    return "/".join(parts)
