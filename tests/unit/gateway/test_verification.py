from __future__ import annotations

import asyncio
import threading
import time

import pytest

from penstock_serving.gateway.access.verification import (
    ADDRESS_SHARE,
    NAMESPACE_SHARE,
    BudgetExhausted,
    LeakyBucket,
    Verification,
)


def test_what_was_spent_is_made_good_in_time() -> None:
    allowance = LeakyBucket(0.1)
    assert allowance.has_room("a", 0)
    allowance.spend("a", 0.3, 0)
    assert not allowance.has_room("a", 1.9)
    assert allowance.has_room("a", 2.1)
    assert allowance.has_room("b", 0)


def test_only_so_many_are_remembered() -> None:
    allowance = LeakyBucket(0.1, most=2)
    for key in ("a", "b", "a", "c"):
        allowance.spend(key, 1.0, 0)
    assert [allowance.has_room(key, 0) for key in "abc"] == [False, True, False]


def busy() -> None:
    end = time.thread_time() + 0.01
    while time.thread_time() < end:
        pass


@pytest.mark.parametrize(
    ("addresses", "share"),
    [pytest.param(1, ADDRESS_SHARE, id="one address"), pytest.param(40, NAMESPACE_SHARE, id="all addresses")],
)
def test_of_the_threads_time_a_part_is_had_by(addresses: int, share: float) -> None:
    async def scenario() -> None:
        verification = Verification(clock=lambda: 0.0)
        ran = 0
        for number in range(40):
            try:
                await verification.run("ns", str(number % addresses), busy)
                ran += 1
            except BudgetExhausted:
                break
        assert 1 <= ran <= share / 0.01 + 1
        await verification.run("other", "0", busy)
        verification.close()

    asyncio.run(scenario())


def test_it_is_done_beside_the_event_loop() -> None:
    async def scenario() -> None:
        verification = Verification()
        assert await verification.run("ns", "a", threading.get_ident) != threading.get_ident()
        verification.close()

    asyncio.run(scenario())


def test_only_so_many_wait() -> None:
    async def scenario() -> None:
        verification = Verification()
        go = threading.Event()
        tasks = [asyncio.create_task(verification.run("ns", str(each), go.wait)) for each in range(80)]
        await asyncio.sleep(0)
        refused = [task for task in tasks if task.done() and isinstance(task.exception(), BudgetExhausted)]
        assert len(refused) == 80 - 64
        other = asyncio.create_task(verification.run("other", "a", go.wait))
        await asyncio.sleep(0)
        assert not other.done()
        go.set()
        await asyncio.gather(*tasks, other, return_exceptions=True)
        verification.close()

    asyncio.run(scenario())
