"""Asks the prediction cache before the batcher, and gives its answers. Followers' deadlines are kept here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

from penstock.errors import Invalid
from penstock_serving.replica.cache.cache import CacheResult, Flight, PredictionCache
from penstock_serving.replica.cache.store import Answer
from penstock_serving.replica.call import Call
from penstock_serving.replica.codec.requests import InferRequest

_TIMED_ONE_IN: Final = 8

_Run = Callable[[Call, InferRequest, float], None]


class CachedAnswers:
    """Between a replica's fronts and its engine. All methods are called on the event loop.

    Args:
        cache: what decides.
        run: puts a request into the engine's queue, or fails it.
        answer: answers a request that took no part in a run.
        expired: fails a request whose time is up.
    """

    def __init__(
        self,
        cache: PredictionCache[Call],
        run: _Run,
        answer: Callable[[Call, Answer | Invalid], None],
        expired: Callable[[Call], None],
    ) -> None:
        self.cache = cache
        self._run = run
        self._answer = answer
        self._on_expired = expired
        self._turn = -1
        self._timers: dict[Call, asyncio.TimerHandle] = {}

    def take(self, call: Call, request: InferRequest, deadline: float | None) -> bool:
        """Answer a decoded request, or let it wait for an identical one.

        Args:
            call: the request.
            request: what it asks for.
            deadline: seconds of the monotonic clock until which it may wait; None: for ever.

        Returns:
            Whether it was taken. Otherwise it has to run.
        """
        cache = self.cache
        found = cache.ask(request.inputs, call, request.priority, call.decoded_ns / 1e9)
        if found is None:
            call.cache = CacheResult.BYPASS
            return False
        now_ns = time.monotonic_ns()
        self._turn = turn = (self._turn + 1) % _TIMED_ONE_IN
        if not turn:
            cache.observe_lookup((now_ns - call.decoded_ns) / 1e9)
        if not isinstance(found, Flight):
            call.cache = CacheResult.HIT
            call.served_ns = now_ns
            self._answer(call, found)
            return True
        call.flight = found
        if found.leader is call:
            call.cache = CacheResult.MISS
            return False
        call.cache = CacheResult.SHARED
        if deadline is not None:
            delay = max(deadline - now_ns / 1e9, 0.0)
            self._timers[call] = asyncio.get_running_loop().call_later(delay, self._expire, call)
        return True

    def land(self, leader: Call, result: Answer | Invalid) -> None:
        """A leader ran and was answered: keep the answer, and give it to those who waited for it."""
        flight = _release(leader)
        if flight is None:
            return
        if isinstance(result, Invalid):
            self._resolve(self.cache.lose(flight), result)
            return
        began_ns = time.monotonic_ns()
        followers = self.cache.land(flight, result, began_ns / 1e9)
        self.cache.observe_keep((time.monotonic_ns() - began_ns) / 1e9)
        self._resolve(followers, result)

    def drop(self, leader: Call) -> tuple[Call, ...]:
        """There was no room in the queue for a leader, so there is none for those who waited for it: they are returned."""
        flight = _release(leader)
        followers = () if flight is None else self.cache.lose(flight)
        for follower in followers:
            self._stop_timer(follower)
        return followers

    def abandon(self, leader: Call) -> None:
        """A leader's time was up before it ran. The first of those who wait for it runs in its place."""
        flight = _release(leader)
        successor = None if flight is None else self.cache.promote_follower(flight)
        if successor is None or successor.request is None:
            return
        successor.cache = CacheResult.MISS
        self._stop_timer(successor)
        self._run(successor, successor.request, time.monotonic())

    def leave(self, call: Call) -> Call | None:
        """A client is gone. Returns the request that nobody wants to run any more; None: others wait for its answer."""
        flight = call.flight
        if flight is None:
            return call
        self._stop_timer(call)
        return flight.leader if self.cache.leave(flight, call) else None

    def _stop_timer(self, follower: Call) -> None:
        timer = self._timers.pop(follower, None)
        if timer is not None:
            timer.cancel()

    def _expire(self, call: Call) -> None:
        self._timers.pop(call, None)
        self._on_expired(call)

    def _resolve(self, followers: Iterable[Call], result: Answer | Invalid) -> None:
        for follower in followers:
            self._stop_timer(follower)
            follower.served_ns = time.monotonic_ns()
            self._answer(follower, result)


def _release(leader: Call) -> Flight[Call] | None:
    """The flight that a request leads. It does not know it any more: else only the cycle collector could free the two."""
    flight, leader.flight = leader.flight, None
    return flight
