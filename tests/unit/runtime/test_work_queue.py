"""The queue's decisions, at times that the test names."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest

from penstock_operator.runtime.loop.queue import Backoff, Schedule, Shares, WorkQueue


def schedule() -> Schedule[str]:
    return Schedule(Backoff(base=1.0, maximum=8.0))


@pytest.mark.parametrize(
    ("adds", "taken_at"),
    [
        pytest.param([("a", 0.0)], {0.0: "a"}, id="a key that is due is taken"),
        pytest.param([("a", 5.0)], {4.9: None, 5.0: "a"}, id="a key waits until it is due"),
        pytest.param([("a", 0.0), ("a", 0.0)], {0.0: "a", 1.0: None}, id="a key that is added twice is taken once"),
        pytest.param([("a", 5.0), ("a", 1.0)], {1.0: "a", 5.0: None}, id="the earlier of two times wins"),
        pytest.param([("a", 1.0), ("a", 5.0)], {1.0: "a", 5.0: None}, id="a later time does not defer"),
        pytest.param([("a", 2.0), ("b", 1.0)], {2.0: "b", 2.1: "a"}, id="what has been due longest comes first"),
        pytest.param([("b", 0.0), ("a", 0.0)], {0.0: "b", 0.1: "a"}, id="of equals the first added comes first"),
        pytest.param([], {0.0: None}, id="an empty queue gives nothing"),
    ],
)
def test_taking(adds: list[tuple[str, float]], taken_at: dict[float, str | None]) -> None:
    queue = schedule()
    for key, due in adds:
        queue.add(key, due)
    assert {now: queue.take(now) for now in taken_at} == taken_at


def test_a_key_that_is_processed_is_not_given_to_another_worker() -> None:
    queue = schedule()
    queue.add("a", 0.0)
    assert queue.take(0.0) == "a"
    queue.add("a", 0.0)
    queue.add("b", 1.0)
    assert queue.take(1.0) == "b"
    assert queue.take(1.0) is None
    queue.mark_succeeded("a")
    assert queue.take(1.0) == "a"


def test_a_key_that_is_processed_wakes_no_waiter() -> None:
    queue = schedule()
    queue.add("a", 0.0)
    queue.take(0.0)
    queue.add("a", 3.0)
    assert queue.next_due() is None
    queue.mark_succeeded("a")
    assert queue.next_due() == 3.0


def test_failures_double_the_wait_up_to_the_maximum_and_success_forgets_them() -> None:
    queue = schedule()
    delays = []
    for _ in range(5):
        queue.add("a", 0.0)
        queue.take(100.0)
        delays.append(queue.mark_failed("a", 0.0))
    assert delays == [1.0, 2.0, 4.0, 8.0, 8.0]
    queue.take(100.0)
    queue.mark_succeeded("a")
    queue.add("a", 0.0)
    queue.take(100.0)
    assert queue.mark_failed("a", 0.0) == 1.0


def test_one_keys_failures_do_not_slow_another() -> None:
    queue = schedule()
    for key in ("a", "a", "b"):
        queue.add(key, 0.0)
        queue.take(100.0)
        last = queue.mark_failed(key, 0.0)
    assert last == 1.0


@pytest.mark.parametrize(
    ("failures", "jitter", "expected"),
    [
        pytest.param(1, 0.0, 1.0, id="no jitter keeps the whole wait"),
        pytest.param(1, 1.0, 0.5, id="full jitter halves it"),
        pytest.param(10_000, 0.0, 8.0, id="no number of failures overflows"),
    ],
)
def test_backoff(failures: int, jitter: float, expected: float) -> None:
    assert Backoff(base=1.0, maximum=8.0).delay(failures, jitter) == expected


def test_a_waiting_worker_gets_a_key_that_is_added_later() -> None:
    queue = WorkQueue(schedule())
    got: list[str | None] = []
    worker = threading.Thread(target=lambda: got.append(queue.take(30.0)))
    worker.start()
    queue.add("a")
    worker.join(30)
    assert got == ["a"]


def test_closing_wakes_every_worker_with_nothing() -> None:
    queue = WorkQueue(schedule())
    got: list[str | None] = []
    workers = [threading.Thread(target=lambda: got.append(queue.take(60.0))) for _ in range(3)]
    for worker in workers:
        worker.start()
    queue.close()
    for worker in workers:
        worker.join(30)
    assert got == [None, None, None]


def test_each_of_many_keys_is_processed_by_one_worker_at_a_time_and_none_is_lost() -> None:
    queue = WorkQueue(schedule())
    inside: set[str] = set()
    seen: dict[str, int] = {}
    overlaps: list[str] = []
    lock = threading.Lock()

    def work(next_key: Callable[[], str | None]) -> None:
        while (key := next_key()) is not None:
            with lock:
                if key in inside:
                    overlaps.append(key)
                inside.add(key)
                seen[key] = seen.get(key, 0) + 1
            with lock:
                inside.discard(key)
            queue.mark_succeeded(key)

    for index in range(1000):
        queue.add(f"k{index % 100}")
    workers = [threading.Thread(target=work, args=(lambda: queue.take(0.5),)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for index in range(1000):
        queue.add(f"k{index % 100}")
    for worker in workers:
        worker.join(60)
    assert overlaps == []
    assert len(seen) == 100
    assert len(queue) == 0


def of_tenants(shares: Shares) -> Schedule[str]:
    """Keys such as `a/1`, of the tenant before the stroke."""
    return Schedule(Backoff(base=1.0, maximum=1.0), group=lambda key: key.partition("/")[0], shares=shares)


def test_one_tenants_keys_leave_workers_for_anothers() -> None:
    queue = of_tenants(Shares.from_workers(4))
    for key in ("a/1", "a/2", "a/3", "a/4", "b/1"):
        queue.add(key, 0.0)
    assert [queue.take(0.0) for _ in range(4)] == ["a/1", "a/2", "a/3", "b/1"]
    assert queue.next_due() is None, "a worker that waits for room must not look again and again"
    queue.mark_succeeded("b/1")
    assert queue.take(0.0) is None
    queue.mark_succeeded("a/2")
    assert queue.take(0.0) == "a/4"


def made_slow(queue: Schedule[str], *keys: str) -> None:
    for key in keys:
        queue.add(key, 0.0)
        assert queue.take(0.0) == key
        queue.mark_succeeded(key, slow=True)
        queue.add(key, 1.0)


def test_slow_keys_of_all_tenants_together_leave_workers_for_the_rest() -> None:
    queue = of_tenants(Shares.from_workers(8))
    made_slow(queue, "a/1", "b/1", "c/1")
    queue.add("d/1", 2.0)
    assert [queue.take(2.0) for _ in range(4)] == ["a/1", "b/1", "d/1", None]
    queue.mark_succeeded("a/1")
    assert queue.take(2.0) == "c/1"
    queue.add("a/1", 2.0)
    assert queue.take(2.0) == "a/1", "it is slow no more"


def test_fresh_keys_of_tenants_with_slow_ones_leave_workers_for_the_rest() -> None:
    queue = of_tenants(Shares.from_workers(8))
    made_slow(queue, "a/1", "b/1")
    for index in range(20):
        for tenant in "ab":
            queue.add(f"{tenant}/fresh-{index}", 1.5)
    queue.add("c/1", 2.0)
    taken = [queue.take(2.0) for _ in range(7)]
    assert taken[5:] == ["c/1", None]
    assert sorted(str(each)[0] for each in taken[:5]) == ["a", "a", "a", "b", "b"]


def test_a_tenant_whose_keys_are_slow_no_more_has_its_share_again() -> None:
    queue = of_tenants(Shares.from_workers(8))
    made_slow(queue, "a/1")
    for index in range(8):
        queue.add(f"a/fresh-{index}", 2.0)
    assert [queue.take(2.0) for _ in range(4)] == ["a/1", "a/fresh-0", "a/fresh-1", None]
    queue.mark_succeeded("a/1")
    assert [queue.take(2.0) for _ in range(5)] == [*(f"a/fresh-{index}" for index in range(2, 6)), None]


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        pytest.param(Shares.from_workers(8), Shares(6, 3, 5, 2), id="eight workers"),
        pytest.param(Shares.from_workers(4), Shares(3, 1, 2, 1), id="four workers"),
        pytest.param(Shares.from_workers(1), Shares(1, 1, 1, 1), id="one worker serves all"),
        pytest.param(
            Shares.from_workers(8, one_group=True), Shares(8, 6, 8, 2), id="a namespace that is alone has all"
        ),
    ],
)
def test_shares(made: Shares, expected: Shares) -> None:
    assert made == expected


@pytest.mark.parametrize("seed", range(20))
def test_no_worker_is_idle_while_a_key_is_due_that_has_room(seed: int) -> None:
    chance, shares, now = random.Random(seed), Shares(group=3, slow_group=2, slow_groups=4, slow=2), 0.0
    queue, slow = of_tenants(shares), set[str]()
    running: dict[str, tuple[bool, bool]] = {}
    """Whether its group was slow, and it was itself, when it was taken."""
    due: dict[str, float] = {}

    def is_slow(group: str) -> bool:
        return any(each[0] == group for each in slow)

    def has_room(key: str) -> bool:
        group = sum(each[0] == key[0] for each in running)
        if not is_slow(key[0]):
            return group < shares.group
        if group >= shares.slow_group or sum(of for of, _ in running.values()) >= shares.slow_groups:
            return False
        held = [each for each, (_, itself) in running.items() if itself]
        return key not in slow or (len(held) < shares.slow and all(each[0] != key[0] for each in held))

    for _ in range(600):
        now += chance.random()
        key, time = f"{chance.choice('abc')}/{chance.randrange(6)}", now + chance.choice([0.0, 0.0, 3.0])
        queue.add(key, time)
        due[key] = min(due.get(key, time), time)
        while (taken := queue.take(now)) is not None:
            assert has_room(taken)
            assert due.pop(taken) <= now
            running[taken] = is_slow(taken[0]), taken in slow
        ready = {each for each, at in due.items() if at <= now and each not in running}
        assert not any(has_room(each) for each in ready)
        assert (queue.next_due() or now + 1) > now
        if running and chance.random() < 0.7:
            ended, long = chance.choice(sorted(running)), chance.random() < 0.3
            del running[ended]
            (slow.add if long else slow.discard)(ended)
            queue.mark_succeeded(ended, slow=long)
