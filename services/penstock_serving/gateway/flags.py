"""Settings that say beside themselves which flag of the command line gives them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import Field, field
from typing import Any, TypeVar

Value = TypeVar("Value")


def flag(default: Value, told: str | None = None, group: str = "", **more: Any) -> Value:
    """A field with a default, and a flag that reads a value of its type; of a truth, one that makes it true.

    Args:
        default: what it is without the flag.
        told: see `as_flag`.
        group: likewise.
        more: likewise; it goes before what follows from the default.
    """
    reads: dict[str, Any] = {"type": type(default), "default": default}
    if isinstance(default, bool):
        reads = {"action": "store_true"}
    value: Value = field(default=default, metadata=as_flag(told, group, **reads | more))
    return value


def as_flag(told: str | None, group: str = "", name: str = "", **more: Any) -> dict[str, Any]:
    """Metadata of a field that has a flag.

    Args:
        told: what its help says.
        group: under which the help lists it; empty: the first.
        name: of the flag; empty: the field's.
        more: as `add_argument` takes it.
    """
    return {"flag": (group, name, {"help": told, **more})}


def add_flags(parser: argparse.ArgumentParser, settings: Iterable[Field[Any]]) -> None:
    """Add the flags of a dataclass's fields, in their order."""
    groups: dict[str, Any] = {"": parser}
    for each in settings:
        if "flag" in each.metadata:
            title, name, more = each.metadata["flag"]
            if title not in groups:
                groups[title] = parser.add_argument_group(title)
            groups[title].add_argument(name or f"--{each.name.replace('_', '-')}", **more)
