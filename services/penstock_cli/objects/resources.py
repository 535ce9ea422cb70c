"""Kinds as a user names them, and what `get` shows of an object."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from penstock.api.kinds import KINDS, Column
from penstock.errors import Invalid
from penstock_operator.kinds import OURS
from penstock_operator.runtime.cluster import CONFIG_MAP, EVENT, NAMESPACE, SECRET, Manifest, ResourceKind

FIELD_MANAGER = "penstock-cli"
_CORE = {kind.kind: kind for kind in (NAMESPACE, SECRET, CONFIG_MAP, EVENT)}
_CONDITION_PATH = re.compile(r'^\.status\.conditions\[\?\(@\.type=="(\w+)"\)\]\.(\w+)$')
_LAST_SEEN = Column("Last seen", "", type="date")
_EVENT_COLUMNS = (
    _LAST_SEEN, Column("Type", ".type"), Column("Reason", ".reason"), Column("Kind", ".regarding.kind"),
    Column("Object", ".regarding.name"), Column("Message", ".note"),
)  # fmt: skip
"""The message, which may be long, comes last: as with `kubectl get events`."""
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def find_kind(name: str) -> ResourceKind:
    """The kind that a user means: its name, plural or short name, in any case.

    Raises:
        Invalid: there is no such kind; the message lists those known.
    """
    wanted = name.lower().partition(".")[0]
    for each in (*OURS.values(), *_CORE.values()):
        short = KINDS[each.kind].short_names if each.kind in KINDS else ()
        if wanted in (each.kind.lower(), each.plural, *short):
            return each
    raise Invalid("UnknownKind", f"no kind is called {name!r}; known: {', '.join(sorted([*OURS, *_CORE]))}")


def kind_of(manifest: Manifest) -> ResourceKind:
    """The kind of a manifest.

    Raises:
        Invalid: this command does not know it.
    """
    kind = {**OURS, **_CORE}.get(str(manifest.get("kind")))
    if kind is None or manifest.get("apiVersion") != kind.api_version:
        title = f"{manifest.get('apiVersion')} {manifest.get('kind')}"
        known = ", ".join(sorted([*OURS, *_CORE]))
        raise Invalid("UnknownKind", f"{title} is not known here; known: {known}; use kubectl for others")
    return kind


def with_namespace(manifest: Manifest, kind: ResourceKind, namespace: str) -> Manifest:
    """The manifest with its namespace filled in where it names none."""
    metadata = manifest["metadata"]
    if not kind.namespaced and "namespace" in metadata:
        return {**manifest, "metadata": {name: value for name, value in metadata.items() if name != "namespace"}}
    if not kind.namespaced or metadata.get("namespace"):
        return manifest
    return {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}}


def title(manifest: Manifest) -> str:
    """`inferencedeployment/digits`."""
    return f"{str(manifest['kind']).lower()}/{manifest['metadata']['name']}"


def headings(kind: ResourceKind, *, wide: bool, with_namespace: bool) -> list[str]:
    """Column headings of `get`."""
    columns = [column.name.upper() for column in _columns(kind, wide=wide)]
    # An event's name tells nothing, and its message needs the room.
    return [*(["NAMESPACE"] if with_namespace else []), *(["NAME"] if kind is not EVENT else []), *columns]


def cells(manifest: Manifest, kind: ResourceKind, now: datetime, *, wide: bool, with_namespace: bool) -> list[str]:
    """An object's row, with the columns that its CRD gives `kubectl get`."""
    metadata = manifest["metadata"]
    namespace = [metadata.get("namespace", "")] if with_namespace else []
    name = [metadata["name"]] if kind is not EVENT else []
    return namespace + name + [_cell(manifest, column, now) for column in _columns(kind, wide=wide)]


def age(timestamp: str, now: datetime) -> str:
    """Time since an RFC 3339 moment, as `kubectl` writes it: `45s`, `12m`, `5h`, `3d`."""
    try:
        seconds = int((now - datetime.fromisoformat(timestamp)).total_seconds())
    except ValueError:
        return "<unknown>"
    seconds = max(0, seconds)
    for unit, letter in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m")):
        if seconds >= 2 * unit:
            return f"{seconds // unit}{letter}"
    return f"{seconds}s"


def value_at(manifest: Manifest, json_path: str) -> Any:
    """The value at a printer column's path, or None. Plain fields and conditions by type are understood."""
    condition = _CONDITION_PATH.match(json_path)
    if condition is not None:
        conditions = (manifest.get("status") or {}).get("conditions") or ()
        return next((each.get(condition[2]) for each in conditions if each.get("type") == condition[1]), None)
    value: Any = manifest
    for name in json_path.strip(".").split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _columns(kind: ResourceKind, *, wide: bool) -> list[Column]:
    if kind.kind in KINDS:
        return [column for column in KINDS[kind.kind].columns if wide or column.priority == 0]
    if kind is EVENT:
        return list(_EVENT_COLUMNS)
    return [Column("Age", ".metadata.creationTimestamp", type="date")]


def _cell(manifest: Manifest, column: Column, now: datetime) -> str:
    value = event_time(manifest) if column is _LAST_SEEN else value_at(manifest, column.json_path)
    if not value and column.type == "date":
        return "<unknown>"
    if isinstance(value, list):
        value = ",".join(map(str, value))
    # A message of several lines would break the table.
    return age(str(value), now) if column.type == "date" else " ".join(str("" if value is None else value).split())


def sort_manifests(manifests: list[Manifest], kind: ResourceKind) -> list[Manifest]:
    """Events by the time at which they were last seen, as they read best; others as they came."""
    return sorted(manifests, key=lambda event: event_time(event).removesuffix("Z")) if kind is EVENT else manifests


def event_time(event: Manifest) -> str:
    """When an event last happened, in RFC 3339; empty where it does not say."""
    paths = (
        ".series.lastObservedTime", ".deprecatedLastTimestamp", ".eventTime", ".metadata.creationTimestamp",
    )  # fmt: skip
    return next((str(value) for path in paths if (value := value_at(event, path))), "")


def utc_now() -> datetime:
    """The present moment."""
    return datetime.now(UTC)
