"""The prediction cache of one model: a state machine that whoever owns the model asks before it runs anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

import numpy.typing as npt

from penstock.serving.settings import CacheMode, CacheSettings
from penstock_serving.replica.cache.keys import InputKeys
from penstock_serving.replica.cache.payoff import Payoff
from penstock_serving.replica.cache.store import Answer, AnswerStore

P = TypeVar("P")


class CacheResult(StrEnum):
    """What the cache did for a request."""

    HIT = "hit"
    """It had the answer."""
    MISS = "miss"
    """The model runs for it."""
    SHARED = "shared"
    """An identical request is with the model already, and this one waits for its answer."""
    BYPASS = "bypass"
    """The model runs for it, and the cache was not asked, since of late that cost more than it saved."""

    __hash__ = str.__hash__
    """Enum's own is written in Python, and this is a key on the hot path."""


@dataclass(slots=True, eq=False)
class Flight(Generic[P]):
    """A run of the model and all requests that wait for it."""

    key: bytes
    leader: P
    """The request that runs."""
    urgency: int
    """The leader's priority; lower goes first."""
    followers: list[P] = field(default_factory=list)
    wanted: bool = True
    """Whether the leader's client is still there."""


class PredictionCache(Generic[P]):
    """Answers by identical inputs. `P` is a request; times are seconds of any monotonic clock.

    The owner calls `ask` for each request and, for each flight that a request leads, either `land` or `lose` once.
    Followers stay with their flight whatever becomes of the settings.
    """

    def __init__(self, keys: InputKeys, settings: CacheSettings) -> None:
        self._keys = keys
        self._flights: dict[bytes, Flight[P]] = {}
        self._evictions = 0
        self._store: AnswerStore | None = None
        self._payoff = Payoff()
        self.waiting = 0
        """Followers of all flights."""
        self._hits = self._misses = self._shared = self._bypassed = 0
        self.reconfigure(settings, 0.0)

    @property
    def enabled(self) -> bool:
        """Whether to ask at all."""
        return self._store is not None

    @property
    def bytes_used(self) -> int:
        """In use."""
        return self._store.bytes_used if self._store is not None else 0

    @property
    def entries(self) -> int:
        """Answers that are kept."""
        return len(self._store) if self._store is not None else 0

    @property
    def evictions(self) -> int:
        """Answers that had to leave so far, because others needed the room."""
        return self._evictions + (self._store.evictions if self._store is not None else 0)

    @property
    def results(self) -> dict[CacheResult, int]:
        """Requests so far. A follower counts once it has left its flight, since it may have to run after all."""
        return {
            CacheResult.HIT: self._hits,
            CacheResult.MISS: self._misses,
            CacheResult.SHARED: self._shared,
            CacheResult.BYPASS: self._bypassed,
        }

    def reconfigure(self, settings: CacheSettings, now: float) -> None:
        """Take other settings. Off frees all memory; what is in flight lands as it would have."""
        self._settings = settings
        match settings.mode:
            case CacheMode.OFF:
                self._evictions = self.evictions
                self._store = None
                self._payoff = Payoff()
            case CacheMode.EXACT:
                if self._store is None:
                    self._store = AnswerStore(settings.max_bytes, settings.ttl_seconds)
                else:
                    self._store.resize(settings.max_bytes, settings.ttl_seconds, now)

    def forget(self, now: float) -> None:
        """Drop every answer: some may be wrong."""
        settings = self._settings
        self.reconfigure(CacheSettings(), now)
        self.reconfigure(settings, now)

    def ask(
        self, inputs: Mapping[str, npt.NDArray[Any]], asker: P, urgency: int, now: float
    ) -> Answer | Flight[P] | None:
        """What to do with a request. This is on the hot path of every request, so nothing is made that is not kept.

        Args:
            inputs: the request's, fit for the model.
            asker: the request.
            urgency: its priority; lower goes first. It never waits for a flight of lower urgency than its own.
            now: the time.

        Returns:
            HIT: the answer. MISS: a flight that the request leads: it has to run. SHARED: the flight of another that it
            now waits for. BYPASS: None; it has to run.
        """
        store = self._store
        if store is None or (self._payoff.bypassing and not self._payoff.is_sampled(self._keys.sample(inputs))):
            self._bypassed += 1
            return None
        key = self._keys.key(inputs)
        answer = store.find(key, now)
        if answer is not None:
            self._hits += 1
            self._payoff.count_lookup(hit=True)
            return answer
        return self._join(key, asker, urgency)

    def _join(self, key: bytes, asker: P, urgency: int) -> Flight[P]:
        flight = self._flights.get(key)
        if flight is not None and urgency >= flight.urgency:
            flight.followers.append(asker)
            self.waiting += 1
            self._payoff.count_lookup(hit=True)
            return flight
        own = Flight(key, asker, urgency)
        if flight is None:
            self._flights[key] = own
        # Else it would wait for one that lets others pass: it runs by itself, and nobody follows it.
        self._misses += 1
        self._payoff.count_lookup(hit=False)
        return own

    def observe_lookup(self, seconds: float) -> None:
        """Asking took so long, where it was not bypassed. Not every time need be told."""
        self._payoff.observe_lookup(seconds)

    def observe_run(self, requests: int, seconds: float) -> None:
        """The engine ran for so long, for so many requests."""
        self._payoff.observe_run(requests, seconds)

    def land(self, flight: Flight[P], answer: Answer, now: float) -> tuple[P, ...]:
        """The model has answered. The answer is kept, and is also the answer of the followers, which are returned."""
        if self._store is not None:
            self._store.keep(flight.key, answer, now)
        return self._close(flight)

    def observe_keep(self, seconds: float) -> None:
        """Keeping an answer took so long. Not every time need be told."""
        self._payoff.observe_keep(seconds)

    def lose(self, flight: Flight[P]) -> tuple[P, ...]:
        """The model failed on these inputs. Nothing is kept; the failure is also that of the followers returned."""
        return self._close(flight)

    def _close(self, flight: Flight[P]) -> tuple[P, ...]:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
        followers = tuple(flight.followers)
        flight.followers.clear()
        self.waiting -= len(followers)
        self._shared += len(followers)
        return followers

    def promote_follower(self, flight: Flight[P]) -> P | None:
        """The leader left without having run. The first follower leads now and has to run; None: there was none."""
        if not flight.followers:
            self._close(flight)
            return None
        flight.leader = flight.followers.pop(0)
        flight.wanted = True
        self.waiting -= 1
        self._misses += 1
        return flight.leader

    def leave(self, flight: Flight[P], request: P) -> bool:
        """A request's client is gone, or its time is up.

        Returns:
            Whether nobody wants the flight's answer any more: then its leader need not run, and the flight is closed.
        """
        if request is flight.leader:
            flight.wanted = False
        elif request in flight.followers:
            flight.followers.remove(request)
            self.waiting -= 1
            self._shared += 1
        if flight.wanted or flight.followers:
            return False
        self._close(flight)
        return True
