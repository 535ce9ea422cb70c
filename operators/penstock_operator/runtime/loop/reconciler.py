"""The shape of every reconciler: what is particular to a kind, and the one runner that carries it out.

A look at an object is: read it, hold it by a finalizer where it needs one, observe, plan, apply, write its status once, record
what changed as events, and say when to look again. A restart at any line is safe: the next look finds what there is.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeAlias, TypeVar

from pydantic import BaseModel

from penstock.api.conditions import Reason
from penstock.api.meta import Described
from penstock.api.reading import read
from penstock.errors import Invalid, Unavailable
from penstock.names import FINALIZER
from penstock_operator.runtime.cluster import Cluster, Key, Manifest, NotFound, ResourceKind, identity, key_of
from penstock_operator.runtime.loop.news import News, Record
from penstock_operator.runtime.loop.requeue import Requeue
from penstock_operator.runtime.loop.unreadable import unreadable_message, unreadable_statuses

log = logging.getLogger(__name__)

Object = TypeVar("Object", bound=Described)
Status = TypeVar("Status", bound=BaseModel)
Observed = TypeVar("Observed")
Plan = TypeVar("Plan")


@dataclass(frozen=True, slots=True)
class Applied(Generic[Status]):
    """What a look has come to."""

    status: Status | None = None
    """To be written where it is not what it was; None: it stays."""
    requeue: Requeue | None = None
    """None: look again only when something changes."""
    release: bool = False
    """Whether the object is let go: its finalizer is removed."""


@dataclass(frozen=True, slots=True)
class Failure(Generic[Object, Observed, Plan]):
    """How far a look came that failed, and on what."""

    error: Invalid | Unavailable
    now: float
    resource: Object
    observed: Observed | None = None
    plan: Plan | None = None


class Reconciler(ABC, Generic[Object, Status, Observed, Plan]):
    """What is particular to one kind of ours. Only the first three and `announce` must be given."""

    kind: ResourceKind
    model: type[Object]
    condition: str
    """The type of the condition that says whether all is well."""
    manager: str
    """The field manager of the status."""

    @abstractmethod
    def observe(self, resource: Object) -> Observed:
        """Read all that decides. Raises `Unavailable`, and `Invalid` where the object says what cannot be."""

    @abstractmethod
    def plan(self, observed: Observed, now: float) -> Plan:
        """Decide, by nothing else. Raises `Invalid` where the spec cannot be carried out as it is written."""

    @abstractmethod
    def apply(self, observed: Observed, plan: Plan, now: float) -> Applied[Status]:
        """Carry the plan out, in an order in which a kill at any line leaves nothing that the next look does not find.

        Raises `Unavailable`, `Conflict`, or `Invalid` where what was planned is refused.
        """

    @abstractmethod
    def announce(self, before: Status, after: Status) -> Iterable[News]:
        """The events that tell of a new status."""

    def settle_absence(self, key: Key) -> Requeue | None:
        """There is no such object (any more)."""
        del key
        return None

    def end(self, manifest: Manifest) -> Applied[Status] | None:
        """One step towards the end of an object that is being deleted, readable or not. None: it is planned for like others."""
        del manifest
        return None

    def needs_finalizer(self, resource: Object) -> bool:
        """Whether something must be done before an object may go."""
        del resource
        return False

    def settle_unreadable(self, manifest: Manifest) -> bool:
        """Of what cannot be read nothing is planned, and what it has stays; True where it was going, and is let go."""
        del manifest
        return False

    def explain(self, failure: Failure[Object, Observed, Plan]) -> Status | None:
        """The status after a failure; None: it stays. Raises `Invalid`: what is wrong is told as of what cannot be read."""
        if isinstance(failure.error, Invalid):
            raise failure.error
        return None

    def conclude(self, observed: Observed) -> None:
        """The look at what was observed is over, whatever came of it."""


AnyReconciler: TypeAlias = Reconciler[Any, Any, Any, Any]


@dataclass(slots=True)
class _Look:
    """How far a look has come."""

    manifest: Manifest
    resource: Any = None
    observed: Any = None
    plan: Any = None


class Runner:
    """Carries a reconciler out.

    Args:
        cluster: where the objects are.
        reconciler: what is particular to their kind.
        record: takes events.
        clock: seconds since the Unix epoch.
    """

    def __init__(
        self,
        cluster: Cluster,
        reconciler: AnyReconciler,
        record: Record,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.kind: Final = reconciler.kind
        self._cluster = cluster
        self._reconciler = reconciler
        self._record = record
        self._clock = clock

    def reconcile(self, key: Key) -> Requeue | None:
        """See `penstock_operator.runtime.loop.controller.Reconcile`."""
        manifest = self._cluster.get(self.kind, key)
        if manifest is None:
            return self._reconciler.settle_absence(key)
        look = _Look(manifest)
        try:
            applied = self._carry_out(look)
            if applied.release:
                self._release(look.manifest)
        except (Invalid, Unavailable) as error:
            if not self._tell_failure(look, error):
                raise
            self._release(look.manifest)
            return None
        finally:
            if look.observed is not None:
                self._reconciler.conclude(look.observed)
        if applied.status is not None and not applied.release:
            self._write(look.manifest, look.resource, applied.status)
        return applied.requeue

    def _carry_out(self, look: _Look) -> Applied[Any]:
        reconciler = self._reconciler
        metadata = look.manifest["metadata"]
        going, held = bool(metadata.get("deletionTimestamp")), FINALIZER in (metadata.get("finalizers") or ())
        ended = reconciler.end(look.manifest) if going else None
        if ended is not None:
            return ended
        look.resource = resource = read(reconciler.model, look.manifest)
        if not going and not held and reconciler.needs_finalizer(resource):
            look.manifest = self._cluster.add_finalizer(self.kind, look.manifest, FINALIZER)
        look.observed = observed = reconciler.observe(resource)
        now = self._clock()
        look.plan = wanted = reconciler.plan(observed, now)
        return reconciler.apply(observed, wanted, now)

    def _tell_failure(self, look: _Look, error: Invalid | Unavailable) -> bool:
        """Say in the status what was refused; True where the object was going, cannot be read, and is let go.

        Where the API refuses that as well, the log has what was refused first.
        """
        if isinstance(error, Invalid) and look.observed is None:
            if self._reconciler.settle_unreadable(look.manifest):
                return True
            self._tell_unreadable(look.manifest, error)
            return False
        with suppress(Unavailable) if isinstance(error, Unavailable) else nullcontext():
            try:
                # One that is going need not be one that can be read.
                resource = look.resource or read(self._reconciler.model, look.manifest)
                failure = Failure(error, self._clock(), resource, look.observed, look.plan)
                status = self._reconciler.explain(failure)
            except Invalid:
                if isinstance(error, Invalid):
                    self._tell_unreadable(look.manifest, error)
                return False
            if status is not None:
                self._write(look.manifest, resource, status)
        return False

    def _release(self, manifest: Manifest) -> None:
        self._cluster.remove_finalizer(self.kind, manifest, FINALIZER)

    def _tell_unreadable(self, manifest: Manifest, error: Invalid) -> None:
        condition, message = self._reconciler.condition, unreadable_message(error)
        for status in unreadable_statuses(manifest, condition, message, self._clock()):
            try:
                written = self._write_status(manifest, status)
            except Invalid as refused:
                log.warning("the status of %s %s: %s", self.kind.kind, key_of(manifest), refused.message)
                continue
            if written:
                news = News(warning=True, reason=Reason.INVALID_SPEC, message=f"{condition}: {message}")
                self._record(manifest, news)
            return

    def _write(self, manifest: Manifest, resource: Any, status: BaseModel) -> None:
        """Where it is not what it was; then what is news of it is recorded."""
        if status == resource.status:
            return
        if self._write_status(manifest, status.model_dump(mode="json", exclude_none=True)):
            for each in self._reconciler.announce(resource.status, status):
                self._record(manifest, each)

    def _write_status(self, manifest: Manifest, status: Manifest) -> bool:
        """Whether the object is still there."""
        try:
            body = {**identity(self.kind, manifest), "status": status}
            self._cluster.apply_status(self.kind, body, self._reconciler.manager)
        except NotFound:
            return False
        return True
