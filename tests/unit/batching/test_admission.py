"""Admission by time: who is let in, who is told to come again and when, and whose turn it is; on a clock that only counts."""

from __future__ import annotations

import itertools
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.batching.engine_room import Arrival, EngineRoom, cnn, mlp, poisson, steep

from penstock.serving.settings import BatchingSettings
from penstock_runtime.batching.admission import Admission
from penstock_runtime.batching.batcher import Batcher
from penstock_runtime.batching.curve import ServiceCurve
from penstock_runtime.batching.fairness import FairOrder
from penstock_runtime.batching.ticket import Ticket

CAPACITY = 32 / mlp(32)
"""Requests a second of the engine `mlp` with full batches."""


def share_answered(arrivals: list[Arrival], since: float, until: float) -> float:
    """Answers a second that ended within a time."""
    return sum(since <= (each.answered or 0) < until for each in arrivals) / (until - since)


def p99(arrivals: list[Arrival]) -> float:
    times = sorted(each.seconds for each in arrivals if each.answered is not None)
    return times[int(0.99 * len(times))]


@pytest.mark.parametrize("engines", [1, 2, 4], ids=["one engine", "two at once", "four at once"])
@pytest.mark.parametrize("noise", [0.0, 0.3], ids=["runs as the curve says", "runs up to 30 % longer"])
@pytest.mark.parametrize("factor", [2, 5], ids=["twice the capacity", "five times the capacity"])
def test_over_capacity_the_engine_stays_full_and_what_is_accepted_is_in_time(
    factor: int, noise: float, engines: int
) -> None:
    room = EngineRoom(
        lambda rows: engines * mlp(rows),
        objective=0.15 * engines,
        noise=noise,
        warm=(1, 2, 4, 8, 16, 32),
        engines=engines,
    )
    arrivals = poisson(factor * CAPACITY, 6.0)
    room.run(arrivals)
    capacity = CAPACITY / (1 + noise / 2)
    assert share_answered(arrivals, 1.0, 6.0) >= 0.95 * capacity
    # A run that takes longer than any before it is no fault of the estimate's.
    assert p99([each for each in arrivals if each.at > 1]) <= 0.151 * engines
    # Of several runs under way it is known less well which ends first.
    assert sum(each.shed is not None for each in arrivals) <= (0.01 if engines == 1 else 0.015) * len(arrivals)
    assert all(each.rejected or each.shed or each.answered for each in arrivals)


def test_without_an_objective_the_default_holds_and_a_queue_may_grow_to_it() -> None:
    room = EngineRoom(mlp)
    arrivals = poisson(2 * CAPACITY, 60.0)
    room.run(arrivals)
    assert 20 < p99(arrivals) <= 30.5


def test_what_is_refused_may_come_again_when_it_was_told() -> None:
    room = EngineRoom(mlp, objective=0.15)
    arrivals = poisson(3 * CAPACITY, 3.0)
    room.run(arrivals)
    refused = [each.rejected for each in arrivals if each.rejected is not None]
    assert refused
    assert all(0 < each.retry_after_seconds <= mlp(32) * 2 for each in refused)
    # Once nobody else comes, the time that the last one was told is enough.
    last = next(each for each in reversed(arrivals) if each.rejected is not None)
    assert last.rejected is not None
    again = EngineRoom(mlp, objective=0.15)
    retry = Arrival(last.at + last.rejected.retry_after_seconds + 1e-6)
    again.run([*(Arrival(each.at) for each in arrivals if each.at <= last.at), retry])
    assert retry.answered is not None
    assert retry.seconds <= 0.15


def test_an_objective_that_no_run_can_keep_does_not_idle_the_engine() -> None:
    room = EngineRoom(mlp, objective=0.005)
    arrivals = poisson(3 * CAPACITY, 3.0)
    room.run(arrivals)
    assert share_answered(arrivals, 1.0, 3.0) >= 0.95 * CAPACITY
    assert p99(arrivals) < 3 * mlp(32)
    assert not room.batcher.sizing.feasible


def test_a_tight_objective_makes_smaller_batches() -> None:
    room = EngineRoom(steep, objective=0.030, warm=(1, 2, 4, 8, 16, 32))
    arrivals = poisson(3 / 0.001, 3.0)
    room.run(arrivals)
    late = sorted(each.seconds for each in arrivals if each.answered is not None and each.at > 0.5)
    assert late[int(0.99 * len(late))] <= 0.030
    assert max(room.sizes[20:]) < 32


def test_where_smaller_batches_would_answer_far_fewer_they_stay_large_whatever_the_objective() -> None:
    """Each shorter run would make the queue longer, and that the runs shorter still, down to one row."""
    room = EngineRoom(lambda rows: 0.08 + 0.0015 * rows, objective=0.2, noise=1.5, warm=(1, 32))
    capacity = 32 / (1.75 * 0.128)
    arrivals = poisson(3 * capacity, 20.0)
    room.run(arrivals)
    assert share_answered(arrivals, 2.0, 20.0) >= 0.9 * capacity
    assert statistics.mean(room.sizes[10:]) > 28


def test_what_runs_cost_in_calm_hours_does_not_count_against_a_busy_one() -> None:
    room = EngineRoom(mlp, warm=(1, 2, 4, 8, 16, 32))
    room.run(poisson(0.3 * CAPACITY, 5.0))
    # Whatever runs now takes twice as long, and all runs are large ones.
    room.seconds = lambda rows: 2.2 * mlp(rows)
    room.run([Arrival(each.at + 5.0) for each in poisson(CAPACITY, 120.0)])
    assert room.batcher.sizing.rows == 32


def test_where_joining_loses_nothing_is_joined() -> None:
    room = EngineRoom(cnn)
    arrivals = poisson(0.98 / cnn(1), 20.0)
    room.run(arrivals)
    assert statistics.mean(room.sizes) < 1.2
    assert all(each.answered for each in arrivals)


def test_an_engine_that_becomes_slower_lets_fewer_in() -> None:
    room = EngineRoom(mlp, objective=0.3)
    room.run(poisson(2 * CAPACITY, 2.0))
    before = room.batcher.capacity
    room.seconds = lambda rows: 3 * mlp(rows)
    later = [Arrival(each.at + 2.0) for each in poisson(2 * CAPACITY, 4.0)]
    room.run(later)
    assert room.batcher.capacity < before / 2
    assert p99([each for each in later if each.at > 3.0]) <= 0.3


def test_the_estimate_converges_on_what_answers_really_take() -> None:
    admission = Admission(ServiceCurve(32))
    for _ in range(200):
        admission.learn(0.1, 0.2)
    assert admission.margin == pytest.approx(2.0, rel=0.05)


@settings(max_examples=60)
@given(
    base=st.floats(1e-4, 0.05),
    each=st.floats(1e-6, 0.005),
    objective=st.one_of(st.none(), st.floats(0.001, 1.0)),
    factor=st.floats(0.2, 6.0),
    noise=st.floats(0.0, 1.0),
)
def test_an_idle_replica_refuses_nothing_and_nothing_is_accepted_that_must_miss(
    base: float, each: float, objective: float | None, factor: float, noise: float
) -> None:
    room = EngineRoom(lambda rows: base + each * rows, objective=objective, noise=noise)
    rate = factor * 32 / room.seconds(32)
    batcher = room.batcher
    for arrival in poisson(rate, 200 / rate):
        room.run([], until=arrival.at)
        room.now = arrival.at
        idle = batcher.in_system == 0
        expected = batcher._expect(arrival.priority, "", 1, arrival.at)
        room.arrive(arrival)
        in_time = expected * batcher.admission.margin <= batcher.admission.allowance * 1.000001
        assert not (idle and arrival.rejected)
        assert idle or in_time or arrival.rejected
        room.poll()


def test_a_request_whose_own_timeout_is_shorter_is_refused_where_another_is_not() -> None:
    room = EngineRoom(mlp, objective=1.0)
    crowd = [Arrival(0.0) for _ in range(65)]
    hasty, patient = Arrival(0.001, timeout=0.03), Arrival(0.001)
    room.run([*crowd, hasty, patient])
    assert hasty.rejected is not None
    assert patient.answered is not None


def test_one_who_sends_ten_times_as_much_leaves_the_others_their_share() -> None:
    room = EngineRoom(mlp, objective=0.15)
    hog = poisson(5 * CAPACITY, 6.0, flow="hog")
    modest = poisson(0.3 * CAPACITY, 6.0, seed=2, flow="modest")
    greedy = poisson(1.0 * CAPACITY, 6.0, seed=3, flow="greedy")
    room.run(sorted([*hog, *modest, *greedy], key=lambda each: each.at))
    # Max-min fairness: who wants less than a third gets all of it, the others halves of the rest.
    assert share_answered(modest, 1, 6) >= 0.95 * 0.3 * CAPACITY
    assert share_answered(hog, 1, 6) == pytest.approx(0.35 * CAPACITY, rel=0.25)
    assert share_answered(greedy, 1, 6) == pytest.approx(0.35 * CAPACITY, rel=0.25)
    assert p99([*modest, *greedy]) <= 0.16


def test_what_is_urgent_goes_first_and_is_refused_last() -> None:
    room = EngineRoom(mlp, objective=0.15)
    urgent = poisson(0.5 * CAPACITY, 4.0, priority=1)
    usual = poisson(2 * CAPACITY, 4.0, seed=2)
    room.run(sorted([*urgent, *usual], key=lambda each: each.at))
    assert share_answered(urgent, 1, 4) >= 0.95 * 0.5 * CAPACITY
    assert share_answered(urgent, 1, 4) + share_answered(usual, 1, 4) >= 0.95 * CAPACITY


def test_in_a_full_queue_the_last_of_who_has_most_gives_place() -> None:
    queue: Batcher[str] = Batcher(BatchingSettings(max_batch_size=1, max_queued_requests=4))
    for name in "abcd":
        assert queue.submit(Ticket(name, flow="hog"), 0.0) is None
    assert queue.submit(Ticket("e", flow="hog"), 0.0) is not None
    assert queue.submit(Ticket("f", flow="other"), 0.0) is None
    step = queue.poll(0.0, engine_free=True)
    assert [ticket.payload for ticket in step.shed] == ["d"]
    assert queue.submit(Ticket("g", flow="third", priority=9), 0.0) is None
    assert queue.submit(Ticket("h", flow="third", priority=9), 0.0) is not None
    # What is urgent takes the place of what is not.
    assert queue.submit(Ticket("i", flow="hog", priority=-1), 0.0) is None
    assert [ticket.payload for ticket in queue.poll(0.0, engine_free=False).shed] == ["g"]


def test_before_the_body_is_read_the_most_urgent_priority_of_late_is_supposed() -> None:
    room = EngineRoom(mlp, objective=0.08)
    room.run([Arrival(0.0) for _ in range(500)], until=0.0)
    queue = room.batcher
    assert queue.refuse_early(0.0) is not None
    assert queue.submit(Ticket(Arrival(0.0), priority=1), 0.0) is None
    assert queue.refuse_early(0.0) is None
    assert queue.refuse_early(60.0) is not None


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 8)), min_size=1, max_size=120))
def test_callers_that_always_want_more_get_equal_rows(sent: list[tuple[str, int]]) -> None:
    order = FairOrder()
    queued: dict[str, list[tuple[float, int]]] = {"a": [], "b": [], "c": []}
    for flow, rows in sent:
        queued[flow].append((order.start(flow, rows), rows))
    served = dict.fromkeys(queued, 0)
    while all(queued.values()):
        flow = min(queued, key=lambda each: queued[each][0])
        start, rows = queued[flow].pop(0)
        order.serve(start)
        served[flow] += rows
        # Of any two that wait, neither is ahead by more than one request of each.
        assert all(abs(x - y) <= 16 for x, y in itertools.combinations(served.values(), 2))
