"""How busy the replica is: what its leases and the scaling policy report."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from typing import Final

from penstock.routing.leases import ReplicaStats
from penstock.telemetry.names import SECONDS_BUCKETS

_LEAST_SECONDS: Final = 1.0
"""Over which arrivals are a rate."""


class Histogram:
    """Counts of observations by bucket, in the manner of Prometheus. One bisection an observation, no lock."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value in the first bucket whose bound is not below it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


def quantile(bounds: tuple[float, ...], counts: list[int], share: float) -> float:
    """The upper bound of the bucket in which the quantile lies; 0 without observations.

    The last, unbounded bucket counts as its lower bound.
    """
    wanted = share * sum(counts)
    if wanted <= 0:
        return 0.0
    seen = 0
    for bound, count in zip(bounds, counts, strict=False):
        seen += count
        if seen >= wanted:
            return bound
    return bounds[-1]


@dataclass(frozen=True, slots=True)
class _Mark:
    at: float
    integral: float
    full: float
    arrivals: int
    refusals: int
    waits: tuple[int, ...]


class LoadMeter:
    """Integrates the requests in flight over time. Times are seconds of the monotonic clock."""

    def __init__(self, window_seconds: float, now: float) -> None:
        self._window = window_seconds
        self._since = now
        self._integral = 0.0
        self._full = 0.0
        self.limit: int | None = None
        """Requests in flight from which on gateways send no more; None: they send all."""
        self._arrivals = 0
        self._refusals = 0
        self._idle_since = now
        self.in_flight = 0
        self.waits = Histogram(SECONDS_BUCKETS)
        self._marks: deque[_Mark] = deque([self._mark(now)])

    def arrive(self, now: float) -> None:
        """A request has come."""
        self._pass_time(now)
        self.in_flight += 1
        self._arrivals += 1

    @property
    def arrivals(self) -> int:
        """Requests that have come, refused ones among them."""
        return self._arrivals

    def refuse(self, *, arrived: bool) -> None:
        """A request was refused for want of room.

        Args:
            arrived: `arrive` was told of it.
        """
        self._refusals += 1
        self._arrivals += not arrived

    def leave(self, now: float) -> None:
        """A request was answered or its client is gone."""
        self._pass_time(now)
        self.in_flight -= 1
        self._idle_since = now

    def touch(self, now: float) -> None:
        """A request was answered without the engine: the replica is in use, and that is all that it is."""
        self._idle_since = now

    def tick(self, now: float) -> None:
        """Remember the totals; called about once a second."""
        self._marks.append(self._mark(now))
        while len(self._marks) > 1 and self._marks[1].at <= now - self._window:
            self._marks.popleft()

    def stats(self, now: float, queued: int) -> ReplicaStats:
        """Means over the window that ends now."""
        last, first = self._mark(now), self._marks[0]
        seconds = max(last.at - first.at, 1e-3)
        waits = [after - before for after, before in zip(last.waits, first.waits, strict=True)]
        refused, came = last.refusals - first.refusals, last.arrivals - first.arrivals
        # What is refused is demand as well: it counts as it would, had it been let in as the others were.
        asked = came / max(came - refused, 1)
        return ReplicaStats(
            in_flight=(last.integral - first.integral) / seconds * max(asked, 1.0),
            queued=queued,
            queue_wait_p95_seconds=quantile(SECONDS_BUCKETS, waits, 0.95),
            # What a replica gets in its first moments is what waited for it, and no rate.
            arrival_rate=came / max(seconds, _LEAST_SECONDS),
            interval_seconds=max(seconds, _LEAST_SECONDS),
            full_share=min((last.full - first.full) / seconds, 1.0),
            idle_seconds=self.idle_seconds(now),
        )

    def idle_seconds(self, now: float) -> float:
        """Since the last request was answered; 0 while there is one."""
        return 0.0 if self.in_flight else now - self._idle_since

    def _pass_time(self, now: float) -> None:
        passed = now - self._since
        self._integral += self.in_flight * passed
        if self.limit is not None and self.in_flight >= self.limit:
            self._full += passed
        self._since = now

    def _mark(self, now: float) -> _Mark:
        self._pass_time(now)
        return _Mark(now, self._integral, self._full, self._arrivals, self._refusals, tuple(self.waits.counts))
