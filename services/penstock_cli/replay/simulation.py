"""A discrete-event simulation of a gateway and its replicas under a policy: pure, and the same for the same seed.

The gateway sends a request to the replica with the fewest in flight (HAProxy's `leastconn`) and holds it where there is none. A
replica refuses what it cannot answer in time (`penstock_runtime.batching.admission`), and runs what has arrived whenever its
engine is free, up to a batch. What scales down answers what it has, and costs until then. What the simulation leaves out: the
network, decoding, requests of several rows, other users of the machine, and that start-up times vary.
"""

from __future__ import annotations

import random
from array import array
from collections import deque
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count, pairwise
from typing import Final

from penstock_cli.replay.model import LoadSight, ReplayCase, ReplayPolicy
from penstock_serving.replica.telemetry.load import LoadMeter

REPORT_SECONDS: Final = 5.0
"""Over which a replica's report is a mean."""
_TICK, _UP, _DONE = range(3)


@dataclass(frozen=True, slots=True)
class ScalingMove:
    """A decision that changed the number."""

    at: float
    before: int
    after: int
    reason: str


@dataclass(slots=True)
class ReplayResult:
    """What came of it. Every request is answered, refused or lost, once."""

    requests: int = 0
    answered: int = 0
    late: int = 0
    """Of the answered: after the bound."""
    refused: int = 0
    """By a replica, since it could not have been answered in time."""
    lost: int = 0
    """Waited too long for a first replica, or found none when all was over."""
    replica_seconds: float = 0.0
    """From each decision to start one until it was gone, or the load's end."""
    latencies: MutableSequence[float] = field(default_factory=list)
    """Seconds of the answered, in the order of their answers."""
    waits: MutableSequence[float] = field(default_factory=list)
    """Likewise until their run began."""
    moves: list[ScalingMove] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)
    """By second."""
    running: list[int] = field(default_factory=list)
    """By second."""
    violations_by_second: list[int] = field(default_factory=list)
    """By the second in which the request came."""

    @property
    def violations(self) -> int:
        """Requests that did not get an answer in time."""
        return self.late + self.refused + self.lost

    @property
    def replica_hours(self) -> float:
        """What the replicas cost."""
        return self.replica_seconds / 3600

    @property
    def turns(self) -> int:
        """How often the number changed its direction."""
        signs = [move.after > move.before for move in self.moves]
        return sum(1 for a, b in pairwise(signs) if a != b)

    def latency(self, share: float) -> float:
        """A quantile of the answers' seconds; 0 where there are none."""
        ordered = sorted(self.latencies)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0

    def drop_waits(self) -> None:
        """Keep no request's wait, for those who keep many results; the latencies as single-precision numbers in one piece."""
        self.waits = array("f")
        self.latencies = array("f", self.latencies)


class ReplicaQueue:
    """A replica: what waits, what runs, and when it came."""

    __slots__ = ("batch", "busy_until", "draining", "meter", "ordered_at", "queue", "taking")

    def __init__(self, ordered_at: float) -> None:
        self.ordered_at = ordered_at
        self.queue: deque[float] = deque()
        """Arrival times."""
        self.batch: list[float] = []
        self.busy_until = 0.0
        self.taking = False
        self.draining = False
        self.meter: LoadMeter | None = None

    @property
    def in_flight(self) -> int:
        """Requests that wait or run."""
        return len(self.queue) + len(self.batch)


def simulate(
    case: ReplayCase, arrivals: Sequence[float], seconds: float, policy: ReplayPolicy, seed: int = 0
) -> ReplayResult:
    """Play a load through.

    Args:
        case: service times and limits.
        arrivals: when requests come, in order, from 0.
        seconds: how long the policy decides and replicas cost; what was begun by then is still answered.
        policy: fresh.
        seed: of service times that vary.
    """
    return _Replay(case, arrivals, seconds, policy, seed).run()


class _Replay:
    def __init__(
        self, case: ReplayCase, arrivals: Sequence[float], seconds: float, policy: ReplayPolicy, seed: int
    ) -> None:
        self._case, self._arrivals, self._seconds, self._policy = case, arrivals, seconds, policy
        self._source = random.Random(seed)  # noqa: S311 (nobody gains by guessing them)
        self._events: list[tuple[float, int, int, ReplicaQueue | None]] = []
        self._order = count()
        self._replicas: list[ReplicaQueue] = []
        """All that are not gone, in the order in which they were started."""
        self._taking: list[ReplicaQueue] = []
        self._held: deque[float] = deque()
        self._sight = LoadSight(wanted=case.minimum)
        self._at = 0.0
        self._in_flight = self._busy = 0
        self._sums = [0.0, 0.0, 0.0]
        self._allowance = case.allowance_seconds
        self._times = [0.0, *(case.service.seconds(rows) for rows in range(1, case.service.max_batch + 1))]
        self.result = ReplayResult(requests=len(arrivals), violations_by_second=[0] * (int(seconds) + 1))

    def run(self) -> ReplayResult:
        for _ in range(self._case.minimum):  # what is there from the start is up
            first = ReplicaQueue(0.0)
            self._replicas.append(first)
            self._take_up(first, 0.0)
        self._push(0.0, _TICK, None)
        arrivals, upcoming, events = self._arrivals, 0, self._events
        while events or upcoming < len(arrivals):
            if upcoming < len(arrivals) and (not events or arrivals[upcoming] < events[0][0]):
                self._advance(arrivals[upcoming])
                self._route(arrivals[upcoming], arrivals[upcoming])
                upcoming += 1
                continue
            at, _, kind, replica = heappop(events)
            self._advance(at)
            if kind == _DONE and replica is not None:
                self._finish(replica, at)
            elif kind == _TICK:
                self._tick(at)
            elif replica is not None and not replica.draining:
                self._take_up(replica, at)
        for at in self._held:
            self._violate(at)
        self.result.lost += len(self._held)
        for each in self._replicas:
            self.result.replica_seconds += max(0.0, self._seconds - each.ordered_at)
        return self.result

    def _push(self, at: float, kind: int, replica: ReplicaQueue | None) -> None:
        heappush(self._events, (at, next(self._order), kind, replica))

    def _advance(self, now: float) -> None:
        passed = now - self._at
        if passed > 0:
            self._sums[0] += self._in_flight * passed
            self._sums[1] += self._busy * passed
            self._sums[2] += len(self._taking) * passed
            self._at = now

    def _violate(self, arrival: float) -> None:
        by_second = self.result.violations_by_second
        by_second[min(int(arrival), len(by_second) - 1)] += 1

    def _route(self, arrival: float, now: float) -> None:
        """To the replica with the fewest in flight, or to wait for a first one."""
        if not self._taking:
            self._held.append(arrival)
            self._in_flight += 1
            return
        replica = self._taking[0]
        least = len(replica.queue) + len(replica.batch)
        for each in self._taking:
            own = len(each.queue) + len(each.batch)
            if own < least:
                replica, least = each, own
        if self._expect(replica, now) > self._allowance:
            self.result.refused += 1
            self._violate(arrival)
            if replica.meter is not None:
                replica.meter.refuse(arrived=False)
            return
        self._in_flight += 1
        replica.queue.append(arrival)
        if replica.meter is not None:
            replica.meter.arrive(now)
        if not replica.batch:
            self._begin(replica, now)

    def _expect(self, replica: ReplicaQueue, now: float) -> float:
        """Seconds until one more would be answered, as `Admission.expect` says."""
        total, most = len(replica.queue) + 1, self._case.service.max_batch
        remaining = replica.busy_until - now if replica.batch else 0.0
        if total <= most:
            return remaining + self._times[total]
        return remaining + -(-total // most) * self._times[most]

    def _begin(self, replica: ReplicaQueue, now: float) -> None:
        queue = replica.queue
        rows = min(len(queue), self._case.service.max_batch)
        replica.batch = batch = [queue.popleft() for _ in range(rows)]
        took = self._times[rows]
        if self._case.service.is_exponential:
            took = self._source.expovariate(1 / took)
        replica.busy_until = now + took
        self._busy += 1
        waits = [now - arrival for arrival in batch]
        self.result.waits.extend(waits)
        if replica.meter is not None:
            for wait in waits:
                replica.meter.waits.observe(wait)
        self._push(now + took, _DONE, replica)

    def _finish(self, replica: ReplicaQueue, now: float) -> None:
        bound = self._case.bound_seconds + 1e-9
        self._busy -= 1
        self._in_flight -= len(replica.batch)
        self.result.answered += len(replica.batch)
        for arrival in replica.batch:
            self.result.latencies.append(now - arrival)
            if now - arrival > bound:
                self.result.late += 1
                self._violate(arrival)
            if replica.meter is not None:
                replica.meter.leave(now)
        replica.batch = []
        if replica.queue:
            self._begin(replica, now)
        elif replica.draining:
            self._remove(replica, now)

    def _take_up(self, replica: ReplicaQueue, now: float) -> None:
        replica.taking = True
        self._taking.append(replica)
        if self._policy.reads_replicas:
            replica.meter = LoadMeter(REPORT_SECONDS, now)
        held, self._held = self._held, deque()
        self._in_flight -= len(held)
        for arrival in held:
            self._route(arrival, now)

    def _remove(self, replica: ReplicaQueue, now: float) -> None:
        self._replicas.remove(replica)
        self.result.replica_seconds += max(0.0, min(now, self._seconds) - replica.ordered_at)

    def _tick(self, now: float) -> None:
        """Once a second: sums are kept, and the policy decides when it is its time."""
        sight, case = self._sight, self._case
        for kept, value in zip(
            (sight.in_flight_seconds, sight.busy_seconds, sight.running_seconds), self._sums, strict=True
        ):
            if now > 0:
                kept.append(value)
        while self._held and now - self._held[0] > case.hold_seconds:
            self._violate(self._held.popleft())
            self._in_flight -= 1
            self.result.lost += 1
        for replica in self._taking:
            if replica.meter is not None:
                replica.meter.tick(now)
        if now and now % self._policy.interval == 0:
            self._decide(now)
        self.result.wanted.append(sight.wanted)
        self.result.running.append(len(self._taking))
        if now + 1 < self._seconds:
            self._push(now + 1, _TICK, None)

    def _decide(self, now: float) -> None:
        sight = self._sight
        sight.now, sight.running, sight.held = now, len(self._taking), len(self._held)
        told = {"capacity": self._case.service.capacity}
        sight.replicas = [
            each.meter.stats(now, len(each.queue)).model_copy(update=told)
            for each in self._taking
            if each.meter is not None
        ]
        number, reason = self._policy.decide(sight)
        number = max(self._case.minimum, min(self._case.maximum, number))
        if number != sight.wanted:
            self.result.moves.append(ScalingMove(now, sight.wanted, number, reason))
            self._scale(number, now)
            sight.wanted = number

    def _scale(self, number: int, now: float) -> None:
        staying = [each for each in self._replicas if not each.draining]
        for _ in range(number - len(staying)):
            replica = ReplicaQueue(now)
            self._replicas.append(replica)
            self._push(now + self._case.start_seconds, _UP, replica)
        # Those that still start go first, as with Serve; then the newest.
        going = sorted(staying, key=lambda each: (not each.taking, each.ordered_at), reverse=True)
        for replica in going[: max(0, len(staying) - number)]:
            replica.draining = True
            if replica.taking:
                self._taking.remove(replica)
            if not replica.in_flight:
                self._remove(replica, now)
