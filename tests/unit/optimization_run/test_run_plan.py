"""The plan of an `OptimizationRun`, by what is observed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from tests.telling import assert_tells

from penstock.api.conditions import Reason, RunCondition
from penstock.api.optimization import OptimizationProfileSpec, OptimizationRun
from penstock.api.verdicts import timestamp
from penstock.optimization.progress import Figures, OptimizationRequest, Progress, RunIdentity, RunResult
from penstock.optimization.report import SearchVerdict
from penstock.optimization.statements import digest_of_profile
from penstock.optimization.trials import Stage
from penstock.serving.manifest import Capacity, ModelFormat
from penstock_operator.deployment.observed import ProfileProblem
from penstock_operator.optimization.job import MARGIN_SECONDS, REQUEST_VARIABLE, JobSettings, run_folder
from penstock_operator.optimization.observed import JobState, ObservedJob, ObservedRun
from penstock_operator.optimization.plan import RunPlan, plan_run

NOW = 1_000_000.0
PROFILE = OptimizationProfileSpec.model_validate({"search": {"budgetMinutes": 10}})
SETTINGS = JobSettings(store="s3://store", signing_key="/keys/key.pem", image="optimizer:1", signing_key_secret="sign")


def run(status: dict[str, Any] | None = None, **spec: Any) -> OptimizationRun:
    model = {"storageUri": "file:///models/digits/1", "modelFormat": "onnx"} | spec.pop("model", {})
    return OptimizationRun.model_validate(
        {
            "metadata": {
                "name": "digits-1", "namespace": "vision", "uid": "0123456789", "generation": 1,
                "labels": {"penstock.dev/deployment": "digits"},
            },
            "spec": {"model": model, "profileRef": {"name": "balanced"}} | spec,
            "status": status or {},
        }
    )  # fmt: skip


def job(number: int = 1, state: JobState = JobState.ACTIVE, **known: Any) -> ObservedJob:
    return ObservedJob(f"digits-1-{number}", state, **known)


def failed(number: int = 1, code: int | None = 75, ago: float = 1.0, **known: Any) -> ObservedJob:
    return job(number, JobState.FAILED, exit_code=code, finished_at=NOW - ago, **known)


def seen(*jobs: ObservedJob, of: OptimizationRun | None = None, **known: Any) -> ObservedRun:
    return ObservedRun(of or run(), known.pop("profile", PROFILE), known.pop("settings", SETTINGS), jobs, **known)


def said(result: RunPlan, kind: RunCondition) -> tuple[str, str]:
    return next((each.status.value, each.reason) for each in result.status.conditions if each.type == kind)


ACCEPTED = RunResult(
    verdict=SearchVerdict.ACCEPTED,
    summary="4.10x faster.",
    recipe="quantize Static → ONNXRuntime",
    artifact_uri="s3://store/vision/artifacts/sha256-aa",
    artifact_digest="sha256:aa",
    artifact_format=ModelFormat.ONNX,
    report_uri="s3://store/vision/reports/aa",
    capacity=Capacity(
        curve=(), max_batch_size=8, max_delay_milliseconds=2, requests_per_second=900.4, target_in_flight_requests=5
    ),
    figures=Figures(
        baseline="TorchEager fp32",
        speedups={"TorchEager fp32": 8.4, "ONNXRuntime fp32": 4.104},
        latency_p99_milliseconds=(4.1, 0.48),
        requests_per_second=(240.2, 2110.0),
        size_bytes=(102_000_000, 25_700_000),
        memory_bytes=(890_000_000, 122_000_000),
        metric="Accuracy",
        accuracy=(0.9926, 0.9907),
    ),
)
GOES = Progress(stage=Stage.MEASURE, message="Session 2", done=3, total=12, found="int8 is 2.10 times as fast")
MISSING = ProfileProblem(Reason.PROFILE_NOT_FOUND, "There is no ClusterOptimizationProfile balanced.")
ERROR = RunResult(verdict=SearchVerdict.NO_DECISION, summary="", error="The model cannot be read.")
DONE = job(1, JobState.SUCCEEDED, finished_at=NOW - 5)

OUTSIDE = [
    ("another namespace's", "s3://store/other/artifacts/sha256-aa"),
    ("of a namespace whose name begins alike", "s3://store/vision-2/artifacts/sha256-aa"),
    ("in another bucket", "s3://attacker/vision/artifacts/sha256-aa"),
    ("of another scheme", "https://store/vision/artifacts/sha256-aa"),
    ("on the node", "file:///store/vision/artifacts/sha256-aa"),
    ("reached by ..", "s3://store/vision/../other/artifacts/sha256-aa"),
    ("reached by an escaped ..", "s3://store/vision/%2e%2e/other/sha256-aa"),
    ("reached by an empty part", "s3://store/vision//other"),
    ("the whole of the namespace's part", "s3://store/vision/"),
    ("followed by a query", "s3://store/vision/artifacts/aa?versionId=1"),
    ("followed by a line", "s3://store/vision/artifacts/aa\n"),
]

ROWS = [
    # sentence, observed, Complete, Accepted, the Job to be created
    ("nothing is there: a Job begins", seen(), ("False", Reason.PENDING), ("Unknown", Reason.OPTIMIZING), "digits-1-1"),
    (
        "no profile: it waits",
        seen(profile=MISSING),
        ("False", Reason.PROFILE_NOT_FOUND),
        ("Unknown", Reason.PROFILE_NOT_FOUND),
        None,
    ),
    ("a Job goes", seen(job()), ("False", Reason.OPTIMIZING), ("Unknown", Reason.OPTIMIZING), None),
    (
        "a Job goes, although the profile went meanwhile",
        seen(job(), profile=MISSING),
        ("False", Reason.OPTIMIZING),
        ("Unknown", Reason.OPTIMIZING),
        None,
    ),
    (
        "a verdict is there before the Job has ended: it does not count yet",
        seen(job(), result=ACCEPTED),
        ("False", Reason.OPTIMIZING),
        ("Unknown", Reason.OPTIMIZING),
        None,
    ),
    (
        "a verdict is there and the Job ended well",
        seen(DONE, result=ACCEPTED),
        ("True", Reason.VERDICT_REACHED),
        ("True", Reason.PROFILE_ACCEPTED),
        None,
    ),
    (
        "a verdict is there and the Job failed: it does not count",
        seen(failed(code=1), result=ACCEPTED),
        ("False", Reason.OPTIMIZATION_FAILED),
        ("False", Reason.OPTIMIZATION_FAILED),
        None,
    ),
    (
        "a verdict is there and no Job that could have left it: one begins",
        seen(result=ACCEPTED),
        ("False", Reason.PENDING),
        ("Unknown", Reason.OPTIMIZING),
        "digits-1-1",
    ),
    *(
        (
            f"a verdict whose artifact is {where}: it does not count",
            seen(DONE, result=ACCEPTED.model_copy(update={"artifact_uri": uri})),
            ("False", Reason.OPTIMIZATION_FAILED),
            ("False", Reason.OPTIMIZATION_FAILED),
            None,
        )
        for where, uri in OUTSIDE
    ),
    (
        "a verdict whose report is another namespace's: it does not count",
        seen(DONE, result=ACCEPTED.model_copy(update={"report_uri": "s3://store/other/reports/aa"})),
        ("False", Reason.OPTIMIZATION_FAILED),
        ("False", Reason.OPTIMIZATION_FAILED),
        None,
    ),
    (
        "what lies there was signed by nobody, long after the Job ended",
        seen(replace(DONE, finished_at=NOW - 60), refused="result.json: it is not signed"),
        ("False", Reason.OPTIMIZATION_FAILED),
        ("False", Reason.OPTIMIZATION_FAILED),
        None,
    ),
    (
        "rejected",
        seen(DONE, result=RunResult(verdict=SearchVerdict.REJECTED, summary="x")),
        ("True", Reason.VERDICT_REACHED),
        ("False", Reason.PROFILE_REJECTED),
        None,
    ),
    (
        "no decision",
        seen(DONE, result=RunResult(verdict=SearchVerdict.NO_DECISION, summary="x")),
        ("True", Reason.VERDICT_REACHED),
        ("False", Reason.NO_DECISION),
        None,
    ),
    ("a Job ended just now", seen(DONE), ("False", Reason.OPTIMIZING), ("Unknown", Reason.OPTIMIZING), None),
    (
        "a Job ended and left nothing",
        seen(replace(DONE, finished_at=NOW - 60)),
        ("False", Reason.OPTIMIZATION_FAILED),
        ("False", Reason.OPTIMIZATION_FAILED),
        None,
    ),
    (
        "a Job failed for good",
        seen(failed(code=1), result=ERROR),
        ("False", Reason.OPTIMIZATION_FAILED),
        ("False", Reason.OPTIMIZATION_FAILED),
        None,
    ),
    (
        "a Job failed and trying again may help: later",
        seen(failed()),
        ("False", Reason.OPTIMIZATION_RETRIED),
        ("Unknown", Reason.OPTIMIZING),
        None,
    ),
    (
        "the back-off is over",
        seen(failed(ago=31)),
        ("False", Reason.OPTIMIZATION_RETRIED),
        ("Unknown", Reason.OPTIMIZING),
        "digits-1-2",
    ),
    (
        "the second back-off is longer",
        seen(failed(), failed(2, ago=31)),
        ("False", Reason.OPTIMIZATION_RETRIED),
        ("Unknown", Reason.OPTIMIZING),
        None,
    ),
    (
        "the second back-off is over",
        seen(failed(2, ago=121)),
        ("False", Reason.OPTIMIZATION_RETRIED),
        ("Unknown", Reason.OPTIMIZING),
        "digits-1-3",
    ),
    (
        "the third attempt is the last",
        seen(failed(3, ago=1000)),
        ("False", Reason.OPTIMIZATION_FAILED),
        ("False", Reason.OPTIMIZATION_FAILED),
        None,
    ),
    (
        "a pod that was lost is tried again",
        seen(failed(code=None, ago=31, reason="BackoffLimitExceeded")),
        ("False", Reason.OPTIMIZATION_RETRIED),
        ("Unknown", Reason.OPTIMIZING),
        "digits-1-2",
    ),
    (
        "a Job that took too long is not",
        seen(failed(code=None, ago=31, reason="DeadlineExceeded")),
        ("False", Reason.OPTIMIZATION_FAILED),
        ("False", Reason.OPTIMIZATION_FAILED),
        None,
    ),
    (
        "what an earlier attempt said does not end the present one",
        seen(job(2), result=ERROR),
        ("False", Reason.OPTIMIZING),
        ("Unknown", Reason.OPTIMIZING),
        None,
    ),
    (
        "a Job that someone deleted begins anew",
        seen(of=run({"attempts": 1})),
        ("False", Reason.PENDING),
        ("Unknown", Reason.OPTIMIZING),
        "digits-1-2",
    ),
    (
        "a spec that cannot be carried out fails",
        seen(of=run(resources={"cpu": "much"})),
        ("False", Reason.INVALID_SPEC),
        ("False", Reason.INVALID_SPEC),
        None,
    ),
]


@pytest.mark.parametrize(
    ("observed", "complete", "accepted", "created"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS]
)
def test_a_run(
    observed: ObservedRun, complete: tuple[str, Reason], accepted: tuple[str, Reason], created: str | None
) -> None:
    result = plan_run(observed, NOW)
    assert said(result, RunCondition.COMPLETE) == complete
    assert said(result, RunCondition.ACCEPTED) == accepted
    assert (result.job["metadata"]["name"] if result.job else None) == created
    over = complete[0] == "True" or accepted[0] == "False"
    assert (result.status.completion_time is not None) == over
    assert (result.requeue is None) == over


def test_a_run_that_is_over_stays_as_it_is() -> None:
    over = plan_run(seen(DONE, result=ACCEPTED), NOW).status
    again = run().model_copy(update={"status": over})
    assert plan_run(seen(of=again), NOW + 1000) == RunPlan(status=over)


def test_the_figures_are_told_with_their_units() -> None:
    status = plan_run(seen(DONE, result=ACCEPTED, public_key="PEM"), NOW).status
    assert status.figures is not None
    assert status.figures.model_dump(by_alias=False) == {
        "baseline": "TorchEager fp32",
        "speedup": "8.40x",
        "speedup_against_onnx_runtime": "4.10x",
        "latency_p99": "4.10 ms → 0.48 ms",
        "throughput": "240/s → 2110/s",
        "size": "102 MB → 25.7 MB",
        "memory": "890 MB → 122 MB",
        "accuracy": "Accuracy 0.9926 → 0.9907",
    }
    assert status.capacity is not None
    assert (status.capacity.max_batch_size, status.capacity.requests_per_second) == (8, "900")
    assert status.artifact is not None
    assert (status.artifact.digest, status.artifact.model_format) == ("sha256:aa", "onnx")
    assert status.artifact.public_key == "PEM", "replicas demand the signature of the very key that signed the result"
    assert (status.recipe, status.verdict, status.summary) == (ACCEPTED.recipe, "Accepted", "4.10x faster.")


def test_progress_is_told() -> None:
    status = plan_run(seen(job(started_at=NOW - 10), progress=GOES), NOW).status
    assert status.progress.stage == "Measure"
    assert (status.progress.completed_trials, status.progress.total_trials) == (3, 12)
    assert status.progress.message == "Measure (3 of 12): Session 2"
    assert status.progress.found == "int8 is 2.10 times as fast"
    (complete,) = (each for each in status.conditions if each.type == RunCondition.COMPLETE)
    assert_tells(complete.message, status.progress.message, status.progress.found)
    assert (status.attempts, status.start_time) == (1, timestamp(NOW - 10))


MESSAGES = [
    ("a silent Job: where to look", seen(job(started_at=NOW - 200)), "kubectl describe job digits-1-1 -n vision"),
    ("killed for memory: what to raise", seen(failed(code=137)), "spec.resources.memory"),
    ("too slow: what to change", seen(failed(code=None, reason="DeadlineExceeded")), "search.budgetMinutes"),
    ("the search's own words", seen(failed(code=1), result=ERROR), "The model cannot be read."),
    ("Kubernetes' words where there are no others", seen(failed(code=1, message="exit code 1")), "exit code 1"),
    ("when it is tried again", seen(failed()), f"attempt 2 {timestamp(NOW + 29)}"),
]


@pytest.mark.parametrize(("observed", "facts"), [row[1:] for row in MESSAGES], ids=[row[0] for row in MESSAGES])
def test_the_message_says(observed: ObservedRun, facts: str) -> None:
    assert_tells(plan_run(observed, NOW).status.conditions[0].message, facts)


def test_a_later_attempt_takes_the_place_of_the_earlier_job() -> None:
    assert plan_run(seen(failed(ago=31)), NOW).delete_jobs == ("digits-1-1",)


def test_an_earlier_job_that_was_left_over_is_deleted() -> None:
    assert plan_run(seen(failed(ago=31), job(2)), NOW).delete_jobs == ("digits-1-1",)


def made(of: OptimizationRun | None = None, settings: JobSettings = SETTINGS) -> dict[str, Any]:
    result = plan_run(seen(of=of, settings=settings), NOW).job
    assert result is not None
    return result


def pod(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return found


def test_the_job_knows_what_to_do() -> None:
    of = run(
        model={"dataUri": "s3://data/digits"}, latencyP99Milliseconds=20, resources={"cpu": "2", "memory": "512Mi"}
    )
    (container,) = pod(made(of))["containers"]
    environment = {each["name"]: each.get("value") for each in container["env"]}
    request = OptimizationRequest.model_validate_json(environment[REQUEST_VARIABLE])
    assert container["command"] == ["python", "-m", "penstock_optimizer"]
    assert (request.name, request.profile) == ("digits", "ClusterOptimizationProfile/balanced")
    assert (request.model_uri, request.data_uri) == ("file:///models/digits/1", "s3://data/digits")
    assert (request.threads, request.memory_bytes, request.latency_bound_milliseconds) == (2, 512 * 2**20, 20.0)
    assert request.spec == PROFILE
    assert request.run_folder == run_folder(SETTINGS, of) == "s3://store/vision/runs/digits-1-01234567"
    assert request.store == "s3://store/vision", "and can name no other namespace's part"
    assert request.identity == RunIdentity(namespace="vision", run="0123456789", job="digits-1-1")
    assert made(of)["metadata"]["annotations"] == {"penstock.dev/profile-digest": digest_of_profile(PROFILE)}
    assert json.loads(environment[REQUEST_VARIABLE])


def test_the_job_is_shut_in() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, its restricted profile."""
    spec = pod(made())
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [each for each in container["env"] if "valueFrom" in each] == [
        {
            "name": "PENSTOCK_SIGNING_KEY",
            "valueFrom": {"secretKeyRef": {"name": "digits-1-sign", "key": "key.pem"}},
        }
    ], "the run's own key, and as no file, which all processes of the pod could read"
    writable = {each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")}
    assert writable == {"/workspace", "/tmp"}


def test_the_job_ends_by_itself_and_makes_no_attempts_of_its_own() -> None:
    spec = made()["spec"]
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (0, 600 + MARGIN_SECONDS)
    assert spec["ttlSecondsAfterFinished"] > 0
    assert pod(made())["restartPolicy"] == "Never"


def test_the_job_goes_with_its_run() -> None:
    (owner,) = made()["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("OptimizationRun", "digits-1", "0123456789")


def test_the_job_gets_what_the_replica_gets_and_the_memory_that_a_search_needs() -> None:
    accelerator = {"type": "nvidia-l4", "count": "0.5"}
    spec = pod(made(run(resources={"cpu": "500m", "memory": "1Gi", "accelerator": accelerator})))
    resources = spec["containers"][0]["resources"]
    assert resources["limits"] == {"cpu": "500m", "memory": "8Gi", "nvidia.com/gpu": "1"}
    assert resources["requests"] == {**resources["limits"], "ephemeral-storage": "20Gi"}
    required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = required["nodeSelectorTerms"][0]["matchExpressions"]
    assert (term["key"], term["values"]) == ("penstock.dev/accelerator-type", ["nvidia-l4"])


def test_a_replica_with_more_memory_than_a_search_needs_is_measured_with_it() -> None:
    (container,) = pod(made(run(resources={"memory": "16Gi"})))["containers"]
    assert container["resources"]["limits"]["memory"] == "16Gi"


def test_on_one_machine_the_job_needs_no_secret_and_no_image() -> None:
    local = JobSettings(
        store="file:///store", signing_key="/home/key.pem", python="/venv/bin/python", workspace="/work"
    )
    spec = pod(made(settings=local))
    assert {each["name"] for each in spec["volumes"]} == {"workspace", "temporary"}
    assert [each["name"] for each in spec["containers"][0]["env"]] == [REQUEST_VARIABLE]
    assert spec["containers"][0]["command"][0] == "/venv/bin/python"


def test_models_and_the_stores_credentials_come_from_where_the_operator_says() -> None:
    settings = replace(
        SETTINGS, model_volumes=(("models", "/models"),), environment_secret="s3", workspace_claim="work"
    )
    spec = pod(made(settings=settings))
    assert spec["containers"][0]["envFrom"] == [{"secretRef": {"name": "s3"}}]
    claims = {each["persistentVolumeClaim"]["claimName"] for each in spec["volumes"] if "persistentVolumeClaim" in each}
    assert claims == {"models", "work"}
    assert {"name": "models-0", "mountPath": "/models", "readOnly": True} in spec["containers"][0]["volumeMounts"]
