"""The scaling policy: demand, limits, state and time in; replicas, state and a reason out.

Up at once, down only to the highest number that was wanted within the stabilisation window, so that a load that comes
and goes faster than the window does not make replicas come and go.

Two rules say how many, and the larger number counts. By Little's law, requests in flight are arrival rate times residence
time, so sharing them out at `target_in_flight` each needs no model of the service time; but where requests are joined, one
replica holds many at its limit and two hold few, so that rule alone swings between both. Where replicas say what they can
answer in time, the rate of arrivals decides: ⌈rate / (0.8 · capacity)⌉. The rate is smoothed over 20 s, since that of five
seconds varies by chance; as soon as the latter comes near what is there, it counts (a panic, in Knative's word).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from penstock.routing.leases import ReplicaStats

FIRST_REPLICA_SECONDS: Final = 15.0
"""A model's first replica stays this long even if nobody asks, so that whoever waits for it sees it."""
_SLO_SHARE_IN_QUEUE: Final = 0.5
"""Waiting for the engine may use this share of the latency objective before another replica is added."""
_BUSY_SHARE: Final = 0.5
"""Below this share of the target in flight, a long wait is a blip and not load."""
_UTILIZATION: Final = 0.8
"""Of a replica's capacity that arrivals should take; the rest is for chance, and for growth while another one starts."""
_PANIC_UTILIZATION: Final = 0.95
"""From here on the rate of the last seconds counts."""
_KEPT_SHARE: Final = 0.9
"""Fewer only where these would be used to this share of `_UTILIZATION`: a rate at a boundary must not swing."""
_SMOOTHING_SECONDS: Final = 20.0
"""Time constant of the smoothed rate."""


class ScalingRule(StrEnum):
    """What decided a number."""

    IN_FLIGHT = "InFlight"
    """Requests in flight, shared out at the target."""
    RATE = "Rate"
    """Arrivals, against what a replica answers in time."""
    QUEUE_WAIT = "QueueWait"
    """Requests waited too long for the engine."""
    SILENCE = "Silence"
    """Replicas have not reported, so there are no fewer than before."""
    REST = "Rest"
    """Nothing is asked."""
    FIXED = "Fixed"
    """The spec says the number."""
    OUTSIDE = "Outside"
    """Somebody else has written the number by `/scale`."""


@dataclass(frozen=True, slots=True)
class ScalingLimits:
    """What the user allows."""

    minimum: int = 1
    maximum: int = 1
    target_in_flight: float = 16.0
    """Requests that one replica should hold, queued and executing."""
    stabilization_window_seconds: float = 60.0
    scale_to_zero_after_seconds: float = 300.0
    slo_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of the model now."""

    replicas: Sequence[ReplicaStats] = ()
    """One per replica that reports."""
    silent: int = 0
    """Running replicas that have not reported yet."""
    waking: float = 0.0
    """Requests that wait for a first replica."""


@dataclass(frozen=True, slots=True)
class ScalingState:
    """What one decision leaves for the next."""

    recommendations: tuple[tuple[float, int], ...] = ()
    """(time, replicas), oldest first, of falling height: only those that can still be the window's highest."""
    since: float | None = None
    """When the first decision was made."""
    rate: float | None = None
    """Requests a second, smoothed; None: not known yet."""
    rate_at: float = 0.0
    """When that was."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How many replicas, and why in a sentence."""

    replicas: int
    state: ScalingState
    cause: str
    """The reason without the number."""
    rule: ScalingRule = ScalingRule.IN_FLIGHT
    unbounded: int = 0
    """What it would be without minimum and maximum."""

    @property
    def reason(self) -> str:
        """The number and its cause."""
        return f"{self.replicas}: {self.cause}"


def decide(demand: Demand, current: int, limits: ScalingLimits, state: ScalingState, now: float) -> Decision:
    """The number of replicas wanted.

    Args:
        demand: what is asked of the model.
        current: replicas wanted until now.
        limits: bounds and targets.
        state: what the last decision left; empty after a restart, which counts `current` as just recommended.
        now: seconds, of any clock that does not go back.
    """
    first = state.since is None
    since = now if state.since is None else state.since
    history = ((now, current),) if first and current > 0 else state.recommendations
    rate, rate_at = _smooth(demand, state, now)
    wanted, reason, rule = _recommend(demand, current, limits, now - since, rate)
    window = _remember(history, wanted, now, limits.stabilization_window_seconds)
    highest = window[0][1]
    replicas, held = wanted, ""
    idle = wanted == 0 and limits.minimum == 0
    if not idle and highest > wanted and current > wanted:
        replicas = min(highest, current)
        if replicas > wanted:
            held = f", held since {replicas} were wanted in the last {limits.stabilization_window_seconds:g} s"
    bounded = max(limits.minimum, min(limits.maximum, replicas))
    return Decision(bounded, ScalingState(window, since, rate, rate_at), reason + held, rule, replicas)


def _smooth(demand: Demand, state: ScalingState, now: float) -> tuple[float | None, float]:
    """The smoothed rate of arrivals, and when it was; as before while some replica does not report, whose arrivals are not known."""
    if demand.silent or not demand.replicas:
        return state.rate, state.rate_at
    rate = sum(each.arrival_rate for each in demand.replicas)
    if state.rate is None:
        return rate, now
    share = math.exp(-max(0.0, now - state.rate_at) / _SMOOTHING_SECONDS)
    return rate + (state.rate - rate) * share, now


def _count_by_rate(demand: Demand, current: int, smoothed: float | None) -> tuple[int, str]:
    """The number by arrivals; 0 where replicas do not say what they can answer."""
    told = [each.capacity for each in demand.replicas if each.capacity > 0]
    if not told or smoothed is None:
        return 0, ""
    capacity = sum(told) / len(told)
    fast = sum(each.arrival_rate for each in demand.replicas)
    panics = fast > _PANIC_UTILIZATION * capacity * current
    rate = max(fast, smoothed) if panics else smoothed
    wanted = math.ceil(rate / (_UTILIZATION * capacity) - 1e-9)
    if wanted < current:
        wanted = min(current, math.ceil(rate / (_KEPT_SHARE * _UTILIZATION * capacity) - 1e-9))
    if wanted == 1 and fast == 0:
        wanted = 0  # a smoothed rate never falls to nothing; whether the last one goes is for the rule of rest
    said = f"{rate:.3g} requests/s{' in the last seconds' if panics else ''}"
    return wanted, f"{said}, of {capacity:.3g} that a replica answers in time"


def _recommend(
    demand: Demand, current: int, limits: ScalingLimits, age: float, rate: float | None
) -> tuple[int, str, ScalingRule]:
    load = sum(max(each.in_flight, each.queued) for each in demand.replicas) + demand.waking
    by_load = math.ceil(load / limits.target_in_flight - 1e-9)
    reason = f"{load:.0f} requests in flight at a target of {limits.target_in_flight:g} each"
    wanted, rule = by_load, ScalingRule.IN_FLIGHT
    by_rate, said = _count_by_rate(demand, current, rate)
    if by_rate > wanted:
        wanted, reason, rule = by_rate, said, ScalingRule.RATE
    # What can be answered in time holds the wait already.
    slow = 0.0 if said else _slow_replicas(demand, limits)
    if slow and current + 1 > wanted and current == len(demand.replicas):
        wanted, rule = current + 1, ScalingRule.QUEUE_WAIT
        reason = f"requests wait {slow:.3g} s for the engine, of an objective of {limits.slo_seconds:g} s"
    if demand.silent and wanted < current:
        return current, f"{demand.silent} of {current} replicas have not reported yet", ScalingRule.SILENCE
    if wanted == 0:
        return *_recommend_at_rest(demand, current, limits, age), ScalingRule.REST
    if wanted > limits.maximum:
        reason += f", at the maximum of {limits.maximum}"
    elif wanted < limits.minimum:
        reason += f", at the minimum of {limits.minimum}"
    return wanted, reason, rule


def _slow_replicas(demand: Demand, limits: ScalingLimits) -> float:
    """The longest queue wait (p95, seconds) of a busy replica, where it is more than its share of the objective."""
    if limits.slo_seconds is None:
        return 0.0
    busy = [
        each.queue_wait_p95_seconds
        for each in demand.replicas
        if max(each.in_flight, each.queued) >= _BUSY_SHARE * limits.target_in_flight
    ]
    longest = max(busy, default=0.0)
    return longest if longest > _SLO_SHARE_IN_QUEUE * limits.slo_seconds else 0.0


def _recommend_at_rest(demand: Demand, current: int, limits: ScalingLimits, age: float) -> tuple[int, str]:
    if limits.minimum > 0:
        return limits.minimum, f"no requests in flight, at the minimum of {limits.minimum}"
    if age < FIRST_REPLICA_SECONDS:
        return 1, "a first replica proves that the model can be served"
    if current == 0:
        return 0, "no requests"
    idle = min((each.idle_seconds for each in demand.replicas), default=0.0)
    after = limits.scale_to_zero_after_seconds
    if idle < after:
        return 1, f"no requests in flight; none for {after:g} s makes it zero"
    return 0, f"no requests for {after:g} s"


def _remember(
    history: tuple[tuple[float, int], ...], wanted: int, now: float, window: float
) -> tuple[tuple[float, int], ...]:
    """The window's candidates for the highest, newest last: what is lower than a later one can never be the highest."""
    kept = [each for each in history if now - each[0] <= window and each[1] > wanted]
    return (*kept, (now, wanted))
