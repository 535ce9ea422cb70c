"""`penstock apply`, `get` and `delete`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.errors import Invalid
from penstock_cli.objects.showing import OutputFormat, TableWriter, remark, say, write_document
from penstock_cli.options import AllNamespaces, Context, Files, Kubeconfig, Namespace, Output, StateDir
from penstock_cli.standalone.state import StateFolder, default_state_folder, is_locked

if TYPE_CHECKING:
    from penstock_cli.objects.selection import Selection
    from penstock_operator.runtime.cluster import Cluster, Key, Manifest, ResourceKind

_WATCH_SECONDS = 300.0


def apply(
    named: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="-f FILE")] = None,
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
    from penstock_cli.objects.resources import FIELD_MANAGER, kind_of, title, with_namespace  # noqa: PLC0415 (the same)
    from penstock_cli.validation.manifests import load_accepted, refuse  # noqa: PLC0415 (the CEL evaluator takes half a second to import)
    from penstock_operator.runtime.cluster.embedded import EmbeddedCluster  # noqa: PLC0415 (the same)

    if named or not filename:
        raise Invalid("NothingToApply", f"name what to apply by -f: penstock apply -f {(named or ['FILE'])[0]}")
    documents = load_accepted(filename)
    manifests = [document.manifest for document in documents]
    kinds = [kind_of(manifest) for manifest in manifests]
    with open_cluster(kubeconfig, context, state_dir) as cluster:
        if isinstance(cluster, EmbeddedCluster):  # a cluster's API is asked for each, and knows more
            refuse(cluster, documents, namespace)
        for kind, manifest in zip(kinds, manifests, strict=True):
            target = with_namespace(manifest, kind, namespace)
            before = cluster.get(kind, _key(target))
            after = cluster.apply(kind, target, FIELD_MANAGER)
            say(f"{title(after)} {_outcome(before, after)}")


def get(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KIND NAME",
            help="A kind (none: `infdep`) and names, words such as `infdep/digits`, or `all`.",
            show_default=False,
        ),
    ] = None,
    *,
    output: Output = OutputFormat.TABLE,
    namespace: Namespace = "default",
    all_namespaces: AllNamespaces = False,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Go on with changes as they come.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    state_dir: StateDir = None,
) -> None:
    """Show deployments, pools and other objects, with the columns of `kubectl get`.

    **Examples**

    `penstock get`

    `penstock get infdep digits -o yaml`

    `penstock get infdep/digits spool/default`

    `penstock get all -A -o wide`

    `penstock get infdep -w`
    """
    from penstock_cli.objects.selection import parse_selection  # noqa: PLC0415 (loads the API types)

    selections = parse_selection(what or ["infdep"])
    if watch and len(selections) > 1:
        raise Invalid("InvalidOption", "--watch watches one kind: name one")
    place = None if all_namespaces else namespace
    with open_cluster(kubeconfig, context, state_dir, note_if_idle=True) as cluster:
        if watch:
            _watch(cluster, selections[0], output, place)
        else:
            _show(cluster, selections, output, place)


def _show(cluster: Cluster, selections: list[Selection], output: OutputFormat, place: str | None) -> None:
    """What is there now; then what was asked for by name and is not there.

    Raises:
        Invalid: something is not there.
    """
    found = [(each, list_objects(cluster, each, place)[0]) for each in selections]
    if output.is_table:
        _show_tables(found, output, place)
    else:
        single = len(selections) == 1 and len(selections[0].names) == 1
        every = [manifest for _, manifests in found for manifest in manifests]
        if every or not single:
            write_document(every, output, single=single)
    missing = [
        not_found(each.kind, name, place or "")
        for each, manifests in found
        for name in each.names
        if name not in [manifest["metadata"]["name"] for manifest in manifests]
    ]
    if missing:
        raise Invalid("NotFound", "\n".join(missing))


def _show_tables(found: list[tuple[Selection, list[Manifest]]], output: OutputFormat, place: str | None) -> None:
    filled = [(each, manifests) for each, manifests in found if manifests]
    for position, (each, manifests) in enumerate(filled):
        if position:
            say("")
        _table(each.kind, output, place, with_kind=len(found) > 1).write(manifests, headings=True)
    if not filled and not any(each.names for each, _ in found):
        where = f" in namespace {place}" if place is not None and any(each.kind.namespaced for each, _ in found) else ""
        remark(f"No {' or '.join(each.kind.plural for each, _ in found)} found{where}.")


def _watch(cluster: Cluster, selection: Selection, output: OutputFormat, place: str | None) -> None:
    """What is there now, and then each change, until interrupted."""
    manifests, version = list_objects(cluster, selection, place)
    table = _table(selection.kind, output, place)
    if output.is_table:
        table.write(manifests, headings=True)
    else:
        for manifest in manifests:
            write_document([manifest], output, single=True)
    within = place if selection.kind.namespaced else None
    while True:
        for event in cluster.watch(selection.kind, within, version, _WATCH_SECONDS):
            version = event.resource_version
            name = event.manifest.get("metadata", {}).get("name")
            if not name or (selection.names and name not in selection.names):
                continue
            if output.is_table:
                table.write([event.manifest], headings=False)
            else:
                write_document([event.manifest], output, single=True)


def list_objects(cluster: Cluster, selection: Selection, place: str | None) -> tuple[list[Manifest], str]:
    """The objects, and the version from which a watch goes on."""
    from penstock_cli.objects.resources import sort_manifests  # noqa: PLC0415 (loads the API types)

    listing = cluster.list(selection.kind, place if selection.kind.namespaced else None)
    wanted = [m for m in listing.items if not selection.names or m["metadata"]["name"] in selection.names]
    return sort_manifests(wanted, selection.kind), listing.resource_version


def _table(kind: ResourceKind, output: OutputFormat, place: str | None, *, with_kind: bool = False) -> TableWriter:
    with_namespace = place is None and kind.namespaced
    return TableWriter(kind, wide=output is OutputFormat.WIDE, with_namespace=with_namespace, with_kind=with_kind)


def not_found(kind: ResourceKind, name: str, namespace: str) -> str:
    """What to say of an object that is not there."""
    where = (namespace or "any namespace") if kind.namespaced else "the cluster"
    return f"{kind.plural} {name!r} not found in {where}"


def delete(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KIND NAME", help="A kind and names, or words such as `infdep/digits`.", show_default=False
        ),
    ] = None,
    *,
    filename: Files = None,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    state_dir: StateDir = None,
) -> None:
    """Delete objects, by kind and name or by the manifests that made them.

    **Examples**

    `penstock delete infdep digits letters`

    `penstock delete infdep/digits spool/default`

    `penstock delete -f digits.yaml`
    """
    missing = []
    with open_cluster(kubeconfig, context, state_dir) as cluster:
        for each, key in _deletion_targets(what or [], filename, namespace):
            if cluster.get(each, key) is None:
                missing.append(not_found(each, key.name, key.namespace))
                continue
            cluster.delete(each, key)
            say(f"{each.kind.lower()}/{key.name} deleted")
    if missing:
        raise Invalid("NotFound", "\n".join(missing))


def _deletion_targets(what: list[str], filename: list[str] | None, namespace: str) -> list[tuple[ResourceKind, Key]]:
    """What a delete is about."""
    from penstock_cli.objects.resources import kind_of, with_namespace  # noqa: PLC0415 (the same)
    from penstock_cli.objects.selection import parse_selection  # noqa: PLC0415 (the same)
    from penstock_cli.validation.manifests import load_identified  # noqa: PLC0415 (the CEL evaluator takes half a second to import)
    from penstock_operator.runtime.cluster import Key  # noqa: PLC0415 (the same)

    if filename and not what:
        manifests = [document.manifest for document in load_identified(filename)]
        return [(kind_of(m), _key(with_namespace(m, kind_of(m), namespace))) for m in manifests]
    selections = parse_selection(what) if what else []
    if filename or not selections or not all(each.names for each in selections):
        raise Invalid("NothingToDelete", "name what to delete: penstock delete KIND NAME, or penstock delete -f FILE")
    return [
        (each.kind, Key(namespace if each.kind.namespaced else "", name)) for each in selections for name in each.names
    ]


@contextmanager
def open_cluster(
    kubeconfig: Path | None, context: str | None, state_dir: Path | None, *, note_if_idle: bool = False
) -> Iterator[Cluster]:
    """The API that the options name, for as long as the block runs."""
    from penstock_cli.target import ClusterTarget, connect  # noqa: PLC0415 (loads the schema and the store)

    state = StateFolder(state_dir.absolute()) if state_dir else None
    target, standalone = ClusterTarget(kubeconfig, context, state), StateFolder(default_state_folder())
    cluster = connect(target, standalone)
    try:
        if note_if_idle and not target.is_cluster and not is_locked(state or standalone):
            remark("Note: no `penstock run` is up, so nothing is served; this is the last known state.")
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
