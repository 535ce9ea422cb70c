"""A Ray cluster that is slow to answer, or answers much: what it takes of the operator, and from whom."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from penstock.errors import Unavailable
from penstock_operator.clients.ray import PoolUnreachable, RayClient
from penstock_operator.pool.budget import MemoryBudget
from penstock_operator.pool.writer import PoolBusy, PoolWriter


class Ray:
    """Answers when it is let."""

    def __init__(self, body: bytes = b'{"applications": {}}') -> None:
        self.asked, self.goes_on = threading.Event(), threading.Event()
        self.goes_on.set()
        self.puts: list[bytes] = []
        self.count = 0
        self.now = 0.0
        self.takes = 0.0
        self.answer = httpx.Response(200, content=body)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.set()
        assert self.goes_on.wait(60)
        self.count += 1
        self.now += self.takes
        if request.method == "PUT":
            self.puts.append(request.content)
            return httpx.Response(200)
        return self.answer

    def writer(self, budget: MemoryBudget | None = None) -> PoolWriter:
        client = RayClient("http://ray", None, httpx.MockTransport(self))
        return PoolWriter(client, "http://ray:8000", clock=lambda: self.now, budget=budget, turn_seconds=0.1)


@pytest.fixture
def ray() -> Iterator[Ray]:
    made = Ray()
    yield made
    made.goes_on.set()


def test_while_one_reconcile_asks_a_slow_cluster_others_of_the_same_pool_make_room(ray: Ray) -> None:
    writer = ray.writer()
    ray.goes_on.clear()
    first = threading.Thread(target=writer.applications)
    first.start()
    assert ray.asked.wait(30)
    with pytest.raises(PoolBusy):
        writer.applications()
    ray.goes_on.set()
    first.join(30)
    assert writer.applications() == ()


def test_what_could_not_be_written_in_turn_is_not_written_later(ray: Ray) -> None:
    """By then its owner may want something else."""
    writer = ray.writer()
    mine: tuple[Any, ...] = ({"name": "mine"},)
    ray.goes_on.clear()
    first = threading.Thread(target=writer.drop_orphans, args=(lambda _: False,))
    first.start()
    assert ray.asked.wait(30)
    with pytest.raises(PoolBusy):
        writer.declare(("default", "mine"), mine)
    ray.goes_on.set()
    first.join(30)
    writer.declare(("default", "other"), ({"name": "other"},))  # type: ignore[typeddict-item]
    assert b"other" in ray.puts[-1]
    assert not any(b"mine" in each for each in ray.puts)


@pytest.mark.parametrize(
    ("took", "pause"),
    [
        pytest.param(0.01, 2.0, id="one that refuses at once is asked again soon"),
        pytest.param(10.0, 30.0, id="one that took ten seconds to fail has so many workers' seconds less"),
        pytest.param(60.0, 45.0, id="no pause is longer than three quarters of a minute"),
    ],
)
def test_a_cluster_that_failed_is_not_asked_for_a_while(ray: Ray, took: float, pause: float) -> None:
    writer = ray.writer()
    ray.answer, ray.takes = httpx.Response(500), took
    for _ in range(3):
        with pytest.raises(PoolUnreachable if ray.count == 0 else Unavailable):
            writer.applications()
    assert ray.count == 1
    ray.now += pause - 0.001
    with pytest.raises(Unavailable):
        writer.applications()
    assert ray.count == 1
    ray.now += 0.002
    ray.answer = httpx.Response(200, content=b"{}")
    assert writer.applications() == ()


def test_what_all_clusters_said_is_kept_within_one_bound() -> None:
    budget, large = MemoryBudget(most_bytes=250_000), b'{"applications": {}, "x": "' + b"x" * 100_000 + b'"}'
    rays = [Ray(large) for _ in range(3)]
    writers = [each.writer(budget) for each in rays]
    for each in writers:
        each.applications()
    for each in reversed(writers):
        each.applications()
    assert [each.count for each in rays] == [2, 1, 1], "the first had to go when the third came"


def test_what_counts_for_all_keeps_no_writer_of_a_cluster_that_is_gone() -> None:
    budget = MemoryBudget()
    writer = Ray().writer(budget)
    writer.applications()
    gone = weakref.ref(writer)
    del writer
    gc.collect()
    assert gone() is None


def test_what_was_asked_before_a_change_tells_nothing_of_it(ray: Ray) -> None:
    writer = ray.writer()
    writer.applications()
    writer.declare(("default", "mine"), ({"name": "mine"},))  # type: ignore[typeddict-item]
    before = ray.count
    writer.applications()
    assert ray.count == before + 1
