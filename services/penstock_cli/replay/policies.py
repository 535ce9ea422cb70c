"""The policies that can be replayed: Penstock's own function, and the rules of those that it is compared with."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from penstock.scaling.policy import MISS_WEIGHT, Demand, ScalingLimits, ScalingState, decide
from penstock_cli.replay.model import LoadSight, ReplayCase, ReplayPolicy

Setting = dict[str, float]
"""A policy's parameters by name."""
FORECAST: Final = "forecast"
"""A setting of Penstock's: 0 where nothing is foreseen."""


class PenstockRule:
    """The very function that decides in the Serve controller: `penstock.scaling.policy.decide`."""

    interval = 1.0
    reads_replicas = True

    def __init__(self, case: ReplayCase, setting: Mapping[str, float]) -> None:
        self._limits = ScalingLimits(
            minimum=case.minimum,
            maximum=case.maximum,
            stabilization_window_seconds=setting["window"],
            slo_seconds=case.slo_seconds,
            miss_weight=setting["weight"],
            forecast=setting[FORECAST] > 0,
        )
        self._state = ScalingState()

    def decide(self, sight: LoadSight) -> tuple[int, str]:
        """See `ReplayPolicy`."""
        demand = Demand(sight.replicas, waking=0.0 if sight.replicas else float(sight.held))
        decision = decide(demand, sight.wanted, self._limits, self._state, sight.now)
        self._state = decision.state
        return decision.replicas, decision.cause


class ServeRule:
    """Ray Serve's default.

    `replica_queue_length_autoscaling_policy`, `_apply_scaling_factors` and `_apply_delay_logic` of
    `ray.serve.autoscaling_policy` (2.60), with factors of 1. Wanted are ⌈requests in flight / target⌉, by the mean of `look_back` seconds, which replicas push every `push` seconds (10:
    `RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S`). More, or fewer, are taken once they were wanted at every look for
    `up`, or `down`, seconds; a look that wants the present number begins anew.
    """

    interval = 1.0
    reads_replicas = False

    def __init__(self, case: ReplayCase, setting: Mapping[str, float]) -> None:
        del case
        self._setting = setting
        self._direction = 0
        self._since = 0.0

    def decide(self, sight: LoadSight) -> tuple[int, str]:
        """See `ReplayPolicy`."""
        if sight.running == 0:
            return max(sight.wanted, 1 if sight.held else 0), "a cold start"
        setting = self._setting
        load = sight.mean_in_flight(setting["look_back"], math.floor(sight.now / setting["push"]) * setting["push"])
        desired = math.ceil(load / setting["target"] - 1e-9)
        direction = (desired > sight.wanted) - (desired < sight.wanted)
        if direction != self._direction:
            self._direction, self._since = direction, sight.now
        delay = setting["up"] if direction > 0 else setting["down"]
        if direction == 0 or sight.now - self._since < delay:
            return sight.wanted, ""
        self._direction = 0
        return max(1, desired), f"{load:.0f} in flight at a target of {setting['target']:g} for {delay:g} s"


class KnativeRule:
    """Knative's KPA: `autoscaler.Scale` of `pkg/autoscaler/scaling/autoscaler.go` in knative/serving, by concurrency.

    Every 2 s ⌈mean of the stable window / target⌉ are wanted, bounded by `MaxScaleUpRate` (1000) and `MaxScaleDownRate` (2) times
    those that are ready. Where the panic window (a tenth of the stable one) wants `panic` times as many as are ready (200 %),
    the number only grows, by the larger of both windows, until one stable window has passed without that. Defaults of
    `config-autoscaler`: 100 in flight at 70 % for each pod, 60 s.
    """

    interval = 2.0
    reads_replicas = False
    _UP_RATE: Final = 1000.0
    _DOWN_RATE: Final = 2.0

    def __init__(self, case: ReplayCase, setting: Mapping[str, float]) -> None:
        del case
        self._setting = setting
        self._panic_since: float | None = None
        self._panic_pods = 0

    def decide(self, sight: LoadSight) -> tuple[int, str]:
        """See `ReplayPolicy`."""
        setting, ready = self._setting, max(1, sight.running)
        stable_window = setting["stable"]
        stable, panic = sight.mean_in_flight(stable_window), sight.mean_in_flight(max(1.0, stable_window / 10))
        most, least = math.ceil(self._UP_RATE * ready), math.floor(ready / self._DOWN_RATE)
        by_panic = math.ceil(panic / setting["target"] - 1e-9)
        wanted = min(max(math.ceil(stable / setting["target"] - 1e-9), least), most)
        if by_panic / ready >= setting["panic"]:
            self._panic_since = sight.now
        elif self._panic_since is not None and sight.now - self._panic_since > stable_window:
            self._panic_since, self._panic_pods = None, 0
        if self._panic_since is None:
            return wanted, f"{stable:.0f} in flight over {stable_window:g} s"
        self._panic_pods = max(self._panic_pods, wanted, min(max(by_panic, least), most))
        return self._panic_pods, f"panics: {panic:.0f} in flight over {stable_window / 10:g} s"


@dataclass(slots=True)
class KubernetesRule:
    """Kubernetes' HorizontalPodAutoscaler.

    `calcPlainMetricReplicas` of `pkg/controller/podautoscaler/replica_calculator.go`, with the default behaviour of
    `autoscaling/v2`. Every 15 s ⌈ready · metric / target⌉ are wanted, and nothing changes where the ratio is within 0.1 of 1. Up by 4 or by 100 %
    in a period, whichever is more; down only to the highest number of the last `window` (300) seconds. The metric is the
    share of time in which the engine runs, at 80 % by default, as CPU is, or (`by_load` 1) requests in flight for each replica.
    Pods that are not ready yet count with a metric of 0 on the way up.
    """

    case: ReplayCase
    setting: Mapping[str, float]
    interval: float = 15.0
    reads_replicas: bool = False
    recommended: deque[tuple[float, int]] = field(default_factory=deque)
    TOLERANCE: Final = 0.1
    UP_PODS: Final = 4

    def decide(self, sight: LoadSight) -> tuple[int, str]:
        """See `ReplayPolicy`."""
        wanted, ratio = self._recommend(sight)
        self.recommended.append((sight.now, wanted))
        while self.recommended and sight.now - self.recommended[0][0] > self.setting["window"]:
            self.recommended.popleft()
        highest = max((number for _, number in self.recommended), default=wanted)
        number = wanted if wanted > sight.wanted else min(sight.wanted, max(wanted, highest))
        limit = max(sight.wanted + self.UP_PODS, 2 * sight.wanted)
        return min(number, limit), f"the metric is {ratio:.2f} of its target"

    def _recommend(self, sight: LoadSight) -> tuple[int, float]:
        if sight.running == 0:
            return sight.wanted, 1.0
        by_load = self.setting["by_load"] > 0
        value = sight.mean_in_flight(self.interval) / sight.running if by_load else sight.utilization(self.interval)
        ratio = value / self.setting["target"]
        starting = sight.wanted > sight.running and ratio > 1
        counted = sight.wanted if starting else sight.running
        corrected = ratio * sight.running / counted
        if abs(1 - corrected) <= self.TOLERANCE or (ratio > 1) != (corrected > 1):
            return sight.wanted, ratio
        return math.ceil(corrected * counted - 1e-9), ratio


@dataclass(frozen=True, slots=True)
class PolicyFamily:
    """A policy, its defaults, and the values that a search tries."""

    title: str
    make: Callable[[ReplayCase, Mapping[str, float]], ReplayPolicy]
    defaults: Setting
    tried: Mapping[str, tuple[float, ...]]


LEAST: Final = "least"
"""A setting of every policy: replicas at least; 0: as many as the case says."""
_LEAST: Final = (0.0, 2.0, 3.0, 4.0)
_TARGETS: Final = (2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 16.0)
POLICIES: Final[Mapping[str, PolicyFamily]] = {
    "penstock": PolicyFamily(
        "Penstock",
        PenstockRule,
        {"weight": MISS_WEIGHT, "window": 60.0, LEAST: 0.0, FORECAST: 1.0},
        {"weight": (1.0, 2.0, 4.0, 6.0, 8.0, 11.0, 16.0, 22.0, 32.0, 64.0, 128.0, 1000.0), "window": (0.0, 10.0, 20.0, 30.0, 60.0, 120.0), LEAST: _LEAST},
    ),
    "serve": PolicyFamily(
        "Ray Serve",
        ServeRule,
        {"target": 2.0, "up": 30.0, "down": 600.0, "look_back": 30.0, "push": 10.0, LEAST: 0.0},
        {"target": _TARGETS, "up": (0.0, 5.0, 30.0), "down": (10.0, 30.0, 60.0, 120.0, 600.0), "look_back": (5.0, 10.0, 30.0),
         "push": (1.0, 10.0), LEAST: _LEAST},
    ),
    "knative": PolicyFamily(
        "Knative KPA",
        KnativeRule,
        {"target": 70.0, "stable": 60.0, "panic": 2.0, LEAST: 0.0},
        {"target": _TARGETS, "stable": (10.0, 20.0, 30.0, 60.0, 120.0, 300.0), "panic": (1.1, 1.5, 2.0, 10.0),
         LEAST: _LEAST},
    ),
    "hpa": PolicyFamily(
        "Kubernetes HPA",
        KubernetesRule,
        {"target": 0.8, "window": 300.0, "by_load": 0.0, LEAST: 0.0},
        {"by_load": (0.0, 1.0), "target": (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, *_TARGETS), "window": (0.0, 30.0, 60.0, 120.0, 300.0),
         LEAST: _LEAST},
    ),
}  # fmt: skip


def choose_policies(names: Iterable[str], *, forecast: bool) -> list[PolicyFamily]:
    """Policies by name; Penstock's without a forecast where there is to be none."""
    families = [POLICIES[name] for name in names]
    return [
        replace(each, defaults={**each.defaults, FORECAST: float(forecast)}) if FORECAST in each.defaults else each
        for each in families
    ]
