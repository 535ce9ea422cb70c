"""The scaling policy: demand, limits, state and time in; replicas, state and a reason out.

Up at once, down only to the highest number that was wanted within the stabilisation window, so that a load that comes
and goes faster than the window does not make replicas come and go. By Little's law, requests in flight are arrival rate
times residence time, so sharing them out at `target_in_flight` each needs no model of the service time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from penstock.routing.leases import ReplicaStats

FIRST_REPLICA_SECONDS: Final = 15.0
"""A model's first replica stays this long even if nobody asks, so that whoever waits for it sees it."""
_SLO_SHARE_IN_QUEUE: Final = 0.5
"""Waiting for the engine may use this share of the latency objective before another replica is added."""
_BUSY_SHARE: Final = 0.5
"""Below this share of the target in flight, a long wait is a blip and not load."""


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


@dataclass(frozen=True, slots=True)
class Decision:
    """How many replicas, and why in a sentence."""

    replicas: int
    state: ScalingState
    cause: str
    """The reason without the number."""

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
    wanted, reason = _recommend(demand, current, limits, now - since)
    window = _remember(history, wanted, now, limits.stabilization_window_seconds)
    highest = window[0][1]
    replicas, held = wanted, ""
    idle = wanted == 0 and limits.minimum == 0
    if not idle and highest > wanted and current > wanted:
        replicas = min(highest, current)
        if replicas > wanted:
            held = f", held since {replicas} were wanted in the last {limits.stabilization_window_seconds:g} s"
    replicas = max(limits.minimum, min(limits.maximum, replicas))
    return Decision(replicas, ScalingState(window, since), reason + held)


def _recommend(demand: Demand, current: int, limits: ScalingLimits, age: float) -> tuple[int, str]:
    load = sum(max(each.in_flight, each.queued) for each in demand.replicas) + demand.waking
    by_load = math.ceil(load / limits.target_in_flight - 1e-9)
    reason = f"{load:.0f} requests in flight at a target of {limits.target_in_flight:g} each"
    wanted = by_load
    slow = _slow_replicas(demand, limits)
    if slow and current + 1 > wanted and current == len(demand.replicas):
        wanted = current + 1
        reason = f"requests wait {slow:.3g} s for the engine, of an objective of {limits.slo_seconds:g} s"
    if demand.silent and wanted < current:
        return current, f"{demand.silent} of {current} replicas have not reported yet"
    if wanted == 0:
        return _recommend_at_rest(demand, current, limits, age)
    if wanted > limits.maximum:
        reason += f", at the maximum of {limits.maximum}"
    elif wanted < limits.minimum:
        reason += f", at the minimum of {limits.minimum}"
    return wanted, reason


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
