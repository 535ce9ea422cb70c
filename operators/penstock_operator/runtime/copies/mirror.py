"""The local copy of one kind's objects: takes listings, watch events and the answers to our own writes.

Kubernetes' resource versions are decimal numbers that grow with each change (since 1.35 it says so), and so are the embedded
store's. So whatever arrives late, from whichever side, never takes the place of something newer.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from penstock_operator.runtime.cluster import (
    EventType,
    Excerpt,
    Key,
    Listing,
    Manifest,
    ResourceKind,
    WatchEvent,
    key_of,
)
from penstock_operator.runtime.copies.change import Change


@dataclass(slots=True)
class _Copy:
    """One object: the version it is of, the object packed, and when it was learned."""

    version: int
    packed: Any
    learned_at: float


class Mirror:
    """Objects by key. Safe for several threads; whoever gets a manifest owns it.

    Whole objects are kept as the bytes of their JSON: a fifth of the memory, and a copy for each reader for the price of
    reading it. Excerpts are small, hold what is no JSON, and are kept as they are; their readers must not change them.

    Args:
        kind: of the objects.
        clock: monotonic seconds.
    """

    def __init__(self, kind: ResourceKind, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._whole = not isinstance(kind, Excerpt)
        self._objects: dict[str, dict[str, _Copy]] = {}
        self._deleted: dict[Key, tuple[int, float]] = {}
        self._lock = threading.Lock()

    def get(self, key: Key) -> Manifest | None:
        """The copy of one object."""
        with self._lock:
            found = self._objects.get(key.namespace, {}).get(key.name)
        return None if found is None else self._unpack(found)

    def has(self, key: Key) -> bool:
        """Whether there is such an object."""
        with self._lock:
            return self._find(key) is not None

    def items(self, namespace: str | None = None) -> tuple[Manifest, ...]:
        """Copies of all objects, or of one namespace's."""
        with self._lock:
            copies = list(self._copies() if namespace is None else self._objects.get(namespace, {}).values())
        return tuple(self._unpack(each) for each in copies)

    def keys(self, namespace: str | None = None) -> set[Key]:
        """Keys of all objects, or of one namespace's."""
        with self._lock:
            spaces = self._objects if namespace is None else {namespace: self._objects.get(namespace, {})}
            return {Key(space, name) for space, objects in spaces.items() for name in objects}

    def replace(self, listing: Listing, asked_at: float = float("inf")) -> tuple[Change, ...]:
        """Take a listing: of every object that is listed, and of each that went since the last one, what became of it.

        Args:
            listing: all objects.
            asked_at: when it was asked for. What was learned since then, and is newer, stays.
        """
        listed_at, now = int(listing.resource_version), self._clock()
        fresh: dict[str, dict[str, _Copy]] = {}
        told: list[Change] = []
        with self._lock:
            self._deleted = {key: gone for key, gone in self._deleted.items() if gone[1] >= asked_at}
            for item in listing.items:
                key, version = key_of(item), _version(item, listed_at)
                before = self._find(key)
                if self._deleted.get(key, (0, 0.0))[0] > version:
                    continue
                newer = before is not None and before.version > version and before.learned_at >= asked_at
                copy = before if before is not None and newer else _Copy(version, self._pack(item), now)
                fresh.setdefault(key.namespace, {})[key.name] = copy
                known = None if before is None else item if copy.version == before.version else self._unpack(before)
                told.append(Change(item, known))
            for namespace, objects in self._objects.items():
                for name, copy in objects.items():
                    if name in fresh.get(namespace, {}):
                        continue
                    if copy.learned_at >= asked_at and copy.version > listed_at:
                        fresh.setdefault(namespace, {})[name] = copy
                    else:
                        told.append(Change(None, self._unpack(copy)))
            self._objects = fresh
        return tuple(told)

    def observe(self, event: WatchEvent) -> tuple[Change, ...]:
        """Take a watch event: what it changes. One that tells of what is known already, such as a write of our own, tells nothing."""
        if event.type is EventType.BOOKMARK:
            return ()
        key, version = key_of(event.manifest), int(event.resource_version)
        with self._lock:
            before = self._find(key)
            if before is not None and (
                before.version > version or (before.version == version and event.type is not EventType.DELETED)
            ):
                return ()
            if event.type is EventType.DELETED:
                self._objects.get(key.namespace, {}).pop(key.name, None)
                self._deleted[key] = version, self._clock()
            else:
                self._put(key, version, event.manifest)
        known = None if before is None else self._unpack(before)
        if event.type is EventType.DELETED:
            return (Change(None, known or event.manifest),)
        return (Change(event.manifest, known),)

    def note(self, manifest: Manifest) -> tuple[Change, ...]:
        """Take the answer to a write of our own, or to a question to the API: what it changes."""
        if not self._whole:
            return ()
        key, version = key_of(manifest), _version(manifest, 0)
        with self._lock:
            before = self._find(key)
            if version <= self._deleted.get(key, (0, 0.0))[0] or (before is not None and before.version >= version):
                return ()
            self._put(key, version, manifest)
        return (Change(manifest, None if before is None else self._unpack(before)),)

    def _find(self, key: Key) -> _Copy | None:
        return self._objects.get(key.namespace, {}).get(key.name)

    def _put(self, key: Key, version: int, manifest: Manifest) -> None:
        self._objects.setdefault(key.namespace, {})[key.name] = _Copy(version, self._pack(manifest), self._clock())

    def _copies(self) -> Iterator[_Copy]:
        return (copy for objects in self._objects.values() for copy in objects.values())

    def _pack(self, manifest: Manifest) -> Any:
        if not self._whole:
            return manifest
        metadata = {name: value for name, value in manifest["metadata"].items() if name != "managedFields"}
        return json.dumps(manifest | {"metadata": metadata}, separators=(",", ":")).encode()

    def _unpack(self, copy: _Copy) -> Manifest:
        if not self._whole:
            return copy.packed  # type: ignore[no-any-return]  # an excerpt
        manifest: Manifest = json.loads(copy.packed)
        return manifest


def _version(manifest: Manifest, otherwise: int) -> int:
    """Of an object; excerpts may leave theirs out."""
    return int(manifest["metadata"].get("resourceVersion") or otherwise)
