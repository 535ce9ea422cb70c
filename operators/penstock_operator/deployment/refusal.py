"""What is told of a deployment where Kubernetes' API refuses what a look at it needs, or what it is to make."""

from __future__ import annotations

from penstock.api.conditions import DeploymentCondition, Reason
from penstock.api.meta import ConditionStatus
from penstock.api.v1alpha1 import InferenceDeployment, InferenceDeploymentStatus
from penstock.api.verdicts import Verdict, condition, derive_ready, false, recorded_verdict


def refused_status(deployment: InferenceDeployment, message: str, now: float) -> InferenceDeploymentStatus:
    """Nothing was decided: all is told as it was found last, and that nothing new comes about.

    Args:
        deployment: as it is.
        message: the API's words.
        now: epoch seconds.
    """
    before, generation = deployment.status, deployment.metadata.generation
    recorded = {kind: recorded_verdict(kind, before.conditions) for kind in DeploymentCondition}
    verdicts = {kind: verdict for kind, verdict in recorded.items() if verdict is not None}
    ready = verdicts.get(DeploymentCondition.READY)
    progressing = verdicts[DeploymentCondition.PROGRESSING] = false(Reason.API_REFUSED, message)
    if ready is None or ready.status is not ConditionStatus.TRUE:
        verdicts[DeploymentCondition.READY] = progressing
    else:
        present = before.observed_generation == generation
        verdicts[DeploymentCondition.READY] = derive_ready(verdicts, present=present, ahead=True)
    return _with_verdicts(deployment, before, verdicts, now)


def with_refused_run(
    deployment: InferenceDeployment, status: InferenceDeploymentStatus, message: str, now: float
) -> InferenceDeploymentStatus:
    """A status that also says why there is no `OptimizationRun`. The model itself serves meanwhile."""
    told = false(Reason.API_REFUSED, f"No OptimizationRun could be made, so nothing is measured: {message}")
    return _with_verdicts(deployment, status, {DeploymentCondition.PROFILE_APPLIED: told}, now)


def with_refused_number(
    deployment: InferenceDeployment, status: InferenceDeploymentStatus, message: str, now: float
) -> InferenceDeploymentStatus:
    """A status that also says why `/scale` shows no number, or a former one. Scaling by load goes on meanwhile."""
    told = false(
        Reason.API_REFUSED,
        f"The number of replicas could not be written into spec.replicas, so /scale and autoscalers do not see it: {message}",
    )
    return _with_verdicts(deployment, status, {DeploymentCondition.SCALE_WRITTEN: told}, now)


def _with_verdicts(
    deployment: InferenceDeployment,
    status: InferenceDeploymentStatus,
    verdicts: dict[DeploymentCondition, Verdict],
    now: float,
) -> InferenceDeploymentStatus:
    before, generation = deployment.status.conditions, deployment.metadata.generation
    told = {each.type: each for each in status.conditions}
    told |= {kind: condition(kind, verdict, before, generation, now) for kind, verdict in verdicts.items()}
    conditions = tuple(told[kind] for kind in DeploymentCondition if kind in told)
    return status.model_copy(update={"observed_generation": generation, "conditions": conditions})
