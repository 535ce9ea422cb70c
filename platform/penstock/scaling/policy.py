"""The scaling policy: demand, limits, state and time in; replicas, state and a reason out.

Where replicas say what they can answer in time, the **rate** of arrivals decides, by what a missed request costs
(`penstock.scaling.staffing`). The rate is smoothed over 20 s, since that of five seconds varies by chance; where it differs from
that by more than chance (three standard deviations of a Poisson count), it counts at once. What is there is let go only where
the smoothed rate would not need it were it two standard errors higher. Where they do not say it, **requests in flight** decide,
shared out at `target_in_flight` each: by Little's law they are arrival rate times residence time, and need no model of the
service time. A target that the user set counts always; the larger number wins.

Up at once; down only to the highest number that was wanted within the stabilisation window, and not below the **floor** that would
have been the cheapest to keep in the last quarter of an hour (`penstock.scaling.hindsight`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from penstock.routing.leases import ReplicaStats
from penstock.scaling.hindsight import BIN_SECONDS, NO_FLOOR, REMEMBERED, Floor, Staffing, cheapest_floor

FIRST_REPLICA_SECONDS: Final = 15.0
"""A model's first replica stays this long even if nobody asks, so that whoever waits for it sees it."""
MISS_WEIGHT: Final = 16.0
"""Answered requests that a missed one weighs, where nobody says otherwise."""
_SLO_SHARE_IN_QUEUE: Final = 0.5
"""Waiting for the engine may use this share of the latency objective; a run of the engine has the rest."""
_SLACK_SECONDS: Final = 1.0
"""How long a request may wait where there is no objective."""
_BUSY_SHARE: Final = 0.5
"""Below this share of the target in flight, a long wait is a blip and not load."""
_PATIENCE_SECONDS: Final = 20.0
"""Waits longer than the objective allows last so long after a burst; longer ones tell that replicas answer less than they say."""
_CARRIED_SHARE: Final = 0.8
"""Of what replicas say that they can answer: below it, nobody waits long."""
_SHORT_SECONDS: Final = 20.0
_LONG_SECONDS: Final = 60.0
"""Time constants of the smoothed rates."""
_REPORT_SECONDS: Final = 5.0
"""Over which the rates that replicas report are means."""
_LEAST_OPEN: Final = 0.1
"""Share of the time in which some replica had room: from less than that no rate is concluded."""
_JUMP_DEVIATIONS: Final = 4.0
_TREND_DEVIATIONS: Final = 2.5
_KEPT_DEVIATIONS: Final = 3.0
_START_SECONDS: Final = 20.0
"""From a decision to a replica that reports, before one was seen."""


class ScalingRule(StrEnum):
    """What decided a number."""

    IN_FLIGHT = "InFlight"
    """Requests in flight, shared out at the target."""
    RATE = "Rate"
    """Arrivals, against what a replica answers in time."""
    RECURRENCE = "Recurrence"
    """Load that came back so often that it is cheaper to keep replicas than to start them anew."""
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
    is_target_set: bool = False
    """Whether the user said so. Where not, it counts only until replicas know what they can answer."""
    stabilization_window_seconds: float = 60.0
    scale_to_zero_after_seconds: float = 300.0
    slo_seconds: float | None = None
    miss_weight: float = MISS_WEIGHT
    """Answered requests that one weighs which gets no answer in time."""
    forecast: bool = True
    """Whether growth that is under way is carried on, and replicas are kept for load that comes back."""

    @property
    def slack_seconds(self) -> float:
        """How long a request may wait for the engine."""
        return _SLACK_SECONDS if self.slo_seconds is None else _SLO_SHARE_IN_QUEUE * self.slo_seconds


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
    levels: tuple[float, ...] = ()
    """Requests a second, smoothed over `_SHORT_SECONDS` and `_LONG_SECONDS`; empty: not known yet."""
    rate_at: float = 0.0
    """When that was."""
    capacity: float = 0.0
    """Requests a second that a replica answers in time, as was said last; 0: never."""
    rates: tuple[float, ...] = ()
    """Those remembered, oldest first, one each `BIN_SECONDS`."""
    remembered_at: float = 0.0
    """When the last one was."""
    floor: Floor = NO_FLOOR
    """As of then."""
    start_seconds: float | None = None
    """From a decision to as many replicas as it wanted, as last seen; None: not seen yet."""
    ordered: tuple[float, int] | None = None
    """When more were wanted than report, and how many; None: there are as many as are wanted."""
    late_since: float | None = None
    """Since when requests have waited longer than the objective allows, with all replicas there; None: they do not."""
    forecast: bool = True
    """`ScalingLimits.forecast`, as of the last decision."""

    @property
    def rate(self) -> float | None:
        """Requests a second that are to be carried; None: not known yet."""
        ahead = (self.start_seconds or _START_SECONDS) if self.forecast else None
        return _foresee(self.levels, ahead) if self.levels else None


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


@dataclass(frozen=True, slots=True)
class _Wish:
    """What one rule wants."""

    replicas: int
    cause: str
    rule: ScalingRule


def decide(demand: Demand, current: int, limits: ScalingLimits, state: ScalingState, now: float) -> Decision:
    """The number of replicas wanted.

    Args:
        demand: what is asked of the model.
        current: replicas wanted until now.
        limits: bounds and targets.
        state: what the last decision left; empty after a restart, which counts `current` as just recommended.
        now: seconds, of any clock that does not go back.
    """
    state = _observe(demand, current, limits, state, now)
    wish = _recommend(demand, current, limits, state, now)
    window = _remember(state.recommendations, wish.replicas, now, limits.stabilization_window_seconds)
    replicas, cause, rule = wish.replicas, wish.cause, wish.rule
    is_idle = replicas == 0 and limits.minimum == 0
    if not is_idle and (highest := min(window[0][1], current)) > replicas:
        replicas = highest
        cause += f", held since {replicas} were wanted in the last {limits.stabilization_window_seconds:g} s"
    if not is_idle and state.floor.replicas > max(replicas, limits.minimum):
        replicas, rule = state.floor.replicas, ScalingRule.RECURRENCE
        cause = _explain_floor(state, limits)
    if replicas > limits.maximum:
        cause += f", at the maximum of {limits.maximum}"
    elif replicas < limits.minimum and wish.rule is not ScalingRule.REST:
        cause += f", at the minimum of {limits.minimum}"
    bounded = max(limits.minimum, min(limits.maximum, replicas))
    return Decision(bounded, replace(state, recommendations=window), cause, rule, replicas)


def _explain_floor(state: ScalingState, limits: ScalingLimits) -> str:
    minutes = len(state.rates) * BIN_SECONDS / 60
    floor = state.floor
    return (
        f"the load comes back: {floor.replicas} kept would have answered {floor.spared:.0f} missed requests of the last "
        f"{minutes:.0f} min, each worth {limits.miss_weight:g} others, for {floor.replica_seconds:.0f} replica-seconds"
    )


def _observe(demand: Demand, current: int, limits: ScalingLimits, state: ScalingState, now: float) -> ScalingState:
    """The state with what is seen now."""
    if state.since is None:
        state = replace(state, since=now, recommendations=((now, current),) if current > 0 else ())
    told = [each.capacity for each in demand.replicas if each.capacity > 0]
    state = replace(
        state,
        levels=_smooth(demand, state, now),
        forecast=limits.forecast,
        rate_at=now,
        capacity=sum(told) / len(told) if told else state.capacity,
    )
    late = state.late_since if state.late_since is not None else now
    state = replace(state, late_since=late if _slow_replicas(demand, current, limits, state) else None)
    state = _time_start(demand, current, state, now)
    return _look_back(limits, state, now)


def _smooth(demand: Demand, state: ScalingState, now: float) -> tuple[float, ...]:
    """The smoothed rate of arrivals; never lower while some replica does not report, whose arrivals are not known."""
    if not demand.replicas:
        return state.levels
    fast = _arrivals(demand)
    if not state.levels:
        return fast, fast
    if demand.silent:
        return tuple(max(each, fast) for each in state.levels)
    short, long = state.levels
    if abs(fast - short) > _JUMP_DEVIATIONS * math.sqrt(max(short, 1 / _REPORT_SECONDS) / _REPORT_SECONDS):
        return fast, fast
    passed = max(0.0, now - state.rate_at)
    return tuple(
        fast + (level - fast) * math.exp(-passed / seconds)
        for level, seconds in zip((short, long), (_SHORT_SECONDS, _LONG_SECONDS), strict=True)
    )


def _arrivals(demand: Demand) -> float:
    """Requests a second of all replicas, those among them that gateways refused since none had room.

    A replica that has just come gets what others got before: its one second and their five, each taken for the rate of now, would
    count the same requests twice. So it counts by how much of their interval it was there.

    What comes while all are full is refused at the gateways, and no replica is told. Arrivals that do not depend on what is there
    find all full as often as all are ("PASTA": Wolff 1982), which is, by what each says of itself, at least the sum of the
    shares of time less n - 1 (Fréchet's bound). What was seen came in the rest of the time.
    """
    spans = [min(each.interval_seconds or _REPORT_SECONDS, _REPORT_SECONDS) for each in demand.replicas]
    came = sum(each.arrival_rate * span for each, span in zip(demand.replicas, spans, strict=True))
    all_full = sum(each.full_share for each in demand.replicas) - (len(demand.replicas) - 1)
    return came / max(spans, default=_REPORT_SECONDS) / min(1.0, max(1 - all_full, _LEAST_OPEN))


def _foresee(levels: tuple[float, ...], start_seconds: float | None) -> float:
    """The rate when a replica that is started now is there; without the time of a start, the rate as it is.

    The long level, or where the short one differs from it by more than chance, what that comes to if the rate goes on growing.
    """
    short, long = levels
    if abs(short - long) <= _TREND_DEVIATIONS * math.sqrt(long / (2 * _SHORT_SECONDS)):
        return long
    if start_seconds is None:
        return short
    # The mean of a growing rate lags behind it by its time constant.
    growth = max(0.0, short - long) / (_LONG_SECONDS - _SHORT_SECONDS)
    return short + growth * (_SHORT_SECONDS + start_seconds)


def _time_start(demand: Demand, current: int, state: ScalingState, now: float) -> ScalingState:
    """How long it takes until as many report as were wanted when there were fewer first."""
    there, ordered, took = len(demand.replicas), state.ordered, state.start_seconds
    if ordered is not None and there >= ordered[1]:
        took = now - ordered[0]
        ordered = None
    if there >= current:
        ordered = None
    elif ordered is None:
        ordered = (now, current)
    return replace(state, ordered=ordered, start_seconds=took)


def _look_back(limits: ScalingLimits, state: ScalingState, now: float) -> ScalingState:
    """Remember the rate each `BIN_SECONDS`, and what floor would have been the cheapest with it."""
    passed = now - state.remembered_at if state.rates else BIN_SECONDS
    if state.rate is None or passed < BIN_SECONDS:
        return state
    bins = min(REMEMBERED, int(passed / BIN_SECONDS))
    rates = (*state.rates, *[state.rate] * bins)[-REMEMBERED:]
    floor = NO_FLOOR
    if state.capacity > 0 and limits.forecast:
        staffing = Staffing(
            state.capacity,
            limits.slack_seconds,
            limits.miss_weight,
            _START_SECONDS if state.start_seconds is None else state.start_seconds,
            limits.stabilization_window_seconds,
        )
        floor = cheapest_floor(rates, staffing, limits.minimum, limits.maximum)
    return replace(state, rates=rates, remembered_at=now, floor=floor)


def _recommend(demand: Demand, current: int, limits: ScalingLimits, state: ScalingState, now: float) -> _Wish:
    """What is wanted now, whatever was wanted before."""
    wish = _count_by_load(demand, limits)
    knows = state.capacity > 0 and state.rate is not None and bool(demand.replicas)
    if knows:
        by_rate = _count_by_rate(demand, current, limits, state)
        wish = wish if limits.is_target_set and wish.replicas > by_rate.replicas else by_rate
    wait = _slow_replicas(demand, current, limits, state)
    patience = _PATIENCE_SECONDS if knows else 0.0
    if wait and state.late_since is not None and now - state.late_since >= patience and current + 1 > wish.replicas:
        cause = f"requests wait {wait:.3g} s for the engine, of an objective of {limits.slo_seconds:g} s"
        wish = _Wish(current + 1, cause, ScalingRule.QUEUE_WAIT)
    if demand.silent and wish.replicas < current:
        return _Wish(current, f"{demand.silent} of {current} replicas have not reported yet", ScalingRule.SILENCE)
    if wish.replicas == 0:
        return _recommend_at_rest(demand, current, limits, now - (state.since or 0.0))
    return wish


def _count_by_load(demand: Demand, limits: ScalingLimits) -> _Wish:
    load = sum(max(each.in_flight, each.queued) for each in demand.replicas) + demand.waking
    cause = f"{load:.0f} requests in flight at a target of {limits.target_in_flight:g} each"
    return _Wish(math.ceil(load / limits.target_in_flight - 1e-9), cause, ScalingRule.IN_FLIGHT)


def _count_by_rate(demand: Demand, current: int, limits: ScalingLimits, state: ScalingState) -> _Wish:
    """The number by arrivals; of those there are, what the rate's standard error would need stays."""
    rate = state.rate or 0.0
    staffing = Staffing(state.capacity, limits.slack_seconds, limits.miss_weight, 0.0)
    wanted = staffing.count(rate)
    if wanted < current:
        error = math.sqrt(rate / (2 * _LONG_SECONDS))
        wanted = min(current, max(wanted, staffing.count(rate + _KEPT_DEVIATIONS * error)))
    fast = _arrivals(demand)
    busy = any(each.in_flight > 0 or each.queued > 0 for each in demand.replicas)
    if wanted <= 1:
        # A smoothed rate never falls to nothing; whether the last one goes is for the rule of rest.
        wanted = int(fast > 0 or busy)
    cause = f"{rate:.3g} requests/s, of {state.capacity:.3g} that a replica answers in time"
    return _Wish(wanted, cause, ScalingRule.RATE)


def _slow_replicas(demand: Demand, current: int, limits: ScalingLimits, state: ScalingState) -> float:
    """The longest queue wait (p95, seconds) of a busy replica, where it is more than its share of the objective.

    Only while all are there and are, by what they say that they can answer, enough.
    """
    if limits.slo_seconds is None or current != len(demand.replicas):
        return 0.0
    if state.capacity > 0 and (state.rate or 0.0) > _CARRIED_SHARE * current * state.capacity:
        return 0.0
    busy = [
        each.queue_wait_p95_seconds
        for each in demand.replicas
        if max(each.in_flight, each.queued) >= _BUSY_SHARE * limits.target_in_flight
    ]
    longest = max(busy, default=0.0)
    return longest if longest > _SLO_SHARE_IN_QUEUE * limits.slo_seconds else 0.0


def _recommend_at_rest(demand: Demand, current: int, limits: ScalingLimits, age: float) -> _Wish:
    if limits.minimum > 0:
        return _Wish(limits.minimum, f"no requests in flight, at the minimum of {limits.minimum}", ScalingRule.REST)
    if age < FIRST_REPLICA_SECONDS:
        return _Wish(1, "a first replica proves that the model can be served", ScalingRule.REST)
    if current == 0:
        return _Wish(0, "no requests", ScalingRule.REST)
    idle = min((each.idle_seconds for each in demand.replicas), default=0.0)
    after = limits.scale_to_zero_after_seconds
    if idle < after:
        return _Wish(1, f"no requests in flight; none for {after:g} s makes it zero", ScalingRule.REST)
    return _Wish(0, f"no requests for {after:g} s", ScalingRule.REST)


def _remember(
    history: tuple[tuple[float, int], ...], wanted: int, now: float, window: float
) -> tuple[tuple[float, int], ...]:
    """The window's candidates for the highest, newest last: what is lower than a later one can never be the highest."""
    kept = [each for each in history if now - each[0] <= window and each[1] > wanted]
    return (*kept, (now, wanted))
