"""`penstock apply`, `get` and `delete`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml
from rich.console import Console

from penstock.errors import Invalid
from penstock_cli.standalone.state import StateFolder, default_state_folder

if TYPE_CHECKING:
    from penstock_operator.runtime.cluster import Cluster, Key, Manifest, ResourceKind

_WATCH_SECONDS = 300.0
_FIELDS_NOT_SHOWN = ("managedFields",)


class OutputFormat(StrEnum):
    """How `get` writes."""

    TABLE = "table"
    WIDE = "wide"
    YAML = "yaml"
    JSON = "json"


Kubeconfig = Annotated[Path | None, typer.Option(help="Kubeconfig of the cluster to speak to.", dir_okay=False)]
Context = Annotated[str | None, typer.Option(help="Context in the kubeconfig.")]
StateDir = Annotated[Path | None, typer.Option(help="State folder of `penstock run`; then no cluster is asked.")]
Namespace = Annotated[str, typer.Option("-n", "--namespace", help="The namespace.")]
Files = Annotated[list[str] | None, typer.Option("-f", "--filename", help="Manifest, folder, or `-`; may repeat.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (apply, get, delete):
        app.command()(command)


def apply(
    *,
    filename: Files = None,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    state_dir: StateDir = None,
) -> None:
    """Apply manifests: create what is new, change what differs.

    They are judged first, all of them; if one would be refused, none is applied.

    **Examples**

    `penstock apply -f digits.yaml`

    `penstock apply -f models/ -n vision --context production`
    """
    from penstock_cli.manifests import accepted  # noqa: PLC0415 (the CEL evaluator takes half a second to import)
    from penstock_cli.resources import FIELD_MANAGER, kind_of, placed, title  # noqa: PLC0415 (the same)

    if not filename:
        raise Invalid("NothingToApply", "name what to apply: penstock apply -f FILE")
    manifests = [document.manifest for document in accepted(filename)]
    kinds = [kind_of(manifest) for manifest in manifests]
    with _cluster(kubeconfig, context, state_dir) as cluster:
        for kind, manifest in zip(kinds, manifests, strict=True):
            target = placed(manifest, kind, namespace)
            before = cluster.get(kind, _key(target))
            after = cluster.apply(kind, target, FIELD_MANAGER)
            _say(f"{title(after)} {_outcome(before, after)}")


def get(
    kind: Annotated[str, typer.Argument(help="`infdep`, `spool`, or any kind's name or plural.")] = "infdep",
    name: Annotated[str | None, typer.Argument(help="One object's name.", show_default=False)] = None,
    *,
    output: Annotated[OutputFormat, typer.Option("-o", "--output", help="How to write.")] = OutputFormat.TABLE,
    namespace: Namespace = "default",
    all_namespaces: Annotated[bool, typer.Option("-A", "--all-namespaces", help="In all namespaces.")] = False,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Go on with changes as they come.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    state_dir: StateDir = None,
) -> None:
    """Show deployments, pools and other objects, with the columns of `kubectl get`.

    **Examples**

    `penstock get`

    `penstock get infdep digits -o yaml`

    `penstock get spool -A -o wide`

    `penstock get infdep -w`
    """
    from penstock_cli.resources import kind_named  # noqa: PLC0415 (only for these commands)

    wanted = kind_named(kind)
    place = None if all_namespaces or not wanted.namespaced else namespace
    with _cluster(kubeconfig, context, state_dir) as cluster:
        listing = cluster.list(wanted, place)
        found = [m for m in listing.items if name is None or m["metadata"]["name"] == name]
        if name is not None and not found and not watch:
            raise Invalid("NotFound", f"{wanted.plural} {name!r} not found in {place or 'any namespace'}")
        show = _Shower(wanted, output, with_namespace=all_namespaces and wanted.namespaced)
        show.all(found, single=name is not None)
        version = listing.resource_version
        while watch:
            for event in cluster.watch(wanted, place, version, _WATCH_SECONDS):
                version = event.resource_version
                if event.manifest.get("metadata", {}).get("name") and (
                    name is None or event.manifest["metadata"]["name"] == name
                ):
                    show.one(event.manifest)


def delete(
    kind: Annotated[str | None, typer.Argument(help="The object's kind.", show_default=False)] = None,
    name: Annotated[str | None, typer.Argument(help="The object's name.", show_default=False)] = None,
    *,
    filename: Files = None,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    state_dir: StateDir = None,
) -> None:
    """Delete objects, by kind and name or by the manifests that made them.

    **Examples**

    `penstock delete infdep digits`

    `penstock delete -f digits.yaml`
    """
    with _cluster(kubeconfig, context, state_dir) as cluster:
        for each, key in _named(kind, name, filename, namespace):
            if cluster.get(each, key) is None:
                raise Invalid("NotFound", f"{each.plural} {key.name!r} not found in {key.namespace or 'the cluster'}")
            cluster.delete(each, key)
            _say(f"{each.kind.lower()}/{key.name} deleted")


def _named(
    kind: str | None, name: str | None, filename: list[str] | None, namespace: str
) -> list[tuple[ResourceKind, Key]]:
    """What a delete is about."""
    from penstock_cli.manifests import judge  # noqa: PLC0415 (the CEL evaluator takes half a second to import)
    from penstock_cli.resources import kind_named, kind_of, placed  # noqa: PLC0415 (the same)
    from penstock_operator.runtime.cluster import Key  # noqa: PLC0415 (the same)

    if filename and kind is None:
        manifests = [document.manifest for each in judge(filename) for document in each.documents]
        return [(kind_of(m), _key(placed(m, kind_of(m), namespace))) for m in manifests]
    if filename or kind is None or name is None:
        raise Invalid("NothingToDelete", "name what to delete: penstock delete KIND NAME, or penstock delete -f FILE")
    wanted = kind_named(kind)
    return [(wanted, Key(namespace if wanted.namespaced else "", name))]


@contextmanager
def _cluster(kubeconfig: Path | None, context: str | None, state_dir: Path | None) -> Iterator[Cluster]:
    from penstock_cli.target import Target, connect  # noqa: PLC0415 (loads the schema and the store)

    state = StateFolder(state_dir.absolute()) if state_dir else None
    cluster = connect(Target(kubeconfig, context, state), StateFolder(default_state_folder()))
    try:
        yield cluster
    finally:
        cluster.close()


def _key(manifest: Manifest) -> Key:
    from penstock_operator.runtime.cluster import key_of  # noqa: PLC0415 (with its caller)

    return key_of(manifest)


def _outcome(before: Manifest | None, after: Manifest) -> str:
    """What an apply did, in `kubectl`'s words."""
    if before is None:
        return "created"
    same = before["metadata"].get("resourceVersion") == after["metadata"].get("resourceVersion")
    return "unchanged" if same else "configured"


def _say(text: str) -> None:
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


class _Shower:
    """Writes objects in the asked form."""

    def __init__(self, kind: ResourceKind, output: OutputFormat, *, with_namespace: bool) -> None:
        self._kind = kind
        self._output = output
        self._with_namespace = with_namespace
        self._widths: list[int] = []

    def all(self, manifests: list[Manifest], *, single: bool) -> None:
        """What is there now."""
        match self._output:
            case OutputFormat.TABLE | OutputFormat.WIDE:
                self._table(manifests, headings=True)
            case OutputFormat.YAML | OutputFormat.JSON:
                shown = [_shown(manifest) for manifest in manifests]
                whole = {"apiVersion": "v1", "kind": "List", "items": shown}
                self._write(shown[0] if single and shown else whole)

    def one(self, manifest: Manifest) -> None:
        """A change."""
        match self._output:
            case OutputFormat.TABLE | OutputFormat.WIDE:
                self._table([manifest], headings=False)
            case OutputFormat.YAML | OutputFormat.JSON:
                self._write(_shown(manifest))

    def _table(self, manifests: list[Manifest], *, headings: bool) -> None:
        from penstock_cli import resources  # noqa: PLC0415 (loads the API types)

        if headings and not manifests:
            Console(stderr=True).print(f"No {self._kind.plural} found.", highlight=False)
            return
        wide = self._output is OutputFormat.WIDE
        now = resources.utc_now()
        top = resources.headings(self._kind, wide=wide, with_namespace=self._with_namespace)
        rows = [
            resources.cells(manifest, self._kind, now, wide=wide, with_namespace=self._with_namespace)
            for manifest in manifests
        ]
        widths = [max(map(len, column)) for column in zip(top, *rows, strict=True)]
        # Lines of a watch come later, and stay under the headings that stand.
        self._widths = [max(pair) for pair in zip(widths, self._widths or widths, strict=True)]
        for row in [top, *rows] if headings else rows:
            cells = (f"{cell:<{width}}" for cell, width in zip(row, self._widths, strict=True))
            _say("   ".join(cells).rstrip())

    def _write(self, value: Manifest) -> None:
        text = json.dumps(value, indent=2) if self._output is OutputFormat.JSON else "---\n" + yaml.safe_dump(value)
        _say(text.rstrip())


def _shown(manifest: Manifest) -> Manifest:
    """The object without what only the API server reads; a Secret's values are not written out."""
    metadata = {name: value for name, value in manifest["metadata"].items() if name not in _FIELDS_NOT_SHOWN}
    shown = {**manifest, "metadata": metadata}
    for field in ("data", "stringData"):
        if manifest.get("kind") == "Secret" and field in manifest:
            shown[field] = dict.fromkeys(manifest[field], "(not shown)")
    return shown
