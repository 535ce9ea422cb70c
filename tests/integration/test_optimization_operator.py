"""From a deployment with a profile to its verdict: the operator on both clusters, with a Job whose end is faked.

No kubelet runs here, so the tests write what a Job would: its status, and the files in the artifact store. That the real
API server takes the Job is part of the test; that a Job does what it is to is tested elsewhere, with real processes.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from tests.chart.helm import grant_operator_rights
from tests.cluster.controlplane import ControlPlane
from tests.contract.ray_rest_standin import RayStandIn
from tests.telling import assert_tells
from tests.waiting import eventually

from penstock.api.optimization import OptimizationRun
from penstock.optimization.progress import (
    PROGRESS_FILE,
    RESULT_FILE,
    SIGNING_KEY_VARIABLE,
    Figures,
    OptimizationRequest,
    Progress,
    RunResult,
)
from penstock.optimization.report import SearchVerdict
from penstock.optimization.statements import Statement, digest_of_profile
from penstock.optimization.trials import Stage
from penstock.serving.manifest import BatchPoint, Capacity, ModelFormat
from penstock_operator.kinds import CLUSTER_OPTIMIZATION_PROFILE, INFERENCE_DEPLOYMENT, OPTIMIZATION_RUN, SERVING_POOL
from penstock_operator.operation import Operation
from penstock_operator.optimization.job import REQUEST_VARIABLE, JobSettings, run_folder
from penstock_operator.pool.kinds import NETWORK_POLICY
from penstock_operator.runtime.cluster import JOB, NAMESPACE, SECRET, Cluster, Key, Manifest, Propagation, key_of
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster
from penstock_operator.runtime.cluster.kubernetes import KubernetesCluster
from penstock_operator.runtime.jobs import job_status
from penstock_operator.runtime.loop.news import News
from penstock_operator.settings import Settings
from penstock_runtime.signing import sign_statement
from penstock_runtime.storage import Store

MANIFESTS = Path(__file__).parents[2] / "manifests"
ACCEPTED = RunResult(
    verdict=SearchVerdict.ACCEPTED,
    summary="3.20x as fast at the same accuracy.",
    recipe="quantize Static → OpenVINO fp32",
    figures=Figures(
        baseline="TorchEager fp32", speedups={"TorchEager fp32": 3.2, "ONNXRuntime fp32": 1.5},
        latency_p99_milliseconds=(4.1, 1.3), size_bytes=(2_800_000, 700_000), metric="Accuracy", accuracy=(0.98, 0.98),
    ),
    artifact_uri="file:///artifacts/sha256-1",
    artifact_digest=f"sha256:{'1' * 64}",
    artifact_format=ModelFormat.OPENVINO,
    capacity=Capacity(
        curve=(BatchPoint(rows=1, p50_milliseconds=1, p99_milliseconds=2, rows_per_second=900),),
        max_batch_size=8, max_delay_milliseconds=2, requests_per_second=900, target_in_flight_requests=4,
    ),
    report_uri="file:///artifacts/reports/1",
)  # fmt: skip
REJECTED = RunResult(verdict=SearchVerdict.REJECTED, summary="The best candidate is 1.02x as fast; 1.1x was asked.")


@dataclass
class OperatedNamespace:
    """A namespace with a pool, and operators on it."""

    cluster: Cluster
    namespace: str
    connect: Callable[[], Cluster]
    """The operator's own connection, with its own rights."""
    store: Path
    ray: RayStandIn
    events: list[tuple[str, str]] = field(default_factory=list)
    running: list[tuple[Operation, Cluster]] = field(default_factory=list)
    kubectl: Callable[..., str] | None = None

    @property
    def jobs(self) -> JobSettings:
        return JobSettings(
            store=self.store.as_uri(), signing_key="", image="penstock-optimizer:test",
            signing_key_secret="signing", model_volumes=(("models", "/models"),), environment_secret="s3",
        )  # fmt: skip

    def start(self, *, store: bool = True) -> None:
        def record(_object: Any, news: News) -> None:
            self.events.append((news.reason, news.message))

        connection = self.connect()
        settings = Settings(
            namespaces=(self.namespace,),
            jobs=self.jobs if store else None,
            trusted_keys=("a key",),
            gateway_secret="a secret",
        )
        operation = Operation(connection, settings, record, lambda: True)
        operation.start()
        self.running.append((operation, connection))

    def stop(self) -> None:
        while self.running:
            operation, connection = self.running.pop()
            assert operation.stop(60)
            connection.close()

    def deploy(self, **spec: Any) -> None:
        model = {"storageUri": "file:///models/1", "modelFormat": "onnx", "dataUri": "file:///models/data"}
        reference = {"kind": "ClusterOptimizationProfile", "name": "balanced"}
        manifest = {
            "apiVersion": INFERENCE_DEPLOYMENT.api_version,
            "kind": INFERENCE_DEPLOYMENT.kind,
            "metadata": {"name": "digits", "namespace": self.namespace},
            "spec": {"model": model, "optimizationProfileRef": reference, **spec},
        }
        self.cluster.apply(INFERENCE_DEPLOYMENT, manifest, "test")

    def only(self, kind: Any) -> Manifest:
        """The one object of a kind, once there is one that is not going."""

        def look() -> list[Manifest]:
            items = self.cluster.list(kind, self.namespace).items
            return [each for each in items if "deletionTimestamp" not in each["metadata"]]

        (found,) = eventually(look, f"there is one {kind.kind}")
        return found

    def condition(self, kind: str, manifest: Manifest) -> tuple[str, str]:
        conditions = (manifest.get("status") or {}).get("conditions", ())
        return next(((each["status"], each["reason"]) for each in conditions if each["type"] == kind), ("", ""))

    def wait(self, kind: Any, condition: str, status: str, reason: str) -> Manifest:
        found: dict[str, Manifest] = {}

        def look() -> bool:
            found["it"] = self.only(kind)
            return self.condition(condition, found["it"]) == (status, reason)

        eventually(look, f"{kind.kind}: {condition} {status} {reason}; it is {found}")
        return found["it"]

    def write(self, job: Manifest, content: Progress | RunResult) -> None:
        """What the Job would write into the store, signed by the key that it has from its Secret."""
        (container,) = job["spec"]["template"]["spec"]["containers"]
        environment = {each["name"]: each for each in container["env"]}
        reference = environment[SIGNING_KEY_VARIABLE]["valueFrom"]["secretKeyRef"]
        secret = self.cluster.get(SECRET, Key(self.namespace, reference["name"]))
        assert secret is not None
        key = self.store.with_name("key.pem")
        key.write_bytes(base64.b64decode(secret["data"][reference["key"]]))
        request = OptimizationRequest.model_validate_json(environment[REQUEST_VARIABLE]["value"])
        assert request.identity is not None
        name, said = (
            (PROGRESS_FILE, {"progress": content})
            if isinstance(content, Progress)
            else (RESULT_FILE, {"result": content})
        )
        statement = Statement.model_validate(
            {"identity": request.identity, "profile_digest": digest_of_profile(request.spec), **said}
        )
        Store(request.run_folder or "").write(name, sign_statement(statement, key))

    def accepted(self) -> RunResult:
        """A verdict whose artifact lies in this namespace's part of the store."""
        own = f"{self.store.as_uri()}/{self.namespace}"
        return ACCEPTED.model_copy(
            update={"artifact_uri": f"{own}/artifacts/sha256-aa", "report_uri": f"{own}/reports/aa"}
        )

    def report(self, job: Manifest, status: Manifest) -> Manifest:
        """What Kubernetes would say of the Job."""
        key = key_of(job)
        return self.cluster.apply_status(
            JOB, {"metadata": {"name": key.name, "namespace": key.namespace}, "status": status}, "kubelet"
        )

    def run_job(self) -> tuple[Manifest, Manifest]:
        """The run and its Job, once that has begun."""
        job, run = self.only(JOB), self.only(OPTIMIZATION_RUN)
        return run, self.report(job, job_status.running_status(job, time.time()))


@pytest.fixture(params=["embedded", pytest.param("kubernetes", marks=pytest.mark.apiserver)])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OperatedNamespace]:
    namespace = f"optimize-{secrets.token_hex(4)}"
    kubectl: Callable[..., str] | None = None
    if request.param == "embedded":
        path = tmp_path / "cluster.sqlite"
        cluster: Cluster = EmbeddedCluster(path)

        def connect() -> Cluster:
            return EmbeddedCluster(path)
    else:
        plane: ControlPlane = request.getfixturevalue("crds")
        grant_operator_rights(plane)
        cluster = KubernetesCluster.connect(plane.kubeconfig)

        def connect() -> Cluster:
            return KubernetesCluster.connect(plane.kubeconfig_for("penstock-operator", "penstock-system"))

        def kubectl(*words: str) -> str:
            return plane.kubectl(*words, "-n", namespace).stdout

    cluster.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    with RayStandIn() as ray:
        built = OperatedNamespace(cluster, namespace, connect, tmp_path / "store", ray, kubectl=kubectl)
        prepare(built)
        yield built
        built.stop()
    for each in cluster.list(INFERENCE_DEPLOYMENT, namespace).items:
        for finalizer in each["metadata"].get("finalizers", ()):
            cluster.remove_finalizer(INFERENCE_DEPLOYMENT, each, finalizer)
    cluster.delete(NAMESPACE, Key("", namespace))
    cluster.close()


def prepare(home: OperatedNamespace) -> None:
    """Profile and pool; the token lies where a Role lets the operator read it."""
    profile = yaml.safe_load((MANIFESTS / "profiles" / "balanced.yaml").read_text())
    home.cluster.apply(CLUSTER_OPTIMIZATION_PROFILE, profile, "test")
    secret = {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ray-token", "namespace": home.namespace},
        "stringData": {"token": home.ray.token},
    }  # fmt: skip
    home.cluster.apply(SECRET, secret, "test")
    rights = list(yaml.safe_load_all((MANIFESTS / "rbac" / "pool-token.example.yaml").read_text()))
    for each in rights if isinstance(home.cluster, KubernetesCluster) else ():
        each["metadata"]["namespace"] = home.namespace
        home.cluster.apply(kind_of_right(each), each, "test")
    pool = {
        "apiVersion": SERVING_POOL.api_version, "kind": SERVING_POOL.kind,
        "metadata": {"name": "default", "namespace": home.namespace},
        "spec": {"existing": {"address": home.ray.url, "tokenSecretRef": {"name": "ray-token", "key": "token"}}},
    }  # fmt: skip
    home.cluster.apply(SERVING_POOL, pool, "test")


def kind_of_right(manifest: Manifest) -> Any:
    group, version = manifest["apiVersion"].split("/")
    return type(SECRET)(group, version, manifest["kind"], f"{manifest['kind'].lower()}s")


def test_a_profile_makes_a_faster_model_serve(home: OperatedNamespace) -> None:
    home.start()
    home.deploy()
    home.wait(INFERENCE_DEPLOYMENT, "Ready", "True", "Ready")
    (baseline,) = home.ray.details()["applications"].values()
    assert baseline["deployed_app_config"]["args"]["replica"]["storageUri"] == "file:///models/1"

    run, job = home.run_job()
    container = job["spec"]["template"]["spec"]["containers"][0]
    (text,) = [each["value"] for each in container["env"] if each["name"] == REQUEST_VARIABLE]
    request = OptimizationRequest.model_validate_json(text)
    assert (request.model_uri, request.data_uri) == ("file:///models/1", "file:///models/data")

    progress = Progress(stage=Stage.MEASURE, message="rung 1", done=3, total=12, best="Static", best_speedup=2.1)
    home.write(job, progress)
    eventually(lambda: "Measure" in json.dumps(home.only(OPTIMIZATION_RUN).get("status")), "progress is told")
    assert home.condition("ProfileApplied", home.only(INFERENCE_DEPLOYMENT)) == ("Unknown", "Optimizing")

    accepted = home.accepted()
    home.write(job, accepted)
    home.report(job, job_status.exited_status(job, 0, time.time()))
    deployment = home.wait(INFERENCE_DEPLOYMENT, "ProfileApplied", "True", "Optimized")
    assert deployment["status"]["speedup"] == "3.20x"
    assert deployment["status"]["optimizationRun"] == run["metadata"]["name"]
    served = [app["deployed_app_config"] for app in home.ray.details()["applications"].values()]
    optimized = next(each for each in served if each["args"]["replica"]["storageUri"] == accepted.artifact_uri)
    replica = optimized["args"]["replica"]
    secret = home.cluster.get(SECRET, Key(home.namespace, f"{run['metadata']['name']}-signing"))
    assert secret is not None
    private = serialization.load_pem_private_key(base64.b64decode(secret["data"]["key.pem"]), None)
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert (replica["requireSignature"], replica["trustedKeys"]) == (True, [public.decode()]), "the run's own key alone"
    assert "requireSignature" not in baseline["deployed_app_config"]["args"]["replica"], "the model is the user's own"
    assert optimized["deployments"][0]["user_config"]["batching"]["maxBatchSize"] == 8
    told = home.only(OPTIMIZATION_RUN)["status"]
    assert (told["verdict"], told["figures"]["size"], told["attempts"]) == ("Accepted", "2.8 MB → 700 kB", 1)
    # an event is written once the condition that it tells of has been
    told_of = {"Optimizing", "ProfileAccepted", "Optimized"}
    eventually(lambda: told_of <= {reason for reason, _ in home.events}, f"events tell of {told_of}")
    if home.kubectl is not None:
        heading, line = home.kubectl("get", "optrun").splitlines()
        assert heading.split()[:3] == ["NAME", "VERDICT", "SPEEDUP"]
        assert line.split()[1:3] == ["Accepted", "3.20x"]


def test_a_job_runs_where_the_model_will_behind_a_network_policy(home: OperatedNamespace) -> None:
    arm = {"kubernetes.io/arch": "arm64"}
    group = {"name": "arm", "cpu": "4", "memory": "16Gi", "nodeSelector": arm, "tolerations": [{"key": "arm"}]}
    pool = {
        "apiVersion": SERVING_POOL.api_version, "kind": SERVING_POOL.kind,
        "metadata": {"name": "mixed", "namespace": home.namespace},
        "spec": {"managed": {"workerGroups": [{"name": "cpu", "cpu": "1", "memory": "1Gi"}, group]}},
    }  # fmt: skip
    home.cluster.apply(SERVING_POOL, pool, "test")
    home.start()
    home.deploy(poolRef={"name": "mixed"}, resources={"nodeLabels": arm})
    pod = home.only(JOB)["spec"]["template"]["spec"]
    assert (pod["nodeSelector"], pod["tolerations"]) == (arm, [{"key": "arm", "operator": "Exists"}])
    run = home.only(OPTIMIZATION_RUN)
    policy = home.cluster.get(NETWORK_POLICY, Key(home.namespace, run["metadata"]["name"]))
    assert policy is not None
    assert policy["metadata"]["ownerReferences"][0]["uid"] == run["metadata"]["uid"]


def test_what_others_put_in_the_place_of_a_result_serves_nothing(home: OperatedNamespace) -> None:
    home.start()
    home.deploy()
    run, job = home.run_job()
    folder = Path(run_folder(home.jobs, OptimizationRun.model_validate(run)).removeprefix("file://"))
    folder.mkdir(parents=True)
    (folder / RESULT_FILE).write_text(home.accepted().model_dump_json())
    home.report(job, job_status.exited_status(job, 0, time.time()))
    eventually(lambda: "is being read" in json.dumps(home.only(OPTIMIZATION_RUN)["status"]), "its end was seen")
    assert "artifact" not in home.only(OPTIMIZATION_RUN)["status"], "nobody signed what lies there"
    home.write(job, home.accepted())
    home.wait(INFERENCE_DEPLOYMENT, "ProfileApplied", "True", "Optimized")


def test_a_rejected_profile_leaves_the_model_and_says_why(home: OperatedNamespace) -> None:
    home.start()
    home.deploy()
    _, job = home.run_job()
    home.write(job, REJECTED)
    home.report(job, job_status.exited_status(job, 0, time.time()))
    deployment = home.wait(INFERENCE_DEPLOYMENT, "ProfileApplied", "False", "ProfileRejected")
    assert "1.02x" in json.dumps(deployment["status"]["conditions"])
    home.wait(INFERENCE_DEPLOYMENT, "Ready", "True", "Ready")
    (app,) = home.ray.details()["applications"].values()
    assert app["deployed_app_config"]["args"]["replica"]["storageUri"] == "file:///models/1"


def test_a_restart_between_any_two_steps_starts_no_second_job(home: OperatedNamespace) -> None:
    home.start()
    home.deploy()
    run, job = home.run_job()
    home.stop()
    home.write(job, home.accepted())
    home.report(job, job_status.exited_status(job, 0, time.time()))
    home.start()
    home.wait(OPTIMIZATION_RUN, "Accepted", "True", "ProfileAccepted")
    home.stop()
    home.start()
    home.wait(INFERENCE_DEPLOYMENT, "ProfileApplied", "True", "Optimized")
    assert home.only(JOB)["metadata"]["uid"] == job["metadata"]["uid"]
    assert home.only(OPTIMIZATION_RUN)["metadata"]["uid"] == run["metadata"]["uid"]


def test_a_failed_search_is_told_with_its_exit_code(home: OperatedNamespace) -> None:
    home.start()
    home.deploy()
    _, job = home.run_job()
    home.report(job, job_status.exited_status(job, 1, time.time()))
    run = home.wait(OPTIMIZATION_RUN, "Complete", "False", "OptimizationFailed")
    assert_tells(run["status"]["summary"], "exit code 1")
    home.wait(INFERENCE_DEPLOYMENT, "ProfileApplied", "False", "OptimizationFailed")
    home.wait(INFERENCE_DEPLOYMENT, "Ready", "True", "Ready")


def test_another_model_gets_a_run_of_its_own_and_the_former_one_goes(home: OperatedNamespace) -> None:
    home.start()
    home.deploy()
    before, former = home.run_job()
    home.deploy(model={"storageUri": "file:///models/2", "modelFormat": "onnx"})

    def replaced() -> bool:
        runs = {each["metadata"]["uid"] for each in home.cluster.list(OPTIMIZATION_RUN, home.namespace).items}
        jobs = {each["metadata"]["uid"] for each in home.cluster.list(JOB, home.namespace).items}
        # The former Job goes when Kubernetes collects garbage, which takes it a while.
        return before["metadata"]["uid"] not in runs and len(runs) == 1 and bool(jobs - {former["metadata"]["uid"]})

    eventually(replaced, "the run and its Job are new")


def test_a_profile_that_comes_later_is_noticed_at_once(home: OperatedNamespace) -> None:
    home.start()
    late = f"late-{secrets.token_hex(3)}"
    home.deploy(optimizationProfileRef={"kind": "ClusterOptimizationProfile", "name": late})
    home.wait(INFERENCE_DEPLOYMENT, "ProfileApplied", "False", "ProfileNotFound")
    profile = yaml.safe_load((MANIFESTS / "profiles" / "latency.yaml").read_text())
    profile["metadata"]["name"] = late
    home.cluster.apply(CLUSTER_OPTIMIZATION_PROFILE, profile, "test")
    try:
        assert home.only(OPTIMIZATION_RUN)["spec"]["profileRef"]["name"] == late
        home.only(JOB)
    finally:
        home.cluster.delete(CLUSTER_OPTIMIZATION_PROFILE, Key("", late))


def test_without_an_artifact_store_the_deployment_says_so_and_serves(home: OperatedNamespace) -> None:
    home.start(store=False)
    home.deploy()
    home.wait(INFERENCE_DEPLOYMENT, "ProfileApplied", "False", "OptimizationUnavailable")
    home.wait(INFERENCE_DEPLOYMENT, "Ready", "True", "Ready")
    assert not home.cluster.list(JOB, home.namespace).items


def test_a_deleted_deployment_takes_its_run_and_job_along(home: OperatedNamespace) -> None:
    home.start()
    home.deploy()
    home.run_job()
    key = Key(home.namespace, "digits")
    home.cluster.delete(INFERENCE_DEPLOYMENT, key, propagation=Propagation.BACKGROUND)
    eventually(lambda: not home.cluster.list(JOB, home.namespace).items, "the Job is gone")
    assert not home.cluster.list(OPTIMIZATION_RUN, home.namespace).items
