"""Where tokens' signatures are checked: a thread beside the agent's, for as much of its time as each may have.

A signature costs up to half a millisecond, and anyone may send a token that names an issuer. So a namespace, and within it an
address, has a part of each second, in time that was really spent; who has used it up is told to come again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")

NAMESPACE_SHARE: Final = 0.1
ADDRESS_SHARE: Final = 0.05
"""Of the thread's time, in seconds a second."""
_BURST_SECONDS: Final = 1.0
"""Of a share, that may be saved up."""
_MOST_WAITING: Final = 256
_MOST_WAITING_OF_A_NAMESPACE: Final = 64
_MOST_COUNTED: Final = 16_384


class BudgetExhausted(Exception):
    """There is no time left for this caller now."""


class LeakyBucket:
    """Time that each key may spend, filled up evenly (a leaky bucket in seconds). Pure but for the clock it is given.

    Args:
        share: seconds a second.
        most: keys that are remembered; the longest unused goes first.
    """

    def __init__(self, share: float, most: int = _MOST_COUNTED) -> None:
        self._share = share
        self._most = most
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By key: seconds that were spent and are not made good yet, as of when."""

    def has_room(self, key: str, now: float) -> bool:
        """Whether some of a key's time is left."""
        return self._debt(key, now) < self._share * _BURST_SECONDS

    def spend(self, key: str, seconds: float, now: float) -> None:
        """Count what was spent."""
        self._spent[key] = self._debt(key, now) + seconds, now
        self._spent.move_to_end(key)
        while len(self._spent) > self._most:
            self._spent.popitem(last=False)

    def _debt(self, key: str, now: float) -> float:
        spent, since = self._spent.get(key, (0.0, now))
        return max(0.0, spent - (now - since) * self._share)


class Verification:
    """Runs checks one after the other on a thread of their own. Belongs to one event loop.

    Args:
        clock: monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="verification")
        self._namespaces = LeakyBucket(NAMESPACE_SHARE)
        self._addresses = LeakyBucket(ADDRESS_SHARE)
        self._waiting: Counter[str] = Counter()

    def close(self) -> None:
        """End the thread; what waits is not run."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def run(self, namespace: str, address: str, check: Callable[[], T]) -> T:
        """What a check says.

        Args:
            namespace: on whose behalf.
            address: whose token it is.
            check: runs on the thread.

        Raises:
            BudgetExhausted: the namespace or the address has had its time, or too many wait.
        """
        now, own = self._clock(), f"{namespace}|{address}"
        if not (self._namespaces.has_room(namespace, now) and self._addresses.has_room(own, now)):
            raise BudgetExhausted
        if self._waiting[namespace] >= _MOST_WAITING_OF_A_NAMESPACE or self._waiting.total() >= _MOST_WAITING:
            raise BudgetExhausted
        self._waiting[namespace] += 1
        try:
            found, took = await asyncio.get_running_loop().run_in_executor(self._thread, _time, check)
        finally:
            self._waiting[namespace] -= 1
            if not self._waiting[namespace]:
                del self._waiting[namespace]
        now = self._clock()
        self._namespaces.spend(namespace, took, now)
        self._addresses.spend(own, took, now)
        return found


def _time(check: Callable[[], T]) -> tuple[T, float]:
    began = time.thread_time()
    found = check()
    return found, time.thread_time() - began
