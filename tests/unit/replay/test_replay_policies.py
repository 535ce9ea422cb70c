"""The rules that Penstock's is compared with do what their sources say."""

from __future__ import annotations

from typing import Any

import pytest
from ray.serve._private.common import DeploymentID
from ray.serve.autoscaling_policy import _apply_autoscaling_config, default_autoscaling_policy
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from penstock_cli.replay.model import LoadSight, ReplayCase, ServiceTimes
from penstock_cli.replay.policies import POLICIES, KnativeRule, KubernetesRule, ServeRule

CASE = ReplayCase(ServiceTimes(((1, 0.1),), 1), minimum=1, maximum=50)


class Metrics:
    """Shows a policy a number of requests in flight, second by second."""

    def __init__(self, wanted: int = 1) -> None:
        self.sight = LoadSight(wanted=wanted, running=wanted)

    def pass_second(self, in_flight: float, busy: float = 0.0) -> None:
        sight = self.sight
        sight.now += 1
        sight.in_flight_seconds.append(sight.in_flight_seconds[-1] + in_flight)
        sight.busy_seconds.append(sight.busy_seconds[-1] + busy * sight.running)
        sight.running_seconds.append(sight.running_seconds[-1] + sight.running)


@pytest.mark.parametrize(
    "loads", [[3] * 80, [30] * 50 + [4] * 40, [5, 40] * 45, [0] * 30 + [90] * 60, [60] * 40 + [1] * 60]
)
def test_the_rule_of_serve_decides_as_serve_does(loads: list[float]) -> None:
    setting = {"target": 4.0, "up": 7.0, "down": 20.0, "look_back": 10.0, "push": 1.0}
    ours, metrics = ServeRule(CASE, setting), Metrics()
    config = AutoscalingConfig(
        min_replicas=1, max_replicas=50, target_ongoing_requests=4, upscale_delay_s=7, downscale_delay_s=20
    )
    theirs = _apply_autoscaling_config(default_autoscaling_policy)
    state: dict[str, Any] = {}
    for load in loads:
        metrics.pass_second(load)
        sight = metrics.sight
        context = AutoscalingContext(
            deployment_id=DeploymentID(name="d", app_name="a"), deployment_name="d", app_name="a",
            current_num_replicas=sight.running, target_num_replicas=sight.wanted, running_replicas=[],
            total_num_requests=sight.mean_in_flight(10), total_queued_requests=0, aggregated_metrics={}, raw_metrics={},
            capacity_adjusted_min_replicas=1, capacity_adjusted_max_replicas=50, policy_state=dict(state),
            last_scale_up_time=None, last_scale_down_time=None, current_time=sight.now, config=config,
        )  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ray.serve.autoscaling_policy.time.time", lambda now=sight.now: now)
            expected, state = theirs(context)
        found, _ = ours.decide(sight)
        assert found == max(1, expected), sight.now  # the minimum is Serve's caller's to keep
        sight.wanted = sight.running = max(1, found)


def test_knative_panics_at_twice_what_is_ready_and_only_grows_then() -> None:
    rule, metrics = KnativeRule(CASE, {"target": 5.0, "stable": 60.0, "panic": 2.0}), Metrics(wanted=2)
    for _ in range(60):
        metrics.pass_second(10)
    assert rule.decide(metrics.sight)[0] == 2
    for _ in range(6):
        metrics.pass_second(50)
    number, reason = rule.decide(metrics.sight)
    assert (number, "panics" in reason) == (10, True)
    for _ in range(30):
        metrics.pass_second(0)
    assert rule.decide(metrics.sight)[0] == 10, "no fewer in a panic"
    for _ in range(61):
        metrics.pass_second(0)
    assert rule.decide(metrics.sight)[0] == 1, "at most half as many at a time, of two that are ready"


def test_knative_does_not_panic_below_its_threshold() -> None:
    rule, metrics = KnativeRule(CASE, {"target": 5.0, "stable": 60.0, "panic": 2.0}), Metrics(wanted=2)
    for _ in range(60):
        metrics.pass_second(14)
    assert rule.decide(metrics.sight) == (3, "14 in flight over 60 s")


@pytest.mark.parametrize(
    ("name", "busy", "expected"),
    [
        ("within the tolerance nothing changes", 0.86, 10),
        ("above it the ratio decides", 0.96, 12),
        ("below it, too, but not before the window has passed", 0.4, 10),
    ],
)
def test_the_autoscaler_of_kubernetes_decides_by_the_ratio(name: str, busy: float, expected: int) -> None:
    rule, metrics = KubernetesRule(CASE, {"target": 0.8, "window": 300.0, "by_load": 0.0}), Metrics(wanted=10)
    for _ in range(30):
        metrics.pass_second(0, 0.8)
    rule.decide(metrics.sight)
    for _ in range(15):
        metrics.pass_second(0, busy)
    assert rule.decide(metrics.sight)[0] == expected, name


def test_the_autoscaler_of_kubernetes_goes_down_once_the_window_has_passed() -> None:
    rule, metrics = KubernetesRule(CASE, {"target": 0.8, "window": 300.0, "by_load": 0.0}), Metrics(wanted=10)
    numbers = []
    for second in range(1, 331):
        metrics.pass_second(0, 0.8 if second <= 15 else 0.4)
        if second % 15 == 0:
            numbers.append(rule.decide(metrics.sight)[0])
    assert numbers[:20] == [10] * 20
    assert numbers[-1] == 5


def test_the_autoscaler_of_kubernetes_grows_by_four_or_by_the_double_at_most() -> None:
    for present, most in ((1, 5), (10, 20)):
        rule, metrics = KubernetesRule(CASE, {"target": 2.0, "window": 0.0, "by_load": 1.0}), Metrics(wanted=present)
        for _ in range(15):
            metrics.pass_second(1000)
        assert rule.decide(metrics.sight)[0] == most


@pytest.mark.parametrize("name", POLICIES)
def test_a_search_begins_at_the_defaults_and_knows_what_it_sets(name: str) -> None:
    family = POLICIES[name]
    assert set(family.tried) <= set(family.defaults)
