"""What a profile makes of a deployment's plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.deployment.world import NOW, deployment, gateway, serve_app

from penstock import names
from penstock.api.conditions import DeploymentCondition as Kind
from penstock.api.conditions import Reason
from penstock.api.optimization import OptimizationProfileSpec, OptimizationRun
from penstock.api.v1alpha1 import InferenceDeployment
from penstock.errors import Invalid
from penstock.serving.arguments import Attempt, BuildArguments, UserConfig
from penstock_operator.deployment.application import ReplicaNetwork
from penstock_operator.deployment.observed import (
    ApplicationState,
    Observed,
    ObservedApplication,
    ObservedGateway,
    OptimizationView,
    Pool,
    PoolProblem,
    ProfileProblem,
)
from penstock_operator.deployment.plan import Plan, plan
from penstock_operator.deployment.profile import Resolved, resolve, run_spec
from penstock_operator.deployment.standing import standing_of

PROFILE = OptimizationProfileSpec()
DIGEST = "sha256:" + "a" * 64
ARTIFACT = {
    "storageUri": "file:///store/artifacts/sha256-aa",
    "modelFormat": "onnx",
    "digest": DIGEST,
    "publicKey": "PEM of the run",
}
CAPACITY = {
    "maxBatchSize": 8, "maxDelayMilliseconds": 2, "targetInFlightRequests": 5, "requestsPerSecond": "900",
}  # fmt: skip
REFUSED = 'X: penstock-failure: {"reason":"SignatureInvalid","message":"weights.bin was changed."}'
FAILED = ApplicationState.DEPLOY_FAILED


def profiled(**spec: Any) -> InferenceDeployment:
    base = deployment().model_dump(mode="json", exclude_none=True)
    model = base["spec"]["model"] | spec.pop("model", {})
    merged = base["spec"] | {"model": model, "optimizationProfileRef": {"name": "balanced"}} | spec
    return InferenceDeployment.model_validate(base | {"spec": merged})


def run_of(of: InferenceDeployment, name: str | None = None, **status: Any) -> OptimizationRun:
    reference = of.spec.optimization_profile_ref
    assert reference is not None
    over = {"completionTime": "2026-01-01T00:00:00Z"} if "verdict" in status else {}
    return OptimizationRun.model_validate(
        {
            "metadata": {"name": name or names.run_name(of, PROFILE), "namespace": "vision"},
            "spec": run_spec(of, reference).model_dump(mode="json", exclude_none=True),
            "status": over | status,
        }
    )


def accepted(of: InferenceDeployment) -> OptimizationRun:
    return run_of(
        of,
        verdict="Accepted",
        summary="4.10x faster.",
        artifact=ARTIFACT,
        capacity=CAPACITY,
        figures={"speedup": "4.10x"},
    )


OF = profiled()
OPTIMIZED = profiled(
    model={"storageUri": ARTIFACT["storageUri"], "digest": DIGEST}, optimizationProfileRef={"name": "balanced"}
)
BASE, FAST = names.revision(OF), names.revision(OPTIMIZED)
SERVING_BASE = (serve_app(OF),)
BASE_ROUTED = gateway({BASE: 100}, {BASE: 1})


def seen(
    of: InferenceDeployment = OF,
    *runs: OptimizationRun,
    apps: tuple[ObservedApplication, ...] = SERVING_BASE,
    routed: ObservedGateway = BASE_ROUTED,
    profile: OptimizationProfileSpec | ProfileProblem | None = PROFILE,
) -> Observed:
    view = OptimizationView(profile, runs)
    return Observed(of, Pool("http://ray:8000", apps), (routed,), optimization=view)


def resolved_of(observed: Observed) -> Resolved:
    return resolve(observed, standing_of(observed))


def said(result: Plan, kind: Kind) -> tuple[str, str]:
    assert result.status is not None
    found = [(each.status.value, each.reason) for each in result.status.conditions if each.type == kind]
    return found[0] if found else ("absent", "")


def revisions(result: Plan) -> set[str]:
    assert result.applications is not None
    return {each["args"]["replica"]["revision"] for each in result.applications}


NO_PROFILE = ProfileProblem(Reason.PROFILE_NOT_FOUND, "There is no ClusterOptimizationProfile balanced.")
VERDICTS = [
    ("there is no profile of that name", seen(OF, profile=NO_PROFILE), "False", Reason.PROFILE_NOT_FOUND),
    ("the run is not there yet", seen(), "Unknown", Reason.OPTIMIZING),
    ("the run goes", seen(OF, run_of(OF)), "Unknown", Reason.OPTIMIZING),
    ("rejected", seen(OF, run_of(OF, verdict="Rejected", summary="x")), "False", Reason.PROFILE_REJECTED),
    ("no decision", seen(OF, run_of(OF, verdict="NoDecision", summary="x")), "False", Reason.NO_DECISION),
    (
        "the run failed",
        seen(OF, run_of(OF, completionTime="2026-01-01T00:00:00Z", summary="It was killed.")),
        "False",
        Reason.OPTIMIZATION_FAILED,
    ),
    ("accepted, and its replicas are to start", seen(OF, accepted(OF)), "Unknown", Reason.ROLLING_OUT),
    (
        "accepted, and it serves",
        seen(OF, accepted(OF), apps=(serve_app(OPTIMIZED),), routed=gateway({FAST: 100}, {FAST: 1})),
        "True",
        Reason.OPTIMIZED,
    ),
    (
        "accepted, and the artifact is refused",
        seen(OF, accepted(OF), apps=(*SERVING_BASE, serve_app(OPTIMIZED, FAILED, running=0, message=REFUSED))),
        "False",
        Reason.ARTIFACT_REFUSED,
    ),
    (
        "accepted, refused, and being tried again",
        seen(
            OF,
            accepted(OF),
            apps=(
                *SERVING_BASE,
                serve_app(
                    OPTIMIZED, ApplicationState.DEPLOYING, running=0, attempt=Attempt(number=2, attempted_at=int(NOW))
                ),
            ),
        ),
        "False",
        Reason.ARTIFACT_REFUSED,
    ),
    (
        "the profile went, and what was measured under it serves on",
        seen(
            OF,
            accepted(OF),
            apps=(serve_app(OPTIMIZED),),
            routed=gateway({FAST: 100}, {FAST: 1}),
            profile=NO_PROFILE,
        ),
        "True",
        Reason.OPTIMIZED,
    ),
]


@pytest.mark.parametrize(("observed", "status", "reason"), [row[1:] for row in VERDICTS], ids=[r[0] for r in VERDICTS])
def test_profile_applied_says(observed: Observed, status: str, reason: Reason) -> None:
    result = plan(observed, NOW)
    assert said(result, Kind.PROFILE_APPLIED) == (status, reason)
    assert said(result, Kind.READY) == ("True", Reason.READY)


@pytest.mark.parametrize("observed", [row[1] for row in VERDICTS[:6]], ids=[row[0] for row in VERDICTS[:6]])
def test_the_model_itself_serves_where_nothing_better_was_accepted(observed: Observed) -> None:
    result = plan(observed, NOW)
    assert revisions(result) == {BASE}
    assert result.route is not None
    assert result.route.revisions == {BASE: 100}
    assert result.status is not None
    assert result.status.speedup is None


def test_without_a_profile_nothing_is_said_of_one_and_former_runs_go() -> None:
    result = plan(seen(deployment(), accepted(OF), profile=None), NOW)
    assert said(result, Kind.PROFILE_APPLIED) == ("absent", "")
    assert result.superseded_runs == (names.run_name(OF, PROFILE),)
    assert result.run is None


def test_the_run_is_created_at_once_and_owned_by_its_deployment() -> None:
    result = plan(seen(OF, run_of(OF, name="digits-old")), NOW)
    assert result.run is not None
    assert result.run["metadata"]["name"] == names.run_name(OF, PROFILE)
    assert result.run["metadata"]["ownerReferences"][0]["name"] == "digits"
    assert OptimizationRun.model_validate(result.run).spec.model.storage_uri == OF.spec.model.storage_uri
    assert result.superseded_runs == ("digits-old",)
    assert result.status is not None
    assert result.status.optimization_run == names.run_name(OF, PROFILE)


def test_a_run_that_is_there_is_not_created_again() -> None:
    assert plan(seen(OF, run_of(OF)), NOW).run is None


SAME_RUN = [
    ("the default version, written out", profiled(model={"version": "1"})),
    ("what becomes of a model that is replaced", profiled(model={"updatePolicy": "Automatic"})),
    ("another spelling of the cpu", profiled(resources={"cpu": "1000m"})),
    ("a batch size", profiled(batching={"maxBatchSize": 4})),
    ("more replicas", profiled(scaling={"maxReplicas": 9})),
]
OTHER_RUN = [
    ("another model", profiled(model={"storageUri": "file:///models/b"})),
    ("another version, which may be another folder", profiled(model={"version": "7"})),
    ("other data", profiled(model={"dataUri": "file:///data"})),
    ("more cpu", profiled(resources={"cpu": "2"})),
    ("an objective", profiled(slo={"latencyP99Milliseconds": 5})),
    ("another profile", profiled(optimizationProfileRef={"name": "latency"})),
    (
        "a profile of the namespace",
        profiled(optimizationProfileRef={"kind": "OptimizationProfile", "name": "balanced"}),
    ),
]


@pytest.mark.parametrize("of", [row[1] for row in SAME_RUN], ids=[row[0] for row in SAME_RUN])
def test_needs_no_new_measurement(of: InferenceDeployment) -> None:
    assert names.run_name(of, PROFILE) == names.run_name(OF, PROFILE)


@pytest.mark.parametrize("of", [row[1] for row in OTHER_RUN], ids=[row[0] for row in OTHER_RUN])
def test_needs_a_new_measurement(of: InferenceDeployment) -> None:
    assert names.run_name(of, PROFILE) != names.run_name(OF, PROFILE)


def test_a_profile_that_was_made_anew_with_another_spec_is_measured_anew() -> None:
    other = OptimizationProfileSpec.model_validate({"search": {"budgetMinutes": 7}})
    assert names.run_name(OF, other) != names.run_name(OF, PROFILE)


def test_a_run_keeps_its_name_from_release_to_release() -> None:
    """Changes only with a new rule version: whoever breaks this measures every model anew at the next upgrade."""
    assert names.run_name(OF, PROFILE) == "digits-77bab0e302"


def test_the_optimized_revision_starts_beside_the_one_that_serves() -> None:
    result = plan(seen(OF, accepted(OF)), NOW)
    assert revisions(result) == {BASE, FAST}
    assert result.route is not None
    assert result.route.revisions == {BASE: 100}
    assert result.applications is not None
    fast = next(each for each in result.applications if each["args"]["replica"]["revision"] == FAST)
    arguments = BuildArguments.model_validate(fast["args"]).replica
    assert (arguments.storage_uri, arguments.digest) == (ARTIFACT["storageUri"], DIGEST)
    assert (arguments.require_signature, arguments.trusted_keys) == (True, ("PEM of the run",))
    assert result.status is not None
    assert result.status.candidate_revision == FAST


@pytest.mark.parametrize("secret", [None, "reader"], ids=["the pods' own credentials", "the Secret that is named"])
def test_the_optimized_model_is_read_with(secret: str | None) -> None:
    of = profiled(model={"credentialsSecretRef": {"name": "model-credentials"}})
    observed = replace(seen(of, accepted(of)), network=ReplicaNetwork(artifact_secret=secret))
    result = plan(observed, NOW)
    assert result.applications is not None
    replicas = [BuildArguments.model_validate(each["args"]).replica for each in result.applications]
    read = {each.credentials for each in replicas if each.storage_uri == ARTIFACT["storageUri"]}
    assert read == {secret}


def test_requests_go_to_the_optimized_revision_once_it_answers() -> None:
    apps = (*SERVING_BASE, serve_app(OPTIMIZED))
    result = plan(seen(OF, accepted(OF), apps=apps, routed=gateway({BASE: 100}, {BASE: 1, FAST: 1})), NOW)
    assert result.route is not None
    assert result.route.revisions == {FAST: 100}
    assert result.status is not None
    assert result.status.speedup == "4.10x"
    assert said(result, Kind.READY) == ("True", Reason.READY)


def test_a_refused_artifact_is_tried_again_and_gets_no_request() -> None:
    failed = serve_app(OPTIMIZED, FAILED, running=0, message=REFUSED, attempt=Attempt(attempted_at=int(NOW) - 100))
    result = plan(seen(OF, accepted(OF), apps=(*SERVING_BASE, failed)), NOW)
    assert revisions(result) == {BASE, FAST}
    assert result.route is not None
    assert result.route.revisions == {BASE: 100}
    assert result.applications is not None
    attempts = {each["args"]["replica"]["revision"]: each["args"]["attempt"]["number"] for each in result.applications}
    assert attempts == {BASE: 0, FAST: 1}
    assert result.status is not None
    message = next(each.message for each in result.status.conditions if each.type == Kind.PROFILE_APPLIED)
    assert message.startswith("SignatureInvalid: weights.bin was changed.")


def test_where_only_the_refused_artifact_was_there_the_model_itself_is_started() -> None:
    failed = serve_app(OPTIMIZED, FAILED, running=0, message=REFUSED)
    result = plan(seen(OF, accepted(OF), apps=(failed,), routed=gateway({FAST: 100})), NOW)
    assert revisions(result) == {BASE, FAST}
    assert said(result, Kind.READY)[0] == "False"


def test_an_optimized_model_scaled_to_zero_is_not_taken_for_refused() -> None:
    asleep = serve_app(OPTIMIZED, running=0, wanted=0, attempt=Attempt(number=1, attempted_at=int(NOW) - 500))
    zero = profiled(scaling={"minReplicas": 0})
    result = plan(seen(zero, accepted(zero), apps=(asleep,), routed=gateway({FAST: 100})), NOW)
    assert said(result, Kind.PROFILE_APPLIED) == ("True", Reason.OPTIMIZED)


def settings(result: Plan) -> tuple[int, int, float]:
    assert result.applications is not None
    inner = next(
        each["deployments"][0] for each in result.applications if each["args"]["replica"]["revision"] in (FAST, BASE)
    )
    batching = UserConfig.model_validate(inner["user_config"]).batching
    target = inner["autoscaling_config"]["target_ongoing_requests"]
    return batching.max_batch_size, batching.max_delay_milliseconds, target


AUTO = [
    ("nothing is measured: the defaults", OF, (), (32, 0, 16.0)),
    ("measured and accepted: what was measured", OF, (accepted(OF),), (8, 2, 16.0)),
    (
        "rejected: what was measured of the model itself",
        OF,
        (run_of(OF, verdict="Rejected", capacity=CAPACITY),),
        (8, 2, 16.0),
    ),
]


@pytest.mark.parametrize(("of", "runs", "expected"), [row[1:] for row in AUTO], ids=[row[0] for row in AUTO])
def test_auto_stands_for(
    of: InferenceDeployment, runs: tuple[OptimizationRun, ...], expected: tuple[int, int, float]
) -> None:
    assert settings(plan(seen(of, *runs, apps=()), NOW)) == expected


def test_what_the_user_wrote_goes_before_what_was_measured() -> None:
    of = profiled(batching={"maxBatchSize": 4, "maxDelayMilliseconds": 1}, scaling={"targetInFlightRequests": 9})
    assert settings(plan(seen(of, accepted(of), apps=()), NOW)) == (4, 1, 9.0)


def test_a_measured_wait_never_breaks_the_promise() -> None:
    of = profiled(slo={"latencyP99Milliseconds": 2})
    assert settings(plan(seen(of, accepted(of), apps=()), NOW))[1] == 1


WEIGHTS = profiled(model={"modelFormat": "safetensors", "importPath": "models:build"})


def test_a_model_that_must_be_converted_waits_and_requests_are_told() -> None:
    result = plan(seen(WEIGHTS, apps=(), routed=gateway(None)), NOW)
    assert result.applications == ()
    assert result.run is not None
    assert said(result, Kind.SERVING) == ("False", Reason.WAITING_FOR_OPTIMIZATION)
    assert said(result, Kind.READY) == ("False", Reason.WAITING_FOR_OPTIMIZATION)
    assert result.route is not None
    assert (result.route.unavailable or "").startswith("WaitingForOptimization: ")
    assert result.status is not None
    told = {each.type: each.message for each in result.status.conditions}
    assert "pool" not in told[Kind.MODEL_RESOLVED], "the pool answers"


def test_what_served_before_goes_on_while_a_new_model_is_converted() -> None:
    status = deployment().status.model_copy(update={"active_revision": BASE})
    of = WEIGHTS.model_copy(update={"status": status})
    result = plan(seen(of), NOW)
    assert (result.applications, result.route) == (None, None)
    assert said(result, Kind.SERVING) == ("True", Reason.REPLICAS_READY)


def test_a_rejected_conversion_says_why_nothing_serves() -> None:
    run = run_of(WEIGHTS, verdict="Rejected", summary="Nothing is fast enough.")
    result = plan(seen(WEIGHTS, run, apps=(), routed=gateway(None)), NOW)
    assert said(result, Kind.SERVING) == ("False", Reason.PROFILE_REJECTED)


def test_the_converted_model_serves_although_nothing_faster_was_found() -> None:
    run = run_of(WEIGHTS, verdict="Rejected", summary="x", artifact=ARTIFACT)
    resolved = resolved_of(seen(WEIGHTS, run, apps=()))
    assert resolved.waiting is None
    assert resolved.deployment.spec.model.storage_uri == ARTIFACT["storageUri"]


def test_a_model_that_must_be_converted_needs_a_profile() -> None:
    bare = WEIGHTS.model_copy(update={"spec": WEIGHTS.spec.model_copy(update={"optimization_profile_ref": None})})
    with pytest.raises(Invalid, match="add optimizationProfileRef"):
        plan(seen(bare, profile=None), NOW)


@pytest.mark.parametrize("digest", [None, DIGEST], ids=["by its address alone", "with its digest"])
def test_a_program_of_torch_without_a_profile_may_only_be_one_that_a_search_signed(digest: str | None) -> None:
    of = profiled(model={"modelFormat": "torch-export", "digest": digest}, optimizationProfileRef=None)
    if digest is None:
        with pytest.raises(Invalid, match="add optimizationProfileRef"):
            resolved_of(seen(of, profile=None))
        return
    assert resolved_of(seen(of, profile=None)).deployment == of, "its replicas find out"


def test_an_artifact_for_other_machines_is_left_to_them_while_the_model_itself_serves() -> None:
    run = run_of(OF, verdict="Accepted", summary="x", artifact=ARTIFACT | {"modelFormat": "litert"})
    resolved = resolved_of(seen(OF, run))
    assert (resolved.optimized, resolved.deployment.spec.model) == (None, OF.spec.model)
    assert resolved.verdict is not None
    assert resolved.verdict.reason is Reason.ARTIFACT_REFUSED
    assert ARTIFACT["storageUri"] in resolved.verdict.message


def test_an_artifact_of_a_release_that_did_not_note_whose_it_is_serves_nothing() -> None:
    unsigned = {name: value for name, value in ARTIFACT.items() if name != "publicKey"}
    resolved = resolved_of(seen(OF, run_of(OF, verdict="Accepted", summary="x", artifact=unsigned)))
    assert (resolved.optimized, resolved.deployment.spec.model) == (None, OF.spec.model)


@pytest.mark.parametrize(
    ("observed", "told"),
    [
        pytest.param(seen(OF, accepted(OF), apps=()), (True, ("PEM of the run",)), id="of what a run made: that run's"),
        pytest.param(seen(OF, apps=()), (False, ("PEM of the platform",)), id="of the user's own: none need be there"),
    ],
)
def test_whose_signature_replicas_demand(observed: Observed, told: tuple[bool, tuple[str, ...]]) -> None:
    result = plan(replace(observed, network=ReplicaNetwork(trusted_keys=("PEM of the platform",))), NOW)
    assert result.applications is not None
    (started,) = (each["args"] for each in result.applications)
    replica = BuildArguments.model_validate(started).replica
    assert (replica.require_signature, replica.trusted_keys) == told
    assert ("requireSignature" in started["replica"]) is told[0], (
        "else applications of an older release were started anew"
    )


def test_while_the_pool_is_silent_the_run_is_made_all_the_same() -> None:
    observed = replace(seen(), pool=PoolProblem(Reason.POOL_UNREACHABLE, "no answer"))
    result = plan(observed, NOW)
    assert result.run is not None
    assert said(result, Kind.PROFILE_APPLIED) == ("Unknown", Reason.OPTIMIZING)
    assert said(result, Kind.READY) == ("False", Reason.POOL_UNREACHABLE)
