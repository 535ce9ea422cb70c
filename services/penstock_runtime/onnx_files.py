"""Which files beside an ONNX file serve with it, read from its protobuf without a library for it.

Weights may lie in other files (`TensorProto.external_data`), and so may a part that was compiled for an accelerator (the
operator `EPContext` with `embed_mode` 0). Their names, relative to the model's folder, are looked for wherever a tensor can
be: in graphs, those within operators, functions and training. Source: onnx/onnx.proto3; protobuf.dev, Encoding.

It is strict: what protobuf's own parser would read in another way than this one is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from penstock.api.conditions import Reason
from penstock.errors import Invalid

_VARINT, _LENGTH = 0, 2
"""Kinds of fields that are looked into."""
_LONGEST_VARINT: Final = 10
_BLOCK_BYTES: Final = 1 << 18
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

Span = tuple[int, int]
"""Where a message begins and ends."""


class _Malformed(Exception):
    """It is not what protobuf writes."""


def files_beside(path: Path) -> tuple[str, ...]:
    """The files that an ONNX file names, in the order of their names; they need not be there.

    Raises:
        Invalid: ModelInvalid: it is no protobuf, or names a file that is not in its folder.
        OSError: it cannot be read.
    """
    found: set[str] = set()
    with path.open("rb") as file:
        data = _Data(file, path.stat().st_size)
        try:
            for name in _names(data, _MODEL, (0, data.size), 0):
                found.add(_plain(name, path))
                if len(found) > _MOST_FILES:
                    raise Invalid(Reason.MODEL_INVALID, f"{path.name} names more than {_MOST_FILES} files beside it")
        except _Malformed as error:
            raise Invalid(
                Reason.MODEL_INVALID, f"{path.name} is no ONNX file that can be read ({error}): export the model again"
            ) from error
    return tuple(sorted(found - {path.name}))


class _Data:
    """A file's bytes by their place, read in blocks."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.size = size
        self._block = b""
        self._start = 0

    def some(self, start: int, count: int) -> bytes:
        """As many bytes, or fewer at the end of the file."""
        at = start - self._start
        if at < 0 or at + count > len(self._block):
            self._file.seek(start)
            self._block, self._start, at = self._file.read(max(count, _BLOCK_BYTES)), start, 0
        return self._block[at : at + count]

    def text(self, span: Span) -> str:
        """A string that is not long."""
        start, end = span
        if end - start > _LONGEST_TEXT:
            raise _Malformed("a name in it is too long")
        try:
            return self.some(start, end - start).decode()
        except UnicodeDecodeError as error:
            raise _Malformed("a name in it is no UTF-8") from error

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """The number there, and what comes after it."""
        value = 0
        for index, byte in enumerate(self.some(at, min(_LONGEST_VARINT, end - at))):
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:  # noqa: PLR2004 -- the last byte of a varint
                return value, at + index + 1
        raise _Malformed("a number in it has no end")

    def fields(self, span: Span) -> Iterator[tuple[int, int, Span]]:
        """Tag (field and kind), number (of a varint), and span (of what has a length)."""
        at, end = span
        while at < end:
            tag, at = self.varint(at, end)
            value, start = 0, at
            match tag & 7:
                case 0:
                    value, at = self.varint(at, end)
                case 1:
                    at += 8
                case 2:
                    size, start = self.varint(at, end)
                    at = start + size
                case 5:
                    at += 4
                case _:
                    raise _Malformed("it holds a field of an unknown kind")
            if at > end or not tag >> 3:
                raise _Malformed("it was cut off, or is something else")
            yield tag, value, (start, at)


def _names(data: _Data, kind: int, span: Span, depth: int) -> Iterator[str]:
    """The files that a message and those within it name."""
    if depth > _DEEPEST:
        raise _Malformed("its graphs are too deep within each other")
    within = _WITHIN[kind]
    once: set[int] = set()
    for key, _, part in data.fields(span):
        number = key >> 3
        below = within.get(number)
        if below is None:
            continue
        if key & 7 != _LENGTH or number in once:
            raise _Malformed("a part of it is written in an unusual way")
        if (kind, number) in _ONCE:
            once.add(number)
        yield from _of_tensor(data, part) if below == _TENSOR else _names(data, below, part, depth + 1)
    if kind == _NODE:
        yield from _of_node(data, span)


def _of_tensor(data: _Data, span: Span) -> Iterator[str]:
    """Where a tensor's numbers lie, if not in itself."""
    external, entries = False, []
    for key, value, part in data.fields(span):
        if key == 14 << 3 | _VARINT:
            external = value == _EXTERNAL
        elif key == 13 << 3 | _LENGTH:
            entries.append(part)
    for entry in entries if external else ():
        said = {key >> 3: data.text(part) for key, _, part in data.fields(entry) if key & 7 == _LENGTH}
        if said.get(1) == "location":
            yield said.get(2, "")


def _of_node(data: _Data, span: Span) -> Iterator[str]:
    """The file of a compiled part."""
    kinds = [part for key, _, part in data.fields(span) if key == 4 << 3 | _LENGTH]
    if not kinds or kinds[-1][1] - kinds[-1][0] != len("EPContext") or data.text(kinds[-1]) != "EPContext":
        return
    named, embedded = "", True
    for key, _, attribute in data.fields(span):
        if key != 5 << 3 | _LENGTH:
            continue
        fields = list(data.fields(attribute))
        name = next((data.text(part) for each, _, part in fields if each == 1 << 3 | _LENGTH), "")
        if name == "embed_mode":
            embedded = any(value for each, value, _ in fields if each == 3 << 3 | _VARINT)
        elif name == "ep_cache_context":
            texts = [part for each, _, part in fields if each == 4 << 3 | _LENGTH]
            named = data.text(texts[-1]) if texts and texts[-1][1] - texts[-1][0] <= _LONGEST_TEXT else ""
    if not embedded and named:
        yield named


def _plain(name: str, path: Path) -> str:
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
