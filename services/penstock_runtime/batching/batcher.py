"""The batcher: requests in, batches out.

Whoever owns the engine calls `submit` and `cancel` as requests come and go, and `poll` whenever the engine becomes free, a
request has come, or a time that `poll` asked for has passed. Times are seconds of any monotonic clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Final, Generic

from penstock.protocol.limits import DEFAULT_PRIORITY, LAST_PRIORITY
from penstock.serving.settings import BatchingSettings
from penstock_runtime.batching.admission import Admission
from penstock_runtime.batching.concurrency import Concurrency
from penstock_runtime.batching.curve import ServiceCurve
from penstock_runtime.batching.gathering import Gathering
from penstock_runtime.batching.queueing import SLACK, RequestQueue
from penstock_runtime.batching.sizing import BatchSizing
from penstock_runtime.batching.ticket import P, Ticket, TicketState
from penstock_runtime.batching.underway import UnderWay

_MIN_WINDOW_SECONDS: Final = 0.1
_DELAYS_IN_WINDOW: Final = 10
_MAX_RETRY_SECONDS: Final = 60.0
_URGENT_SECONDS: Final = 10.0
"""How long a priority that was seen counts as one that may come again."""
_LEAST_URGENT: Final = DEFAULT_PRIORITY
"""What may come though it was not seen of late."""
_FOLLOW_SECONDS: Final = 0.005
"""How often at most what was measured is looked at: for runs of some microseconds that would cost more than they do."""
_ROWS_GAIN: Final = 0.05
_NEVER: Final = 1e9
"""An objective in seconds that everything keeps."""
_MOST_CAPACITY: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Rejected:
    """There is no room. At the rate of the last runs there is again after so many seconds."""

    retry_after_seconds: float
    expected_seconds: float | None = None
    """After how long it would have been answered; None: the queue is full, whatever the time."""
    due_seconds: float = 0.0
    """Within how long it should have been."""


@dataclass(frozen=True, slots=True)
class BatchStep(Generic[P]):
    """What to do now.

    Answer the `expired` and the `shed`; run `batch`, unless it is empty, and call `finish` when that is done; poll again at
    `wake_at`.
    """

    batch: tuple[Ticket[P], ...] = ()
    rows: int = 0
    engine: int = 0
    """Which of those that run at once takes the batch."""
    expired: tuple[Ticket[P], ...] = ()
    """Their own deadline has passed."""
    shed: tuple[Ticket[P], ...] = ()
    """They were let in, but others came before them, or runs took longer than expected: they would be answered too late."""
    wake_at: float | None = None


class Batcher(Generic[P]):
    """Takes what has arrived when the engine is free, up to as many rows as are worth a run.

    It waits for more where that was seen to answer more (`Gathering`), and within `max_delay` while fewer requests wait than were
    around at once of late. A request with more rows than a batch may have runs alone. What cannot be answered in time behind what
    is there already is refused at once (`Admission`).
    """

    def __init__(
        self,
        settings: BatchingSettings,
        *,
        batchable: bool = True,
        objective_seconds: float | None = None,
        measuring: bool = False,
        runs: int = 1,
    ) -> None:
        """See `reconfigure`.

        Args:
            settings: of batches and the queue.
            batchable: whether requests may share a run.
            objective_seconds: within which requests are to be answered.
            measuring: what is asked for is what it carries: batches of all that fit, and nothing is refused for its time.
            runs: how many may be under way at once.
        """
        self._batchable = batchable
        self._measuring = measuring
        self._queue: RequestQueue[P] = RequestQueue()
        self._deadlines: list[tuple[float, int, Ticket[P]]] = []
        self._expired: list[Ticket[P]] = []
        self._shed: list[Ticket[P]] = []
        self._taken: list[Ticket[P]] = []
        """What the present `poll` has taken out of the queue."""
        self._under_way = UnderWay(runs)
        self._sample: Ticket[P] | None = None
        """The ticket of which it will be seen how good the estimate was."""
        self._sampled_expectation = 0.0
        self._arrived = 0.0
        """When the last request came."""
        self._follow_at = 0.0
        self._empty_at = 0.0
        """When nobody waited, last."""
        self._patience = 0.0
        """Who has waited for longer may be too late."""
        self._urgent = _LEAST_URGENT
        self._urgent_until = 0.0
        self._mean_rows = 1.0
        self.refused = 0
        """For time, before they were queued or after."""
        self._settings = settings
        self._objective = objective_seconds
        self._max_rows = self._sure_rows = 0
        self.reconfigure(settings, objective_seconds)

    def reconfigure(self, settings: BatchingSettings, objective_seconds: float | None = None) -> None:
        """Take other settings; what is queued stays.

        Args:
            settings: of batches and the queue.
            objective_seconds: within which requests are to be answered; None: nothing was promised.
        """
        self._settings = settings
        self._objective = _NEVER if self._measuring else objective_seconds
        most = settings.max_batch_size if self._batchable else 1
        if most != self._max_rows:
            # What was measured is by sizes up to another most.
            self._max_rows = most
            self.curve = ServiceCurve(most)
            self.sizing = BatchSizing(self.curve, most, fixed=self._measuring)
            self.admission = Admission(self.curve, self._under_way.most)
            self.gathering = Gathering(self.curve, most)
        self._max_queued = settings.max_queued_requests
        self._delay = settings.max_delay_milliseconds / 1000 if self._max_rows > 1 else 0.0
        self._concurrency = Concurrency(max(_DELAYS_IN_WINDOW * self._delay, _MIN_WINDOW_SECONDS))
        self.admission.set_objective(self._objective)
        self._follow_curve()

    def start_over(self) -> tuple[Ticket[P], ...]:
        """Forget all but the settings, after a defect of the batcher's own, and give up what waits.

        Returns:
            What nobody will be told of any more. What runs is not among it: its `finish` may still be called.
        """
        given_up = (*self._expired, *self._shed, *self._taken, *self._queue.waiting())
        for ticket in given_up:
            ticket.state = TicketState.CANCELLED
        self._queue = RequestQueue()
        self._deadlines, self._expired, self._shed, self._taken = [], [], [], []
        self._under_way.forget()
        self._sample = None
        self._max_rows = 0
        self.reconfigure(self._settings, self._objective)
        return given_up

    def end_joining(self) -> None:
        """From now on each request is a batch of its own."""
        self._batchable = False
        self.reconfigure(self._settings, self._objective)

    def warm_up(self, rows: int, seconds: float) -> None:
        """A run of so many rows has been tried before there were requests, and took so long."""
        self.curve.observe(rows, seconds)
        self._follow_curve()

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return self._queue.requests

    def waiting(self) -> Iterator[Ticket[P]]:
        """Those that wait."""
        return self._queue.waiting()

    @property
    def in_system(self) -> int:
        """Requests queued or executing."""
        return self._queue.requests + self._under_way.requests

    @property
    def capacity(self) -> int:
        """How many requests may be here at once until one is refused, as far as is known."""
        running = self._under_way.most * self.sizing.rows
        rows = min(self.admission.room + running, _MOST_CAPACITY)
        return max(min(int(rows / self._mean_rows), self._max_queued + running), 1)

    @property
    def requests_per_second(self) -> float:
        """How many can be answered in time, as far as is known; 0: nothing has run yet.

        B / T(B) rows by the service curve, over the mean rows of a request. B is the size of a run, halved until 2·T(B) is within the
        objective: who comes when a run has just begun waits for it and is in the next. Where the cache answers, more can be.
        """
        rows = max(self.sizing.rows, 1)
        while rows > 1 and 2 * self.curve.seconds(rows) > (self.admission.objective or _NEVER):
            rows //= 2
        seconds = self.curve.seconds(rows)
        return rows / seconds / self._mean_rows if seconds > 0 else 0.0

    def has_room(self) -> bool:
        """Whether it is sure that a small request is let in."""
        return self._queue.rows < self._sure_rows

    def refuse_early(self, now: float, flow: Hashable = "") -> Rejected | None:
        """Whether a request would be refused of which only the caller is known yet; it is not queued.

        Its priority is taken to be the most urgent one that was seen of late, and its rows to be few.
        """
        if now > self._urgent_until:
            self._urgent = _LEAST_URGENT
        if self.queued >= self._max_queued and self._queue.find_displaceable(self._urgent, flow) is None:
            return self._reject_full(now)
        return self._refuse(self._urgent, flow, 1, None, now)

    def submit(self, ticket: Ticket[P], now: float) -> Rejected | None:
        """Queue a ticket, or refuse it because there is no room or no time."""
        ticket.enqueued_at = self._arrived = now
        waiting = self._queue
        if self._under_way.is_late(now) or waiting.rows + ticket.rows > self._sure_rows or ticket.deadline is not None:
            rejected = self._squeeze_in(ticket, now)
            if rejected is not None:
                return rejected
        if self._sample is None and now >= self._follow_at and ticket.priority <= LAST_PRIORITY:
            self._sample = ticket
            self._sampled_expectation = self._expect(ticket.priority, ticket.flow, ticket.rows, now)
        if ticket.priority <= self._urgent:
            self._urgent, self._urgent_until = ticket.priority, now + _URGENT_SECONDS
        waiting.add(ticket)
        if ticket.deadline is not None:
            heapq.heappush(self._deadlines, (ticket.deadline, ticket.order, ticket))
            if len(self._deadlines) > 2 * waiting.requests + SLACK:
                self._deadlines = [entry for entry in self._deadlines if entry[2].state is TicketState.QUEUED]
                heapq.heapify(self._deadlines)
        if self._delay:
            self._concurrency.observe(self.in_system, now)
        return None

    # Room and time.

    def _squeeze_in(self, ticket: Ticket[P], now: float) -> Rejected | None:
        """Whether there is time for a ticket, and a place, if need be that of another."""
        rejected = self._refuse(ticket.priority, ticket.flow, ticket.rows, ticket.deadline, now)
        if rejected is None and self._queue.requests >= self._max_queued:
            last = self._queue.find_displaceable(ticket.priority, ticket.flow)
            if last is None:
                return self._reject_full(now)
            self._drop(last)
        return rejected

    def _expect(self, priority: int, flow: Hashable, rows: int, now: float) -> float:
        return self.admission.expect(self._queue.rows_ahead(priority, flow, rows), rows, self._under_way.remaining(now))

    def _refuse(self, priority: int, flow: Hashable, rows: int, deadline: float | None, now: float) -> Rejected | None:
        """Why a request cannot be answered in time, if so.

        An idle engine refuses nothing, and what is over already was not too much to ask: it expires.
        """
        if not self.in_system or (deadline is not None and deadline <= now):
            return None
        expected = self._expect(priority, flow, rows, now)
        due = self.admission.allowance if deadline is None else min(self.admission.allowance, deadline - now)
        late = self.admission.refuse(expected, due)
        if late is None:
            return None
        self.refused += 1
        return Rejected(min(late, _MAX_RETRY_SECONDS), expected, due)

    def _reject_full(self, now: float) -> Rejected:
        """There is room once the next batch has been taken."""
        self.refused += 1
        first = min(self._queue.rows, self.admission.size)
        return Rejected(min(self._under_way.remaining(now)[0] or self.curve.seconds(first), _MAX_RETRY_SECONDS))

    def _drop(self, ticket: Ticket[P]) -> None:
        """A ticket that was queued will not be answered in time; the next step says so."""
        self.refused += 1
        self._remove(ticket, TicketState.SHED)
        self._shed.append(ticket)

    def _remove(self, ticket: Ticket[P], state: TicketState) -> None:
        self._queue.remove(ticket, state)
        if not self._queue.requests:
            self.gathering.forget()
        if ticket is self._sample:
            self._sample = None

    def _follow_curve(self) -> None:
        self.curve.refresh()
        self.gathering.follow()
        self.sizing.choose(self._objective, self.admission.margin)
        self.admission.follow(self.sizing.rows, 1 if self.sizing.feasible else 2)
        self._patience = self.admission.allowance - self.admission.run_seconds
        self._sure_rows = min(self.admission.room, self._max_queued)

    # Leaving.

    def cancel(self, ticket: Ticket[P]) -> bool:
        """Take a ticket out. False where it was not waiting any more: then its answer is simply not wanted."""
        if ticket.state is not TicketState.QUEUED:
            return False
        self._remove(ticket, TicketState.CANCELLED)
        return True

    def poll(self, now: float, *, engine_free: bool, engine: int = 0) -> BatchStep[P]:
        """What to do now: which tickets have expired, which batch to run, when to ask again.

        Args:
            now: seconds of the clock.
            engine_free: whether a batch can begin.
            engine: which of those that run at once is free.
        """
        if self._deadlines:
            self._expire(now)
        deadline = self._deadlines[0][0] if self._deadlines else None
        queue = self._queue
        if engine_free and queue.requests and now - self._empty_at > self._patience:
            self._drop_late(now)
        if not engine_free or not queue.requests:
            return self._step(deadline)
        head = queue.head()
        wait_until = self._wait_until(head, now)
        if wait_until is not None:
            return self._step(wait_until if deadline is None else min(wait_until, deadline))
        batch, rows = queue.take(head, self.sizing.rows_for(queue.rows_of(head.bucket)))
        self._taken = batch
        self.gathering.begin(rows, engine)
        if not queue.requests:
            self._empty_at = now
        self._under_way.begin(engine, len(batch), now, self.curve.seconds(rows))
        return self._step(deadline, rows, engine)

    def _step(self, wake_at: float | None, rows: int = 0, engine: int = 0) -> BatchStep[P]:
        """What was found to be done."""
        batch = tuple(self._taken)
        self._taken = []
        if not self._expired and not self._shed:
            return BatchStep(batch, rows, engine, wake_at=wake_at)
        step = BatchStep(batch, rows, engine, tuple(self._expired), tuple(self._shed), wake_at)
        self._expired.clear()
        self._shed.clear()
        return step

    def finish(
        self, requests: int, seconds: float, rows: int | None = None, now: float | None = None, engine: int = 0
    ) -> None:
        """A batch is done.

        Args:
            requests: in it.
            seconds: that its run took.
            rows: of all of them; None: one each.
            now: when the engine was free again; None: when the run had taken its time.
            engine: which of those that run at once.
        """
        run = self._under_way.end(engine, requests)
        ended = run.began + seconds if now is None else now
        turn = max(ended - run.began, seconds)
        since = run.free_since
        cycle = None if since is None else max(ended - since, turn)
        run.free_since = ended if self._queue.requests else None
        done = requests if rows is None else rows
        self.curve.observe(done, turn, cycle)
        self.gathering.end(done, run.began, ended, engine)
        self._mean_rows += _ROWS_GAIN * (done / max(requests, 1) - self._mean_rows)
        if ended >= self._follow_at:
            self._follow_at = ended + _FOLLOW_SECONDS
            self._follow_curve()

    def learn(self, batch: tuple[Ticket[P], ...], now: float) -> None:
        """The answers of a batch have been written."""
        sample = self._sample
        if sample is not None and sample.state is TicketState.EXECUTING and sample in batch:
            self._sample = None
            self.admission.learn(self._sampled_expectation, now - sample.enqueued_at)
            self._sure_rows = min(self.admission.room, self._max_queued)

    def _drop_late(self, now: float) -> None:
        """Drop what is at the front and would be answered too late though it ran at once."""
        run = self.curve.seconds(min(self._queue.rows, self.admission.size))
        latest = now + run - self.admission.allowance
        while late := [ticket for ticket in self._queue.fronts() if ticket.enqueued_at < latest]:
            for ticket in late:
                self._drop(ticket)

    def _expire(self, now: float) -> None:
        while self._deadlines and (
            self._deadlines[0][0] <= now or self._deadlines[0][2].state is not TicketState.QUEUED
        ):
            ticket = heapq.heappop(self._deadlines)[2]
            if ticket.state is TicketState.QUEUED:
                self._remove(ticket, TicketState.EXPIRED)
                self._expired.append(ticket)

    def _wait_until(self, head: Ticket[P], now: float) -> float | None:
        """Until when the batch should wait for more, or None to run it now."""
        rows = self._queue.rows_of(head.bucket)
        learnt = self.gathering.wait_until(rows, self.sizing.rows, self._arrived, now)
        if learnt is not None and self._deadlines and self._deadlines[0][0] <= learnt + self.curve.seconds(rows):
            return None
        if learnt is not None or not self._delay:
            return learnt
        until = head.enqueued_at + self._delay
        lanes = self._queue.lanes_of(head.bucket)
        waiting = sum(ticket.state is TicketState.QUEUED for lane in lanes for ticket in lane.tickets)
        if now >= until or rows >= self.sizing.rows or waiting >= self._concurrency.estimate(now):
            return None
        return until
