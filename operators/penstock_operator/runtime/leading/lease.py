"""Leader election on a `coordination.k8s.io` Lease: of several operators, one acts.

The client library's own election is not used: it knows only a Kubernetes API, and this one works on the embedded
cluster too, through the `Cluster` protocol. It keeps to client-go's rules: a lease counts as held until the *observer*
has seen it unchanged for its whole duration, so clocks of different machines are never compared.
"""

from __future__ import annotations

import copy
import datetime as dt
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from penstock.errors import Conflict, PenstockError
from penstock_operator.runtime.cluster import LEASE, Cluster, Key, Manifest

log = logging.getLogger(__name__)

_GUARD_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """Times in seconds.

    A killed leader is followed after at most `duration + retry`: its last renewal is seen up to `retry` late, and the
    lease ages from when it was seen.
    """

    duration: float = 10.0
    """How long others respect a lease that they see unchanged."""
    renew_deadline: float = 7.0
    """A leader that could not renew for this long stops acting: before another may begin."""
    retry: float = 2.0
    """Seconds between attempts to get or to renew the lease."""


class Action(StrEnum):
    """What to do about the lease now."""

    CREATE = "create"
    TAKE = "take"
    RENEW = "renew"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Observation:
    """The lease as last seen."""

    version: str | None
    """Its resourceVersion; None where there is no lease."""
    holder: str
    duration: float
    since: float
    """When this version was first seen, on the observer's own monotonic clock."""


def decide(observed: Observation, identity: str, now: float) -> Action:
    """What `identity` should do at `now` (same clock as `observed.since`)."""
    if observed.version is None:
        return Action.CREATE
    if observed.holder == identity:
        return Action.RENEW
    if not observed.holder or now >= observed.since + observed.duration:
        return Action.TAKE
    return Action.WAIT


def observe(lease: Manifest | None, previous: Observation | None, now: float) -> Observation:
    """What is seen at `now`: an unchanged lease keeps the time at which it was first seen."""
    if lease is None:
        return Observation(None, "", 0.0, now)
    version = lease["metadata"]["resourceVersion"]
    if previous is not None and previous.version == version:
        return previous
    spec = lease.get("spec") or {}
    return Observation(version, spec.get("holderIdentity") or "", float(spec.get("leaseDurationSeconds") or 0), now)


class Election:
    """Takes part in an election in a thread of its own.

    Args:
        cluster: where the lease is.
        key: the lease's name.
        identity: this process; unique among all that ever take part.
        elected: called once the lease is held; must not block.
        lost: called when it is held no more, before another can hold it, whether or not the API answers. It must make
            the process stop acting, and must not block.
        settings: times.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        cluster: Cluster,
        key: Key,
        identity: str,
        *,
        elected: Callable[[], None],
        lost: Callable[[], None],
        settings: LeaseSettings = LeaseSettings(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._key = key
        self._identity = identity
        self._elected = elected
        self._lost = lost
        self._settings = settings
        self._clock = clock
        self._observed: Observation | None = None
        self._written: Manifest | None = None
        self._valid_until: float | None = None
        self._stop = threading.Event()
        self._turn = threading.RLock()
        self._thread = threading.Thread(target=self._take_part, name="election", daemon=True)
        self._guard = threading.Thread(target=self._watch_deadline, name="election-guard", daemon=True)

    @property
    def leading(self) -> bool:
        """Whether this process may act now. Costs nothing: ask before each act."""
        valid_until = self._valid_until
        return valid_until is not None and self._clock() < valid_until

    def start(self) -> None:
        """Begin to take part."""
        self._thread.start()
        self._guard.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Take part no more. A held lease is given back, so that another process need not wait.

        Call it once the process acts no more.
        """
        self._stop.set()
        for thread in (self._thread, self._guard):
            if thread.ident is not None:
                thread.join(timeout)

    def attempt(self) -> None:
        """One round: look at the lease, decide, act, and call `elected` or `lost` where that changed something."""
        asked = self._clock()
        try:
            if self._try():
                # Counted from before the request: the others count from when they saw it, which is later.
                self._lead_until(asked + self._settings.renew_deadline)
            else:
                self._resign("another process holds the lease")
        except Conflict:
            log.info("another process wrote the lease %s first", self._key)
        except PenstockError as error:
            log.warning("cannot reach the lease %s: %s", self._key, error)
        self.check_deadline()

    def check_deadline(self) -> None:
        """Call `lost` if the lease could not be renewed in time."""
        with self._turn:
            if self._valid_until is not None and not self.leading:
                self._resign(f"the lease could not be renewed for {self._settings.renew_deadline:.0f} s")

    def _lead_until(self, valid_until: float) -> None:
        with self._turn:
            if self._clock() >= valid_until:
                return  # the answer came too late to count on it
            newly = self._valid_until is None
            self._valid_until = valid_until
            if newly:
                log.info("%s leads (%s)", self._identity, self._key)
                self._elected()

    def _try(self) -> bool:
        """Whether this process holds the lease now."""
        if self._renew():
            return True
        lease = self._cluster.get(LEASE, self._key)
        now = self._clock()
        self._observed = observe(lease, self._observed, now)
        action = decide(self._observed, self._identity, now)
        match action:
            case Action.WAIT:
                return False
            case Action.CREATE:
                written = self._cluster.create(LEASE, self._claim(None))
            case Action.TAKE | Action.RENEW:
                written = self._cluster.update(LEASE, self._claim(lease))
            case _:
                assert_never(action)
        self._observed = observe(written, self._observed, self._clock())
        self._written = written
        return True

    def _renew(self) -> bool:
        """Renew what this process wrote last, without reading it; False where it leads not, or someone else wrote since."""
        if self._valid_until is None or self._written is None:
            return False
        mine, self._written = self._written, None
        try:
            self._written = self._cluster.update(LEASE, self._claim(mine))
        except Conflict:
            return False
        self._observed = observe(self._written, self._observed, self._clock())
        return True

    def _claim(self, lease: Manifest | None) -> Manifest:
        """The lease with this process as its holder."""
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        claimed = copy.deepcopy(lease) or {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"name": self._key.name, "namespace": self._key.namespace},
        }
        spec = claimed.setdefault("spec", {})
        if spec.get("holderIdentity") != self._identity:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = spec.get("leaseTransitions", -1) + 1
        spec["holderIdentity"] = self._identity
        spec["leaseDurationSeconds"] = round(self._settings.duration)
        spec["renewTime"] = now
        return claimed

    def _resign(self, why: str) -> None:
        with self._turn:
            if self._valid_until is None:
                return
            self._valid_until = None
            log.warning("%s leads no more: %s", self._identity, why)
            self._lost()

    def _watch_deadline(self) -> None:
        """A request that hangs must not keep a leader in office."""
        while not self._stop.wait(_GUARD_SECONDS):
            self.check_deadline()

    def _take_part(self) -> None:
        while not self._stop.is_set():
            started = self._clock()
            try:
                self.attempt()
            except Exception:
                log.exception("bug in the election; this process leads no more")
                self._resign("a bug in the election")
            self._stop.wait(max(0.05, self._next_attempt(started) - self._clock()))
        self._give_back()

    def _next_attempt(self, last: float) -> float:
        """When to try again: after the retry time, or just when another's lease runs out."""
        due = last + self._settings.retry
        observed = self._observed
        if self._valid_until is None and observed is not None and observed.holder:
            due = min(due, max(last, observed.since + observed.duration))
        return due

    def _give_back(self) -> None:
        """Empty the lease's holder, if it is ours."""
        if self._valid_until is None:
            return
        self._valid_until = None
        try:
            lease = self._cluster.get(LEASE, self._key)
            if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
                self._cluster.update(LEASE, lease | {"spec": lease["spec"] | {"holderIdentity": ""}})
        except PenstockError as error:
            log.info("the lease %s was not given back, and runs out by itself: %s", self._key, error)
