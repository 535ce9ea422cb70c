"""`penstock describe`: an object's conditions and events, in words."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from penstock.errors import Invalid
from penstock_cli.objects.command import list_objects, not_found, open_cluster
from penstock_cli.objects.showing import align, remark, say
from penstock_cli.options import Context, Kubeconfig, Namespace, StateDir

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock_operator.runtime.cluster import Manifest, ResourceKind

_MOST_EVENTS: Final = 15


def describe(
    what: Annotated[
        list[str],
        typer.Argument(metavar="KIND NAME", help="A kind and names, or words such as `infdep/digits`."),
    ],
    *,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    state_dir: StateDir = None,
) -> None:
    """Show why an object is as it is: its conditions, and what happened to it lately.

    **Examples**

    `penstock describe infdep digits`

    `penstock describe infdep/digits spool/default`
    """
    from penstock_cli.objects.resources import utc_now  # noqa: PLC0415 (loads the API types)
    from penstock_cli.objects.selection import Selection, parse_selection  # noqa: PLC0415 (the same)
    from penstock_operator.runtime.cluster import EVENT  # noqa: PLC0415 (the same)

    missing = []
    with open_cluster(kubeconfig, context, state_dir, note_if_idle=True) as cluster:
        events = list_objects(cluster, Selection(EVENT), namespace)[0]
        for each in parse_selection(what):
            found = list_objects(cluster, each, namespace)[0]
            for position, manifest in enumerate(found):
                if position:
                    say("")
                for line in describe_object(manifest, each.kind, events, utc_now()):
                    say(line)
            if not found and not each.names:
                remark(f"No {each.kind.plural} found.")
            names = [manifest["metadata"]["name"] for manifest in found]
            missing += [not_found(each.kind, name, namespace) for name in each.names if name not in names]
    if missing:
        raise Invalid("NotFound", "\n".join(missing))


def describe_object(manifest: Manifest, kind: ResourceKind, events: Sequence[Manifest], now: datetime) -> list[str]:
    """Lines for people.

    Args:
        manifest: the object.
        kind: of it.
        events: any, in their order; those that are not of this object are passed over.
        now: the present moment.
    """
    from penstock_cli.objects.resources import cells, headings  # noqa: PLC0415 (loads the API types)

    top = headings(kind, wide=True, with_namespace=kind.namespaced)
    values = cells(manifest, kind, now, wide=True, with_namespace=kind.namespaced)
    lines = [f"{title.capitalize() + ':':<14} {value}" for title, value in zip(top, values, strict=True) if value]
    conditions = [_condition(each, now) for each in (manifest.get("status") or {}).get("conditions") or ()]
    if conditions:
        lines += ["", "Conditions:", *_columns(["TYPE", "STATUS", "AGE", "REASON", "MESSAGE"], conditions)]
    happened = [_event(each, now) for each in events if _is_about(each, manifest)][-_MOST_EVENTS:]
    return [*lines, "", "Events:", *_columns(["AGE", "TYPE", "REASON", "MESSAGE"], happened)] if happened else lines


def _condition(condition: Manifest, now: datetime) -> list[str]:
    from penstock_cli.objects.resources import age  # noqa: PLC0415 (loads the API types)

    told = [str(condition.get(name, "")) for name in ("type", "status", "lastTransitionTime", "reason", "message")]
    return [*told[:2], age(told[2], now), *told[3:]]


def _event(event: Manifest, now: datetime) -> list[str]:
    from penstock_cli.objects.resources import age, event_time  # noqa: PLC0415 (loads the API types)

    return [age(event_time(event), now), *(str(event.get(name, "")) for name in ("type", "reason", "note"))]


def _is_about(event: Manifest, manifest: Manifest) -> bool:
    about, metadata = event.get("regarding") or {}, manifest["metadata"]
    names = (about.get("kind"), about.get("name"), about.get("namespace") or "")
    # An object that was made again has another uid than what events of its namesake name.
    same = about.get("uid") in (None, "", metadata.get("uid"))
    return same and names == (manifest["kind"], metadata["name"], metadata.get("namespace", ""))


def _columns(top: list[str], rows: list[list[str]]) -> list[str]:
    plain = [[" ".join(cell.split()) for cell in row] for row in [top, *rows]]
    return [f"  {line}" for line in align(plain)]
