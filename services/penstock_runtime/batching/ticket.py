"""A request's place in the queue."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

P = TypeVar("P")


class TicketState(StrEnum):
    """Where a ticket is."""

    NEW = "new"
    QUEUED = "queued"
    EXECUTING = "executing"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    SHED = "shed"


@dataclass(slots=True, eq=False)
class Ticket(Generic[P]):
    """A request's place in the queue.

    `rows` is what it counts for: 1 or more, also where it has none, since a run of nothing costs a run, and places are bounded. Tickets of equal `bucket` may run together. Lower `priority` goes first, and among equals the callers (`flow`) take turns. At
    `deadline`, its own, a ticket that is not yet executing leaves the queue.
    """

    payload: P
    rows: int = 1
    bucket: Hashable = ()
    priority: int = 0
    deadline: float | None = None
    flow: Hashable = ""
    enqueued_at: float = 0.0
    order: int = 0
    start: float = 0.0
    """In the order of `FairOrder`; 0 while requests of one caller wait alone."""
    state: TicketState = TicketState.NEW

    @property
    def rank(self) -> tuple[int, float, int]:
        """What goes first has the least."""
        return self.priority, self.start, self.order
