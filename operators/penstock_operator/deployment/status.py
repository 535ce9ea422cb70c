"""The status of an `InferenceDeployment`, from verdicts and figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from penstock import names
from penstock.api.conditions import DeploymentCondition, Reason
from penstock.api.meta import Condition
from penstock.api.v1alpha1 import InferenceDeploymentStatus, ReplicaCounts
from penstock.api.verdicts import Verdict, condition, derive_ready, false, recorded_verdict, true
from penstock_operator.deployment import scaling
from penstock_operator.deployment.application import replica_bounds
from penstock_operator.deployment.judgement import Verdicts
from penstock_operator.deployment.observed import Observed, ObservedGateway, Pool
from penstock_operator.deployment.standing import RevisionStanding
from penstock_operator.rollout.phases import arms_of_rollout


def deployment_status(
    observed: Observed,
    standing: RevisionStanding,
    verdicts: Verdicts,
    now: float,
    *,
    active: str | None,
    candidate: str | None = None,
    present: bool = False,
    ahead: bool = False,
    revisions: Iterable[str] = (),
) -> InferenceDeploymentStatus:
    """The whole status.

    Args:
        observed: what is there.
        standing: of its revisions.
        verdicts: all conditions but `Ready`.
        now: epoch seconds.
        active: the revision that gets the requests.
        candidate: the one that starts beside it.
        present: whether what serves is of the present spec.
        ahead: whether `ModelResolved` is of a revision that does not serve yet.
        revisions: others whose models are to be kept in mind.
    """
    deployment = observed.deployment
    metadata, before = deployment.metadata, deployment.status
    everything = {**verdicts, DeploymentCondition.READY: derive_ready(verdicts, present=present, ahead=ahead)}
    joining = _judge_joining(observed, active)
    if joining is not None:
        everything[DeploymentCondition.REQUESTS_JOINED] = joining
    conditions: tuple[Condition, ...] = tuple(
        condition(kind, everything[kind], before.conditions, metadata.generation, now)
        for kind in DeploymentCondition
        if kind in everything
    )
    gateway = next((each for each in observed.gateways if isinstance(each, ObservedGateway)), None)
    models = _models(observed, standing, (active, candidate, standing.wanted, *revisions))
    return InferenceDeploymentStatus(
        observed_generation=metadata.generation,
        conditions=conditions,
        url=names.model_url(gateway.url, metadata.namespace, metadata.name) if gateway else before.url,
        replicas=_replicas(observed, standing, active),
        selector=names.selector(metadata.name),
        active_revision=active,
        candidate_revision=candidate,
        digest=_loaded_digest(observed, active, models),
        models=models,
        scaling_history=scaling.follow_history(observed, active, standing.applications.get(active or ""), now),
        rollout=before.rollout,
        served=before.served,
    )


def note_generation(status: InferenceDeploymentStatus, generation: int) -> InferenceDeploymentStatus:
    """The same status, of the generation that our own write of the number has made, which changes nothing of what was decided."""
    before = status.observed_generation
    conditions = tuple(
        each.model_copy(update={"observed_generation": generation}) if each.observed_generation == before else each
        for each in status.conditions
    )
    return status.model_copy(update={"observed_generation": generation, "conditions": conditions})


def _loaded_digest(observed: Observed, active: str | None, models: Mapping[str, str]) -> str | None:
    """The active revision's model, once a replica has loaded it."""
    before, digest = observed.deployment.status, models.get(active or "")
    loaded = any(
        replica.digest == digest
        for each in observed.gateways
        if isinstance(each, ObservedGateway) and each.route
        for replica in each.route.replicas
        if replica.revision == active
    )
    return digest if loaded else before.digest if active == before.active_revision else None


def _models(observed: Observed, standing: RevisionStanding, revisions: Iterable[str | None]) -> dict[str, str]:
    """Digests of the models that revisions are, as far as they are known."""
    if not isinstance(observed.pool, Pool):
        return dict(sorted(observed.deployment.status.models.items()))
    return {name: digest for name, digest in sorted(standing.models.items()) if name in set(revisions)}


def _judge_joining(observed: Observed, active: str | None) -> Verdict | None:
    """Whether the active replicas join requests, as they say; as was said before where none says."""
    told = [
        replica.joining
        for each in observed.gateways
        if isinstance(each, ObservedGateway) and each.route
        for replica in each.route.replicas
        if replica.revision == active and replica.joining is not None
    ]
    if not told:
        before = observed.deployment.status
        return (
            recorded_verdict(DeploymentCondition.REQUESTS_JOINED, before.conditions)
            if active == before.active_revision
            else None
        )
    apart = sorted(each.reason for each in told if not each.joined)
    if apart:
        return false(Reason.BATCH_NOT_PROVED, f"Each request is run alone: {apart[0]}")
    return true(Reason.BATCH_PROVED, f"Requests are joined: {told[0].reason}")


def _replicas(observed: Observed, standing: RevisionStanding, active: str | None) -> ReplicaCounts:
    _, high = replica_bounds(observed.deployment)
    app = standing.applications.get(active or "")
    arms = arms_of_rollout(observed.deployment.status.rollout)
    count = standing.count_receiving(active, *arms) if active else 0
    desired = app.wanted if app else (observed.deployment.status.replicas.desired if active else 0)
    if (given := scaling.explain_given(observed.deployment)) is not None:
        return ReplicaCounts(desired=desired, ready=count, reason=f"{high}: {given[1]}")
    if app is None or active is None:
        return ReplicaCounts(desired=desired, ready=count, reason=observed.deployment.status.replicas.reason)
    return ReplicaCounts(desired=desired, ready=count, reason=scaling.explain(observed, active, app))
