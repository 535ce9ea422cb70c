"""The policy as Serve calls it: through Serve's own wrapper, with the configuration that we declare."""

from __future__ import annotations

from typing import Any

import pytest
from ray.serve._private.common import DeploymentID, ReplicaID, TimeStampedValue
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from penstock import names
from penstock.api.v1alpha1 import InferenceDeployment
from penstock.routing.leases import ReplicaStats
from penstock.serving.arguments import Attempt, Move, ScalingSettings, UserConfig
from penstock_operator.deployment.application import ReplicaNetwork, build
from penstock_serving.replica.policy import statistics

DEPLOYMENT = DeploymentID(name="replica", app_name="app")
SETTINGS = UserConfig(scaling=ScalingSettings(stabilization_window_seconds=10, scale_to_zero_after_seconds=20))


def serve_config(**scaling: Any) -> AutoscalingConfig:
    deployment = InferenceDeployment.model_validate(
        {
            "metadata": {"name": "m", "namespace": "n"},
            "spec": {"model": {"storageUri": "file:///m", "modelFormat": "onnx"}, "scaling": scaling},
        }
    )
    application = build(deployment, names.revision(deployment), Attempt(), ReplicaNetwork())
    return AutoscalingConfig(**application["deployments"][0]["autoscaling_config"])


class Controller:
    """Calls the policy as Serve's controller does, and keeps what it keeps."""

    def __init__(self, **scaling: Any) -> None:
        self.config = serve_config(**scaling)
        self.policy = _apply_autoscaling_config(self.config.policy.get_policy())
        self.target = self.config.min_replicas
        self.settings = SETTINGS
        self.gone: frozenset[str] = frozenset()
        self.state: dict[str, Any] = {}
        self.now = 1000.0

    def tick_under(self, load: float) -> int:
        """With so many requests in flight over all replicas."""
        return self.tick(in_flight=load / max(1, self.target - len(self.gone)))

    def tick(self, seconds: float = 1.0, waking: float = 0.0, **stats: float) -> int:
        self.now += seconds
        running = [str(n) for n in range(self.target) if str(n) not in self.gone]
        replicas = [ReplicaID(unique_id=each, deployment_id=DEPLOYMENT) for each in running]
        series: dict[str, dict[ReplicaID, list[TimeStampedValue]]] = {}
        for replica in replicas:
            extra = self.settings.keeps_extra(replica.unique_id)
            for name, value in statistics(ReplicaStats(**stats), self.settings, keeps_extra=extra).items():
                series.setdefault(name, {})[replica] = [TimeStampedValue(self.now - 0.5, value)]
        context = AutoscalingContext(
            deployment_id=DEPLOYMENT,
            deployment_name="replica",
            app_name="app",
            current_num_replicas=self.target,
            target_num_replicas=self.target,
            running_replicas=replicas,
            total_num_requests=waking,
            total_queued_requests=waking,
            aggregated_metrics={},
            raw_metrics=series,
            capacity_adjusted_min_replicas=self.config.min_replicas,
            capacity_adjusted_max_replicas=self.most,
            policy_state=dict(self.state),
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=self.now,
            config=self.config,
        )
        wanted, self.state = self.policy(context)
        self.target = max(self.config.min_replicas, min(self.most, int(wanted)))
        return self.target

    @property
    def most(self) -> int:
        return self.config.max_replicas + (self.settings.move is not None and self.settings.move.under_way)


def test_load_adds_replicas_at_the_next_tick() -> None:
    controller = Controller(minReplicas=1, maxReplicas=4, targetInFlightRequests=16)
    assert controller.tick(in_flight=61) == 4


def test_replicas_go_once_the_window_has_passed_and_not_after_two_windows() -> None:
    controller = Controller(minReplicas=1, maxReplicas=4, targetInFlightRequests=16)
    controller.tick(in_flight=61)
    assert [controller.tick(in_flight=1) for _ in range(10)] == [4] * 10
    assert controller.tick(in_flight=1) == 1


def test_a_new_model_that_may_be_at_zero_starts_with_one_and_goes_when_idle() -> None:
    controller = Controller(minReplicas=0, maxReplicas=4)
    assert controller.tick() == 1
    assert [controller.tick(idle_seconds=n) for n in range(20)] == [1] * 20
    assert controller.tick(idle_seconds=20) == 0
    assert controller.tick() == 0


def test_a_request_at_the_proxy_wakes_a_model_at_zero() -> None:
    controller = Controller(minReplicas=0, maxReplicas=4)
    controller.tick()
    controller.tick(seconds=60, idle_seconds=60)
    assert controller.target == 0
    assert controller.tick(waking=1) == 1


@pytest.mark.parametrize("load", [0.0, 16.0, 500.0])
def test_a_fixed_number_stays(load: float) -> None:
    controller = Controller(replicas=3)
    assert [controller.tick(in_flight=load) for _ in range(20)] == [3] * 20


@pytest.mark.parametrize(
    ("scaling", "load", "count"),
    [({"replicas": 2}, 0.0, 2), ({"minReplicas": 1, "maxReplicas": 4, "targetInFlightRequests": 16}, 40.0, 3)],
    ids=["a fixed number", "a number by load"],
)
def test_while_one_moves_there_is_one_more_and_then_as_many_as_before(
    scaling: dict[str, Any], load: float, count: int
) -> None:
    controller = Controller(**scaling)
    assert [controller.tick_under(load) for _ in range(3)][-1] == count
    controller.settings = SETTINGS.model_copy(update={"move": Move(under_way=True)})
    assert [controller.tick_under(load) for _ in range(5)] == [count + 1] * 5
    controller.settings = SETTINGS.model_copy(update={"move": Move(under_way=True, leaving="0")})
    assert [controller.tick_under(load) for _ in range(5)] == [count + 1] * 5
    controller.gone = frozenset({"0"})
    assert controller.tick_under(load) == count


def test_one_that_came_to_lie_with_the_others_is_followed_by_another() -> None:
    controller = Controller(replicas=2)
    controller.settings = SETTINGS.model_copy(update={"move": Move(under_way=True, leaving="2", again=True)})
    assert controller.tick() == 3
    controller.gone = frozenset({"2"})
    assert controller.tick() == 3


def test_an_idle_model_goes_to_zero_while_one_moves() -> None:
    controller = Controller(minReplicas=0, maxReplicas=2)
    controller.settings = SETTINGS.model_copy(update={"move": Move(under_way=True)})
    controller.tick()
    assert controller.tick(seconds=60, idle_seconds=60) == 0
