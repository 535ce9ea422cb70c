"""The scaling policy: decisions by demand, and a load that is played through."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.telling import Telling

from penstock.routing.leases import ReplicaStats
from penstock.scaling.policy import Decision, Demand, ScalingLimits, ScalingRule, ScalingState, decide
from penstock.serving.arguments import ScalingSettings, StaffingSettings, UserConfig
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


TIMELY = ScalingLimits(minimum=1, maximum=12, target_in_flight=16, slo_seconds=3.0)


def at_level(rate: float | None) -> ScalingState:
    """Of a policy that has seen this rate for long."""
    return ScalingState((), since=-1000.0, levels=() if rate is None else (rate, rate))


AT_RATES = [
    ("40 requests/s of 8 each fill five, since the objective leaves time to wait", at_rate(5, 40), 5, 40.0, 5),
    ("a little more is missed too often by five", at_rate(5, 42), 5, 42.0, 6),
    ("a jump of the rate counts at once", at_rate(1, 40), 1, 4.0, 5),
    ("a rise that may be chance does not", at_rate(4, 36), 4, 29.0, 4),
    ("a rate a little below a boundary keeps the number", at_rate(4, 23.5), 4, 23.5, 4),
    ("a rate well below a boundary does not", at_rate(5, 15), 5, 15.0, 2),
    ("what is in flight says nothing where the rate does", at_rate(1, 4, in_flight=61), 1, 4.0, 1),
    ("a long wait of those that are full adds none", at_rate(2, 15, in_flight=12, queue_wait_p95_seconds=2.0), 2, 15.0, 2),
    ("without a capacity the rate says nothing", each(1, arrival_rate=500.0), 1, 500.0, 1),
]  # fmt: skip


@pytest.mark.parametrize(
    ("replicas", "current", "smoothed", "expected"), [row[1:] for row in AT_RATES], ids=[row[0] for row in AT_RATES]
)
def test_decision_by_rate(replicas: list[ReplicaStats], current: int, smoothed: float | None, expected: int) -> None:
    assert decide(Demand(replicas), current, TIMELY, at_level(smoothed), now=0.0).replicas == expected


@pytest.mark.parametrize(
    ("name", "young", "rate"),
    [
        ("one that has just come gets what the others got", at_rate(1, 24.0, interval_seconds=1.0), 24.0 + 24.0 / 5),
        ("one that has reported for as long counts in full", at_rate(1, 24.0, interval_seconds=5.9), 48.0),
        ("one of a release that does not tell, too", at_rate(1, 24.0), 48.0),
    ],
)
def test_the_rate_is_of_all_replicas_over_one_time(name: str, young: list[ReplicaStats], rate: float) -> None:
    """Each second's requests count once: where a new replica counted like the others, a rate that stayed looked twice as high."""
    replicas = [*at_rate(3, 24.0, interval_seconds=5.3), *young]
    assert decide(Demand(replicas), 4, TIMELY, at_level(None), now=0.0).state.rate == pytest.approx(rate), name


@pytest.mark.parametrize(
    ("name", "shares", "rate"),
    [
        ("of one that is full for 70 % of the time, 30 % are seen", [0.7], 24.0 / 0.3),
        ("two that are full for 70 % each are both full for 40 % at least", [0.7, 0.7], 24.0 / 0.6),
        ("two that are full in turn turn nobody away", [0.5, 0.5], 24.0),
        ("one that has room takes what the other refuses", [0.9, 0.0], 24.0),
        ("from none that is ever open no more than ten times is concluded", [1.0], 240.0),
    ],
)
def test_what_gateways_refuse_since_no_replica_has_room_counts(name: str, shares: list[float], rate: float) -> None:
    """It did not: one replica at three times its capacity looked just full, and got others one by one."""
    replicas = [at_rate(len(shares), 24.0, full_share=share)[0] for share in shares]
    seen = decide(Demand(replicas), len(shares), TIMELY, at_level(None), now=0.0)
    assert seen.state.rate == pytest.approx(rate), name


def test_a_single_replica_tells_the_rate_from_its_first_seconds() -> None:
    seen = decide(Demand(at_rate(1, 24.0, interval_seconds=1.0)), 1, TIMELY, at_level(None), now=0.0)
    assert (seen.state.rate, seen.replicas) == (24.0, 3)


def test_a_target_that_the_user_set_counts_beside_the_rate() -> None:
    limits = replace(TIMELY, is_target_set=True)
    assert decide(Demand(at_rate(1, 4, in_flight=61)), 1, limits, at_level(4.0), now=0.0).replicas == 4


def test_replicas_that_answer_less_than_they_say_get_another_one() -> None:
    """By what they say, two are enough; but requests wait, and not only while a burst is worked off."""
    state, numbers = at_level(10.0), []
    for second in range(25):
        demand = Demand(at_rate(2, 10, in_flight=12, queue_wait_p95_seconds=2.0))
        decision = decide(demand, 2, TIMELY, state, float(second))
        state = decision.state
        numbers.append((decision.replicas, decision.rule is ScalingRule.QUEUE_WAIT))
    assert numbers[:20] == [(2, False)] * 20
    assert numbers[20:] == [(3, True)] * 5


def follow(rates: list[float], limits: ScalingLimits = TIMELY, start_seconds: int = 20) -> list[Decision]:
    """Decisions second by second; a new replica reports after `start_seconds`, and arrivals spread evenly."""
    state, target, decisions = ScalingState(), limits.minimum, list[Decision]()
    ready = [0] * target
    for second, rate in enumerate(rates):
        there = max(1, sum(1 for since in ready if second >= since))
        decision = decide(Demand(at_rate(there, rate, in_flight=1.0)), target, limits, state, float(second))
        target, state = decision.replicas, decision.state
        ready = ready[:target] + [second + start_seconds] * (target - len(ready))
        decisions.append(decision)
    return decisions


def bursts(low_seconds: int, count: int) -> list[float]:
    return ([4.0] * low_seconds + [48.0] * 45) * count + [4.0] * 100


def test_replicas_stay_for_bursts_that_come_back_and_the_reason_says_what_they_spare() -> None:
    last = follow(bursts(100, 4))[-1]
    assert (last.replicas, last.rule) == (6, ScalingRule.RECURRENCE)
    assert last.reason == Telling("6: the load comes back 6 kept missed requests 16 replica-seconds")


@pytest.mark.parametrize(
    ("name", "rates", "weight"),
    [
        ("that come back seldom", bursts(400, 2), 16.0),
        ("of which a request is worth little more than another", bursts(100, 4), 2.0),
        ("of which there was one", [4.0] * 400 + [48.0] * 60 + [4.0] * 100, 16.0),
    ],
)
def test_replicas_go_after_bursts(name: str, rates: list[float], weight: float) -> None:
    assert follow(rates, replace(TIMELY, miss_weight=weight))[-1].replicas == 1, name


def test_the_time_of_a_start_is_measured() -> None:
    assert follow([4.0] * 10 + [48.0] * 60, start_seconds=33)[-1].state.start_seconds == pytest.approx(33, abs=1)


def test_a_rate_that_grows_is_met_before_it_is_there() -> None:
    grown = follow([4.0 + 0.05 * second for second in range(400)])
    level = follow([24.0] * 400)
    assert grown[399].replicas > level[399].replicas


def test_without_a_forecast_the_number_follows_from_the_rate_as_it_is() -> None:
    """Growth is not carried on, and bursts that come back keep no replicas."""
    off = replace(TIMELY, forecast=False)
    growing = [4.0 + 0.05 * second for second in range(400)]
    assert follow(growing, off)[399].replicas < follow(growing)[399].replicas
    assert {each.rule for each in follow(bursts(100, 4), off)} == {ScalingRule.RATE}
    assert follow(bursts(100, 4), off)[-1].replicas == 1


@pytest.mark.parametrize("rate", [7.0, 15.0, 23.9, 24.1, 31.0, 47.0])
def test_a_constant_rate_does_not_swing(rate: float) -> None:
    """With the chance of a Poisson process in each report of five seconds."""
    source = random.Random(7)
    counts = [sum(source.random() < rate / 100 for _ in range(100)) for _ in range(1200)]
    means = [sum(counts[max(0, at - 4) : at + 1]) / len(counts[max(0, at - 4) : at + 1]) for at in range(1200)]
    numbers = [each.replicas for each in follow(means)]
    assert sum(a != b for a, b in pairwise(numbers[300:])) <= 2


@given(
    rates=st.lists(st.floats(0, 200), min_size=1, max_size=60),
    silent=st.integers(1, 5),
    current=st.integers(1, 12),
)
@settings(max_examples=60, deadline=None)
def test_while_a_replica_is_silent_there_are_never_fewer(rates: list[float], silent: int, current: int) -> None:
    state, known = at_level(50.0), 0.0
    for second, rate in enumerate(rates):
        decision = decide(Demand(at_rate(1, rate), silent=silent), current, TIMELY, state, 5.0 * second)
        assert decision.replicas >= current
        assert (decision.state.rate or 0.0) >= known, "the last known good"
        state, current, known = decision.state, decision.replicas, decision.state.levels[0]


def test_a_constant_rate_at_the_limit_of_a_replica_does_not_swing() -> None:
    """One replica holds many requests where two hold few: by requests in flight alone the number swung between both."""
    state, target, history = ScalingState(), 1, []
    for second in range(1200):
        in_flight = 16.0 if target == 1 else 1.5
        decision = decide(Demand(at_rate(target, 8.6, in_flight=in_flight)), target, TIMELY, state, float(second))
        state, target = decision.state, decision.replicas
        history.append(target)
    assert history[-1] == 2
    assert turns(history) == 0


def test_a_rate_that_has_ended_lets_the_last_replica_go() -> None:
    decision = decide(Demand(at_rate(1, 0, idle_seconds=31)), 1, TO_ZERO, at_level(5.0), now=31.0)
    assert decision.replicas == 0


def test_the_smoothed_rate_of_before_a_rest_counts_no_more_after_it() -> None:
    state = decide(Demand(), 0, TO_ZERO, at_level(500.0), now=900.0).state
    assert decide(Demand(at_rate(1, 1)), 1, TO_ZERO, state, now=900.0).replicas == 1


def test_the_smoothed_rate_stays_while_a_replica_is_silent() -> None:
    decision = decide(Demand(at_rate(3, 1), silent=2), 5, LIMITS, at_level(30.0), now=60.0)
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


def context(metrics: dict[str, float], state: Mapping[str, object], **changes: object) -> SimpleNamespace:
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


STARTED = {"penstock": ScalingState(since=0.0)}
CONFIG = UserConfig(scaling=ScalingSettings(stabilization_window_seconds=0, scale_to_zero_after_seconds=7))


def test_the_adapter_reads_the_newest_report() -> None:
    reported = statistics(ReplicaStats(in_flight=61), CONFIG)
    replicas, state = desired_replicas(context(reported, STARTED))
    assert replicas == 4
    assert state["reason"] == Telling("4 61 in flight target 16")


def test_the_adapter_takes_the_limits_that_replicas_report() -> None:
    reported = statistics(ReplicaStats(idle_seconds=8), CONFIG)
    assert desired_replicas(context(reported, STARTED))[0] == 0


def test_the_adapter_hands_its_state_on() -> None:
    _, state = desired_replicas(context(statistics(ReplicaStats(), CONFIG), {}))
    _, again = desired_replicas(context(statistics(ReplicaStats(), CONFIG), state, current_time=101.0))
    assert again["penstock"].since == 100.0


def test_the_adapter_takes_reports_of_a_release_that_knows_no_capacity() -> None:
    reported = statistics(ReplicaStats(in_flight=61), CONFIG)
    del reported["capacity"]
    assert desired_replicas(context(reported, STARTED))[0] == 4


def test_the_adapter_hands_the_rate_on() -> None:
    reported = statistics(ReplicaStats(arrival_rate=12.0, capacity=8.0), CONFIG)
    replicas, state = desired_replicas(context(reported, STARTED))
    assert (replicas, state["penstock"].rate, state["penstock"].rate_at) == (2, 12.0, 100.0)


def test_the_adapter_takes_what_a_miss_weighs_and_whether_a_target_was_set() -> None:
    stats = ReplicaStats(arrival_rate=4.0, capacity=8.0, in_flight=61)
    config = CONFIG.model_copy(update={"staffing": StaffingSettings(miss_weight=1, is_target_set=True)})
    assert desired_replicas(context(statistics(stats, CONFIG), dict(STARTED)))[0] == 1
    assert desired_replicas(context(statistics(stats, config), dict(STARTED)))[0] == 4


def test_the_adapter_takes_whether_there_is_a_forecast() -> None:
    off = CONFIG.model_copy(update={"staffing": StaffingSettings(forecast=False)})
    for config, is_on in ((CONFIG, True), (off, False)):
        _, state = desired_replicas(context(statistics(ReplicaStats(), config), dict(STARTED)))
        assert state["penstock"].forecast is is_on
    assert "forecast" not in CONFIG.model_dump()["staffing"], "replicas of a release that does not know it are not told"


def test_a_wake_up_at_zero_replicas_starts_one() -> None:
    ctx = context({}, STARTED, target_num_replicas=0, running_replicas=[], total_num_requests=1.0)
    assert desired_replicas(ctx)[0] == 1
