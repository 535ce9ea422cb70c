"""The queue: who goes before whom, what may run together, and who gives place where there is none left."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Final, Generic

from penstock_runtime.batching.fairness import FairOrder
from penstock_runtime.batching.ticket import P, Ticket, TicketState

SLACK: Final = 64
"""Tickets that have left may be remembered until there are so many more than twice those that wait."""


@dataclass(slots=True, eq=False)
class Lane(Generic[P]):
    """Tickets of one priority, bucket and caller, in order of arrival. Those that left the queue stay until they reach the front."""

    priority: int
    bucket: Hashable
    flow: Hashable
    tickets: deque[Ticket[P]] = field(default_factory=deque)
    rows: int = 0
    """Of those that still wait."""

    def front(self) -> Ticket[P] | None:
        """The first that still waits."""
        while self.tickets and self.tickets[0].state is not TicketState.QUEUED:
            self.tickets.popleft()
        return self.tickets[0] if self.tickets else None


class RequestQueue(Generic[P]):
    """Tickets that wait, by priority, bucket and caller. It knows no time."""

    def __init__(self) -> None:
        self._lanes: dict[tuple[int, Hashable, Hashable], Lane[P]] = {}
        self._counter = itertools.count()
        self._order: FairOrder | None = None
        self._flow: Hashable = ""
        """Whose all are that wait; where they are several callers', `_order` says whose turn it is."""
        self._gone = 0
        self.requests = 0
        self.rows = 0

    def add(self, ticket: Ticket[P]) -> None:
        """Put a ticket behind its caller's others."""
        ticket.order = next(self._counter)
        ticket.state = TicketState.QUEUED
        if self._order is not None:
            ticket.start = self._order.start(ticket.flow, ticket.rows)
        elif ticket.flow != self._flow:
            self._begin_turns(ticket)
        key = (ticket.priority, ticket.bucket, ticket.flow)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(*key)
        lane.tickets.append(ticket)
        lane.rows += ticket.rows
        self.requests += 1
        self.rows += ticket.rows

    def _begin_turns(self, ticket: Ticket[P]) -> None:
        """A ticket of another caller comes: from now on they take turns, until none waits."""
        if not self.requests:
            self._flow = ticket.flow
            return
        self._order = order = FairOrder()
        for each in (*sorted(self.waiting(), key=lambda one: one.order), ticket):
            each.start = order.start(each.flow, each.rows)

    def waiting(self) -> Iterator[Ticket[P]]:
        """All that wait."""
        return (each for lane in self._lanes.values() for each in lane.tickets if each.state is TicketState.QUEUED)

    def remove(self, ticket: Ticket[P], state: TicketState) -> None:
        """Take a ticket out from wherever it stands; drop what was taken out before it piles up."""
        ticket.state = state
        self.requests -= 1
        self.rows -= ticket.rows
        self._lanes[ticket.priority, ticket.bucket, ticket.flow].rows -= ticket.rows
        self._gone += 1
        if self._gone > 2 * self.requests + SLACK:
            for lane in self._lanes.values():
                lane.tickets = deque(each for each in lane.tickets if each.state is TicketState.QUEUED)
            self._gone = 0

    def fronts(self) -> Iterator[Ticket[P]]:
        """The first of each lane."""
        return (front for lane in self._lanes.values() if (front := lane.front()) is not None)

    def head(self) -> Ticket[P]:
        """The ticket that must go next. Empty lanes go away."""
        if len(self._lanes) == 1 and (only := next(iter(self._lanes.values())).front()) is not None:
            return only
        best: Ticket[P] | None = None
        empty: list[tuple[int, Hashable, Hashable]] = []
        for key, lane in self._lanes.items():
            front = lane.front()
            if front is None:
                empty.append(key)
            elif best is None or front.rank < best.rank:
                best = front
        if len(self._lanes) > 1:
            for key in empty:
                del self._lanes[key]
        assert best is not None  # noqa: S101 -- the caller has seen that something is queued
        return best

    def rows_of(self, bucket: Hashable) -> int:
        """Rows of those that wait and may run together."""
        return self.rows if len(self._lanes) == 1 else sum(lane.rows for lane in self.lanes_of(bucket))

    def lanes_of(self, bucket: Hashable) -> list[Lane[P]]:
        """Where those wait that may run together."""
        return [lane for lane in self._lanes.values() if lane.tickets and lane.bucket == bucket]

    def take(self, head: Ticket[P], most: int) -> tuple[list[Ticket[P]], int]:
        """The head and what may run with it, in order, until one does not fit into so many rows; and the rows of all."""
        if len(self._lanes) == 1:
            return self._take_in_order(next(iter(self._lanes.values())), most)
        batch: list[Ticket[P]] = []
        rows = 0
        fronts = [(*front.rank, lane) for lane in self.lanes_of(head.bucket) if (front := lane.front()) is not None]
        heapq.heapify(fronts)
        while fronts:
            lane = fronts[0][-1]
            ticket = lane.front()
            while ticket is not None and (not batch or rows + ticket.rows <= most):
                self._start(lane, ticket)
                batch.append(ticket)
                rows += ticket.rows
                ticket = lane.front()
                if len(fronts) > 1:
                    break
            else:
                if ticket is not None:
                    break
            if ticket is None:
                heapq.heappop(fronts)
            else:
                heapq.heapreplace(fronts, (*ticket.rank, lane))
        return batch, rows

    def _take_in_order(self, lane: Lane[P], most: int) -> tuple[list[Ticket[P]], int]:
        tickets = lane.tickets
        batch: list[Ticket[P]] = []
        rows = 0
        while tickets:
            ticket = tickets[0]
            if ticket.state is TicketState.QUEUED:
                if batch and rows + ticket.rows > most:
                    break
                ticket.state = TicketState.EXECUTING
                batch.append(ticket)
                rows += ticket.rows
            tickets.popleft()
        lane.rows -= rows
        self.requests -= len(batch)
        self.rows -= rows
        if self._order is not None and batch:
            self._serve(batch[-1].start)
        return batch, rows

    def _serve(self, start: float) -> None:
        if self._order is not None:
            self._order.serve(start)
            if not self.requests:
                self._order = None

    def _start(self, lane: Lane[P], ticket: Ticket[P]) -> None:
        lane.tickets.popleft()
        lane.rows -= ticket.rows
        ticket.state = TicketState.EXECUTING
        self.requests -= 1
        self.rows -= ticket.rows
        self._serve(ticket.start)

    def rows_ahead(self, priority: int, flow: Hashable, rows: int) -> int:
        """Rows that go before so many more of a caller: all that is more urgent, and of each other caller as many as its own."""
        if len(self._lanes) <= 1:
            return next((lane.rows for lane in self._lanes.values() if lane.priority <= priority), 0)
        ahead = 0
        level: dict[Hashable, int] = {}
        for lane in self._lanes.values():
            if lane.priority < priority:
                ahead += lane.rows
            elif lane.priority == priority:
                level[lane.flow] = level.get(lane.flow, 0) + lane.rows
        own = level.pop(flow, 0)
        return ahead + own + sum(min(waiting, own + rows) for waiting in level.values())

    def find_displaceable(self, priority: int, flow: Hashable) -> Ticket[P] | None:
        """The ticket that gives its place to a caller's request: the last of who has most, or of what is less urgent."""
        waiting: dict[tuple[int, Hashable], int] = {}
        for lane in self._lanes.values():
            if lane.rows:
                whose = (lane.priority, lane.flow)
                waiting[whose] = waiting.get(whose, 0) + lane.rows
        if not waiting:
            return None
        worst = max(waiting, key=lambda whose: (whose[0], waiting[whose]))
        mine = waiting.get((priority, flow), 0)
        if worst[0] < priority or (worst[0] == priority and waiting[worst] <= mine + 1):
            return None
        lanes = [lane for lane in self._lanes.values() if (lane.priority, lane.flow) == worst]
        lane = max(lanes, key=lambda each: each.rows)
        return next(ticket for ticket in reversed(lane.tickets) if ticket.state is TicketState.QUEUED)
