"""What a load did: throughput, latencies and failures, from every single exchange."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from penstock.models import Frozen

NO_ANSWER: Final = 0
"""The status of a request whose connection broke, or that waited past its time limit."""
OK: Final = 200
_TWO_SIDED_95: Final = 1.96
BUSY_CLIENT: Final = 0.85
"""Of one core. A client past it measures itself."""
_LEAST_BEHIND: Final = 5.0
"""Milliseconds that any process may be held up on a machine that does more."""
_SHARE_BEHIND: Final = 0.1
"""Of the 99th percentile of latency. A client that is further behind measures itself."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and what came of it. Times in seconds on one monotonic clock."""

    due: float
    """When it should have been sent: in an open loop by the schedule, in a closed loop when the last answer was there."""
    sent: float
    done: float
    status: int
    """HTTP's, or `NO_ANSWER`."""

    @property
    def seconds(self) -> float:
        """Latency since it was due. What waited in the client counts: leaving that out is coordinated omission (Gil Tene)."""
        return self.done - self.due


class Latencies(Frozen):
    """Of the answers with status 200, in milliseconds."""

    p50: float
    p90: float
    p99: float
    p99_low: float
    """Where the true 99th percentile lies at 95 % confidence, were answers independent: the order statistics at
    n·q ± 1.96·√(n·q·(1-q)) (Hahn and Meeker, Statistical Intervals, chapter 5)."""
    p99_high: float
    p999: float
    most: float
    mean: float


class LoadFigures(Frozen):
    """What one load did."""

    connections: int | None = None
    """Of a closed loop, each with one request at a time."""
    rate: float | None = None
    """Of an open loop: requests a second, as planned."""
    seconds: float
    """From the first request that counts to the last answer."""
    requests: int
    statuses: dict[int, int]
    """How many answers had each status; 0: no answer."""
    answers_per_second: float
    """With status 200."""
    latency_milliseconds: Latencies | None
    """None where nothing was answered."""
    most_in_flight: int
    late_milliseconds_p99: float
    """By how much requests were sent after they were due: the client was behind, or all of its connections were busy."""
    behind_milliseconds_p99: float = 0.0
    """By how much the client itself came to requests after they were due, whatever its connections did."""
    client_cpu: float
    """Cores that the client used. Near 1 it is the client that is measured."""

    @property
    def failed(self) -> int:
        """Requests without status 200."""
        return self.requests - self.statuses.get(OK, 0)

    @property
    def is_behind(self) -> bool:
        """Whether the client could not keep to the schedule."""
        seen = self.latency_milliseconds.p99 if self.latency_milliseconds else 0.0
        return self.behind_milliseconds_p99 > max(_LEAST_BEHIND, _SHARE_BEHIND * seen)


def summarize(
    exchanges: Sequence[Exchange],
    *,
    client_cpu: float,
    elapsed: float,
    connections: int | None = None,
    rate: float | None = None,
    behind: Sequence[float] = (),
) -> LoadFigures:
    """The figures of a load.

    Args:
        exchanges: all of them that count: those of the warm-up left out.
        client_cpu: cores that the client used while it sent.
        elapsed: seconds from the first request that counts to the last answer.
        connections: of a closed loop.
        rate: of an open loop.
        behind: of an open loop, seconds by which the client came to each request after it was due.
    """
    statuses = Counter(each.status for each in exchanges)
    span = max(elapsed, 1e-9)
    return LoadFigures(
        connections=connections,
        rate=rate,
        seconds=elapsed,
        requests=len(exchanges),
        statuses=dict(sorted(statuses.items())),
        answers_per_second=statuses[OK] / span,
        latency_milliseconds=_latencies([each.seconds for each in exchanges if each.status == OK]),
        most_in_flight=peak_in_flight(exchanges),
        late_milliseconds_p99=1000 * quantile(sorted(each.sent - each.due for each in exchanges), 0.99)
        if exchanges
        else 0.0,
        behind_milliseconds_p99=1000 * quantile(sorted(behind), 0.99) if behind else 0.0,
        client_cpu=client_cpu,
    )


def _latencies(seconds: Sequence[float]) -> Latencies | None:
    if not seconds:
        return None
    ordered = sorted(1000 * each for each in seconds)
    low, high = quantile_interval(ordered, 0.99)
    return Latencies(
        p50=quantile(ordered, 0.5),
        p90=quantile(ordered, 0.9),
        p99=quantile(ordered, 0.99),
        p99_low=low,
        p99_high=high,
        p999=quantile(ordered, 0.999),
        most=ordered[-1],
        mean=sum(ordered) / len(ordered),
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The least value that at least `share` of all do not exceed (nearest rank; no value that was not seen)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def quantile_interval(ordered: Sequence[float], share: float) -> tuple[float, float]:
    """Bounds of a quantile at 95 % confidence, by order statistics; see `Latencies.p99_low`."""
    count = len(ordered)
    spread = _TWO_SIDED_95 * math.sqrt(count * share * (1 - share))
    low = max(0, math.floor(count * share - spread) - 1)
    high = min(count - 1, math.ceil(count * share + spread))
    return ordered[low], ordered[high]


def peak_in_flight(exchanges: Sequence[Exchange]) -> int:
    """How many requests were under way at once, at most."""
    changes = sorted([(each.sent, 1) for each in exchanges] + [(each.done, -1) for each in exchanges])
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most
