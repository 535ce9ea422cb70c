"""The `Cluster` protocol over a SQLite file: the API of `penstock run`, shared by the operator and the CLI.

It keeps what Kubernetes promises and the operator relies on: resource versions, generations, server-side apply,
finalizers, owner references, status apart from spec, and watches that resume. Several processes may use one file.
"""

from __future__ import annotations

import copy
import datetime as dt
import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.errors import Conflict, Invalid, Unavailable
from penstock_operator.runtime import ownership
from penstock_operator.runtime.cluster import (
    EVENT,
    NAMESPACE,
    EventType,
    Gone,
    Key,
    Listing,
    Manifest,
    NotFound,
    Propagation,
    ResourceKind,
    WatchEvent,
    key_of,
)

Admit = Callable[[Manifest, Manifest | None], list[str]]
"""Given an object as it would be and as it was: what is wrong with it, in sentences; nothing: it is admitted."""

_POLL_SECONDS = 0.05
_BUSY_SECONDS = 30.0
_EVENT_LIFETIME = dt.timedelta(hours=1)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    resource TEXT, namespace TEXT, name TEXT, manifest TEXT NOT NULL, owned TEXT NOT NULL,
    PRIMARY KEY (resource, namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    version INTEGER PRIMARY KEY AUTOINCREMENT, resource TEXT, namespace TEXT, type TEXT, manifest TEXT
);
"""
_SERVER_FIELDS = ("uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp")


class EmbeddedCluster:
    """A Kubernetes API in a file. See `Cluster`.

    Args:
        path: the database; made where absent.
        admit: asked about every object that is created or whose spec changes.
        keep_events: how many changes a watch can go back.
        now: the time, for timestamps.
    """

    def __init__(
        self,
        path: Path,
        admit: Admit = lambda _manifest, _old: [],
        keep_events: int = 10_000,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._admit = admit
        self._keep_events = keep_events
        self._now = now
        self._closed = False
        self._changed = threading.Condition(threading.RLock())
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.executescript(_SCHEMA)
        self.apply(NAMESPACE, {"metadata": {"name": "default"}}, "embedded")

    def get(self, kind: ResourceKind, key: Key) -> Manifest | None:
        """See `Cluster.get`."""
        with self._transaction():
            return self._read(kind, key)[0]

    def list(self, kind: ResourceKind, namespace: str | None = None) -> Listing:
        """See `Cluster.list`."""
        query = "SELECT manifest FROM objects WHERE resource = ? AND (? IS NULL OR namespace = ?)"
        with self._transaction() as database:
            rows = database.execute(query, (_resource(kind), namespace, namespace)).fetchall()
            return Listing(tuple(json.loads(row[0]) for row in rows), str(self._version()))

    def watch(
        self, kind: ResourceKind, namespace: str | None, resource_version: str, timeout_seconds: float
    ) -> Iterator[WatchEvent]:
        """See `Cluster.watch`. Changes by this process show at once, those by others within 50 ms."""
        deadline = time.monotonic() + timeout_seconds
        version = int(resource_version)
        while not self._closed:
            events, version = self._events_after(kind, namespace, version)
            yield from events
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return
            with self._changed:
                if not self._closed and self._version() == version:
                    self._changed.wait(min(_POLL_SECONDS, remaining))

    def apply(self, kind: ResourceKind, manifest: Manifest, field_manager: str) -> Manifest:
        """See `Cluster.apply`."""
        wanted = _cleaned(kind, manifest)
        with self._transaction():
            live, owned = self._read(kind, key_of(wanted))
            merged, owned = ownership.merge(live or {}, owned, field_manager, wanted)
            return self._write(kind, live, merged, owned)

    def apply_status(self, kind: ResourceKind, manifest: Manifest, field_manager: str) -> Manifest:
        """See `Cluster.apply_status`."""
        with self._transaction():
            live, owned = self._existing(kind, key_of(manifest))
            wanted = {"status": manifest.get("status", {})}
            merged, owned = ownership.merge(live, owned, _status_manager(field_manager), wanted)
            return self._write(kind, live, merged, owned)

    def create(self, kind: ResourceKind, manifest: Manifest) -> Manifest:
        """See `Cluster.create`."""
        with self._transaction():
            if self._read(kind, key_of(manifest))[0] is not None:
                raise Conflict("AlreadyExists", f"{kind.kind} {key_of(manifest)} already exists")
            return self._write(kind, None, _cleaned(kind, manifest), {})

    def update(self, kind: ResourceKind, manifest: Manifest) -> Manifest:
        """See `Cluster.update`."""
        with self._transaction():
            live, owned = self._observed(kind, manifest)
            fresh = _cleaned(kind, manifest)
            fresh["metadata"] |= {name: live["metadata"][name] for name in _SERVER_FIELDS if name in live["metadata"]}
            if kind.has_status and "status" in live:
                fresh["status"] = live["status"]
            return self._write(kind, live, fresh, owned)

    def add_finalizer(self, kind: ResourceKind, manifest: Manifest, finalizer: str) -> Manifest:
        """See `Cluster.add_finalizer`."""
        present = manifest["metadata"].get("finalizers") or []
        if finalizer in present:
            return manifest
        return self._set_finalizers(kind, manifest, (*present, finalizer))

    def remove_finalizer(self, kind: ResourceKind, manifest: Manifest, finalizer: str) -> Manifest:
        """See `Cluster.remove_finalizer`."""
        present = manifest["metadata"].get("finalizers") or []
        if finalizer not in present:
            return manifest
        return self._set_finalizers(kind, manifest, tuple(name for name in present if name != finalizer))

    def delete(
        self,
        kind: ResourceKind,
        key: Key,
        *,
        uid: str | None = None,
        propagation: Propagation = Propagation.BACKGROUND,
    ) -> None:
        """See `Cluster.delete`."""
        with self._transaction():
            live, owned = self._read(kind, key)
            if live is None:
                return
            if uid is not None and live["metadata"]["uid"] != uid:
                raise Conflict("Conflict", f"{kind.kind} {key} is another object now: its uid is not {uid}")
            self._delete(_resource(kind), live, owned, propagation)

    def close(self) -> None:
        """See `Cluster.close`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, alone among the threads and processes that use the file."""
        with self._changed:
            if self._closed:
                raise Unavailable("Closed", "the embedded cluster is closed")
            try:
                self._database.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                raise Unavailable("DatabaseBusy", f"the embedded cluster's file is busy: {error}") from error
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")
            self._changed.notify_all()

    def _version(self) -> int:
        row = self._database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
        return int(row[0]) if row else 0

    def _events_after(
        self, kind: ResourceKind, namespace: str | None, version: int
    ) -> tuple[tuple[WatchEvent, ...], int]:
        """Changes after a version, and the version up to which they are complete."""
        query = (
            "SELECT version, type, manifest FROM events"
            " WHERE version > ? AND resource = ? AND (? IS NULL OR namespace = ?) ORDER BY version"
        )
        with self._changed:
            if self._closed:
                return (), version
            latest = self._version()
            if latest == version:
                return (), version
            with self._transaction() as database:
                latest = self._version()
                oldest = database.execute("SELECT min(version) FROM events").fetchone()[0] or latest + 1
                if version > latest or version < oldest - 1:
                    raise Gone("Expired", f"changes since {version} are no longer known (oldest: {oldest})")
                rows = database.execute(query, (version, _resource(kind), namespace, namespace)).fetchall()
        return tuple(WatchEvent(EventType(row[1]), json.loads(row[2]), str(row[0])) for row in rows), latest

    def _read(self, kind: ResourceKind, key: Key) -> tuple[Manifest | None, dict[str, Manifest]]:
        query = "SELECT manifest, owned FROM objects WHERE resource = ? AND namespace = ? AND name = ?"
        row = self._database.execute(query, (_resource(kind), key.namespace, key.name)).fetchone()
        return (json.loads(row[0]), json.loads(row[1])) if row else (None, {})

    def _existing(self, kind: ResourceKind, key: Key) -> tuple[Manifest, dict[str, Manifest]]:
        live, owned = self._read(kind, key)
        if live is None:
            raise NotFound("NotFound", f"{kind.kind} {key} does not exist")
        return live, owned

    def _observed(self, kind: ResourceKind, manifest: Manifest) -> tuple[Manifest, dict[str, Manifest]]:
        """The object, if it is still what the caller observed."""
        version = manifest["metadata"].get("resourceVersion")
        if not version:
            raise Invalid("Invalid", f"{kind.kind} {key_of(manifest)}: metadata.resourceVersion is needed")
        live, owned = self._existing(kind, key_of(manifest))
        if live["metadata"]["resourceVersion"] != version:
            raise Conflict("Conflict", f"{kind.kind} {key_of(manifest)} has changed since it was read")
        return live, owned

    def _set_finalizers(self, kind: ResourceKind, manifest: Manifest, finalizers: tuple[str, ...]) -> Manifest:
        with self._transaction():
            live, owned = self._observed(kind, manifest)
            changed = copy.deepcopy(live)
            changed["metadata"]["finalizers"] = [*finalizers]
            return self._write(kind, live, changed, owned)

    def _write(
        self, kind: ResourceKind, live: Manifest | None, fresh: Manifest, owned: dict[str, Manifest]
    ) -> Manifest:
        """Store an object as it shall be; a change of nothing is no change."""
        fresh |= {"apiVersion": kind.api_version, "kind": kind.kind}
        if not fresh["metadata"].get("finalizers", True):
            del fresh["metadata"]["finalizers"]
        key = key_of(fresh)
        if live is None:
            self._check_namespace(kind, key)
            created = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
            fresh["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": created, "generation": 1}
            self._check(kind, fresh, None)
            self._store(EventType.ADDED, _resource(kind), fresh, owned)
            if kind == EVENT:
                self._forget_old_events()
            return fresh
        if _spec(fresh) != _spec(live):
            fresh["metadata"]["generation"] = live["metadata"]["generation"] + 1
            self._check(kind, fresh, live)
        _check_finalizers(kind, live, fresh)
        if "deletionTimestamp" in live["metadata"] and not fresh["metadata"].get("finalizers"):
            self._remove(_resource(kind), fresh, Propagation.BACKGROUND)
        elif fresh == live:
            update = "UPDATE objects SET owned = ? WHERE resource = ? AND namespace = ? AND name = ?"
            self._database.execute(update, (json.dumps(owned), _resource(kind), *key))
        else:
            self._store(EventType.MODIFIED, _resource(kind), fresh, owned)
        return fresh

    def _forget_old_events(self) -> None:
        """Kubernetes forgets events after an hour; without that the file would only grow."""
        oldest = (self._now() - _EVENT_LIFETIME).strftime("%Y-%m-%dT%H:%M:%SZ")
        query = (
            "SELECT manifest FROM objects"
            " WHERE resource = ? AND json_extract(manifest, '$.metadata.creationTimestamp') < ?"
        )
        for row in self._database.execute(query, (_resource(EVENT), oldest)).fetchall():
            self._remove(_resource(EVENT), json.loads(row[0]), Propagation.BACKGROUND)

    def _check(self, kind: ResourceKind, fresh: Manifest, live: Manifest | None) -> None:
        wrong = self._admit(fresh, live)
        if wrong:
            raise Invalid("Invalid", f'{kind.kind} "{fresh["metadata"]["name"]}" is invalid: {"; ".join(wrong)}')

    def _check_namespace(self, kind: ResourceKind, key: Key) -> None:
        if kind.namespaced and self._read(NAMESPACE, Key("", key.namespace))[0] is None:
            raise NotFound("NotFound", f'namespaces "{key.namespace}" not found')

    def _store(self, event: EventType, resource: str, manifest: Manifest, owned: dict[str, Manifest]) -> None:
        self._record(event, resource, manifest)
        key = key_of(manifest)
        insert = "INSERT OR REPLACE INTO objects (resource, namespace, name, manifest, owned) VALUES (?, ?, ?, ?, ?)"
        self._database.execute(insert, (resource, *key, json.dumps(manifest), json.dumps(owned)))

    def _record(self, event: EventType, resource: str, manifest: Manifest) -> None:
        """Append to the log of changes: its sequence number becomes the object's resourceVersion."""
        insert = "INSERT INTO events (resource, namespace, type) VALUES (?, ?, ?)"
        version = self._database.execute(insert, (resource, key_of(manifest).namespace, event.value)).lastrowid or 0
        manifest["metadata"]["resourceVersion"] = str(version)
        self._database.execute("UPDATE events SET manifest = ? WHERE version = ?", (json.dumps(manifest), version))
        self._database.execute("DELETE FROM events WHERE version <= ?", (version - self._keep_events,))

    def _delete(self, resource: str, live: Manifest, owned: dict[str, Manifest], propagation: Propagation) -> None:
        if not live["metadata"].get("finalizers"):
            self._remove(resource, live, propagation)
        elif "deletionTimestamp" not in live["metadata"]:
            live["metadata"]["deletionTimestamp"] = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
            live["metadata"]["generation"] = live["metadata"].get("generation", 0) + 1
            self._store(EventType.MODIFIED, resource, live, owned)

    def _remove(self, resource: str, manifest: Manifest, propagation: Propagation) -> None:
        """Take an object away, and with it what it alone owns, or what is in it (a namespace)."""
        key = key_of(manifest)
        where = "resource = ? AND namespace = ? AND name = ?"
        self._database.execute(f"DELETE FROM objects WHERE {where}", (resource, *key))  # noqa: S608  # a constant
        self._record(EventType.DELETED, resource, manifest)
        uid = manifest["metadata"]["uid"]
        query = "SELECT resource, manifest, owned FROM objects WHERE instr(manifest, ?) > 0"
        for row in self._database.execute(query, (uid,)).fetchall():
            self._release(row[0], json.loads(row[1]), json.loads(row[2]), uid, propagation)
        if resource == _resource(NAMESPACE):
            query = "SELECT resource, manifest, owned FROM objects WHERE namespace = ?"
            for row in self._database.execute(query, (key.name,)).fetchall():
                self._delete(row[0], json.loads(row[1]), json.loads(row[2]), propagation)

    def _release(
        self, resource: str, dependent: Manifest, owned: dict[str, Manifest], uid: str, propagation: Propagation
    ) -> None:
        """An owner went: the last one takes the dependent along, unless it shall be left an orphan."""
        references = dependent["metadata"].get("ownerReferences") or []
        kept = [reference for reference in references if reference["uid"] != uid]
        if len(kept) == len(references):
            return
        if kept or propagation is Propagation.ORPHAN:
            dependent["metadata"]["ownerReferences"] = kept
            self._store(EventType.MODIFIED, resource, dependent, owned)
        else:
            self._delete(resource, dependent, owned, propagation)


def _resource(kind: ResourceKind) -> str:
    return f"{kind.plural}.{kind.group}"


def _status_manager(field_manager: str) -> str:
    """Kubernetes tracks what a manager owns apart for each subresource."""
    return f"{field_manager}/status"


def _cleaned(kind: ResourceKind, manifest: Manifest) -> Manifest:
    """A copy without what only the server sets."""
    wanted = copy.deepcopy(manifest)
    for name in (*_SERVER_FIELDS, "managedFields"):
        wanted["metadata"].pop(name, None)
    if kind.has_status:
        wanted.pop("status", None)
    return wanted


def _spec(manifest: Manifest) -> Manifest:
    """The part whose change is a new generation."""
    return {name: value for name, value in manifest.items() if name not in ("metadata", "status")}


def _check_finalizers(kind: ResourceKind, live: Manifest, fresh: Manifest) -> None:
    if "deletionTimestamp" not in live["metadata"]:
        return
    added = set(fresh["metadata"].get("finalizers") or ()) - set(live["metadata"].get("finalizers") or ())
    if added:
        raise Invalid("Invalid", f"{kind.kind} {key_of(live)} is being deleted: no new finalizer can be added")
