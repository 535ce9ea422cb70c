"""Reads protobuf's wire format by place, without a schema and without reading what is passed over.

It is strict: what protobuf's own parser would read in another way than this one is refused. Source: protobuf.dev, Encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final

VARINT, LENGTH = 0, 2
"""Kinds of fields that are looked into: numbers, and what has a length."""
_LONGEST_VARINT: Final = 10
_BLOCK_BYTES: Final = 1 << 18
_LONGEST_TEXT: Final = 1 << 16

Span = tuple[int, int]
"""Where a message begins and ends."""


class MalformedError(Exception):
    """It is not what protobuf writes."""


class Wire:
    """A file's bytes by their place, read in blocks."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.size = size
        self._block = b""
        self._start = 0

    def read(self, start: int, count: int) -> bytes:
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
            raise MalformedError("a name in it is too long")
        try:
            return self.read(start, end - start).decode()
        except UnicodeDecodeError as error:
            raise MalformedError("a name in it is no UTF-8") from error

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """The number there, and what comes after it."""
        value = 0
        for index, byte in enumerate(self.read(at, min(_LONGEST_VARINT, end - at))):
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:  # noqa: PLR2004 -- the last byte of a varint
                return value, at + index + 1
        raise MalformedError("a number in it has no end")

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
                    raise MalformedError("it holds a field of an unknown kind")
            if at > end or not tag >> 3:
                raise MalformedError("it was cut off, or is something else")
            yield tag, value, (start, at)

    def parts(self, span: Span, field: int) -> Iterator[Span]:
        """What stands in a field that has a length, as often as it does."""
        wanted = field << 3 | LENGTH
        return (part for tag, _, part in self.fields(span) if tag == wanted)

    def numbers(self, span: Span, field: int) -> Iterator[int]:
        """Signed numbers in a field, packed or one by one."""
        for tag, value, (start, end) in self.fields(span):
            if tag == field << 3 | VARINT:
                yield _to_signed(value)
            elif tag == field << 3 | LENGTH:
                at = start
                while at < end:
                    packed, at = self.varint(at, end)
                    yield _to_signed(packed)


def _to_signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
