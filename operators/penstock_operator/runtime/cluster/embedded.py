"""The `Cluster` protocol over a SQLite file: the API of `penstock run`, shared by the operator and the CLI.

It keeps what Kubernetes promises and the operator relies on: resource versions, generations, server-side apply,
finalizers, owner references, status apart from spec, and watches that resume. Several processes may use one file.
"""

from __future__ import annotations

import copy
import datetime as dt
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from penstock.api import GROUP
from penstock.api.metadata import metadata_problems, normal_metadata
from penstock.api.verdicts import timestamp
from penstock.errors import Conflict, Invalid
from penstock_operator.runtime.cluster import (
    EVENT,
    NAMESPACE,
    NO_LABELS,
    EventType,
    Key,
    Listing,
    Manifest,
    NotFound,
    Propagation,
    ResourceKind,
    WatchEvent,
    key_of,
    ownership,
    project_excerpt,
)
from penstock_operator.runtime.cluster.finalizers import Finalizers
from penstock_operator.runtime.cluster.storage import Storage, Stored

Admit = Callable[[Manifest, Manifest | None], list[str]]
"""Given an object as it would be and as it was: what is wrong with it, in sentences; nothing: it is admitted."""

FillIn = Callable[[Manifest], Manifest]
"""Gives an object the defaults that its author left out. What it gives back is given back the same a second time."""

_POLL_SECONDS = 0.05
_EVENT_LIFETIME = dt.timedelta(hours=1)
_SERVER_FIELDS = ("uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp")


class EmbeddedCluster(Finalizers):
    """A Kubernetes API in a file. See `Cluster`.

    Args:
        path: the database; made where absent.
        admit: asked about every object that is created or whose spec changes.
        fill_in: gives every object that is written its defaults, which nobody owns.
        keep_events: how many changes a watch can go back.
        now: the time, for timestamps.
    """

    def __init__(
        self,
        path: Path,
        admit: Admit = lambda _manifest, _old: [],
        keep_events: int = 10_000,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        fill_in: FillIn = lambda manifest: manifest,
    ) -> None:
        self._admit = admit
        self._fill_in = fill_in
        self._now = now
        self._storage = Storage(path, keep_events)
        self.apply(NAMESPACE, {"metadata": {"name": "default"}}, "embedded")

    def get(self, kind: ResourceKind, key: Key) -> Manifest | None:
        """See `Cluster.get`."""
        with self._storage.read_transaction():
            return self._read(kind, key)[0]

    def list(
        self,
        kind: ResourceKind,
        namespace: str | None = None,
        labels: Mapping[str, str] = NO_LABELS,
        fields: Mapping[str, str] = NO_LABELS,
    ) -> Listing:
        """See `Cluster.list`."""
        with self._storage.read_transaction():
            stored = self._storage.read_all(_resource(kind), namespace)
            found = [
                each
                for each in stored
                if labels.items() <= (each.manifest["metadata"].get("labels") or {}).items()
                and all(_field(each.manifest, path) == value for path, value in fields.items())
            ]
            return Listing(tuple(project_excerpt(kind, each.manifest) for each in found), str(self._storage.version()))

    def watch(
        self, kind: ResourceKind, namespace: str | None, resource_version: str, timeout_seconds: float
    ) -> Iterator[WatchEvent]:
        """See `Cluster.watch`. Changes by this process show at once, those by others within 50 ms."""
        deadline = time.monotonic() + timeout_seconds
        version = int(resource_version)
        while not self._storage.closed:
            events, version = self._storage.changes(_resource(kind), namespace, version)
            yield from (replace(each, manifest=project_excerpt(kind, each.manifest)) for each in events)
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return
            self._storage.wait(version, min(_POLL_SECONDS, remaining))

    def apply(self, kind: ResourceKind, manifest: Manifest, field_manager: str) -> Manifest:
        """See `Cluster.apply`."""
        wanted = _clean(kind, manifest)
        with self._storage.write_transaction():
            live, owned = self._read(kind, key_of(wanted))
            seen = manifest["metadata"].get("resourceVersion")
            if seen and (live is None or live["metadata"]["resourceVersion"] != seen):
                raise Conflict("Conflict", f"{kind.kind} {key_of(wanted)} has been modified since version {seen}")
            _check_metadata(kind, live, wanted)
            merged, owned = ownership.merge(live or {}, owned, field_manager, wanted)
            return self._write(kind, live, merged, owned)

    def apply_status(self, kind: ResourceKind, manifest: Manifest, field_manager: str) -> Manifest:
        """See `Cluster.apply_status`."""
        with self._storage.write_transaction():
            live, owned = self._read_existing(kind, key_of(manifest))
            wanted = {"status": manifest.get("status", {})}
            merged, owned = ownership.merge(live, owned, _status_manager(field_manager), wanted)
            return self._write(kind, live, merged, owned)

    def create(self, kind: ResourceKind, manifest: Manifest) -> Manifest:
        """See `Cluster.create`."""
        with self._storage.write_transaction():
            if self._read(kind, key_of(manifest))[0] is not None:
                raise Conflict("AlreadyExists", f"{kind.kind} {key_of(manifest)} already exists")
            return self._write(kind, None, _clean(kind, manifest), {})

    def update(self, kind: ResourceKind, manifest: Manifest) -> Manifest:
        """See `Cluster.update`."""
        with self._storage.write_transaction():
            live, owned = self._read_observed(kind, manifest)
            fresh = _clean(kind, manifest)
            fresh["metadata"] |= {name: live["metadata"][name] for name in _SERVER_FIELDS if name in live["metadata"]}
            if kind.has_status and "status" in live:
                fresh["status"] = live["status"]
            return self._write(kind, live, fresh, owned)

    def delete(
        self,
        kind: ResourceKind,
        key: Key,
        *,
        uid: str | None = None,
        propagation: Propagation = Propagation.BACKGROUND,
    ) -> None:
        """See `Cluster.delete`."""
        with self._storage.write_transaction():
            live, owned = self._read(kind, key)
            if live is None:
                return
            if uid is not None and live["metadata"]["uid"] != uid:
                raise Conflict("Conflict", f"{kind.kind} {key} is another object now: its uid is not {uid}")
            self._delete(Stored(_resource(kind), live, owned), propagation)

    def close(self) -> None:
        """See `Cluster.close`."""
        self._storage.close()

    def _read(self, kind: ResourceKind, key: Key) -> tuple[Manifest | None, dict[str, Manifest]]:
        stored = self._storage.read(_resource(kind), key)
        return (stored.manifest, stored.owned) if stored else (None, {})

    def _read_existing(self, kind: ResourceKind, key: Key) -> tuple[Manifest, dict[str, Manifest]]:
        live, owned = self._read(kind, key)
        if live is None:
            raise NotFound("NotFound", f"{kind.kind} {key} does not exist")
        return live, owned

    def _read_observed(self, kind: ResourceKind, manifest: Manifest) -> tuple[Manifest, dict[str, Manifest]]:
        """The object, if it is still what the caller observed."""
        version = manifest["metadata"].get("resourceVersion")
        if not version:
            raise Invalid("Invalid", f"{kind.kind} {key_of(manifest)}: metadata.resourceVersion is needed")
        live, owned = self._read_existing(kind, key_of(manifest))
        if live["metadata"]["resourceVersion"] != version:
            raise Conflict("Conflict", f"{kind.kind} {key_of(manifest)} has changed since it was read")
        return live, owned

    def _set_finalizers(self, kind: ResourceKind, manifest: Manifest, finalizers: tuple[str, ...]) -> Manifest:
        with self._storage.write_transaction():
            live, owned = self._read_observed(kind, manifest)
            changed = copy.deepcopy(live)
            changed["metadata"]["finalizers"] = [*finalizers]
            return self._write(kind, live, changed, owned)

    def _write(
        self, kind: ResourceKind, live: Manifest | None, fresh: Manifest, owned: dict[str, Manifest]
    ) -> Manifest:
        """Store an object as it shall be; a change of nothing is no change."""
        fresh = self._fill_in(fresh | {"apiVersion": kind.api_version, "kind": kind.kind})
        if not fresh["metadata"].get("finalizers", True):
            del fresh["metadata"]["finalizers"]
        key = key_of(fresh)
        _check_metadata(kind, live, fresh)
        if live is None:
            self._check_namespace(kind, key)
            created = timestamp(self._now().timestamp())
            fresh["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": created, "generation": 1}
            self._check(kind, fresh, None)
            stored = Stored(_resource(kind), fresh, owned)
            self._storage.save(EventType.ADDED, stored)
            if kind == EVENT:
                self._forget_old_events()
            if self._is_forsaken(fresh):
                self._delete(stored, Propagation.BACKGROUND)
            return fresh
        if _spec(fresh) != _spec(live):
            fresh["metadata"]["generation"] = live["metadata"]["generation"] + 1
            self._check(kind, fresh, live)
        _check_finalizers(kind, live, fresh)
        if "deletionTimestamp" in live["metadata"] and not fresh["metadata"].get("finalizers"):
            self._remove(Stored(_resource(kind), fresh, owned), Propagation.BACKGROUND)
        elif fresh == live:
            self._storage.save_owned(Stored(_resource(kind), fresh, owned))
        else:
            self._storage.save(EventType.MODIFIED, Stored(_resource(kind), fresh, owned))
        return fresh

    def _forget_old_events(self) -> None:
        """Kubernetes forgets events after an hour; without that the file would only grow."""
        oldest = timestamp((self._now() - _EVENT_LIFETIME).timestamp())
        for stored in self._storage.read_all(_resource(EVENT), None):
            if stored.manifest["metadata"]["creationTimestamp"] < oldest:
                self._remove(stored, Propagation.BACKGROUND)

    def _check(self, kind: ResourceKind, fresh: Manifest, live: Manifest | None) -> None:
        wrong = self._admit(fresh, live)
        if wrong:
            raise Invalid("Invalid", f'{kind.kind} "{fresh["metadata"]["name"]}" is invalid: {"; ".join(wrong)}')

    def _check_namespace(self, kind: ResourceKind, key: Key) -> None:
        if kind.namespaced and self._read(NAMESPACE, Key("", key.namespace))[0] is None:
            raise NotFound("NotFound", f'namespaces "{key.namespace}" not found')

    def _delete(self, stored: Stored, propagation: Propagation) -> None:
        if self._storage.read(stored.resource, key_of(stored.manifest)) is None:
            return  # it went with an owner just now
        metadata = stored.manifest["metadata"]
        if not metadata.get("finalizers"):
            self._remove(stored, propagation)
        elif "deletionTimestamp" not in metadata:
            metadata["deletionTimestamp"] = timestamp(self._now().timestamp())
            metadata["generation"] += 1
            self._storage.save(EventType.MODIFIED, stored)

    def _remove(self, stored: Stored, propagation: Propagation) -> None:
        """Take an object away, and with it what it alone owns, or what is in it (a namespace)."""
        self._storage.erase(stored.resource, stored.manifest)
        uid = stored.manifest["metadata"]["uid"]
        for dependent in self._storage.read_mentioning(uid):
            self._release(dependent, uid, propagation)
        if stored.resource == _resource(NAMESPACE):
            for inside in self._storage.read_namespace(stored.manifest["metadata"]["name"]):
                self._delete(inside, propagation)

    def _is_forsaken(self, manifest: Manifest) -> bool:
        """Whether all owners are gone: whoever made it had not seen yet that they went."""
        owners = [each["uid"] for each in manifest["metadata"].get("ownerReferences") or []]
        return bool(owners) and not any(self._exists(uid) for uid in owners)

    def _exists(self, uid: str) -> bool:
        return any(each.manifest["metadata"]["uid"] == uid for each in self._storage.read_mentioning(uid))

    def _release(self, dependent: Stored, uid: str, propagation: Propagation) -> None:
        """An owner went: the last one takes the dependent along, unless it shall be left an orphan."""
        metadata = dependent.manifest["metadata"]
        references = metadata.get("ownerReferences") or []
        kept = [reference for reference in references if reference["uid"] != uid]
        if len(kept) == len(references):
            return
        if kept or propagation is Propagation.ORPHAN:
            metadata["ownerReferences"] = kept
            self._storage.save(EventType.MODIFIED, dependent)
        else:
            self._delete(dependent, propagation)


def _resource(kind: ResourceKind) -> str:
    return f"{kind.plural}.{kind.group}"


def _status_manager(field_manager: str) -> str:
    """Kubernetes tracks what a manager owns apart for each subresource."""
    return f"{field_manager}/status"


def _clean(kind: ResourceKind, manifest: Manifest) -> Manifest:
    """A copy without what only the server sets."""
    wanted = copy.deepcopy(manifest)
    for name in (*_SERVER_FIELDS, "managedFields"):
        wanted["metadata"].pop(name, None)
    if kind.has_status:
        wanted.pop("status", None)
    wanted["metadata"] = normal_metadata(wanted["metadata"])
    return wanted


def _spec(manifest: Manifest) -> Manifest:
    """The part whose change is a new generation."""
    return {name: value for name, value in manifest.items() if name not in ("metadata", "status")}


def _check_metadata(kind: ResourceKind, live: Manifest | None, fresh: Manifest) -> None:
    """Labels that are numbers and the like could be read by nobody, whoever wrote them."""
    before = None if live is None else live["metadata"]
    wrong = metadata_problems(
        fresh["metadata"], namespaced=kind.namespaced, own_name=kind.group == GROUP, before=before
    )
    if wrong:
        raise Invalid("Invalid", f"{kind.kind} {key_of(fresh)} is invalid: {'; '.join(map(str, wrong))}")


def _check_finalizers(kind: ResourceKind, live: Manifest, fresh: Manifest) -> None:
    if "deletionTimestamp" not in live["metadata"]:
        return
    added = set(fresh["metadata"].get("finalizers") or ()) - set(live["metadata"].get("finalizers") or ())
    if added:
        raise Invalid("Invalid", f"{kind.kind} {key_of(live)} is being deleted: no new finalizer can be added")


def _field(manifest: Manifest, path: str) -> Any:
    found: Any = manifest
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found
