"""An optimization Job among others: on the nodes that will serve, in a queue, and with a bounded network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.telling import assert_tells, telling

from penstock.api.conditions import Reason, RunCondition
from penstock.api.optimization import OptimizationProfileSpec, OptimizationRun
from penstock.api.pool import WorkerGroup
from penstock.errors import Invalid
from penstock.names import QUEUE_LABEL, RUN_LABEL
from penstock_operator.optimization.job import JobSettings, build
from penstock_operator.optimization.job_network import network_policy
from penstock_operator.optimization.job_settings import Egress, parse_egress
from penstock_operator.optimization.observed import JobState, ObservedJob, ObservedRun
from penstock_operator.optimization.plan import RunPlan, plan_run

NOW = 1_000_000.0
PROFILE = OptimizationProfileSpec.model_validate({"search": {"budgetMinutes": 10}})
SETTINGS = JobSettings(store="s3://store", signing_key="/keys/key.pem", image="optimizer:1", signing_key_secret="sign")
HERE = JobSettings(store="file:///store", signing_key="/keys/key.pem")
ARM = {"kubernetes.io/arch": "arm64"}


def run(resources: dict[str, Any] | None = None, labels: dict[str, str] | None = None, **model: Any) -> OptimizationRun:
    return OptimizationRun.model_validate(
        {
            "metadata": {"name": "digits-1", "namespace": "vision", "uid": "0123456789", "labels": labels or {}},
            "spec": {
                "model": {"storageUri": "s3://models/digits/1", "modelFormat": "onnx"} | model,
                "profileRef": {"name": "balanced"},
                "resources": resources or {},
            },
        }
    )


def group(name: str, accelerator: dict[str, Any] | None = None, **fields: Any) -> WorkerGroup:
    return WorkerGroup.model_validate(
        {"name": name, "cpu": "4", "memory": "16Gi", "accelerator": accelerator, **fields}
    )


GROUPS = (
    group("cpu"),
    group("l4", {"type": "nvidia-l4"}, tolerations=[{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]),
    group("mig", {"type": "mig-1g", "resource": "nvidia.com/mig-1g.5gb"}, nodeSelector={"gpu": "a100"}),
    group("graviton", nodeSelector={**ARM, "pool": "models"}),
)


def planned(of: OptimizationRun, settings: JobSettings = SETTINGS, *jobs: ObservedJob) -> RunPlan:
    return plan_run(ObservedRun(of, PROFILE, settings, jobs, groups=GROUPS), NOW)


def asked(kind: str, count: str = "1") -> dict[str, Any]:
    return {"accelerator": {"type": kind, "count": count}}


@pytest.mark.parametrize(
    ("resources", "selector", "tolerations", "extended"),
    [
        pytest.param({}, None, None, {}, id="no accelerator: any node"),
        pytest.param(
            asked("nvidia-l4", "0.5"), {"penstock.dev/accelerator-type": "nvidia-l4"},
            [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}], {"nvidia.com/gpu": "1"},
            id="half a GPU is measured on a whole one, where the group runs",
        ),
        pytest.param(asked("mig-1g"), {"gpu": "a100"}, None, {"nvidia.com/mig-1g.5gb": "1"}, id="a slice of a GPU"),
        pytest.param({"nodeLabels": ARM}, {**ARM, "pool": "models"}, None, {}, id="a kind of processor"),
    ],
)  # fmt: skip
def test_a_job_runs_where_the_model_will(
    resources: dict[str, Any], selector: dict[str, str] | None, tolerations: list[Any] | None, extended: dict[str, str]
) -> None:
    job = planned(run(resources)).job
    assert job is not None
    spec = job["spec"]["template"]["spec"]
    assert (spec.get("nodeSelector"), spec.get("tolerations")) == (selector, tolerations)
    limits = spec["containers"][0]["resources"]["limits"]
    assert {name: amount for name, amount in limits.items() if "/" in name} == extended
    assert "affinity" not in spec


@pytest.mark.parametrize(
    ("resources", "gpu_image", "image"),
    [
        pytest.param(asked("nvidia-l4"), "optimizer-gpu:1", "optimizer-gpu:1", id="a GPU"),
        pytest.param(asked("mig-1g"), "optimizer-gpu:1", "optimizer-gpu:1", id="a slice of one"),
        pytest.param({}, "optimizer-gpu:1", "optimizer:1", id="none"),
        pytest.param(asked("nvidia-l4"), None, "optimizer:1", id="a GPU, and an operator that was told of one image"),
    ],
)
def test_a_job_has_the_image_for_what_it_measures_on(
    resources: dict[str, Any], gpu_image: str | None, image: str
) -> None:
    job = planned(run(resources), replace(SETTINGS, gpu_image=gpu_image)).job
    assert job is not None
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == image


def test_without_a_pool_that_says_more_nodes_are_chosen_by_their_labels() -> None:
    spec = build(run({**asked("nvidia-l4"), "nodeLabels": ARM}), PROFILE, SETTINGS, 1)["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == ARM
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [
        {"key": "penstock.dev/accelerator-type", "operator": "In", "values": ["nvidia-l4"]}
    ]


def test_where_no_worker_group_could_serve_the_model_no_job_is_made() -> None:
    plan = planned(run(asked("nvidia-h100")))
    assert plan.job is None
    complete = next(each for each in plan.status.conditions if each.type == RunCondition.COMPLETE)
    assert (complete.status, complete.reason) == ("False", Reason.UNSCHEDULABLE)
    assert_tells(complete.message, "nvidia-h100 no worker group")
    assert plan.requeue is not None


@pytest.mark.parametrize(
    ("labels", "setting", "queue"),
    [
        pytest.param({}, None, None, id="no queue: it starts at once"),
        pytest.param({}, "all", "all", id="the operator's queue"),
        pytest.param({QUEUE_LABEL: "mine"}, "all", "mine", id="the run's own goes first"),
        pytest.param({QUEUE_LABEL: "mine"}, None, "mine", id="the run's own alone"),
    ],
)
def test_a_job_waits_in_a_queue(labels: dict[str, str], setting: str | None, queue: str | None) -> None:
    job = planned(run(labels=labels), replace(SETTINGS, queue=setting)).job
    assert job is not None
    assert job["metadata"]["labels"].get(QUEUE_LABEL) == queue
    assert job["spec"].get("suspend", False) is (queue is not None)


@pytest.mark.parametrize("started", [None, NOW - 1000], ids=["never started", "suspended for another"])
def test_a_suspended_job_is_waited_for_and_has_not_failed(started: float | None) -> None:
    job = ObservedJob("digits-1-1", JobState.ACTIVE, started_at=started, suspended=True, queue="mine")
    plan = planned(run(), SETTINGS, job)
    assert (plan.job, plan.delete_jobs) == (None, ())
    complete = next(each for each in plan.status.conditions if each.type == RunCondition.COMPLETE)
    assert (complete.status, complete.reason) == ("False", Reason.PENDING)
    assert_tells(complete.message, "Job digits-1-1 queue mine suspended")
    assert plan.status.completion_time is None


def ports(rule: dict[str, Any]) -> list[tuple[int, str]]:
    return [(each["port"], each["protocol"]) for each in rule["ports"]]


@pytest.mark.parametrize(
    ("settings", "peers", "port_numbers"),
    [
        pytest.param(
            replace(SETTINGS, egress=(Egress(9000, namespace="storage"),)),
            [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "storage"}}}], [9000],
            id="a store in the cluster",
        ),
        pytest.param(
            replace(SETTINGS, egress=(Egress(443, cidr="10.1.0.0/16"),)), [{"ipBlock": {"cidr": "10.1.0.0/16"}}], [443],
            id="a store at known addresses",
        ),
        pytest.param(
            replace(SETTINGS, egress=(Egress(443, cidr="0.0.0.0/0"),)),
            [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}], [443],
            id="a store anywhere, which is not where clouds keep credentials",
        ),
        pytest.param(
            replace(SETTINGS, environment=(("AWS_ENDPOINT_URL", "http://minio:9000"), ("LEVEL", "a:b"))),
            [
                {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}},
                {"ipBlock": {"cidr": "::/0", "except": ["fe80::/10", "fd00:ec2::/32"]}},
                {"namespaceSelector": {}},
            ],
            [443, 9000],
            id="a store whose addresses are not known",
        ),
    ],
)  # fmt: skip
def test_a_job_reaches_dns_and_the_store_and_nothing_reaches_it(
    settings: JobSettings, peers: list[dict[str, Any]], port_numbers: list[int]
) -> None:
    policy = network_policy(run(), settings)
    spec = policy["spec"]
    assert spec["podSelector"] == {"matchLabels": {RUN_LABEL: "digits-1"}}
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in spec
    dns, store = spec["egress"]
    assert ports(dns) == [(53, "UDP"), (53, "TCP")]
    assert store["to"] == peers
    assert ports(store) == [(number, "TCP") for number in port_numbers]


def test_the_policy_comes_with_the_job_and_goes_with_the_run() -> None:
    plan = planned(run())
    assert plan.job is not None
    assert plan.network_policy is not None
    assert plan.network_policy["metadata"]["ownerReferences"][0]["uid"] == "0123456789"
    assert plan.job["spec"]["template"]["metadata"]["labels"][RUN_LABEL] == "digits-1"
    assert planned(run(), HERE).network_policy is None


def test_the_models_credentials_and_claims_are_mounted_and_nobody_elses() -> None:
    of = run(storageUri="pvc://models/digits/1", dataUri="pvc://data/digits", credentialsSecretRef={"name": "hub"})
    (container,) = build(of, PROFILE, SETTINGS, 1)["spec"]["template"]["spec"]["containers"]
    mounts = {each["mountPath"]: each.get("readOnly") for each in container["volumeMounts"]}
    assert mounts == {
        "/workspace": None, "/tmp": None, "/var/run/secrets/penstock/hub": True,
        "/mnt/penstock/claims/data": True, "/mnt/penstock/claims/models": True,
    }  # fmt: skip
    assert '"credentials":"hub"' in container["env"][0]["value"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        pytest.param("10.1.0.0/16:443", Egress(443, cidr="10.1.0.0/16"), id="a block of addresses"),
        pytest.param("10.1.0.7:443", Egress(443, cidr="10.1.0.7/32"), id="one address"),
        pytest.param("[fd00::/8]:443", Egress(443, cidr="fd00::/8"), id="a block of IPv6"),
        pytest.param("namespace/storage:9000", Egress(9000, namespace="storage"), id="a namespace"),
        pytest.param("s3.example.org:443", None, id="a host's name is none"),
        pytest.param("10.1.0.0/16", None, id="without a port it is none"),
        pytest.param("10.1.0.0/16:99999", None, id="nor with one that there is not"),
        pytest.param("namespace/:9000", None, id="nor without the namespace's name"),
    ],
)
def test_a_place_to_connect_to(text: str, place: Egress | None) -> None:
    if place is not None:
        assert parse_egress(text) == place
        return
    with pytest.raises(Invalid, match=telling(text, "write addresses namespace port")):
        parse_egress(text)
