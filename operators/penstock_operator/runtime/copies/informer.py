"""List and watch: tells which objects changed, and keeps a local copy."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from penstock.errors import PenstockError
from penstock_operator.runtime import metrics
from penstock_operator.runtime.cluster import Cluster, Gone, Listing, Manifest, NotFound, ResourceKind, is_refusal
from penstock_operator.runtime.copies.change import Change
from penstock_operator.runtime.copies.mirror import Mirror
from penstock_operator.runtime.loop.queue import Backoff

log = logging.getLogger(__name__)


Changed = Callable[[Sequence[Change]], None]
"""Told what became of objects."""


@dataclass(frozen=True, slots=True)
class InformerSettings:
    """An informer's times, in seconds."""

    resync_seconds: float = 600.0
    """List everything anew this often, though the watch misses nothing by design."""
    idle_seconds: float = 60.0
    """A watch ends and resumes after this long, so that a dead connection is found."""
    backoff: Backoff = field(default_factory=lambda: Backoff(base=0.2, maximum=10.0))


class Informer:
    """Follows one kind in a thread of its own, and tells what becomes of its objects.

    Args:
        cluster: where to list and watch.
        kind: what to follow.
        changed: told in the informer's thread, or in that of whoever notes a write or refreshes. It must not change what
            it is given.
        namespace: where to look, or None for all namespaces.
        settings: times.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: ResourceKind,
        changed: Changed,
        *,
        namespace: str | None = None,
        settings: InformerSettings = InformerSettings(),  # frozen
    ) -> None:
        self.kind = kind
        self.namespace = namespace
        self.mirror = Mirror(kind)
        self._cluster = cluster
        self._listeners = [changed]
        self._settings = settings
        self._started = False
        self._starting = threading.Lock()
        self._stop = threading.Event()
        self._synced = threading.Event()
        self._outdated_at = float("-inf")
        self._refusal = ""
        self._settled = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"informer-{kind.plural}", daemon=True)

    def tell(self, changed: Changed) -> None:
        """Call this too. Before the start: what was told is not told again."""
        self._listeners.append(changed)

    def start(self) -> None:
        """Begin to follow; no-op where that was asked before."""
        with self._starting:
            if not self._started:
                self._started = True
                self._thread.start()

    @property
    def synced(self) -> bool:
        """Whether there is a copy that may be read: the first listing is in, and nothing has outdated it since."""
        return self._synced.is_set()

    @property
    def refusal(self) -> str:
        """Why the API does not let this be followed, in its words; empty where it does, or has not been asked yet."""
        return self._refusal

    def outdate(self) -> None:
        """The copy may lag behind, or cannot be kept up: until all was listed anew, readers ask the API."""
        self._outdated_at = time.monotonic()
        self._synced.clear()

    def note_failure(self, error: PenstockError) -> None:
        """A listing or a watch failed. Where it was refused, or nothing is served there, the copy counts no more."""
        refused = is_refusal(error)
        if not (refused or isinstance(error, NotFound)):
            log.warning("cannot follow %s: %s", self._where, error)
            return
        self.outdate()
        if not self._refusal:
            log.warning("%s cannot be followed: %s", self._where, error.message)
        self._refusal = error.message
        metrics.set_unreadable(self.namespace or "", self.kind.plural, unreadable=True)
        if refused and self.namespace is not None:
            self._settled.set()

    @property
    def _where(self) -> str:
        return self.kind.plural if self.namespace is None else f"{self.kind.plural} of namespace {self.namespace}"

    def note(self, manifest: Manifest) -> None:
        """The answer to a write of our own: known from now on, and told to all listeners."""
        self._tell(self.mirror.note(manifest))

    def refresh(self) -> None:
        """List now, in the caller's thread, for those who may not act before. Raises what `Cluster.list` does."""
        asked_at = time.monotonic()
        self._take(self._cluster.list(self.kind, self.namespace), asked_at)

    def wait_synced(self, timeout: float) -> bool:
        """Wait until the first listing is in; False after `timeout` seconds."""
        return self._synced.wait(timeout)

    def wait_settled(self, timeout: float) -> bool:
        """The same, or until the API has refused to let this namespace be read: nobody waits for one tenant's."""
        return self._settled.wait(timeout)

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
                self.note_failure(error)
            except Exception:
                failures += 1
                log.exception("bug while following %s; starting over", self.kind.plural)
            if failures:
                self._stop.wait(self._settings.backoff.delay(failures, random.random()))  # noqa: S311  # jitter

    def _take(self, listing: Listing, asked_at: float) -> None:
        told = self.mirror.replace(listing, asked_at)
        if asked_at >= self._outdated_at:
            # Before they are told: whoever looks then must find the copy.
            self._synced.set()
            self._settled.set()
        if self._refusal:
            log.info("%s can be followed again", self._where)
            self._refusal = ""
            metrics.set_unreadable(self.namespace or "", self.kind.plural, unreadable=False)
        self._tell(told)

    def _tell(self, changes: Sequence[Change]) -> None:
        if changes:
            for changed in self._listeners:
                changed(changes)

    def _list_and_watch(self) -> None:
        """One listing and its watches, until the next resync is due."""
        asked_at = time.monotonic()
        listing = self._cluster.list(self.kind, self.namespace)
        self._take(listing, asked_at)
        version = listing.resource_version
        resync_at = time.monotonic() + self._settings.resync_seconds
        while self.synced and not self._stop.is_set():
            remaining = resync_at - time.monotonic()
            if remaining <= 0:
                return
            timeout = min(self._settings.idle_seconds, remaining)
            for event in self._cluster.watch(self.kind, self.namespace, version, timeout):
                version = event.resource_version
                self._tell(self.mirror.observe(event))
                if self._stop.is_set() or not self.synced:
                    return
