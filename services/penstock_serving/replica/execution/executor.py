"""Runs batches: on the event loop where a hop to a thread would cost more than the run, else on worker threads, one for each run at once."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from penstock.serving.settings import BatchingSettings
from penstock_runtime.batching.batcher import Batcher, BatchStep, Rejected
from penstock_runtime.batching.ticket import Ticket
from penstock_runtime.engines import Engine
from penstock_runtime.joining import Trial
from penstock_serving.replica.call import Call
from penstock_serving.replica.execution.joint import BatchRun, JointRuns

logger = logging.getLogger(__name__)

INLINE_SECONDS: Final = 300e-6
"""A run that is expected to be shorter happens on the event loop."""
_REMEMBERED: Final = 8
_COARSE_SECONDS: Final = 0.01
"""What is to happen later than that, the event loop sees to, whose clock counts milliseconds; the worker thread to what is sooner."""


class Executor:
    """Owns the batcher and the engine's turn. All methods are called on the event loop.

    Args:
        engine: what runs.
        trial: whether and how requests are joined.
        settings: of batches.
        on_ran: told each batch that ran.
        on_expired: told each request whose own time was up before it ran.
        on_shed: told each request that was let in and would be answered too late after all.
        on_given_up: told each request that a defect of the batcher has lost.
        objective_seconds: within which requests are to be answered; None: nothing was promised.
        runs: so many may be under way at once, each on a thread of its own; more than one only of an engine that is `reentrant`.
    """

    def __init__(
        self,
        engine: Engine,
        trial: Trial,
        settings: BatchingSettings,
        *,
        on_ran: Callable[[BatchRun], None],
        on_expired: Callable[[Call], None],
        on_shed: Callable[[Call], None],
        on_given_up: Callable[[Call], None],
        objective_seconds: float | None = None,
        runs: int = 1,
    ) -> None:
        self._runs = tuple(JointRuns(engine, trial) for _ in range(runs))
        self._loop = asyncio.get_running_loop()
        self.batcher: Batcher[Call] = Batcher(
            settings, batchable=trial.joining is not None, objective_seconds=objective_seconds, runs=runs
        )
        self.apart: str | None = None
        """Why requests that could be joined are not any more."""
        self._on_ran = on_ran
        self._on_expired = on_expired
        self._on_shed = on_shed
        self._on_given_up = on_given_up
        self._recent: dict[int, deque[float]] = {}
        self._free = list(reversed(range(runs)))
        """The turns of the engine that no run has; the last is taken next."""
        self._running: list[tuple[Ticket[Call], ...]] = [()] * runs
        """On worker threads now, by turn."""
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._work: queue.SimpleQueue[BatchStep[Call] | float | None] = queue.SimpleQueue()
        self._woken_at: float | None = None
        """When a worker thread is to wake the event loop."""
        for number in range(runs):
            threading.Thread(target=self._worker, name=f"engine {number}", daemon=True).start()

    def observe_warm_up(self, rows: int, seconds: float) -> None:
        """Record how long a warm-up run of so many rows took."""
        self._remember(rows, seconds)
        self.batcher.warm_up(rows, seconds)

    def submit(self, ticket: Ticket[Call], now: float, *, lone: bool = False) -> Rejected | None:
        """Queue a request. It runs at the earliest after everything that can be read now has been read.

        Args:
            ticket: its place in the queue.
            now: seconds of the monotonic clock.
            lone: nothing else can have come at the same time, so it need not wait for that turn of the event loop.
        """
        rejected = self.batcher.submit(ticket, now)
        if rejected is None and (self._free or ticket.deadline is not None):
            if lone and not self._scheduled:
                self._pump()
            else:
                self._schedule()
        return rejected

    def cancel(self, ticket: Ticket[Call]) -> bool:
        """Take a request out, if it is not executing yet."""
        return self.batcher.cancel(ticket)

    def calls(self) -> Iterator[Call]:
        """Those that wait or run."""
        yield from (ticket.payload for batch in self._running for ticket in batch)
        yield from (ticket.payload for ticket in self.batcher.waiting())

    def close(self) -> None:
        """Let the worker threads end after the runs in progress."""
        for _ in self._running:
            self._work.put(None)
        if self._timer is not None:
            self._timer.cancel()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._scheduled = False
        while self._begin_run():
            pass

    def _begin_run(self) -> bool:
        """Do what the batcher says next. Returns whether there may be more to do now: a run has begun, and an engine is free."""
        free = self._free
        engine = free[-1] if free else 0
        try:
            step = self.batcher.poll(time.monotonic(), engine_free=bool(free), engine=engine)
        except Exception as error:  # noqa: BLE001 -- whatever it is: who lives and answers nothing is the worst of replicas
            self._start_over(error)
            return False
        for ticket in step.expired:
            self._on_expired(ticket.payload)
        for ticket in step.shed:
            self._on_shed(ticket.payload)
        inline = self._is_short(step.rows)
        if step.batch and not inline:
            free.pop()
            self._running[engine] = step.batch
            self._woken_at = None
            self._work.put(step)
        if step.wake_at is not None:
            self._wake(step.wake_at)
        if step.batch and inline:
            self._deliver(self._runs[engine].run(step))
            return False
        return bool(step.batch and free and self.batcher.queued)

    def _wake(self, at: float) -> None:
        if self._woken_at is not None and self._woken_at <= at:
            return  # and then it is seen what is next
        seconds = max(at - time.monotonic(), 0.0)
        if seconds < _COARSE_SECONDS and self._free:
            self._woken_at = at
            self._work.put(at)
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._schedule)

    def _wake_up(self) -> None:
        self._woken_at = None
        self._schedule()

    def _remember(self, rows: int, seconds: float) -> None:
        size = rows.bit_length()
        recent = self._recent.get(size)
        if recent is None:
            recent = self._recent[size] = deque(maxlen=_REMEMBERED)
        recent.append(seconds)

    def _is_short(self, rows: int) -> bool:
        """Whether a batch of about so many rows runs so fast that a hop to a thread would cost more.

        The shortest of the last runs counts: the others also hold what the scheduler gave to other processes meanwhile.
        """
        recent = self._recent.get(rows.bit_length())
        return recent is not None and min(recent) < INLINE_SECONDS

    def _worker(self) -> None:
        while (work := self._take_work()) is not None:
            ran = self._runs[work.engine].run(work)
            try:
                self._loop.call_soon_threadsafe(self._complete_run, ran)
            except RuntimeError:
                logger.info("a batch of %d ended after the replica had stopped", len(ran.members))
                return

    def _take_work(self) -> BatchStep[Call] | None:
        """The next step that is to run. While there is none, the event loop is woken when it asked for it."""
        work = self._work.get()
        while isinstance(work, float):
            try:
                work = self._work.get(timeout=max(work - time.monotonic(), 0.0))
            except queue.Empty:
                with suppress(RuntimeError):  # the loop is closed: what comes next is the end
                    self._loop.call_soon_threadsafe(self._wake_up)
                work = self._work.get()
        return work

    def _complete_run(self, ran: BatchRun) -> None:
        self._free.append(ran.engine)
        self._running[ran.engine] = ()
        self._deliver(ran)

    def _deliver(self, ran: BatchRun) -> None:
        if ran.apart is not None and self.apart is None:
            self.apart = ran.apart
            self.batcher.end_joining()
            logger.error("requests are not joined any more: %s", ran.apart)
        seconds = (ran.end_ns - ran.start_ns) / 1e9
        self._remember(ran.rows, seconds)
        try:
            self.batcher.finish(len(ran.members), seconds, ran.rows, time.monotonic(), ran.engine)
        except Exception as error:  # noqa: BLE001 -- as in _pump
            self._start_over(error)
        # The engine gets its next batch before this one's answers are written, where it runs beside the loop.
        if self.batcher.queued:
            if self._is_short(ran.rows):
                self._schedule()
            else:
                self._pump()
        self._on_ran(ran)
        self.batcher.learn(ran.members, time.monotonic())

    def _start_over(self, error: Exception) -> None:
        told = "the batcher starts over, by a defect of the replica; what waited is answered with an error"
        logger.error(told, exc_info=error)
        for ticket in self.batcher.start_over():
            self._on_given_up(ticket.payload)
