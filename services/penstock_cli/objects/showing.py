"""Writes objects as a table, YAML or JSON."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING

from rich.console import Console

from penstock.api.documents import write_yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock_operator.runtime.cluster import Manifest, ResourceKind

_FIELDS_NOT_SHOWN = ("managedFields",)


class OutputFormat(StrEnum):
    """How `get` writes."""

    TABLE = "table"
    WIDE = "wide"
    YAML = "yaml"
    JSON = "json"

    @property
    def is_table(self) -> bool:
        """Whether objects are rows."""
        return self in (OutputFormat.TABLE, OutputFormat.WIDE)


def say(text: str) -> None:
    """A line on standard output, as it is."""
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


def remark(text: str) -> None:
    """A line on standard error, which is no part of the output."""
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


def complain(text: str) -> None:
    """What went wrong, on standard error."""
    Console(stderr=True).print("[bold red]error:[/bold red] ", end="")
    remark(text)


def write_document(manifests: Sequence[Manifest], output: OutputFormat, *, single: bool) -> None:
    """Objects as one YAML or JSON document: a `List`, or with `single` the one object itself."""
    shown = [_without_server_fields(manifest) for manifest in manifests]
    whole: Manifest = {"apiVersion": "v1", "kind": "List", "items": shown}
    value = shown[0] if single and shown else whole
    text = json.dumps(value, indent=2) if output is OutputFormat.JSON else "---\n" + write_yaml(value, sort_keys=True)
    say(text.rstrip())


class TableWriter:
    """A table of one kind, to which a watch adds lines."""

    def __init__(self, kind: ResourceKind, *, wide: bool, with_namespace: bool, with_kind: bool = False) -> None:
        self._kind = kind
        self._wide = wide
        self._with_namespace = with_namespace
        self._with_kind = with_kind
        self._widths: list[int] = []

    def write(self, manifests: Sequence[Manifest], *, headings: bool) -> None:
        """Rows, under headings or under those that stand."""
        from penstock_cli.objects import resources  # noqa: PLC0415 (loads the API types)

        now = resources.utc_now()
        top = resources.headings(self._kind, wide=self._wide, with_namespace=self._with_namespace)
        rows = [
            resources.cells(manifest, self._kind, now, wide=self._wide, with_namespace=self._with_namespace)
            for manifest in manifests
        ]
        if self._with_kind and "NAME" in top:
            place = top.index("NAME")
            for row in rows:
                row[place] = f"{self._kind.kind.lower()}/{row[place]}"
        widths = [max(map(len, column)) for column in zip(top, *rows, strict=True)]
        # Lines of a watch come later, and stay under the headings that stand.
        self._widths = [max(pair) for pair in zip(widths, self._widths or widths, strict=True)]
        for row in [top, *rows] if headings else rows:
            cells = (f"{cell:<{width}}" for cell, width in zip(row, self._widths, strict=True))
            say("   ".join(cells).rstrip())


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of as many cells each as lines whose columns stand under each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["   ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _without_server_fields(manifest: Manifest) -> Manifest:
    """The object without what only the API server reads; a Secret's values are not written out."""
    metadata = {name: value for name, value in manifest["metadata"].items() if name not in _FIELDS_NOT_SHOWN}
    shown = {**manifest, "metadata": metadata}
    for field in ("data", "stringData"):
        if manifest.get("kind") == "Secret" and field in manifest:
            shown[field] = dict.fromkeys(manifest[field], "(not shown)")
    return shown
