"""Jobs on both clusters: created as the planner builds them, given the statuses that the Job runner writes, and owned."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tests.contract.conftest import Connections
from tests.owners import owner_reference

from penstock.api.meta import ObjectMeta
from penstock.api.optimization import ClusterOptimizationProfile, OptimizationRun, OptimizationRunSpec
from penstock.api.v1alpha1 import Accelerator, ModelSource, ProfileReference, Resources
from penstock.errors import Conflict
from penstock.serving.manifest import ModelFormat
from penstock_operator.optimization.job import JobSettings, build
from penstock_operator.runtime.cluster import CONFIG_MAP, JOB, Key, Manifest, create_if_absent
from penstock_operator.runtime.jobs import job_status

PROFILES = Path(__file__).parents[2] / "manifests" / "profiles"
IN_PODS = JobSettings(
    store="s3://artifacts/penstock", signing_key="/etc/penstock/signing/key.pem", image="optimizer:1",
    signing_key_secret="signing", workspace_claim="workspace", model_volumes=(("models", "/models"),),
    environment=(("AWS_ENDPOINT_URL", "http://s3"),), environment_secret="s3",
)  # fmt: skip
HERE = JobSettings(store="file:///artifacts", signing_key="/key.pem", workspace="/w", python="/usr/bin/python3")
QUEUED = replace(IN_PODS, queue="team")
GPU = Resources(cpu="2", memory="4Gi", accelerator=Accelerator(type="nvidia-l4", count="0.5"))


def job(home: Connections, settings: JobSettings = IN_PODS, resources: Resources = Resources()) -> Manifest:  # noqa: B008  # frozen
    owner = home.cluster.create(CONFIG_MAP, {"metadata": {"name": "owner", "namespace": home.namespace}})
    run = OptimizationRun(
        metadata=ObjectMeta(name="digits-1", namespace=home.namespace, uid=owner["metadata"]["uid"]),
        spec=OptimizationRunSpec(
            model=ModelSource(storage_uri="s3://models/digits", model_format=ModelFormat.ONNX),
            profile_ref=ProfileReference(name="balanced"),
            resources=resources,
        ),
    )
    text = yaml.safe_load((PROFILES / "balanced.yaml").read_text())
    built = build(run, ClusterOptimizationProfile.model_validate(text).spec, settings, attempt=1)
    reference = owner_reference(owner | {"apiVersion": "v1", "kind": "ConfigMap"})
    return {**built, "metadata": {**built["metadata"], "ownerReferences": [reference]}}


def status_of(manifest: Manifest, status: Manifest) -> Manifest:
    return {"metadata": {name: manifest["metadata"][name] for name in ("name", "namespace")}, "status": status}


@pytest.mark.parametrize(
    ("settings", "resources"),
    [(IN_PODS, Resources()), (IN_PODS, GPU), (QUEUED, Resources()), (HERE, Resources())],
    ids=["a pod with everything", "a pod on an accelerator", "a pod in a queue", "a process of this machine"],
)
def test_a_planned_job_is_taken_once(home: Connections, settings: JobSettings, resources: Resources) -> None:
    planned = job(home, settings, resources)
    created = home.cluster.create(JOB, planned)
    assert created["spec"]["backoffLimit"] == 0
    with pytest.raises(Conflict) as refused:
        home.cluster.create(JOB, planned)
    assert refused.value.reason == "AlreadyExists"
    create_if_absent(home.cluster, JOB, planned)
    (listed,) = home.cluster.list(JOB, home.namespace).items
    assert listed["metadata"]["uid"] == created["metadata"]["uid"]


@pytest.mark.parametrize("code", [0, 1, 75], ids=["success", "failure", "a failure to be tried again"])
def test_the_job_runner_s_statuses_are_what_a_job_may_have(home: Connections, code: int) -> None:
    created = home.cluster.create(JOB, job(home))
    running = home.cluster.apply_status(
        JOB, status_of(created, job_status.running_status(created, time.time())), "runner"
    )
    assert (running["status"]["active"], job_status.end_of(running)) == (1, None)
    assert running["spec"] == created["spec"]
    ended = home.cluster.apply_status(
        JOB, status_of(created, job_status.exited_status(running, code, time.time(), ". Its output: log")), "runner"
    )
    end = job_status.end_of(ended)
    assert end is not None
    assert (end.succeeded, end.exit_code) == (code == 0, code)
    assert not ended["status"].get("active")


def test_a_job_past_its_deadline_may_be_told_so(home: Connections) -> None:
    created = home.cluster.create(JOB, job(home))
    late = job_status.overdue_status(created, time.time())
    end = job_status.end_of(home.cluster.apply_status(JOB, status_of(created, late), "runner"))
    assert end is not None
    assert end.reason == "DeadlineExceeded"


def test_a_job_goes_with_its_owner(home: Connections) -> None:
    home.cluster.create(JOB, job(home))
    home.cluster.delete(CONFIG_MAP, Key(home.namespace, "owner"))
    deadline = time.monotonic() + 60
    while home.cluster.list(JOB, home.namespace).items:
        assert time.monotonic() < deadline, "the Job is still there"
        time.sleep(0.1)
