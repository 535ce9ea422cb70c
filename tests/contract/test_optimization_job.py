"""The Job of a run, as the real API server takes it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tests.cluster.controlplane import ControlPlane

from penstock.api.optimization import OptimizationProfileSpec, OptimizationRun
from penstock_operator.optimization.job import JobSettings, build
from penstock_operator.optimization.job_network import network_policy
from penstock_operator.optimization.job_settings import Egress

SETTINGS = JobSettings(
    store="s3://store",
    signing_key="/keys/key.pem",
    image="registry.example/optimizer:1",
    signing_key_secret="sign",
    model_volumes=(("models", "/models"),),
    environment_secret="s3",
)


def run(namespace: str) -> OptimizationRun:
    return OptimizationRun.model_validate(
        {
            "metadata": {"name": "a" * 40 + "-0123456789", "namespace": namespace, "uid": "0123456789"},
            "spec": {
                "model": {"storageUri": "file:///models/digits/1", "modelFormat": "onnx"},
                "profileRef": {"name": "balanced"},
                "resources": {"cpu": "500m", "accelerator": {"type": "nvidia-l4"}},
            },
        }
    )


@pytest.mark.apiserver
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(SETTINGS, id="with everything"),
        pytest.param(replace(SETTINGS, model_volumes=(), environment_secret=None), id="with what it needs"),
        pytest.param(replace(SETTINGS, workspace_claim="work"), id="with a workspace that stays"),
        pytest.param(replace(SETTINGS, queue="team"), id="in a queue"),
    ],
)
def test_the_job_is_taken_as_it_is_and_fits_the_restricted_standard(
    settings: JobSettings, api_server: ControlPlane, namespace: str
) -> None:
    api_server.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/warn=restricted")
    profile = OptimizationProfileSpec.model_validate({"hardware": {"architectures": ["x86_64", "aarch64"]}})
    job = build(run(namespace), profile, settings, attempt=3)

    answer = api_server.kubectl(
        "create", "-f", "-", "--validate=strict", "--dry-run=server", "-o", "json", input=json.dumps(job)
    )

    assert "PodSecurity" not in answer.stderr
    stored = json.loads(answer.stdout)
    assert stored["spec"]["podFailurePolicy"]["rules"] == job["spec"]["podFailurePolicy"]["rules"]
    assert (
        stored["spec"]["template"]["spec"]["containers"][0]["env"]
        == job["spec"]["template"]["spec"]["containers"][0]["env"]
    )


@pytest.mark.apiserver
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(SETTINGS, id="a store whose addresses are not known"),
        pytest.param(
            replace(SETTINGS, egress=(Egress(443, cidr="10.0.0.0/8"), Egress(9000, namespace="storage"))),
            id="known ones",
        ),
    ],
)
def test_the_network_policy_is_taken_as_it_is(settings: JobSettings, api_server: ControlPlane, namespace: str) -> None:
    policy = network_policy(run(namespace), settings)

    answer = api_server.kubectl(
        "create", "-f", "-", "--validate=strict", "--dry-run=server", "-o", "json", input=json.dumps(policy)
    )

    assert json.loads(answer.stdout)["spec"] == policy["spec"]
