"""One thing that is wrong with a manifest, and where."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_INT64: Final = range(-(2**63), 2**63)
_LONGEST_SHOWN: Final = 60
_IN_WORDS: Final[Mapping[str, str]] = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object, that is fields with their values",
    "integer,string": "a whole number, or text in quotes",
}


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
        return f"{place} {field}{self.text}".strip()

    @property
    def text(self) -> str:
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


def wrong_type(path: str, value: Any, wanted: str) -> Problem:
    """A value of another type than the wanted one, which is JSON's name of it (or `integer,string`)."""
    found = json_type(value)
    message = f'Invalid value: "{found}": {path} in body must be of type {wanted}: "{found}"'
    return Problem(path, message, hint=_type_hint(value, wanted))


def json_type(value: Any) -> str:
    """The JSON name of a value's type, as the API server prints it."""
    if isinstance(value, int) and value not in _INT64:
        return "number"
    names: Sequence[tuple[type | tuple[type, ...], str]] = (
        (bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (list, "array"), (dict, "object"),
    )  # fmt: skip
    return next((name for kind, name in names if isinstance(value, kind)), "null")


def _type_hint(value: Any, wanted: str) -> str:
    """What was found, which the API server does not say, and what to write instead."""
    found = json.dumps(value, ensure_ascii=False)
    shown = found if len(found) <= _LONGEST_SHOWN else f"{found[:_LONGEST_SHOWN]}…"
    if isinstance(value, bool) and wanted == "string":
        # Perhaps it was written as yes, no, on or off, which YAML reads so.
        return f"found {found}: write the text in quotes"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and wanted.endswith("string") and len(found) <= _LONGEST_SHOWN:
        return f'found {found}: write "{found}", in quotes'
    if isinstance(value, str) and _reads_as(value, wanted):
        return f"found {shown}: write {value}, without quotes"
    return f"found {shown}; expected {_IN_WORDS.get(wanted, wanted)}"


def _reads_as(text: str, wanted: str) -> bool:
    """Whether a string would be of the wanted type if its quotes were left out."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    found = json_type(value)
    return found in {"boolean", "integer", "number", "null"} and (
        found == wanted or (found, wanted) == ("integer", "number")
    )
