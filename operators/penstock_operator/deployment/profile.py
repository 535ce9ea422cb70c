"""Which model a deployment is to serve: its own, or the one that an optimization run made of it.

Nothing is remembered: the run's name follows from what it measures, so that the run of the present spec is found by it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from penstock import names
from penstock.api import API_VERSION
from penstock.api.conditions import DeploymentCondition, Reason, RunCondition
from penstock.api.meta import AUTO, ConditionStatus, LocalReference, Manifest
from penstock.api.optimization import (
    Artifact,
    OptimizationProfileSpec,
    OptimizationRun,
    OptimizationRunSpec,
    RunCapacity,
)
from penstock.api.rollout import RolloutPhase, RolloutStatus
from penstock.api.v1alpha1 import InferenceDeployment, ProfileReference, UpdatePolicy
from penstock.api.verdicts import Verdict, false, true, unknown
from penstock.engines import FORMATS, Servability, formats_where
from penstock.errors import Invalid
from penstock.optimization.report import SearchVerdict as Found
from penstock.serving.manifest import ModelFormat
from penstock_operator.deployment.judgement import failure_of
from penstock_operator.deployment.observed import (
    ApplicationState,
    Observed,
    ObservedApplication,
    PoolProblem,
    ProfileProblem,
)
from penstock_operator.deployment.standing import RevisionStanding
from penstock_operator.optimization.plan import is_over
from penstock_operator.rollout.commands import is_retried, said_to

_NOT_SERVED: Final = formats_where(lambda each: each.served is not Servability.AS_IS)
"""Formats that no replica loads as they are: they come with code, or are for other machines."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """What follows from a deployment's profile."""

    deployment: InferenceDeployment
    """As it is to be carried out: with the model to serve, and what was measured in the place of `Auto`."""
    verdict: Verdict | None = None
    """Of the condition ProfileApplied, unless `optimized` is what is rolled out. None: no profile is named."""
    optimized: InferenceDeployment | None = None
    """The deployment with the accepted artifact, whether it is to serve or was refused."""
    refused: bool = False
    """Its replicas do not start: `deployment` is the model itself, and they are tried again beside it."""
    rolled_back: bool = False
    """It was judged beside the model itself and found to be worse, or told to go: `deployment` is the model itself."""
    waiting: Verdict | None = None
    """Why there is nothing to serve: the model must be converted first."""
    run: Manifest | None = None
    """To be created."""
    run_name: str | None = None
    speedup: str | None = None
    """Of the optimized model."""
    superseded: tuple[str, ...] = ()
    """Runs to be deleted."""


def resolve(observed: Observed, standing: RevisionStanding) -> Resolved:
    """What the deployment is to serve, and what is to be measured.

    Raises:
        Invalid: the model cannot be served, and no profile says what to make of it.
    """
    deployment, view = observed.deployment, observed.optimization
    reference = deployment.spec.optimization_profile_ref
    if reference is None or view.profile is None:
        if deployment.spec.model.model_format in _NOT_SERVED and not _may_be_signed(deployment):
            message = (
                f"A model in {deployment.spec.model.model_format} is not served as it is: add optimizationProfileRef."
            )
            raise Invalid(Reason.INVALID_SPEC, message)
        return Resolved(deployment, superseded=tuple(each.metadata.name for each in view.runs))
    wanted = run_spec(deployment, reference)
    if isinstance(view.profile, ProfileProblem):
        # What was measured while there was a profile holds.
        run = next((each for each in view.runs if each.spec == wanted and _artifact(each) is not None), None)
        if run is None:
            return _serve_itself(deployment, false(view.profile.reason, view.profile.message))
        return _resolve_run(observed, standing, run)
    name = names.run_name(deployment, view.profile)
    run = next((each for each in view.runs if each.metadata.name == name), None)
    superseded = tuple(each.metadata.name for each in view.runs if each.metadata.name != name)
    if run is None:
        pending = unknown(Reason.OPTIMIZING, f"OptimizationRun {name} is being created.")
        resolved = _serve_itself(deployment, pending, run_name=name)
        return replace(resolved, run=run_manifest(deployment, view.profile, wanted), superseded=superseded)
    return replace(_resolve_run(observed, standing, run), superseded=superseded)


def run_spec(deployment: InferenceDeployment, reference: ProfileReference) -> OptimizationRunSpec:
    """What is to be measured for a deployment."""
    spec = deployment.spec
    return OptimizationRunSpec(
        model=spec.model.model_copy(update={"update_policy": UpdatePolicy.PINNED}),
        profile_ref=reference,
        resources=spec.resources,
        latency_p99_milliseconds=spec.slo.latency_p99_milliseconds if spec.slo else None,
    )


def run_manifest(
    deployment: InferenceDeployment, profile: OptimizationProfileSpec, spec: OptimizationRunSpec
) -> Manifest:
    """The run of a deployment, which goes with it."""
    metadata = deployment.metadata
    queue = metadata.labels.get(names.QUEUE_LABEL)
    return {
        "apiVersion": API_VERSION,
        "kind": "OptimizationRun",
        "metadata": {
            "name": names.run_name(deployment, profile),
            "namespace": metadata.namespace,
            "labels": {names.MODEL_LABEL: metadata.name, **({names.QUEUE_LABEL: queue} if queue else {})},
            "ownerReferences": [names.owner_reference(deployment.api_version, deployment.kind, metadata)],
        },
        "spec": spec.model_dump(mode="json", exclude_none=True),
    }


def judge_profile(
    resolved: Resolved, active: str | None, serving: Verdict, progressing: Verdict, rollout: RolloutStatus | None = None
) -> Verdict | None:
    """The condition ProfileApplied, where the rollout of the optimized model decides it.

    Args:
        resolved: what follows from the profile.
        active: the revision that gets the requests.
        serving: whether it answers.
        progressing: how far the rollout is.
        rollout: of a rollout that is judged, or was.
    """
    if resolved.optimized is None or resolved.refused or resolved.rolled_back:
        return resolved.verdict
    if active != names.revision(resolved.optimized):
        if progressing.status is ConditionStatus.FALSE:
            judged = rollout is not None and rollout.reason == progressing.reason
            what = "does not serve" if judged else "cannot start"
            return false(progressing.reason, f"The optimized model was accepted and {what}: {progressing.message}")
        where = "its replicas start." if rollout is None else rollout.message
        return unknown(Reason.ROLLING_OUT, f"The optimized model was accepted; {where}")
    if serving.status is not ConditionStatus.TRUE:
        return unknown(serving.reason, serving.message)
    return true(
        Reason.OPTIMIZED, f"{resolved.verdict.message if resolved.verdict else ''}{_tell_live(rollout, active)}"
    )


def _tell_live(rollout: RolloutStatus | None, active: str) -> str:
    """What became of the speed-up on live traffic, where it was judged there."""
    if rollout is None or rollout.candidate != active:
        return ""
    if rollout.speedup is not None:
        return f" On live traffic: {rollout.speedup}."
    if rollout.speedup_shown is not None:
        again = ", replayed ones among them" if rollout.replayed else ""
        return f" On requests that both were shown, one at a time{again}: {rollout.speedup_shown}."
    return ""


def is_present_spec(resolved: Resolved, active: str, revisions: frozenset[str], original: InferenceDeployment) -> bool:
    """Whether what serves is the present spec, optimized or not, and nothing of a former one is left."""
    if resolved.optimized is None:
        return False
    both = {names.revision(original), names.revision(resolved.optimized)}
    return active in both and revisions <= both


def _resolve_run(observed: Observed, standing: RevisionStanding, run: OptimizationRun) -> Resolved:
    deployment, status = observed.deployment, run.status
    name = run.metadata.name
    if not is_over(run):
        complete = next((each for each in status.conditions if each.type == RunCondition.COMPLETE), None)
        said = complete.message if complete else "It has not begun."
        return _serve_itself(deployment, unknown(Reason.OPTIMIZING, f"OptimizationRun {name}: {said}"), run_name=name)
    verdict = _judge_run(run)
    converted = deployment.spec.model.model_format in _NOT_SERVED and _artifact(run) is not None
    if _artifact(run) is None or not (status.verdict == Found.ACCEPTED or converted):
        return _serve_itself(_with_measurements(deployment, status.capacity), verdict, run_name=name)
    if _is_for_others(run):
        return _serve_itself(_with_measurements(deployment, status.capacity), _verdict_for_others(run), run_name=name)
    return _serve_artifact(observed, standing, run, verdict)


def _may_be_signed(deployment: InferenceDeployment) -> bool:
    """Whether it names what a search may have signed, as the replica will find out."""
    model = deployment.spec.model
    return FORMATS[model.model_format].served is Servability.SIGNED and model.digest is not None


def _artifact(run: OptimizationRun) -> Artifact | None:
    """What it made, where it is known who signed that."""
    artifact = run.status.artifact
    return artifact if artifact is not None and artifact.public_key else None


def _is_for_others(run: OptimizationRun) -> bool:
    """Whether what it made is for other machines, so that no replica serves it."""
    artifact = _artifact(run)
    return artifact is not None and FORMATS[ModelFormat(artifact.model_format)].served is Servability.ELSEWHERE


def _verdict_for_others(run: OptimizationRun) -> Verdict:
    artifact = run.status.artifact
    what = f"a model in {artifact.model_format} at {artifact.storage_uri}" if artifact else "a model"
    return false(
        Reason.ARTIFACT_REFUSED,
        f"OptimizationRun {run.metadata.name} made {what}, which is for other machines and which no replica serves: copy it "
        "there, or take a profile without that engine.",
    )


def _serve_artifact(observed: Observed, standing: RevisionStanding, run: OptimizationRun, verdict: Verdict) -> Resolved:
    """An artifact is there to be served."""
    deployment, status = observed.deployment, run.status
    optimized = _with_artifact(_with_measurements(deployment, status.capacity), run, observed.network.artifact_secret)
    speedup = status.figures.speedup or None if status.figures else None
    result = Resolved(optimized, verdict, optimized, run_name=run.metadata.name, speedup=speedup)
    if deployment.spec.model.model_format in _NOT_SERVED or isinstance(observed.pool, PoolProblem):
        return result
    stranger = _judge_origin(standing, run)
    if stranger is not None:
        return _serve_itself(deployment, stranger, run_name=run.metadata.name)
    judged = _rolled_back(observed.deployment, names.revision(optimized))
    if judged is not None:
        why = false(Reason(judged.reason), judged.message)
        return replace(result, deployment=deployment, verdict=why, rolled_back=True)
    refusal = _refusal(observed, standing.applications.get(names.revision(optimized)))
    if refusal is None:
        return result
    return replace(result, deployment=deployment, verdict=refusal, refused=True)


def _rolled_back(deployment: InferenceDeployment, optimized: str) -> RolloutStatus | None:
    """What the status says of the optimized model's rollout, where that was turned back to the model itself."""
    record = deployment.status.rollout
    if record is None or record.phase is not RolloutPhase.ROLLED_BACK or is_retried(record, said_to(deployment)):
        return None
    same = (record.candidate, record.stable) == (optimized, names.revision(deployment))
    return record if same and record.reason in set(Reason) else None


def _judge_origin(standing: RevisionStanding, run: OptimizationRun) -> Verdict | None:
    """Whether the file was replaced between the revision's first replica and the measurement: then it is another model."""
    revision, artifact = standing.wanted, run.status.artifact
    serves = standing.models.get(revision)
    if artifact is None or not artifact.made_from or serves in (None, artifact.made_from):
        return None
    return false(
        Reason.MODEL_CHANGED,
        f"OptimizationRun {run.metadata.name} measured {artifact.made_from}, but revision {revision} is {serves}: set "
        "spec.model.digest to the one that is to serve, and a new run measures that.",
    )


def _refusal(observed: Observed, app: ObservedApplication | None) -> Verdict | None:
    """Why the optimized model does not start. While it is tried again, what was said before holds."""
    failure = failure_of(app)
    if failure is not None:
        message = f"{failure.reason}: {failure.message} The model itself serves; the artifact is tried again."
        return false(Reason.ARTIFACT_REFUSED, message)
    if app is None or app.arguments is None or app.running or app.state is ApplicationState.RUNNING:
        return None
    if app.arguments.attempt.number == 0:
        return None
    before = next(
        (c for c in observed.deployment.status.conditions if c.type == DeploymentCondition.PROFILE_APPLIED), None
    )
    said = before.message if before and before.reason == Reason.ARTIFACT_REFUSED else "The artifact is tried again."
    return false(Reason.ARTIFACT_REFUSED, said)


def _judge_run(run: OptimizationRun) -> Verdict:
    status = run.status
    match status.verdict:
        case Found.ACCEPTED if status.artifact is not None:
            return true(Reason.OPTIMIZED, status.summary)
        case Found.REJECTED:
            return false(Reason.PROFILE_REJECTED, status.summary)
        case Found.NO_DECISION:
            return false(Reason.NO_DECISION, status.summary)
        case _:
            return false(Reason.OPTIMIZATION_FAILED, status.summary or f"OptimizationRun {run.metadata.name} failed.")


def _serve_itself(deployment: InferenceDeployment, verdict: Verdict, run_name: str | None = None) -> Resolved:
    """The model itself serves, where it can be served."""
    waiting = None
    if deployment.spec.model.model_format in _NOT_SERVED:
        told = f"A model in {deployment.spec.model.model_format} serves once it is converted. {verdict.message}"
        reason = Reason.WAITING_FOR_OPTIMIZATION if verdict.reason is Reason.OPTIMIZING else verdict.reason
        waiting = false(reason, told)
    return Resolved(deployment, verdict, waiting=waiting, run_name=run_name)


def _with_artifact(deployment: InferenceDeployment, run: OptimizationRun, secret: str | None) -> InferenceDeployment:
    artifact, model = _artifact(run), deployment.spec.model
    if artifact is None:
        return deployment
    served = model.model_copy(
        update={
            "storage_uri": artifact.storage_uri,
            "model_format": ModelFormat(artifact.model_format),
            "digest": artifact.digest,
            "update_policy": UpdatePolicy.PINNED,
            "import_path": None,
            "data_uri": None,
            # It lies in the artifact store, which the model's own Secret need not open.
            "credentials_secret_ref": LocalReference(name=secret) if secret else None,
        }
    )
    return deployment.model_copy(update={"spec": deployment.spec.model_copy(update={"model": served})})


def _with_measurements(deployment: InferenceDeployment, capacity: RunCapacity | None) -> InferenceDeployment:
    """What was measured in the place of `Auto`. Without a measurement the defaults of `automatic` stand in."""
    if capacity is None:
        return deployment
    spec = deployment.spec
    batching, delay = spec.batching, capacity.max_delay_milliseconds
    if spec.slo is not None:
        # A request must not wait so long for its batch that the promise is broken; the rules refuse it where it is written.
        delay = min(delay, spec.slo.latency_p99_milliseconds - 1)
    if batching.max_batch_size == AUTO:
        batching = batching.model_copy(update={"max_batch_size": str(capacity.max_batch_size)})
    if batching.max_delay_milliseconds == AUTO:
        batching = batching.model_copy(update={"max_delay_milliseconds": str(delay)})
    return deployment.model_copy(update={"spec": spec.model_copy(update={"batching": batching})})
