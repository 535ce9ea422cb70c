"""Which model a revision is. The first replica of a revision decides it, for all that come later and for good.

What was decided is observed, never remembered: Serve echoes it in the application's `user_config`, gateways in the route, and
the status says it where neither is there, as after a scale to none or the loss of a Ray cluster. Only where nobody knows do
the replicas' leases decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from penstock import names
from penstock.api.conditions import Reason
from penstock.api.v1alpha1 import InferenceDeployment, ModelSource, UpdatePolicy
from penstock.serving.arguments import FAILURE_MARKER, StartFailure
from penstock.serving.settings import changed_message
from penstock_operator.deployment.failure import start_failure
from penstock_operator.deployment.observed import Application, Gateway, Observed, Pool, applications_of

_DIGEST: Final = "digest"


def takes_digest(app: Application | None) -> bool:
    """Whether an application's replicas know `UserConfig.digest`; those of a release without it refuse it."""
    return app is None or _DIGEST in _user_config(app)


def declared_digest(app: Application) -> str | None:
    """The digest that new replicas of an application are told; None where they are told none."""
    digest = _user_config(app).get(_DIGEST)
    return digest if isinstance(digest, str) and digest else None


def model_of(observed: Observed, revision: str, app: Application | None) -> str | None:
    """The digest of the model that a revision is; None where no replica has told yet.

    Args:
        observed: what is there.
        revision: of this deployment.
        app: its application, if there is one.
    """
    if names.revision(observed.deployment) == revision and observed.deployment.spec.model.digest is not None:
        return observed.deployment.spec.model.digest
    if app is not None and app.arguments is not None and app.arguments.replica.digest is not None:
        return app.arguments.replica.digest
    told = declared_digest(app) if app is not None else None
    if told is not None:
        return told
    recorded = recorded_models(observed).get(revision)
    declared = _declared(observed, revision) if app is not None or recorded else None
    return declared or recorded or _leased(observed, revision)


def recorded_models(observed: Observed) -> Mapping[str, str]:
    """What the status says of revisions; one that an earlier release wrote says it of the active one alone."""
    status = observed.deployment.status
    if status.active_revision is not None and status.digest is not None:
        return {status.active_revision: status.digest, **status.models}
    return status.models


def change_of(app: Application | None) -> StartFailure | None:
    """What a replica said that found another model than its revision is; also while others of the revision run."""
    if app is None or FAILURE_MARKER not in app.message or app.running >= app.wanted:
        return None
    failure = start_failure(app.message)
    return failure if failure.reason == Reason.MODEL_CHANGED else None


def strangers(observed: Observed, revision: str, app: Application | None) -> str | None:
    """What is to be said of replicas that run with another model than their revision is; None where there is none."""
    digest = model_of(observed, revision, app)
    found = sorted({each for each, _ in _leases(observed, revision) if each and each != digest}) if digest else []
    if not found:
        return None
    return f"{changed_message(found[0], digest or '', revision)} Replicas that loaded it get no request."


def follow_model(observed: Observed) -> InferenceDeployment:
    """The deployment; with `updatePolicy: Automatic` it names the model that is to serve, which makes a revision of each.

    A revision whose replicas find another model is followed by that one. Which revision is the last follows from the
    applications, and where there are none from the status.
    """
    deployment = observed.deployment
    if deployment.spec.model.update_policy is not UpdatePolicy.AUTOMATIC or not isinstance(observed.pool, Pool):
        return deployment
    apps = applications_of(deployment, observed.pool)
    known = {*recorded_models(observed).values(), *(declared_digest(app) for app in apps.values())}
    versions = {names.revision(deployment): deployment}
    for digest in known:
        pinned = _of(deployment, digest) if digest else deployment
        versions[names.revision(pinned)] = pinned
    last = _last(deployment, apps, versions)
    change = change_of(apps.get(last))
    if change is not None and change.digest is not None:
        return _of(deployment, change.digest)
    return versions[last]


def _last(
    deployment: InferenceDeployment, apps: Mapping[str, Application], versions: Mapping[str, InferenceDeployment]
) -> str:
    """The revision that was declared last, of those that differ in the model alone."""
    began = {
        name: (app.arguments.attempt.attempted_at, versions[name].spec.model.digest is not None, name)
        for name, app in apps.items()
        if name in versions and app.arguments is not None
    }
    if began:
        return max(began, key=lambda name: began[name])
    status = deployment.status
    for each in (status.candidate_revision, status.active_revision, *status.models):
        if each is not None and each in versions:
            return each
    return names.revision(deployment)


def _of(deployment: InferenceDeployment, digest: str) -> InferenceDeployment:
    model: ModelSource = deployment.spec.model.model_copy(update={"digest": digest})
    return deployment.model_copy(update={"spec": deployment.spec.model_copy(update={"model": model})})


def _user_config(app: Application) -> Mapping[str, object]:
    for each in (app.config or {}).get("deployments", ()):
        if each.get("name") == names.SERVE_DEPLOYMENT:
            found = each.get("user_config")
            return found if isinstance(found, Mapping) else {}
    return {}


def _declared(observed: Observed, revision: str) -> str | None:
    """What a gateway was told."""
    for each in (*observed.gateways, *observed.joining):
        if isinstance(each, Gateway) and each.route is not None and each.route.declared is not None:
            digest = each.route.declared.digests.get(revision)
            if digest and each.route.declared.owner in ("", observed.deployment.metadata.uid):
                return digest
    return None


def _leases(observed: Observed, revision: str) -> list[tuple[str, bool]]:
    """Digest of each replica at each gateway that answers, and whether it gets requests."""
    return [
        (replica.digest, replica.receiving)
        for each in observed.gateways
        if isinstance(each, Gateway) and each.route
        for replica in each.route.replicas
        if replica.revision == revision
    ]


def _leased(observed: Observed, revision: str) -> str | None:
    """The digest of most replicas, of those that get requests if there are any; of as many, the least in order."""
    leases = [(digest, receiving) for digest, receiving in _leases(observed, revision) if digest]
    heard = [digest for digest, receiving in leases if receiving] or [digest for digest, _ in leases]
    return min(Counter(heard).items(), key=lambda each: (-each[1], each[0]))[0] if heard else None
