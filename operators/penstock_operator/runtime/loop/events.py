"""Events on objects (`kubectl describe`): the same thing said again counts up, and nobody can flood the API."""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from penstock.errors import PenstockError
from penstock_operator.runtime.cluster import EVENT, Cluster, Manifest
from penstock_operator.runtime.loop.news import News

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.2
_ACTION = "Reconcile"
_NOTE_LENGTH = 1024
"""The API's limit for `note`."""


class Severity(StrEnum):
    """`type` of an event."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True)
class EventSettings:
    """How much may be said."""

    series_seconds: float = 600.0
    """The same event within this time counts up the first one."""
    update_seconds: float = 30.0
    """A count is written at most this often."""
    burst: int = 25
    """Events that one object may have at once."""
    refill_seconds: float = 10.0
    """Seconds for one more, after a burst."""
    waiting: int = 10_000
    """Events that may wait to be written."""
    memory: int = 4096
    """Objects and series remembered. Forgetting one costs a duplicate, nothing else."""


@dataclass(frozen=True, slots=True)
class _Series:
    """An event that was said, and how often since."""

    event: Manifest
    """As it was first written: all of it but `series` can never change."""
    count: int
    last: float
    written: float


@dataclass(frozen=True, slots=True)
class Bucket:
    """A token bucket: what one object may still say."""

    tokens: float
    at: float

    def take(self, now: float, settings: EventSettings) -> tuple[Bucket, bool]:
        """The bucket after one attempt at `now`, and whether the attempt is allowed."""
        tokens = min(float(settings.burst), self.tokens + (now - self.at) / settings.refill_seconds)
        return (Bucket(tokens - 1, now), True) if tokens >= 1 else (Bucket(tokens, now), False)


class EventRecorder:
    """Writes events. Never raises: an event is a help for people, and no reconcile fails for one.

    Args:
        cluster: where to write.
        controller: who reports, such as `penstock.dev/operator`.
        instance: which process of it.
        settings: bounds.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        cluster: Cluster,
        controller: str,
        instance: str,
        *,
        settings: EventSettings = EventSettings(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._controller = controller
        self._instance = instance
        self._settings = settings
        self._clock = clock
        self._series: OrderedDict[tuple[str, ...], _Series] = OrderedDict()
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._lock = threading.Lock()
        self._waiting: queue.Queue[Manifest] = queue.Queue(settings.waiting)
        self._stopping = threading.Event()
        self._writer = threading.Thread(target=self._write_on, name="events", daemon=True)

    def record(self, regarding: Manifest, news: News) -> None:
        """Say what is news of an object. Its reason is a constant in CamelCase, its message says what to do about a warning."""
        severity = Severity.WARNING if news.warning else Severity.NORMAL
        manifest = self._compose(regarding, severity, news.reason, cut_note(news.message))
        if manifest is None:
            return
        if not self._writer.is_alive():
            self._write(manifest)
            return
        try:
            self._waiting.put_nowait(manifest)
        except queue.Full:
            log.warning("too many events wait; one was not written: %s", manifest["note"])

    def start(self) -> None:
        """Write in a thread of its own from now on, so that no reconcile waits for an event."""
        self._writer.start()

    def stop(self, timeout: float) -> None:
        """Write what waits, for `timeout` seconds at most."""
        if self._writer.is_alive():
            self._stopping.set()
            self._writer.join(timeout)

    def _write_on(self) -> None:
        while not (self._stopping.is_set() and self._waiting.empty()):
            try:
                manifest = self._waiting.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                continue
            try:
                self._write(manifest)
            except Exception:
                log.exception("bug while writing an event; going on")

    def _write(self, manifest: Manifest) -> None:
        try:
            self._cluster.apply(EVENT, manifest, self._controller.replace("/", "-"))
        except PenstockError as error:
            log.info("event %s on %s was not written: %s", manifest["reason"], manifest["regarding"]["name"], error)

    def _compose(self, regarding: Manifest, severity: Severity, reason: str, note: str) -> Manifest | None:
        """The event to write now, or None where the bounds forbid it or it is only counted."""
        now = self._clock()
        uid = regarding["metadata"].get("uid") or regarding["metadata"]["name"]
        identity = (uid, severity.value, reason, note)
        with self._lock:
            series = self._series.get(identity)
            if series is not None and now - series.last <= self._settings.series_seconds:
                series = replace(series, count=series.count + 1, last=now)
                due = now - series.written >= self._settings.update_seconds
            else:
                series, due = _Series(self._event(regarding, identity), 1, now, now), True
            if due:
                bucket = self._buckets.pop(uid, Bucket(float(self._settings.burst), now))
                self._buckets[uid], due = bucket.take(now, self._settings)
            self._series.pop(identity, None)
            self._series[identity] = replace(series, written=now) if due else series
            for memory in (self._series, self._buckets):
                while len(memory) > self._settings.memory:
                    memory.popitem(last=False)
        if not due or series.count == 1:
            return series.event if due else None
        return series.event | {
            "series": {"count": series.count, "lastObservedTime": _micro_time(dt.datetime.now(dt.UTC))}
        }

    def _event(self, regarding: Manifest, identity: tuple[str, ...]) -> Manifest:
        _, severity, reason, note = identity
        metadata = regarding["metadata"]
        wall = dt.datetime.now(dt.UTC)
        reference = {
            "apiVersion": regarding["apiVersion"],
            "kind": regarding["kind"],
            "name": metadata["name"],
            **{name: metadata[name] for name in ("namespace", "uid", "resourceVersion") if metadata.get(name)},
        }
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": _name(regarding, identity, wall), "namespace": metadata.get("namespace") or "default"},
            "eventTime": _micro_time(wall),
            "type": severity,
            "reason": reason,
            "note": note,
            "action": _ACTION,
            "reportingController": self._controller,
            "reportingInstance": self._instance,
            "regarding": reference,
        }


def cut_note(note: str) -> str:
    """As much of it as an event may have: the API server counts bytes."""
    return note.encode(errors="replace")[:_NOTE_LENGTH].decode(errors="ignore")


def _name(regarding: Manifest, identity: tuple[str, ...], wall: dt.datetime) -> str:
    """Unique for each series: the object's name, what is said, and when it was first said."""
    digest = hashlib.sha256("\0".join((*identity, wall.isoformat())).encode()).hexdigest()[:16]
    # A name that is cut must not end as none may.
    return f"{regarding['metadata']['name'][:200].rstrip('-.')}.{digest}"


def _micro_time(moment: dt.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
