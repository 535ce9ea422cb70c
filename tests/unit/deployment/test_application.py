"""Names, revisions and the Serve application."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ray.serve.schema import ServeDeploySchema

from penstock import names
from penstock.api.quantity import number, readable_bytes
from penstock.api.v1alpha1 import InferenceDeployment
from penstock.errors import Invalid
from penstock.serving.arguments import Attempt, BuildArguments, UserConfig
from penstock_operator.deployment.application import ReplicaNetwork, adjust, build
from penstock_operator.deployment.identity import known_settings
from penstock_operator.deployment.observed import ApplicationState, ObservedApplication

BASE: dict[str, Any] = {
    "model": {"storageUri": "file:///models/digits/1", "modelFormat": "onnx", "version": "1"},
    "resources": {"cpu": "1", "memory": "1Gi"},
}


def deployment(namespace: str = "vision", name: str = "digits", **spec: Any) -> InferenceDeployment:
    metadata = {"name": name, "namespace": namespace, "uid": "u"}
    return InferenceDeployment.model_validate({"metadata": metadata, "spec": {**BASE, **spec}})


def built(of: InferenceDeployment) -> dict[str, Any]:
    return build(of, names.revision(of), Attempt(), ReplicaNetwork(gateways=("http://agent",), host="127.0.0.1"))


SAME = [
    ("another spelling of the same cpu", {"resources": {"cpu": "1000m", "memory": "1Gi"}}),
    ("another spelling of the same memory", {"resources": {"cpu": "1", "memory": "1024Mi"}}),
    ("a batch size", {"batching": {"maxBatchSize": 4}}),
    ("a number of replicas", {"scaling": {"replicas": 3}}),
    ("an objective", {"slo": {"latencyP99Milliseconds": 5}}),
    ("a sampling ratio", {"tracing": {"samplingRatio": "1"}}),
]
OTHER = [
    ("another model", {"model": {**BASE["model"], "storageUri": "file:///models/digits/2"}}),
    ("another version", {"model": {**BASE["model"], "version": "2"}}),
    ("a digest", {"model": {**BASE["model"], "digest": "sha256:" + "a" * 64}}),
    ("more cpu", {"resources": {"cpu": "2", "memory": "1Gi"}}),
    ("an accelerator", {"resources": {"cpu": "1", "memory": "1Gi", "accelerator": {"type": "nvidia-l4"}}}),
    ("another pool", {"poolRef": {"name": "other"}}),
]


@pytest.mark.parametrize("spec", [row[1] for row in SAME], ids=[row[0] for row in SAME])
def test_needs_no_new_replicas(spec: dict[str, Any]) -> None:
    assert names.revision(deployment(**spec)) == names.revision(deployment())


@pytest.mark.parametrize("spec", [row[1] for row in OTHER], ids=[row[0] for row in OTHER])
def test_needs_new_replicas(spec: dict[str, Any]) -> None:
    assert names.revision(deployment(**spec)) != names.revision(deployment())


def test_a_revision_is_what_it_was_in_the_release_before() -> None:
    """Changes only with a new version prefix: whoever breaks this rolls every model at the next upgrade."""
    assert names.revision(deployment()) == "v117ac7f5a24"


def test_namespace_and_name_cannot_be_confused() -> None:
    first, second = deployment("a-b", "c"), deployment("a", "b-c")
    assert names.application_name("a-b", "c", names.revision(first)) != names.application_name(
        "a", "b-c", names.revision(second)
    )


SPECS: list[tuple[str, dict[str, Any]]] = [
    ("as it is", {}),
    ("with a fixed number of replicas", {"scaling": {"replicas": 2}}),
    ("to zero", {"scaling": {"minReplicas": 0, "maxReplicas": 5}}),
    (
        "with half an accelerator",
        {"resources": {"cpu": "500m", "accelerator": {"type": "nvidia-l4", "count": "0.5"}}},
    ),
]


@pytest.mark.parametrize("spec", [row[1] for row in SPECS], ids=[row[0] for row in SPECS])
def test_serve_takes_it_and_echoes_it_unchanged(spec: dict[str, Any]) -> None:
    application = built(deployment(**spec))
    parsed = ServeDeploySchema.model_validate({"applications": [json.loads(json.dumps(application))]})
    assert parsed.applications[0].model_dump(exclude_unset=True, mode="json") == application


def test_every_field_is_one_that_serve_knows() -> None:
    """Serve takes unknown fields silently."""
    application = built(deployment(**SPECS[3][1]))
    parsed = ServeDeploySchema.model_validate({"applications": [application]}).applications[0]
    schema = parsed.deployments[0]
    assert set(application) <= set(type(parsed).model_fields)
    written = application["deployments"][0]
    assert set(written) <= set(type(schema).model_fields)
    assert set(written["ray_actor_options"]) <= set(type(schema.ray_actor_options).model_fields)


def test_a_fixed_number_is_an_autoscaling_range_of_one() -> None:
    scaling = built(deployment(scaling={"replicas": 3}))["deployments"][0]["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (3, 3)


def test_the_policy_is_the_same_for_all_since_a_change_would_restart_replicas() -> None:
    one = built(deployment(scaling={"minReplicas": 0, "stabilizationWindowSeconds": 5}))
    other = built(deployment(slo={"latencyP99Milliseconds": 5}))
    policies = [each["deployments"][0]["autoscaling_config"]["policy"] for each in (one, other)]
    assert policies[0] == policies[1]


def test_the_arguments_are_read_back_as_written() -> None:
    arguments = BuildArguments.model_validate(built(deployment())["args"])
    assert arguments.owner.name == "digits"
    assert arguments.replica.gateways == ("http://agent",)
    assert arguments.replica.host == "127.0.0.1"


def test_the_replica_has_longer_to_leave_than_it_drains() -> None:
    application = built(deployment())
    drain = BuildArguments.model_validate(application["args"]).replica.drain_seconds
    assert application["deployments"][0]["graceful_shutdown_timeout_s"] > drain


def test_adjusting_an_older_revision_keeps_what_its_replicas_were_started_with() -> None:
    old = built(deployment(resources={"cpu": "1"}))
    adjusted = adjust(old, deployment(resources={"cpu": "4"}, batching={"maxBatchSize": 9}), ReplicaNetwork())
    assert adjusted["args"] == old["args"]
    assert adjusted["deployments"][0]["ray_actor_options"] == old["deployments"][0]["ray_actor_options"]
    assert UserConfig.model_validate(adjusted["deployments"][0]["user_config"]).batching.max_batch_size == 9


def test_another_limit_on_bodies_is_taken_in_place() -> None:
    of = deployment()
    before, after = (
        build(of, names.revision(of), Attempt(), ReplicaNetwork(max_body_bytes=each)) for each in (1 << 26, 1 << 27)
    )
    (was,), (now,) = before.pop("deployments"), after.pop("deployments")
    assert before == after
    assert UserConfig.model_validate(now["user_config"]).max_body_bytes == 1 << 27
    was["user_config"]["maxBodyBytes"] = 1 << 27
    assert was == now


def test_replicas_of_an_earlier_release_are_told_nothing_that_they_would_refuse() -> None:
    of, network = deployment(), ReplicaNetwork(max_body_bytes=1 << 27)
    deployed = built(of)
    del deployed["deployments"][0]["user_config"]["maxBodyBytes"]
    known = known_settings(ObservedApplication(deployed["name"], ApplicationState.RUNNING, config=deployed))
    for found in (
        build(of, names.revision(of), Attempt(), network, known=known),
        adjust(deployed, of, network, known=known),
    ):
        assert found["deployments"][0]["user_config"] == deployed["deployments"][0]["user_config"]


QUANTITIES = [("500m", 0.5), ("1", 1.0), ("1.5", 1.5), ("1Gi", 2.0**30), ("2M", 2e6), ("1e3", 1000.0), (".5", 0.5)]


@pytest.mark.parametrize(("text", "value"), QUANTITIES)
def test_a_quantity_is_a_number(text: str, value: float) -> None:
    assert number(text) == value


@pytest.mark.parametrize("text", ["", "one", "1X", "-1", "1 Gi", "1.2.3"])
def test_what_is_no_quantity_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Invalid, match=r"write a (number|quantity)"):
        number(text)


@pytest.mark.parametrize(("amount", "text"), [(2**30, "1Gi"), (1536 * 2**20, "1536Mi"), (100, "100"), (0, "0")])
def test_bytes_are_readable(amount: float, text: str) -> None:
    assert readable_bytes(amount) == text
