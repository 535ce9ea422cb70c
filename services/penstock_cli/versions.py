"""`penstock version`."""

from __future__ import annotations

import json
import platform
from enum import StrEnum
from importlib import metadata
from typing import Annotated

import typer
from rich.console import Console

from penstock import __version__

_LIBRARIES = {"ray": "ray", "onnxruntime": "onnxruntime", "torch": "torch", "kubernetes": "kubernetes"}


class VersionFormat(StrEnum):
    """How to write it."""

    TEXT = "text"
    JSON = "json"


def version(
    output: Annotated[VersionFormat, typer.Option("-o", "--output", help="How to write it.")] = VersionFormat.TEXT,
) -> None:
    """Show the versions of Penstock and of what it stands on."""
    found = versions()
    console = Console()
    match output:
        case VersionFormat.JSON:
            console.print_json(json.dumps(found))
        case VersionFormat.TEXT:
            width = max(map(len, found))
            for name, value in found.items():
                console.print(f"{name:<{width}}  {value or 'not installed'}", highlight=False)


def versions() -> dict[str, str | None]:
    """Versions by name; None where a library is not installed. Imports none of them."""
    found: dict[str, str | None] = {"penstock": __version__, "python": platform.python_version()}
    for name, distribution in _LIBRARIES.items():
        try:
            found[name] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            found[name] = None
    found["platform"] = platform.platform()
    return found
