"""The CRDs, generated from the types. `python -m penstock.api.crds [--check] DIR` writes them, or says what differs."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from penstock.api import GROUP, VERSION
from penstock.api.documents import write_yaml
from penstock.api.kinds import KINDS, Kind
from penstock.api.schema import Schema, object_schema

_HEADER: Final = "---\n# Generated from penstock.api by `python -m penstock.api.crds`. Do not edit.\n"
_LINE_WIDTH: Final = 120


def crd(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.singular,
                "shortNames": list(kind.short_names),
                "categories": ["penstock"],
            },
            "versions": [_version(kind)],
        },
    }


def root_schema(kind: Kind) -> Schema:
    """The schema of the whole object. `metadata` is Kubernetes' own; a status is never filled in."""
    schema = object_schema(kind.model)
    schema["required"] = ["spec"]
    schema["properties"] = {
        "apiVersion": {"description": f"`{GROUP}/{VERSION}`.", "type": "string"},
        "kind": {"description": f"`{kind.name}`.", "type": "string"},
        "metadata": {"type": "object"},
        "spec": schema["properties"]["spec"],
    }
    if kind.status is not None:
        schema["properties"]["status"] = object_schema(kind.status, defaults=False)
    return schema


def _version(kind: Kind) -> dict[str, Any]:
    subresources: dict[str, Any] = {} if kind.status is None else {"status": {}}
    if kind.scale is not None:
        subresources["scale"] = {
            "specReplicasPath": kind.scale.spec_replicas_path,
            "statusReplicasPath": kind.scale.status_replicas_path,
            "labelSelectorPath": kind.scale.label_selector_path,
        }
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [
            {"name": c.name, "type": c.type, "jsonPath": c.json_path, "description": c.description}
            | ({"priority": c.priority} if c.priority else {})
            for c in kind.columns
        ],
        "subresources": subresources,
        "schema": {"openAPIV3Schema": root_schema(kind)},
    }


def files() -> Mapping[str, str]:
    """Every CRD as text, by file name. The same types give the same bytes."""
    return {
        f"{GROUP}_{kind.plural}.yaml": _HEADER + write_yaml(crd(kind), width=_LINE_WIDTH) for kind in KINDS.values()
    }


def differences(folder: Path) -> str:
    """A unified diff from what is in the folder to what the types give; empty where they agree."""
    wanted = files()
    found = {path.name: path.read_text() for path in sorted(folder.glob("*.yaml"))}
    lines: list[str] = []
    for name in sorted(wanted.keys() | found.keys()):
        before, after = found.get(name, ""), wanted.get(name, "")
        lines += difflib.unified_diff(
            before.splitlines(keepends=True), after.splitlines(keepends=True), f"{folder / name}", "generated"
        )
    return "".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the CRDs, or with `--check` print how the committed ones differ and return 1 if they do."""
    parser = argparse.ArgumentParser(prog="python -m penstock.api.crds", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 with a diff where files differ")
    parser.add_argument("folder", type=Path, metavar="DIR")
    options = parser.parse_args(arguments)
    folder: Path = options.folder
    if options.check:
        diff = differences(folder)
        sys.stdout.write(diff)
        return 1 if diff else 0
    folder.mkdir(parents=True, exist_ok=True)
    wanted = files()
    for stale in sorted(path for path in folder.glob(f"{GROUP}_*.yaml") if path.name not in wanted):
        stale.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
