"""The batcher: what runs when, on a clock that the test moves."""

from __future__ import annotations

import heapq
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.batching.engine_room import Arrival, EngineRoom

from penstock.serving.settings import BatchingSettings
from penstock_runtime.batching.batcher import Batcher, Rejected
from penstock_runtime.batching.curve import ServiceCurve
from penstock_runtime.batching.sizing import BatchSizing
from penstock_runtime.batching.ticket import Ticket, TicketState


def batcher(rows: int = 4, delay: int = 0, queued: int = 100, *, batchable: bool = True) -> Batcher[str]:
    limits = BatchingSettings(max_batch_size=rows, max_delay_milliseconds=delay, max_queued_requests=queued)
    return Batcher(limits, batchable=batchable)


def submit(target: Batcher[str], now: float, *tickets: Ticket[str]) -> None:
    for ticket in tickets:
        assert target.submit(ticket, now) is None


def taken(target: Batcher[str], now: float) -> str:
    """The payloads of the batch that runs now."""
    return "".join(ticket.payload for ticket in target.poll(now, engine_free=True).batch)


def test_a_free_engine_takes_all_that_has_arrived() -> None:
    queue = batcher()
    submit(queue, 0, Ticket("a"), Ticket("b"), Ticket("c"))
    assert taken(queue, 0) == "abc"
    assert queue.queued == 0
    assert queue.in_system == 3
    queue.finish(3, 0.1)
    assert queue.in_system == 0


def test_a_busy_engine_takes_nothing() -> None:
    queue = batcher()
    submit(queue, 0, Ticket("a"))
    assert queue.poll(0, engine_free=False).batch == ()
    assert queue.queued == 1


def test_a_batch_has_at_most_its_rows_and_keeps_the_order() -> None:
    queue = batcher(rows=4)
    submit(queue, 0, Ticket("a", rows=2), Ticket("b", rows=3), Ticket("c", rows=1))
    # b does not fit beside a, and c must not overtake it.
    assert [taken(queue, 0), taken(queue, 0)] == ["a", "bc"]


def test_a_request_with_more_rows_than_a_batch_runs_alone() -> None:
    queue = batcher(rows=4)
    submit(queue, 0, Ticket("a"), Ticket("b", rows=9), Ticket("c"))
    assert [taken(queue, 0), taken(queue, 0), taken(queue, 0)] == ["a", "b", "c"]


def test_a_model_without_a_batch_axis_runs_one_at_a_time() -> None:
    queue = batcher(batchable=False)
    submit(queue, 0, Ticket("a"), Ticket("b"))
    assert [taken(queue, 0), taken(queue, 0)] == ["a", "b"]


def test_only_equal_shapes_join_and_the_oldest_goes_first() -> None:
    queue = batcher()
    submit(queue, 0, Ticket("a", bucket=1), Ticket("b", bucket=2), Ticket("c", bucket=1))
    assert [taken(queue, 0), taken(queue, 0)] == ["ac", "b"]


def test_a_lower_priority_number_goes_first_and_others_fill_its_batch() -> None:
    queue = batcher(rows=3)
    submit(queue, 0, Ticket("a", priority=8), Ticket("b", priority=8), Ticket("c", priority=1), Ticket("d", priority=1))
    assert [taken(queue, 0), taken(queue, 0)] == ["cda", "b"]


def test_an_expired_request_leaves_before_execution_even_while_the_engine_is_busy() -> None:
    queue = batcher()
    early, late = Ticket("a", deadline=1.0), Ticket("b", deadline=2.0)
    submit(queue, 0, early, late)
    assert queue.poll(0.5, engine_free=False).wake_at == 1.0
    step = queue.poll(1.0, engine_free=False)
    assert step.expired == (early,)
    assert step.wake_at == 2.0
    assert early.state is TicketState.EXPIRED
    assert taken(queue, 1.5) == "b"


def test_a_cancelled_request_leaves_its_place() -> None:
    queue = batcher(rows=2)
    first = Ticket("a")
    submit(queue, 0, first, Ticket("b"), Ticket("c"))
    assert queue.cancel(first)
    assert not queue.cancel(first)
    assert taken(queue, 0) == "bc"


def test_a_request_that_executes_cannot_be_cancelled() -> None:
    queue = batcher()
    ticket = Ticket("a")
    submit(queue, 0, ticket)
    assert taken(queue, 0) == "a"
    assert not queue.cancel(ticket)


def test_a_full_queue_rejects_and_says_when_there_is_room() -> None:
    queue = batcher(rows=1, queued=4)
    submit(queue, 0, Ticket("a"))
    assert taken(queue, 0) == "a"
    queue.finish(1, 0.5)
    submit(queue, 0, *(Ticket(name) for name in "bcde"))
    # A place is free once the first of the four runs, which takes as long as the last run did.
    assert queue.submit(Ticket("f"), 0) == Rejected(0.5)
    assert queue.queued == 4


def test_cancelled_requests_do_not_pile_up_behind_a_busy_engine() -> None:
    queue = batcher(queued=10)
    for _ in range(1000):
        ticket = Ticket("a", deadline=1e9)
        submit(queue, 0, ticket)
        queue.cancel(ticket)
    assert sum(len(lane.tickets) for lane in queue._queue.lanes_of(())) < 200
    assert len(queue._deadlines) < 200


def test_a_lone_request_never_waits_whatever_the_delay() -> None:
    queue = batcher(delay=50)
    now = 0.0
    for _ in range(20):
        submit(queue, now, Ticket("a"))
        assert taken(queue, now) == "a"
        now += 0.003
        queue.finish(1, 0.003)


def test_with_others_around_a_batch_waits_for_them_but_no_longer_than_the_delay() -> None:
    queue = batcher(rows=8, delay=50)
    submit(queue, 0.0, Ticket("a"), Ticket("b"), Ticket("c"))
    assert taken(queue, 0.0) == "abc"
    queue.finish(3, 0.01)
    submit(queue, 0.01, Ticket("d"))
    step = queue.poll(0.01, engine_free=True)
    assert step.batch == ()
    assert step.wake_at == pytest.approx(0.06)
    submit(queue, 0.02, Ticket("e"), Ticket("f"))
    assert taken(queue, 0.02) == "def"
    queue.finish(3, 0.01)
    submit(queue, 0.03, Ticket("g"))
    assert queue.poll(0.03, engine_free=True).batch == ()
    assert taken(queue, 0.08) == "g"


def test_other_settings_are_taken_without_losing_what_is_queued() -> None:
    queue = batcher(rows=2)
    submit(queue, 0, *(Ticket(name) for name in "abcde"))
    assert taken(queue, 0) == "ab"
    queue.reconfigure(BatchingSettings(max_batch_size=8))
    assert taken(queue, 0) == "cde"


def test_fifty_arrivals_20_ms_apart_on_a_200_ms_engine_have_a_median_under_450_ms() -> None:
    queue: Batcher[float] = Batcher(BatchingSettings(max_batch_size=16))
    events: list[tuple[float, int, str]] = [(0.02 * i, i, "arrival") for i in range(50)]
    heapq.heapify(events)
    latencies: list[float] = []
    running: tuple[Ticket[float], ...] = ()
    sizes: list[int] = []
    while events:
        now, order, kind = heapq.heappop(events)
        if kind == "arrival":
            assert queue.submit(Ticket(now), now) is None
        else:
            latencies += [now - ticket.payload for ticket in running]
            queue.finish(len(running), 0.2)
            running = ()
        if not running:
            running = queue.poll(now, engine_free=True).batch
            if running:
                sizes.append(len(running))
                heapq.heappush(events, (now + 0.2, order + 1000, "end"))
    assert len(latencies) == 50
    assert max(sizes) <= 16
    assert statistics.median(latencies) <= 0.45


ROWS, BUCKETS, PRIORITIES = st.integers(1, 6), st.integers(0, 1), st.integers(0, 2)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.tuples(ROWS, BUCKETS, PRIORITIES, st.one_of(st.none(), st.floats(0, 0.2)))),
        st.tuples(st.just("cancel"), st.tuples(st.integers(0, 50))),
        st.tuples(st.just("elapse"), st.tuples(st.floats(0, 0.1))),
        st.tuples(st.just("poll"), st.just(())),
        st.tuples(st.just("finish"), st.just(())),
    ),
    max_size=80,
)


class Run:
    """A batcher, its clock and engine, and all that came of its requests."""

    def __init__(self, rows: int, delay: int, engines: int) -> None:
        self.rows, self.delay = rows, delay
        limits = BatchingSettings(max_batch_size=rows, max_delay_milliseconds=delay, max_queued_requests=20)
        self.queue: Batcher[int] = Batcher(limits, runs=engines)
        self.now = 0.0
        self.running: dict[int, int] = {}
        """Requests of the runs, by engine; the first began first."""
        self.free = list(range(engines))
        self.tickets: list[Ticket[int]] = []
        self.ended: list[int] = []
        self.started: list[Ticket[int]] = []

    def submit(self, rows: int, bucket: int, priority: int, left: float | None) -> None:
        deadline = None if left is None else self.now + left
        ticket = Ticket(len(self.tickets), rows, bucket, priority, deadline)
        if self.queue.submit(ticket, self.now) is None:
            self.tickets.append(ticket)

    def cancel(self, index: int) -> None:
        if index < len(self.tickets) and self.queue.cancel(self.tickets[index]):
            self.ended.append(index)

    def elapse(self, seconds: float) -> None:
        self.now += seconds

    def finish(self) -> None:
        if self.running:
            engine = next(iter(self.running))
            self.queue.finish(self.running.pop(engine), 0.01, engine=engine)
            self.free.append(engine)

    def poll(self) -> None:
        engine = self.free[0] if self.free else 0
        step = self.queue.poll(self.now, engine_free=bool(self.free), engine=engine)
        assert all(ticket.deadline is not None and ticket.deadline <= self.now for ticket in step.expired)
        assert step.rows == sum(ticket.rows for ticket in step.batch)
        assert step.rows <= self.rows or len(step.batch) == 1
        assert len({ticket.bucket for ticket in step.batch}) <= 1
        self.ended.extend(ticket.payload for ticket in (*step.expired, *step.batch))
        self.started.extend(step.batch)
        if step.batch:
            self.free.remove(engine)
            self.running[engine] = len(step.batch)
        elif self.free and self.queue.queued:
            assert step.wake_at is not None
            assert self.delay > 0
        assert self.queue.in_system == self.queue.queued + sum(self.running.values())


@settings(max_examples=300)
@given(
    operations=OPERATIONS,
    rows=st.integers(1, 5),
    delay=st.sampled_from([0, 5, 50]),
    engines=st.sampled_from([1, 2, 4]),
)
def test_no_request_is_lost_or_answered_twice_and_order_holds(
    operations: list[tuple[str, tuple[object, ...]]], rows: int, delay: int, engines: int
) -> None:
    run = Run(rows, delay, engines)
    for name, arguments in operations:
        getattr(run, name)(*arguments)
    for _ in range(200):
        run.finish()
        run.poll()
        run.elapse(0.06)
    assert sorted(run.ended) == list(range(len(run.tickets)))
    assert run.queue.in_system == 0
    for key in {(ticket.priority, ticket.bucket) for ticket in run.started}:
        order = [ticket.order for ticket in run.started if (ticket.priority, ticket.bucket) == key]
        assert order == sorted(order)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    most=st.tuples(st.sampled_from([1, 2, 32]), st.sampled_from([1, 2, 4])),
    costs=st.tuples(st.sampled_from([0.0, 1e-4, 3e-4, 2e-3]), st.sampled_from([0.0, 1e-5, 2e-4])),
    delay=st.sampled_from([0, 1, 5]),
    objective=st.sampled_from([None, 0.001, 0.05]),
)
def test_whatever_runs_take_and_requests_hold_each_request_ends_once(
    seed: int, most: tuple[int, int], costs: tuple[float, float], delay: int, objective: float | None
) -> None:
    rows, engines = most
    source = random.Random(seed)
    limits = BatchingSettings(max_batch_size=rows, max_delay_milliseconds=delay, max_queued_requests=40)
    warm = source.sample([1, 1, 2, 4, 8, 16, 32], source.randint(0, 5))
    noise = source.choice([0.0, 0.5])
    room = EngineRoom(lambda n: costs[0] + costs[1] * n, limits, objective, noise, seed, warm=warm, engines=engines)
    arrivals, now = [], 0.0
    for _ in range(1500):
        # At once, one after another, and after a while in which nothing happens.
        now += source.choice([0.0, 0.0, source.expovariate(1000), source.expovariate(20)])
        timeout = source.choice([None, None, 0.0, 0.002, 0.1])
        arrivals.append(
            Arrival(now, source.randint(1, 6), source.choice("ab"), source.choice([1, 8, 8]), timeout),
        )
    room.run(arrivals)
    for each in arrivals:
        ends = (each.answered, each.rejected, each.shed, each.expired)
        assert sum(end is not None for end in ends) == 1
    assert room.batcher.in_system == 0


def test_a_batcher_that_starts_over_gives_up_all_that_waits_and_goes_on() -> None:
    queue = batcher(rows=2)
    waiting = [Ticket(name, deadline=deadline) for name, deadline in (("c", None), ("d", 9.0), ("e", 1.0))]
    submit(queue, 0, Ticket("a"), Ticket("b"))
    assert taken(queue, 0) == "ab"
    submit(queue, 0, *waiting)
    queue.gathering.wait_until = _fail  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        queue.poll(2.0, engine_free=True)
    assert {ticket.payload for ticket in queue.start_over()} == {"c", "d", "e"}
    assert queue.queued == 0
    queue.finish(2, 0.1)
    assert queue.in_system == 0
    submit(queue, 3.0, Ticket("f"))
    assert taken(queue, 3.0) == "f"


def test_a_batcher_that_fails_at_a_runs_end_gives_up_none_of_those_that_ran() -> None:
    queue = batcher(rows=2)
    submit(queue, 0, Ticket("a"), Ticket("b"), Ticket("c"))
    assert taken(queue, 0) == "ab"
    queue.gathering.end = _fail  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        queue.finish(2, 0.1)
    assert [ticket.payload for ticket in queue.start_over()] == ["c"]


def _fail(*_: object) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("objective", [None, 0.0001])
def test_a_measured_load_keeps_its_size_though_rows_of_smaller_runs_were_cheaper(objective: float | None) -> None:
    curve = ServiceCurve(6)
    sizing = BatchSizing(curve, 6, fixed=True)
    for rows, seconds in ((2, 0.002), (6, 0.02)) * 20:
        curve.observe(rows, seconds)
        curve.refresh()
        sizing.choose(objective, 1.0)
    assert sizing.rows == 6
    assert sizing.reason
