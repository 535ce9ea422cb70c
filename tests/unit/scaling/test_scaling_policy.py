"""The scaling policy: decisions by demand, and a load that is played through."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace

import pytest
from tests.telling import Telling

from penstock.routing.leases import ReplicaStats
from penstock.scaling.policy import Demand, ScalingLimits, ScalingState, decide
from penstock.serving.arguments import ScalingSettings, UserConfig
from penstock_serving.replica.policy import desired_replicas, statistics

LIMITS = ScalingLimits(minimum=1, maximum=8, target_in_flight=16)
TO_ZERO = ScalingLimits(minimum=0, maximum=8, target_in_flight=16, scale_to_zero_after_seconds=30)
SLO = ScalingLimits(minimum=1, maximum=8, target_in_flight=16, slo_seconds=0.1)
OLD = ScalingState((), since=-1000.0)
"""Of a policy that has run for long and recommended nothing in the window."""


def held(count: int, at: float = -10.0) -> ScalingState:
    return ScalingState(((at, count),), since=-1000.0)


def each(number: int, **stats: float) -> list[ReplicaStats]:
    return [ReplicaStats(**stats)] * number


DECISIONS = [
    ("no load stays at the minimum", Demand(each(1)), 1, LIMITS, OLD, 1),
    ("61 in flight at 16 each is four", Demand(each(1, in_flight=61)), 1, LIMITS, OLD, 4),
    ("exactly on target is enough", Demand(each(2, in_flight=16)), 2, LIMITS, OLD, 2),
    (
        "what waits now counts where it is more than the mean",
        Demand(each(1, in_flight=2, queued=40)),
        1,
        LIMITS,
        OLD,
        3,
    ),
    ("more than the maximum is the maximum", Demand(each(1, in_flight=1000)), 1, LIMITS, OLD, 8),
    ("down at once where nothing more was wanted lately", Demand(each(4, in_flight=1)), 4, LIMITS, OLD, 1),
    ("down only to the window's highest", Demand(each(4, in_flight=1)), 4, LIMITS, held(3), 3),
    ("down past what left the window", Demand(each(4, in_flight=1)), 4, LIMITS, held(3, at=-61), 1),
    ("a silent replica forbids to go down", Demand(each(1), silent=3), 4, LIMITS, OLD, 4),
    ("a silent replica does not forbid to go up", Demand(each(1, in_flight=99), silent=1), 2, LIMITS, OLD, 7),
    ("a restarted policy holds what there is", Demand(each(5)), 5, LIMITS, ScalingState(), 5),
    ("a long wait while busy adds one", Demand(each(2, in_flight=12, queue_wait_p95_seconds=0.06)), 2, SLO, OLD, 3),
    ("a long wait while idle does not", Demand(each(2, in_flight=1, queue_wait_p95_seconds=0.06)), 2, SLO, OLD, 1),
    ("a short wait does not", Demand(each(2, in_flight=12, queue_wait_p95_seconds=0.04)), 2, SLO, OLD, 2),
    ("idle for long enough is zero", Demand(each(1, idle_seconds=30)), 1, TO_ZERO, held(1), 0),
    ("idle for less is one", Demand(each(1, idle_seconds=29)), 1, TO_ZERO, OLD, 1),
    ("one of two is not idle", Demand([*each(1, idle_seconds=99), *each(1)]), 2, TO_ZERO, OLD, 1),
    ("at zero without requests stays zero", Demand(), 0, TO_ZERO, OLD, 0),
    ("at zero a waiting request wakes one", Demand(waking=1), 0, TO_ZERO, OLD, 1),
    ("at zero many waiting requests wake many", Demand(waking=50), 0, TO_ZERO, OLD, 4),
    ("the first decision starts one even at a minimum of zero", Demand(), 0, TO_ZERO, ScalingState(), 1),
]


@pytest.mark.parametrize(
    ("demand", "current", "limits", "state", "replicas"), [row[1:] for row in DECISIONS], ids=[r[0] for r in DECISIONS]
)
def test_decision(demand: Demand, current: int, limits: ScalingLimits, state: ScalingState, replicas: int) -> None:
    decision = decide(demand, current, limits, state, now=0.0)
    assert decision.replicas == replicas
    assert decision.reason.startswith(f"{replicas}: ")


def at_rate(number: int, rate: float, **stats: float) -> list[ReplicaStats]:
    """Replicas that share a rate of arrivals, and can answer 8 requests a second each."""
    return each(number, arrival_rate=rate / number, capacity=8.0, **stats)


AT_RATES = [
    ("40 requests/s of 8 each, used to four fifths, are seven", at_rate(7, 40), 7, None, 7),
    ("a jump of the rate counts at once", at_rate(1, 40), 1, 4.0, 7),
    ("a short rise that is carried waits for the smoothed rate", at_rate(4, 29), 4, 20.0, 4),
    ("a rate a little below a boundary keeps the number", at_rate(5, 25.5), 5, 25.5, 5),
    ("a rate well below a boundary does not", at_rate(5, 19), 5, 19.0, 4),
    ("what waits counts beside the rate", at_rate(1, 1, in_flight=61), 1, 1.0, 4),
    ("a long wait adds none where the capacity is known", at_rate(2, 10, in_flight=12, queue_wait_p95_seconds=0.06), 2, 10.0, 2),
    ("without a capacity the rate says nothing", each(1, arrival_rate=500.0), 1, 500.0, 1),
]  # fmt: skip


@pytest.mark.parametrize(
    ("replicas", "current", "smoothed", "expected"), [row[1:] for row in AT_RATES], ids=[row[0] for row in AT_RATES]
)
def test_decision_by_rate(replicas: list[ReplicaStats], current: int, smoothed: float | None, expected: int) -> None:
    state = ScalingState((), since=-1000.0, rate=smoothed, rate_at=0.0)
    assert decide(Demand(replicas), current, SLO, state, now=0.0).replicas == expected


def test_a_constant_rate_at_the_limit_of_a_replica_does_not_swing() -> None:
    """One replica holds many requests where two hold few: by requests in flight alone the number swung between both."""
    state, target, history = ScalingState(), 1, []
    for second in range(1200):
        in_flight = 16.0 if target == 1 else 1.5
        decision = decide(Demand(at_rate(target, 8.0, in_flight=in_flight)), target, SLO, state, float(second))
        state, target = decision.state, decision.replicas
        history.append(target)
    assert history[-1] == 2
    assert turns(history) == 0


def test_a_rate_that_has_ended_lets_the_last_replica_go() -> None:
    state = ScalingState((), since=-1000.0, rate=5.0, rate_at=0.0)
    decision = decide(Demand(at_rate(1, 0, idle_seconds=31)), 1, TO_ZERO, state, now=31.0)
    assert decision.replicas == 0


def test_the_smoothed_rate_of_before_a_rest_counts_no_more_after_it() -> None:
    state = decide(Demand(), 0, TO_ZERO, ScalingState((), since=-1000.0, rate=500.0, rate_at=0.0), now=900.0).state
    assert decide(Demand(at_rate(1, 1)), 1, TO_ZERO, state, now=900.0).replicas == 1


def test_the_smoothed_rate_stays_while_a_replica_is_silent() -> None:
    state = ScalingState((), since=-1000.0, rate=30.0, rate_at=0.0)
    decision = decide(Demand(at_rate(3, 1), silent=2), 5, LIMITS, state, now=60.0)
    assert decision.replicas == 5
    assert decision.state.rate == 30.0


def test_the_reason_names_demand_and_target() -> None:
    decision = decide(Demand(each(1, in_flight=61)), 1, LIMITS, OLD, 0.0)
    assert decision.reason == Telling("4 61 in flight target 16")


def play(load: Callable[[int], float], seconds: int, limits: ScalingLimits) -> list[int]:
    """Replicas second by second; a new replica takes three seconds to come, and load spreads evenly over those there."""
    state, target, history = ScalingState(), limits.minimum, []
    arrivals: list[int] = [0] * target
    for second in range(seconds):
        running = sum(1 for since in arrivals if second >= since)
        share = load(second) / running if running else 0.0
        demand = Demand(each(running, in_flight=share), silent=0, waking=0.0 if running else load(second))
        decision = decide(demand, target, limits, state, float(second))
        target, state = decision.replicas, decision.state
        arrivals = arrivals[:target] + [second + 3] * (target - len(arrivals))
        history.append(target)
    return history


def turns(history: list[int]) -> int:
    """How often the direction changes."""
    steps = [b - a for a, b in pairwise(history) if a != b]
    return sum(1 for a, b in pairwise(steps) if a * b < 0)


def test_a_step_of_load_goes_up_once_and_down_once() -> None:
    history = play(lambda s: 60.0 if 20 <= s < 120 else 4.0, 300, LIMITS)
    assert history[19] == 1
    assert history[25] == 4
    assert history[119] == 4
    assert history[-1] == 1
    assert turns(history) == 1


def test_a_load_that_swings_faster_than_the_window_does_not_move_replicas() -> None:
    history = play(lambda s: 60.0 if s % 20 < 10 else 4.0, 400, LIMITS)
    assert set(history[30:]) == {4}


def test_noise_about_a_boundary_does_not_oscillate() -> None:
    history = play(lambda s: 32.0 + 3 * math.sin(s), 600, LIMITS)
    assert turns(history) == 0


def test_the_state_does_not_grow_with_time() -> None:
    state, target = ScalingState(), 1
    for tick in range(5000):
        decision = decide(Demand(each(1, in_flight=tick % 100)), target, LIMITS, state, tick / 10)
        state, target = decision.state, decision.replicas
    assert len(state.recommendations) <= LIMITS.maximum + 1


def test_the_same_reports_give_the_same_decisions() -> None:
    reports = [Demand(each(2, in_flight=(7 * n) % 50)) for n in range(100)]

    def run() -> list[str]:
        state, target, reasons = ScalingState(), 2, []
        for n, demand in enumerate(reports):
            decision = decide(demand, target, LIMITS, state, float(n))
            state, target = decision.state, decision.replicas
            reasons.append(decision.reason)
        return reasons

    assert run() == run()


def context(metrics: dict[str, float], state: dict[str, object], **changes: object) -> SimpleNamespace:
    series = {
        name: {"r1": [SimpleNamespace(value=0.0), SimpleNamespace(value=value)]} for name, value in metrics.items()
    }
    fields: dict[str, object] = {
        "target_num_replicas": 1,
        "running_replicas": ["r1"],
        "capacity_adjusted_min_replicas": 0,
        "capacity_adjusted_max_replicas": 8,
        "policy_state": state,
        "current_time": 100.0,
        "config": SimpleNamespace(target_ongoing_requests=16.0),
        "raw_metrics": series,
        "total_num_requests": 0.0,
    }
    return SimpleNamespace(**{**fields, **changes})


CONFIG = UserConfig(scaling=ScalingSettings(stabilization_window_seconds=0, scale_to_zero_after_seconds=7))


def test_the_adapter_reads_the_newest_report() -> None:
    reported = statistics(ReplicaStats(in_flight=61), CONFIG)
    replicas, state = desired_replicas(context(reported, {"since": 0.0}))
    assert replicas == 4
    assert state["reason"] == Telling("4 61 in flight target 16")


def test_the_adapter_takes_the_limits_that_replicas_report() -> None:
    reported = statistics(ReplicaStats(idle_seconds=8), CONFIG)
    assert desired_replicas(context(reported, {"since": 0.0}))[0] == 0


def test_the_adapter_hands_its_state_on() -> None:
    _, state = desired_replicas(context(statistics(ReplicaStats(), CONFIG), {}))
    _, again = desired_replicas(context(statistics(ReplicaStats(), CONFIG), state, current_time=101.0))
    assert again["since"] == 100.0


def test_the_adapter_takes_reports_of_a_release_that_knows_no_capacity() -> None:
    reported = statistics(ReplicaStats(in_flight=61), CONFIG)
    del reported["capacity"]
    assert desired_replicas(context(reported, {"since": 0.0}))[0] == 4


def test_the_adapter_hands_the_rate_on() -> None:
    reported = statistics(ReplicaStats(arrival_rate=12.0, capacity=8.0), CONFIG)
    replicas, state = desired_replicas(context(reported, {"since": 0.0}))
    assert (replicas, state["rate"], state["rate_at"]) == (2, 12.0, 100.0)


def test_a_wake_up_at_zero_replicas_starts_one() -> None:
    ctx = context({}, {"since": 0.0}, target_num_replicas=0, running_replicas=[], total_num_requests=1.0)
    assert desired_replicas(ctx)[0] == 1
