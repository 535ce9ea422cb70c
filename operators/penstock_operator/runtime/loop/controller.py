"""A controller: informers feed keys to a queue, worker threads reconcile them."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import assert_never

from penstock.errors import Conflict, Invalid, Unavailable
from penstock_operator.runtime import metrics
from penstock_operator.runtime.cluster import Cluster, Key, Manifest, ResourceKind, key_of, owner_keys
from penstock_operator.runtime.copies.change import Aspect, Change
from penstock_operator.runtime.copies.informer import Informer, InformerSettings
from penstock_operator.runtime.copies.mirrored import MirroredCluster, Seen
from penstock_operator.runtime.loop.queue import Backoff, Schedule, Shares, WorkQueue
from penstock_operator.runtime.loop.requeue import Requeue
from penstock_operator.runtime.metrics import ReconcileOutcome

log = logging.getLogger(__name__)

_OPTIONAL_BACKOFF = Backoff(base=1.0, maximum=30.0)
_STANDBY_SECONDS = 0.25


Reconcile = Callable[[Key], Requeue | None]
"""Brings one object to its wanted state, and says when to look again without being told. Raises `Invalid` (after it has set a
condition; not retried), `Unavailable` or `Conflict` (retried with back-off); anything else is a bug: logged with its trace,
and retried with back-off."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A kind to follow, and which primary objects look again when one of its objects changes."""

    kind: ResourceKind
    keys: Callable[[Manifest, Seen], Iterable[Key]]
    """From one of its objects, as it is or as it was, and what else was seen. Missing one costs a resync's delay, no more."""
    aspect: Aspect | None = None
    """What of an object matters: where that is what it was, nobody looks again. None: all of it."""
    optional: bool = False
    """Whether the API may not serve this kind: it is then followed from when it does, and nothing waits for it."""

    @classmethod
    def owned_by(cls, kind: ResourceKind, owner: ResourceKind, *, optional: bool = False) -> Watch:
        """Owners of one kind look again when what they own changes."""
        return cls(kind, lambda manifest, _: owner_keys(manifest, owner), optional=optional)


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """A controller's numbers."""

    workers: int = 4
    namespaces: tuple[str | None, ...] = (None,)
    """Where to follow; None: in all."""
    backoff: Backoff = field(default_factory=Backoff)
    informers: InformerSettings = field(default_factory=InformerSettings)
    stuck_seconds: float = 300.0
    """A reconcile that runs longer is told of; where all workers are in such ones, the controller is unhealthy."""
    slow_seconds: float = 5.0
    """A key whose reconcile took longer shares some of the workers with others like it."""


class Controller:
    """Reconciles the objects of one kind.

    Args:
        kind: the primary kind; each of its objects is a key.
        reconcile: see `Reconcile`. Never called for the same key by two threads at once.
        cluster: where to follow the kinds.
        watches: secondary kinds.
        settings: numbers.
        may_act: asked before each reconcile; False (the lease is lost) leaves the key in the queue.
    """

    def __init__(
        self,
        kind: ResourceKind,
        reconcile: Reconcile,
        cluster: Cluster,
        *,
        watches: Sequence[Watch] = (),
        settings: ControllerSettings = ControllerSettings(),  # frozen
        may_act: Callable[[], bool] = lambda: True,
    ) -> None:
        self.kind = kind
        self._reconcile = reconcile
        self._settings = settings
        self._may_act = may_act
        self._copies = MirroredCluster.from_cluster(cluster)
        one_group = len(settings.namespaces) == 1 and settings.namespaces != (None,)
        shares = Shares.from_workers(settings.workers, one_group=one_group)
        self._queue: WorkQueue[Key] = WorkQueue(
            Schedule(settings.backoff, random.random, group=lambda key: key.namespace, shares=shares)
        )
        self._told_stuck: set[tuple[Key, float]] = set()
        self._stop = threading.Event()
        self._running: dict[int, tuple[Key, float]] = {}
        self._done_at = self._acting_since = time.monotonic()
        self._reconciling = threading.local()
        followed = [
            (watch, self._follow(watch, namespace))
            for watch in (Watch(kind, lambda manifest, _: (key_of(manifest),)), *watches)
            for namespace in (settings.namespaces if watch.kind.namespaced else (None,))
        ]
        self._informers = list(dict.fromkeys(informer for _, informer in followed))
        self._needed = [informer for watch, informer in followed if not watch.optional]
        self._workers = [
            threading.Thread(target=self._work, name=f"{kind.plural}-{index}", daemon=True)
            for index in range(settings.workers)
        ]

    def _follow(self, watch: Watch, namespace: str | None) -> Informer:
        times = self._settings.informers
        if watch.optional:
            times = replace(times, backoff=_OPTIONAL_BACKOFF)
        return self._copies.follow(watch.kind, partial(self._look_again, watch), namespace, times)

    def _look_again(self, watch: Watch, changes: Sequence[Change]) -> None:
        writing = watch.kind == self.kind and getattr(self._reconciling, "key", None) is not None
        for change in changes:
            if writing and _changes_only_status(change):
                continue  # a reconcile that writes its own object's status need not be told of it
            for key in keys_concerned(watch, change, self._copies.seen_objects):
                self.enqueue(key)

    def start(self) -> None:
        """Start informers and workers."""
        for informer in self._informers:
            informer.start()
        for worker in self._workers:
            worker.start()

    @property
    def followed(self) -> frozenset[ResourceKind]:
        """The primary kind, and those that it watches beside it."""
        return frozenset(informer.kind for informer in self._informers)

    def wait_synced(self, timeout: float) -> bool:
        """Wait until every kind has been listed once, but where a namespace may not be read; False after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        return all(informer.wait_settled(max(0.0, deadline - time.monotonic())) for informer in self._needed)

    def refusals(self) -> dict[str, str]:
        """What the API says of each namespace in which something that is needed may not be read."""
        return {each.namespace: each.refusal for each in self._needed if each.namespace and each.refusal}

    def enqueue(self, key: Key, after: float = 0.0) -> None:
        """Look at a key in `after` seconds at the latest."""
        self._queue.add(key, after)
        metrics.set_queue_depth(self.kind.kind, len(self._queue))

    def take_no_more(self) -> None:
        """Begin no more reconciles. Those that run go on."""
        self._stop.set()
        for informer in self._informers:
            informer.stop()
        self._queue.close()

    def stop(self, timeout: float = 10.0) -> bool:
        """Take no more keys and let running reconciles end; False where one had not after `timeout` seconds.

        Informers end when the cluster is closed, or when their present watch does.
        """
        self.take_no_more()
        deadline = time.monotonic() + timeout
        for worker in self._workers:
            if worker.ident is not None:
                worker.join(max(0.0, deadline - time.monotonic()))
        return not any(worker.is_alive() for worker in self._workers)

    def complaint(self) -> str | None:
        """What is wrong with this controller, for a liveness probe; None where it is well."""
        if self._stop.is_set():
            return None
        for informer in self._informers:
            if not informer.alive:
                return f"the watch of {informer.kind.plural} is dead"
        if not all(worker.is_alive() for worker in self._workers):
            return f"a worker of {self.kind.plural} is dead"
        now = time.monotonic()
        running = tuple(self._running.values())
        stuck = [(key, since) for key, since in running if now - since > self._settings.stuck_seconds]
        if len(stuck) == len(self._workers):
            key, since = min(stuck, key=lambda each: each[1])
            return (
                f"reconciling {self.kind.kind} {key} has taken {now - since:.0f} s, and all other workers are as slow"
            )
        self._tell_stuck(stuck, now)
        return self._complaint_of_queue(now)

    def _complaint_of_queue(self, now: float) -> str | None:
        """Threads may live and do nothing: keys are due for long, and none has been done since."""
        overdue = self._queue.overdue_seconds() if self._may_act() else 0.0
        idle = now - max(self._done_at, self._acting_since)
        if min(overdue, idle) <= self._settings.stuck_seconds or self._running:
            return None
        return f"keys of {self.kind.kind} have been due for {overdue:.0f} s, and none was looked at"

    def _tell_stuck(self, stuck: Sequence[tuple[Key, float]], now: float) -> None:
        """One tenant's object must not restart the operator for all others: while keys are done, the log tells of it."""
        for key, since in set(stuck) - self._told_stuck:
            log.error("reconciling %s %s has taken %.0f s", self.kind.kind, key, now - since)
        self._told_stuck = set(stuck)

    def _work(self) -> None:
        while not self._stop.is_set():
            if not self._may_act():
                self._acting_since = time.monotonic()
                # A standby's keys wait where they are, so that it costs nothing and begins at once.
                self._stop.wait(_STANDBY_SECONDS)
                continue
            key = self._queue.take(timeout=1.0)
            if key is None:
                continue
            if not self._may_act():
                self._queue.mark_succeeded(key, requeue_after=1.0)
                continue
            # By thread: at its end the key may be taken by another worker before this one has noted that.
            thread, started = threading.get_ident(), time.monotonic()
            self._running[thread] = key, started
            self._reconciling.key = key
            outcome = self._attempt(key, started)
            self._reconciling.key = None
            del self._running[thread]
            self._done_at = time.monotonic()
            metrics.count_reconcile(self.kind.kind, outcome, time.monotonic() - started)
            metrics.set_queue_depth(self.kind.kind, len(self._queue))

    def _attempt(self, key: Key, started: float) -> ReconcileOutcome:
        """One reconcile, and what its end means for the queue."""
        error: Exception | None = None
        requeue: Requeue | None = None
        try:
            requeue = self._reconcile(key)
            outcome = ReconcileOutcome.OK
        except Invalid as caught:
            error, outcome = caught, ReconcileOutcome.INVALID
        except Conflict as caught:
            error, outcome = caught, ReconcileOutcome.CONFLICT
        except Unavailable as caught:
            error, outcome = caught, ReconcileOutcome.UNAVAILABLE
        except Exception as caught:  # noqa: BLE001  # a bug in one key's reconcile must not stop the others
            error, outcome = caught, ReconcileOutcome.BUG
        slow = time.monotonic() - started > self._settings.slow_seconds
        match outcome:
            case ReconcileOutcome.OK:
                self._queue.mark_succeeded(key, None if requeue is None else requeue.after_seconds, slow=slow)
                if requeue is not None:
                    log.debug("%s %s: again in %.1f s: %s", self.kind.kind, key, requeue.after_seconds, requeue.reason)
            case ReconcileOutcome.INVALID:
                self._queue.mark_succeeded(key, slow=slow)
                log.warning("%s %s: %s", self.kind.kind, key, error)
            case ReconcileOutcome.CONFLICT | ReconcileOutcome.UNAVAILABLE:
                delay = self._queue.mark_failed(key, slow=slow)
                log.info("%s %s: %s; again in %.1f s", self.kind.kind, key, error, delay)
            case ReconcileOutcome.BUG:
                delay = self._queue.mark_failed(key, slow=slow)
                log.error("%s %s: bug; again in %.1f s", self.kind.kind, key, delay, exc_info=error)
            case _:
                assert_never(outcome)
        return outcome


def keys_concerned(watch: Watch, change: Change, seen: Seen) -> Iterable[Key]:
    """Who looks again. One object that is of another form than any must not keep the rest of its kind from being followed."""
    for each in change.objects:
        try:
            if watch.aspect is None or change.concerns(watch.aspect):
                yield from tuple(watch.keys(each, seen))
        except Exception:
            log.exception(
                "%s %s: whom this concerns cannot be told", watch.kind.kind, each.get("metadata", {}).get("name")
            )


_OURS = ("resourceVersion", "managedFields", "finalizers")


def _changes_only_status(change: Change) -> bool:
    """Whether an object differs from what it was in its status alone, and in what we set of its metadata.

    Another's change may have been made just before our write, and come with its answer.
    """
    if change.now is None or change.before is None:
        return False
    now, before = ({k: v for k, v in each["metadata"].items() if k not in _OURS} for each in change.objects)
    return now == before
