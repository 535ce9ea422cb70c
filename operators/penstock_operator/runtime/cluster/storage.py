"""The embedded cluster's SQLite file: objects, and the log of their changes."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import Unavailable
from penstock_operator.runtime.cluster import EventType, Gone, Key, Manifest, WatchEvent, key_of

_BUSY_SECONDS = 30.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    resource TEXT, namespace TEXT, name TEXT, manifest TEXT NOT NULL, owned TEXT NOT NULL,
    PRIMARY KEY (resource, namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    version INTEGER PRIMARY KEY AUTOINCREMENT, resource TEXT, namespace TEXT, type TEXT, manifest TEXT
);
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object, and for each manager the fields that it applied last."""

    resource: str
    manifest: Manifest
    owned: dict[str, Manifest]


def _open(path: Path) -> sqlite3.Connection:
    try:
        with ExitStack() as undo:
            database = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            undo.callback(database.close)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.executescript(_SCHEMA)
            undo.pop_all()
            return database
    except sqlite3.OperationalError as error:
        raise Unavailable("DatabaseUnusable", f"{path} cannot be used: {error}") from error
    except sqlite3.DatabaseError as error:
        raise Unavailable(
            "DatabaseDamaged",
            f"{path} is damaged, or was written by another program ({error}): move it away, and apply again what it held",
        ) from error


class Storage:
    """Objects in a file that several processes use at once. Use it within `reading` or `writing`.

    Args:
        path: the database; made where absent.
        keep_events: how many changes are remembered.

    Raises:
        Unavailable: the file cannot be opened, or is no database.
    """

    def __init__(self, path: Path, keep_events: int) -> None:
        self._keep_events = keep_events
        self._changed = threading.Condition(threading.RLock())
        self.closed = False
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = _open(path)

    @contextmanager
    def read_transaction(self) -> Iterator[None]:
        """One state of the file, whatever others write meanwhile."""
        with self._transaction("BEGIN"):
            yield

    @contextmanager
    def write_transaction(self) -> Iterator[None]:
        """All or nothing, alone among the threads and processes that use the file; wakes this process's watches."""
        with self._transaction("BEGIN IMMEDIATE"):
            yield
        with self._changed:
            self._changed.notify_all()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        with self._changed:
            if self.closed:
                raise Unavailable("Closed", "the embedded cluster is closed")
            try:
                self._database.execute(begin)
            except sqlite3.OperationalError as error:
                raise Unavailable("DatabaseBusy", f"the embedded cluster's file is busy: {error}") from error
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def close(self) -> None:
        """Close the file and wake every watch."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
            self._database.close()

    def wait(self, version: int, seconds: float) -> None:
        """Wait until this process writes, or at most `seconds`, unless there is more than `version` already."""
        with self._changed:
            if not self.closed and self.version() == version:
                self._changed.wait(seconds)

    def version(self) -> int:
        """Number of the last change."""
        row = self._database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
        return int(row[0]) if row else 0

    def changes(self, resource: str, namespace: str | None, version: int) -> tuple[tuple[WatchEvent, ...], int]:
        """Changes after `version`, and the number up to which they are complete.

        Raises:
            Gone: they are no longer remembered.
        """
        query = (
            "SELECT version, type, manifest FROM events"
            " WHERE version > ? AND resource = ? AND (? IS NULL OR namespace = ?) ORDER BY version"
        )
        with self._changed:
            if self.closed or self.version() == version:
                return (), version
            with self.read_transaction():
                latest = self.version()
                oldest = self._database.execute("SELECT min(version) FROM events").fetchone()[0] or latest + 1
                if version > latest or version < oldest - 1:
                    raise Gone("Expired", f"changes since {version} are no longer known (oldest: {oldest})")
                rows = self._database.execute(query, (version, resource, namespace, namespace)).fetchall()
        return tuple(WatchEvent(EventType(row[1]), json.loads(row[2]), str(row[0])) for row in rows), latest

    def read(self, resource: str, key: Key) -> Stored | None:
        """One object."""
        found = self._select("resource = ? AND namespace = ? AND name = ?", (resource, *key))
        return found[0] if found else None

    def read_all(self, resource: str, namespace: str | None) -> tuple[Stored, ...]:
        """All objects of a resource, in one namespace or in all."""
        return self._select("resource = ? AND (? IS NULL OR namespace = ?)", (resource, namespace, namespace))

    def read_namespace(self, namespace: str) -> tuple[Stored, ...]:
        """All objects in a namespace."""
        return self._select("namespace = ?", (namespace,))

    def read_mentioning(self, text: str) -> tuple[Stored, ...]:
        """All objects in whose manifest a text occurs."""
        return self._select("instr(manifest, ?) > 0", (text,))

    def save(self, event: EventType, stored: Stored) -> None:
        """Store an object and log the change, whose number becomes its resourceVersion."""
        self._log(event, stored.resource, stored.manifest)
        row = (stored.resource, *key_of(stored.manifest), json.dumps(stored.manifest), json.dumps(stored.owned))
        insert = "INSERT OR REPLACE INTO objects (resource, namespace, name, manifest, owned) VALUES (?, ?, ?, ?, ?)"
        self._database.execute(insert, row)

    def save_owned(self, stored: Stored) -> None:
        """Store who owns which fields of an object that did not change."""
        update = "UPDATE objects SET owned = ? WHERE resource = ? AND namespace = ? AND name = ?"
        self._database.execute(update, (json.dumps(stored.owned), stored.resource, *key_of(stored.manifest)))

    def erase(self, resource: str, manifest: Manifest) -> None:
        """Remove an object and log that."""
        remove = "DELETE FROM objects WHERE resource = ? AND namespace = ? AND name = ?"
        self._database.execute(remove, (resource, *key_of(manifest)))
        self._log(EventType.DELETED, resource, manifest)

    def _log(self, event: EventType, resource: str, manifest: Manifest) -> None:
        insert = "INSERT INTO events (resource, namespace, type) VALUES (?, ?, ?)"
        version = self._database.execute(insert, (resource, key_of(manifest).namespace, event.value)).lastrowid or 0
        manifest["metadata"]["resourceVersion"] = str(version)
        self._database.execute("UPDATE events SET manifest = ? WHERE version = ?", (json.dumps(manifest), version))
        self._database.execute("DELETE FROM events WHERE version <= ?", (version - self._keep_events,))

    def _select(self, where: str, values: tuple[str | None, ...]) -> tuple[Stored, ...]:
        query = f"SELECT resource, manifest, owned FROM objects WHERE {where}"  # noqa: S608  # `where` is a constant of this class
        rows = self._database.execute(query, values).fetchall()
        return tuple(Stored(row[0], json.loads(row[1]), json.loads(row[2])) for row in rows)
