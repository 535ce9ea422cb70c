"""Whether a free engine waits for more, as it learns from what waiting brings: on a clock that only counts."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import pytest
from tests.unit.batching.engine_room import Arrival, EngineRoom, cnn, poisson, small_mlp
from tests.unit.batching.feeders import Clients, StarvedGateway, rate

from penstock_runtime.batching.ticket import Ticket

WARM = (1, 1, 2, 4, 8, 16, 32)
SECONDS = 3.0


def make_room(seconds: Callable[[int], float] = small_mlp, *, eager: bool = False) -> EngineRoom:
    return EngineRoom(seconds, warm=WARM, noise=0.1, eager=eager)


@pytest.mark.parametrize(("clients", "times"), [(4, 2), (16, 3), (64, 4)])
def test_a_gateway_that_gets_the_core_only_while_nothing_runs_brings_batches_all_the_same(
    clients: int, times: float
) -> None:
    rates = {}
    for eager in (True, False):
        room = make_room(eager=eager)
        gateway = StarvedGateway(room, clients)
        room.run([], until=SECONDS)
        rates[eager] = rate(gateway.answers, 0.5, SECONDS)
        assert eager == (statistics.mean(room.sizes) < 1.1), "the control shows that this gateway starves"
    assert rates[False] > times * rates[True]


@pytest.mark.parametrize("clients", [1, 2, 4, 8, 16, 24, 40, 64, 128])
@pytest.mark.parametrize("pause", [0.0, 0.005], ids=["without a pause", "after a pause of 5 ms"])
def test_clients_that_wait_for_their_answers_get_as_many_as_without_waits_or_more(clients: int, pause: float) -> None:
    rates = {}
    for eager in (True, False):
        room = make_room(eager=eager)
        served = Clients(room, clients, pause=pause)
        room.run([], until=SECONDS)
        rates[eager] = rate(served.answers, 0.5, SECONDS)
    assert rates[False] > 0.97 * rates[True]


def test_two_clients_that_wait_for_their_answers_share_runs() -> None:
    room = make_room()
    Clients(room, 2)
    room.run([], until=1.0)
    assert statistics.mean(room.sizes[-100:]) > 1.8


def test_a_lone_client_waits_for_others_hardly_ever() -> None:
    room = make_room()
    served = Clients(room, 1)
    room.run([], until=10.0)
    held = [each for each in served.arrivals[:-1] if each.seconds > 1.2 * small_mlp(1)]
    assert len(held) < 0.01 * len(served.arrivals)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.2, 0.4, 0.7, 0.9])
def test_what_comes_at_random_is_held_no_longer_than_without_waits(share: float) -> None:
    medians, latest = {}, {}
    for eager in (True, False):
        room = make_room(eager=eager)
        arrivals = poisson(share * 32 / small_mlp(32), SECONDS)
        room.run(arrivals)
        times = sorted(each.seconds for each in arrivals)
        medians[eager], latest[eager] = statistics.median(times), times[int(0.99 * len(times))]
    assert medians[False] < 1.05 * medians[True]
    assert latest[False] < 1.1 * latest[True]


def test_where_a_run_costs_nothing_but_its_rows_nothing_is_waited_for() -> None:
    room = make_room(cnn)
    gateway = StarvedGateway(room, 16)
    room.run([], until=1.0)
    assert rate(gateway.answers, 0.1, 1.0) > 0.98 / (cnn(1) * 1.05 + gateway.seconds)


def abandoned_room() -> EngineRoom:
    """A room that waits, since a starved gateway has taught it to; whose clients have left."""
    room = make_room()
    gateway = StarvedGateway(room, 64)
    room.run([], until=1.0)
    gateway.leave()
    room.run([])
    assert room.batcher.gathering.chosen
    assert not room.batcher.in_system
    return room


def test_a_lone_client_that_comes_after_many_is_not_held_for_long() -> None:
    room = abandoned_room()
    alone = Clients(room, 0)
    alone.send(2.0)
    room.run([], until=3.0)
    assert not room.batcher.gathering.chosen
    assert statistics.median(each.seconds for each in alone.arrivals[-51:-1]) < 1.2 * small_mlp(1)


def test_who_leaves_while_more_is_waited_for_leaves_no_wait_behind() -> None:
    room = abandoned_room()
    gone = Ticket(Arrival(2.0))
    room.batcher.submit(gone, 2.0)
    assert room.batcher.poll(2.0, engine_free=True).batch == ()
    assert room.batcher.cancel(gone)
    later = Arrival(3.0)
    room.run([later])
    assert later.seconds > small_mlp(1) + 0.0005, "it is waited for others of a new wait"


def test_what_would_be_over_by_then_is_not_held_for_others() -> None:
    room = abandoned_room()
    hasty = Arrival(2.0, timeout=0.001)
    room.run([hasty])
    assert hasty.expired is None
    assert hasty.seconds < 1.2 * small_mlp(1)


@pytest.mark.parametrize("busy_seconds", [0.1, 0.2, 0.3, 0.5])
@pytest.mark.parametrize("times", [2, 5])
def test_sizes_that_were_dear_while_others_had_the_core_are_back_soon_after(busy_seconds: float, times: int) -> None:
    def seconds(rows: int) -> float:
        return small_mlp(rows) * (times if 1.0 <= room.now < 1.0 + busy_seconds else 1)

    room = EngineRoom(small_mlp, warm=WARM)
    room.seconds = seconds
    # What small batches cost in calm hours is known.
    more = Clients(room, 12)
    room.run([], until=0.5)
    for _ in range(64 - 12):
        more.send(0.5)
    room.run([], until=1.0 + busy_seconds)
    busy = len(room.sizes)
    room.run([], until=3.0)
    assert statistics.mean(room.sizes[busy + 100 : busy + 200]) > 28
