"""One thing that is wrong with a manifest, and where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """A refusal: the field, and what to write instead."""

    field: str
    """Field path such as `spec.model.storageUri`; empty for the whole object."""
    message: str
    filename: str | None = None
    line: int | None = None
    hint: str = ""
    """What we add to the message, where that is the API server's own: what was found, and what to write."""

    def __str__(self) -> str:
        place = "".join(f"{part}:" for part in (self.filename, self.line) if part is not None)
        field = f"{self.field}: " if self.field else ""
        return f"{place} {field}{self.told}".strip()

    @property
    def told(self) -> str:
        """The message with its hint."""
        return f"{self.message} ({self.hint})" if self.hint else self.message


def child(path: str, name: str) -> str:
    """The path of a field of an object."""
    return f"{path}.{name}" if path else name


def path_of(parts: Iterable[str | int]) -> str:
    """A field path from its segments; a number is a place in a list."""
    path = ""
    for part in parts:
        path = f"{path}[{part}]" if isinstance(part, int) else child(path, part)
    return path
