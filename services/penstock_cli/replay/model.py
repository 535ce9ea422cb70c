"""What is replayed: a replica's service times, the platform's limits, what a policy sees and says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Protocol

from penstock.errors import Invalid
from penstock.routing.leases import ReplicaStats

_RUNS_AT_LEAST: Final = 2
"""A replica lets so many full runs wait whatever the objective (`Admission.follow`)."""
_DEFAULT_SECONDS: Final = 30.0
_ROUNDING: Final = 1.001


@dataclass(frozen=True, slots=True)
class ServiceTimes:
    """Seconds of a run of the engine by its rows, as `penstock optimize` or a replica's `/stats` measured them."""

    points: tuple[tuple[int, float], ...]
    """(rows, seconds), with growing rows: between two the time is on the line through them, past the last it grows with the rows."""
    max_batch: int
    """Rows in a run at most."""
    is_exponential: bool = False
    """Draw each run's time from the exponential distribution of that mean: to compare with formulas of queueing theory."""

    def __post_init__(self) -> None:
        rows = [each[0] for each in self.points]
        if not rows or rows[0] < 1 or self.max_batch < 1 or any(b <= a for a, b in pairwise(rows)):
            raise Invalid("InvalidCurve", "a curve has growing numbers of rows from 1 on, and a batch at least one row")
        if any(not (math.isfinite(each[1]) and each[1] > 0) for each in self.points):
            raise Invalid("InvalidCurve", "the seconds of a curve are numbers above 0")

    def seconds(self, rows: int) -> float:
        """Mean seconds of a run of so many rows."""
        first, last = self.points[0], self.points[-1]
        if rows <= first[0]:
            return first[1]
        for (low, before), (high, after) in pairwise(self.points):
            if rows <= high:
                return before + (after - before) * (rows - low) / (high - low)
        return last[1] * rows / last[0]

    @property
    def capacity(self) -> float:
        """Requests of one row that a replica can answer in a second, in full batches."""
        return self.max_batch / self.seconds(self.max_batch)


@dataclass(frozen=True, slots=True)
class ReplayCase:
    """All that a replay is of, but the load and the policy."""

    service: ServiceTimes
    slo_seconds: float | None = None
    """Within which an answer is due; None: 30 s."""
    start_seconds: float = 20.0
    """From the decision to a replica that takes requests."""
    minimum: int = 1
    maximum: int = 10
    hold_seconds: float = 120.0
    """How long a request waits at the gateway for a first replica."""
    estimate_times: float = 1.0
    """What replicas multiply an expected answer with before they hold it against the time that is left: `estimate_times` of their
    `/stats`. The more what answers take varies, the more is refused that would still have been in time."""
    admits_all: bool = False
    """Replicas refuse nothing: to compare with formulas of queueing theory."""

    @property
    def bound_seconds(self) -> float:
        """An answer that takes longer violates."""
        return _DEFAULT_SECONDS if self.slo_seconds is None else self.slo_seconds

    @property
    def allowance_seconds(self) -> float:
        """What a replica expects to answer later than this it refuses, as `Admission` says, which multiplies what it expects."""
        if self.admits_all:
            return math.inf
        least = _RUNS_AT_LEAST * self.service.seconds(self.service.max_batch) * self.estimate_times * _ROUNDING
        return max(self.bound_seconds, least) / self.estimate_times


@dataclass(slots=True)
class LoadSight:
    """What a policy may see: what its source's own metrics would show."""

    now: float = 0.0
    wanted: int = 0
    running: int = 0
    """Replicas that take requests."""
    replicas: Sequence[ReplicaStats] = ()
    """What each reports."""
    held: int = 0
    """Requests that wait at the gateway for a first replica."""
    in_flight_seconds: list[float] = field(default_factory=lambda: [0.0])
    """Integral of all requests in flight, held ones too, at each second since the start."""
    busy_seconds: list[float] = field(default_factory=lambda: [0.0])
    """Likewise of replicas whose engine runs."""
    running_seconds: list[float] = field(default_factory=lambda: [0.0])
    """Likewise of replicas that take requests."""

    def mean_in_flight(self, window: float, at: float | None = None) -> float:
        """Mean requests in flight over the `window` seconds before `at` (None: now)."""
        return _mean(self.in_flight_seconds, window, self.now if at is None else at)

    def utilization(self, window: float) -> float:
        """Share of the running replicas' time in which their engine ran, over the last `window` seconds."""
        return _mean(self.busy_seconds, window, self.now) / max(_mean(self.running_seconds, window, self.now), 1e-9)


def _mean(sums: Sequence[float], window: float, at: float) -> float:
    end = min(int(at), len(sums) - 1)
    start = max(0, end - int(window))
    return (sums[end] - sums[start]) / (end - start) if end > start else 0.0


class ReplayPolicy(Protocol):
    """A scaling policy. It may keep a state: each replay makes one anew."""

    interval: float
    """Seconds between two decisions; whole."""
    reads_replicas: bool
    """Whether it needs `LoadSight.replicas`, which cost time."""

    def decide(self, sight: LoadSight) -> tuple[int, str]:
        """The number of replicas wanted, within the case's bounds or not, and why."""
