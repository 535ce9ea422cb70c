"""List and watch: tells which objects changed, and keeps a local copy.

The copy is an optimisation. Whatever must be true is read from the cluster.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from penstock.errors import PenstockError
from penstock_operator.runtime.cluster import (
    Cluster,
    EventType,
    Gone,
    Key,
    Listing,
    Manifest,
    ResourceKind,
    WatchEvent,
    key_of,
)
from penstock_operator.runtime.queue import Backoff

log = logging.getLogger(__name__)


class Mirror:
    """The local copy: takes listings and events, says which objects to look at again."""

    def __init__(self) -> None:
        self._objects: dict[Key, Manifest] = {}

    def get(self, key: Key) -> Manifest | None:
        """The copy of one object."""
        return self._objects.get(key)

    def items(self) -> tuple[Manifest, ...]:
        """Copies of all objects."""
        return tuple(self._objects.values())

    def replace(self, listing: Listing) -> tuple[Manifest, ...]:
        """Take a listing: every listed object, and the last copy of each that went since the last one."""
        fresh = {key_of(item): item for item in listing.items}
        gone = tuple(manifest for key, manifest in self._objects.items() if key not in fresh)
        self._objects = fresh
        return (*listing.items, *gone)

    def observe(self, event: WatchEvent) -> tuple[Manifest, ...]:
        """Take a watch event: the objects to look at, which may include the copy that it replaces.

        An object that changed may have pointed elsewhere before (another owner, another pool); whoever it pointed to
        must look again too.
        """
        if event.type is EventType.BOOKMARK:
            return ()
        key = key_of(event.manifest)
        before = self._objects.get(key)
        if event.type is EventType.DELETED:
            self._objects.pop(key, None)
        else:
            self._objects[key] = event.manifest
        return (event.manifest,) if before is None else (event.manifest, before)


@dataclass(frozen=True, slots=True)
class InformerSettings:
    """An informer's times, in seconds."""

    resync_seconds: float = 600.0
    """List everything anew this often, though the watch misses nothing by design."""
    idle_seconds: float = 60.0
    """A watch ends and resumes after this long, so that a dead connection is found."""
    backoff: Backoff = field(default_factory=lambda: Backoff(base=0.2, maximum=10.0))


class Informer:
    """Follows one kind in a thread of its own, and calls `changed` with each object to look at.

    Args:
        cluster: where to list and watch.
        kind: what to follow.
        changed: called in the informer's thread, with an object's newest manifest and with the one it replaced.
        namespace: where to look, or None for all namespaces.
        settings: times.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: ResourceKind,
        changed: Callable[[Iterable[Manifest]], None],
        *,
        namespace: str | None = None,
        settings: InformerSettings = InformerSettings(),  # frozen
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.kind = kind
        self.mirror = Mirror()
        self._cluster = cluster
        self._changed = changed
        self._namespace = namespace
        self._settings = settings
        self._clock = clock
        self._stop = threading.Event()
        self._synced = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"informer-{kind.plural}", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def wait_synced(self, timeout: float) -> bool:
        """Wait until the first listing is in; False after `timeout` seconds."""
        return self._synced.wait(timeout)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Ask the thread to end. It does at its next event, or when its watch or the cluster's connection ends."""
        self._stop.set()

    def join(self, timeout: float) -> bool:
        """Wait for the thread's end; False after `timeout` seconds."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _follow(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                self._list_and_watch()
                failures = 0
            except Gone:
                log.info("watch of %s fell too far behind; listing again", self.kind.plural)
                failures += 1
            except PenstockError as error:
                failures += 1
                log.warning("cannot follow %s: %s", self.kind.plural, error)
            except Exception:
                failures += 1
                log.exception("bug while following %s; starting over", self.kind.plural)
            if failures:
                self._stop.wait(self._settings.backoff.delay(failures, random.random()))  # noqa: S311  # jitter

    def _list_and_watch(self) -> None:
        """One listing and its watches, until the next resync is due."""
        listing = self._cluster.list(self.kind, self._namespace)
        self._changed(self.mirror.replace(listing))
        self._synced.set()
        version = listing.resource_version
        resync_at = self._clock() + self._settings.resync_seconds
        while not self._stop.is_set():
            remaining = resync_at - self._clock()
            if remaining <= 0:
                return
            timeout = min(self._settings.idle_seconds, remaining)
            for event in self._cluster.watch(self.kind, self._namespace, version, timeout):
                version = event.resource_version
                self._changed(self.mirror.observe(event))
                if self._stop.is_set():
                    return
