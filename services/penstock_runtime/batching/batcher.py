"""The batcher: requests in, batches out.

Whoever owns the engine calls `submit` and `cancel` as requests come and go, and `poll` whenever the engine becomes free, a
request has come, or a time that `poll` asked for has passed. Times are seconds of any monotonic clock.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Generic, TypeVar

from penstock.serving.settings import BatchingSettings
from penstock_runtime.batching.concurrency import Concurrency, ServiceRate

P = TypeVar("P")

_MIN_WINDOW_SECONDS: Final = 0.1
_DELAYS_IN_WINDOW: Final = 10
_MAX_RETRY_SECONDS: Final = 60.0
_SLACK: Final = 64


class TicketState(StrEnum):
    """Where a ticket is."""

    NEW = "new"
    QUEUED = "queued"
    EXECUTING = "executing"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(slots=True, eq=False)
class Ticket(Generic[P]):
    """A request's place in the queue.

    Tickets of equal `bucket` may run together. Lower `priority` goes first. At `deadline` a ticket that is not yet executing
    leaves the queue.
    """

    payload: P
    rows: int = 1
    bucket: Hashable = ()
    priority: int = 0
    deadline: float | None = None
    enqueued_at: float = 0.0
    order: int = 0
    state: TicketState = TicketState.NEW


@dataclass(frozen=True, slots=True)
class Rejected:
    """The queue is full. At the recent rate there is room again after so many seconds."""

    retry_after_seconds: float


@dataclass(frozen=True, slots=True)
class BatchStep(Generic[P]):
    """What to do now.

    Answer the `expired`; run `batch`, unless it is empty, and call `finish` when that is done; poll again at `wake_at`.
    """

    batch: tuple[Ticket[P], ...] = ()
    rows: int = 0
    expired: tuple[Ticket[P], ...] = ()
    wake_at: float | None = None


@dataclass(slots=True, eq=False)
class _Lane(Generic[P]):
    """Tickets of one priority and bucket, in order of arrival. Those that left the queue stay until they reach the front."""

    priority: int
    tickets: deque[Ticket[P]] = field(default_factory=deque)

    def front(self) -> Ticket[P] | None:
        """The first that still waits."""
        while self.tickets and self.tickets[0].state is not TicketState.QUEUED:
            self.tickets.popleft()
        return self.tickets[0] if self.tickets else None


class Batcher(Generic[P]):
    """Takes what has arrived when the engine is free, up to the most rows that a batch may have.

    It waits for more only within `max_delay`, and only while fewer requests wait than were around at once of late: a lone
    request never waits. A request with more rows than a batch may have runs alone.
    """

    def __init__(self, settings: BatchingSettings, *, batchable: bool = True) -> None:
        self._batchable = batchable
        self._settings = settings
        self._lanes: dict[tuple[int, Hashable], _Lane[P]] = {}
        self._deadlines: list[tuple[float, int, Ticket[P]]] = []
        self._counter = itertools.count()
        self._executing = 0
        self._gone = 0
        self.queued = 0
        self._rate = ServiceRate()
        self.reconfigure(settings)

    def reconfigure(self, settings: BatchingSettings) -> None:
        """Take other settings; what is queued stays."""
        self._settings = settings
        self._max_rows = settings.max_batch_size if self._batchable else 1
        self._max_queued = settings.max_queued_requests
        self._delay = settings.max_delay_milliseconds / 1000 if self._max_rows > 1 else 0.0
        self._concurrency = Concurrency(max(_DELAYS_IN_WINDOW * self._delay, _MIN_WINDOW_SECONDS))

    def end_joining(self) -> None:
        """From now on each request is a batch of its own."""
        self._batchable = False
        self.reconfigure(self._settings)

    @property
    def in_system(self) -> int:
        """Requests queued or executing."""
        return self.queued + self._executing

    def submit(self, ticket: Ticket[P], now: float) -> Rejected | None:
        """Queue a ticket, or refuse it because the queue is full."""
        if self.queued >= self._max_queued:
            return Rejected(min(self._rate.seconds_for(self.queued), _MAX_RETRY_SECONDS))
        ticket.enqueued_at = now
        ticket.order = next(self._counter)
        ticket.state = TicketState.QUEUED
        key = (ticket.priority, ticket.bucket)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(ticket.priority)
        lane.tickets.append(ticket)
        self.queued += 1
        if ticket.deadline is not None:
            heapq.heappush(self._deadlines, (ticket.deadline, ticket.order, ticket))
            if len(self._deadlines) > self._bound():
                self._deadlines = [entry for entry in self._deadlines if entry[2].state is TicketState.QUEUED]
                heapq.heapify(self._deadlines)
        if self._delay:
            self._concurrency.observe(self.in_system, now)
        return None

    def cancel(self, ticket: Ticket[P]) -> bool:
        """Take a ticket out. False where it was not waiting any more: then its answer is simply not wanted."""
        if ticket.state is not TicketState.QUEUED:
            return False
        ticket.state = TicketState.CANCELLED
        self._note_departure()
        return True

    def _note_departure(self) -> None:
        """A ticket has left the queue from the middle of its lane; drop such tickets before they pile up."""
        self.queued -= 1
        self._gone += 1
        if self._gone > self._bound():
            for lane in self._lanes.values():
                lane.tickets = deque(ticket for ticket in lane.tickets if ticket.state is TicketState.QUEUED)
            self._gone = 0

    def _bound(self) -> int:
        return 2 * self.queued + _SLACK

    def poll(self, now: float, *, engine_free: bool) -> BatchStep[P]:
        """What to do now: which tickets have expired, which batch to run, when to ask again."""
        expired = self._expire(now) if self._deadlines else ()
        deadline = self._deadlines[0][0] if self._deadlines else None
        if not engine_free or not self.queued:
            return BatchStep(expired=expired, wake_at=deadline)
        head = self._head()
        if self._delay:
            wait_until = self._wait_until(head, now)
            if wait_until is not None:
                wake = wait_until if deadline is None else min(wait_until, deadline)
                return BatchStep(expired=expired, wake_at=wake)
        batch, rows = self._take(head)
        self._executing += len(batch)
        return BatchStep(tuple(batch), rows, expired, deadline)

    def finish(self, requests: int, seconds: float) -> None:
        """A batch of so many requests is done; it took so long."""
        self._executing -= requests
        self._rate.observe(requests, seconds)

    def _expire(self, now: float) -> tuple[Ticket[P], ...]:
        expired: list[Ticket[P]] = []
        while self._deadlines and (
            self._deadlines[0][0] <= now or self._deadlines[0][2].state is not TicketState.QUEUED
        ):
            ticket = heapq.heappop(self._deadlines)[2]
            if ticket.state is TicketState.QUEUED:
                ticket.state = TicketState.EXPIRED
                self._note_departure()
                expired.append(ticket)
        return tuple(expired)

    def _head(self) -> Ticket[P]:
        """The ticket that must go next: of the first priority, the one that came first. Empty lanes go away."""
        best: Ticket[P] | None = None
        empty: list[tuple[int, Hashable]] = []
        for key, lane in self._lanes.items():
            front = lane.front()
            if front is None:
                empty.append(key)
            elif best is None or (front.priority, front.order) < (best.priority, best.order):
                best = front
        if len(self._lanes) > 1:
            for key in empty:
                del self._lanes[key]
        assert best is not None  # noqa: S101 -- the caller has seen that something is queued
        return best

    def _take(self, head: Ticket[P]) -> tuple[list[Ticket[P]], int]:
        """The head and what may run with it, the head's priority first, in order, until one does not fit."""
        batch: list[Ticket[P]] = []
        rows = 0
        mates = [lane for (_, bucket), lane in self._lanes.items() if bucket == head.bucket]
        mates.sort(key=lambda lane: lane.priority)
        for lane in mates:
            while (ticket := lane.front()) is not None:
                if batch and rows + ticket.rows > self._max_rows:
                    return batch, rows
                lane.tickets.popleft()
                ticket.state = TicketState.EXECUTING
                self.queued -= 1
                batch.append(ticket)
                rows += ticket.rows
        return batch, rows

    def _wait_until(self, head: Ticket[P], now: float) -> float | None:
        """Until when the batch should wait for more, or None to run it now."""
        until = head.enqueued_at + self._delay
        waiting = rows = 0
        for (_, bucket), lane in self._lanes.items():
            if bucket == head.bucket:
                for ticket in lane.tickets:
                    if ticket.state is TicketState.QUEUED:
                        waiting += 1
                        rows += ticket.rows
        if now >= until or rows >= self._max_rows or waiting >= self._concurrency.estimate(now):
            return None
        return until
