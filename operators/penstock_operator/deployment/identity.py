"""What applications say of their models, and which model a deployment follows with `updatePolicy: Automatic`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from penstock import names
from penstock.api.conditions import Reason
from penstock.api.v1alpha1 import InferenceDeployment, ModelSource, UpdatePolicy
from penstock.serving.arguments import FAILURE_MARKER, StartFailure
from penstock_operator.deployment.failure import start_failure
from penstock_operator.deployment.observed import (
    Observed,
    ObservedApplication,
    Pool,
    applications_of,
    declared_settings,
)

_DIGEST: Final = "digest"


def known_settings(app: ObservedApplication | None) -> Collection[str] | None:
    """What an application's replicas know of `UserConfig`; None: all. Those of an earlier release refuse what they do not know."""
    return (declared_settings(app.config).keys() or None) if app is not None else None


def takes_digest(app: ObservedApplication) -> bool:
    """Whether an application's replicas know `UserConfig.digest`."""
    return _DIGEST in declared_settings(app.config)


def declared_digest(app: ObservedApplication) -> str | None:
    """The digest that new replicas of an application are told; None where they are told none."""
    digest = declared_settings(app.config).get(_DIGEST)
    return digest if isinstance(digest, str) and digest else None


def recorded_models(deployment: InferenceDeployment) -> Mapping[str, str]:
    """What the status says of revisions; one that an earlier release wrote says it of the active one alone."""
    status = deployment.status
    if status.active_revision is not None and status.digest is not None:
        return {status.active_revision: status.digest, **status.models}
    return status.models


def change_of(app: ObservedApplication | None) -> StartFailure | None:
    """What a replica said that found another model than its revision is; also while others of the revision run."""
    if app is None or FAILURE_MARKER not in app.message or app.running >= app.wanted:
        return None
    failure = start_failure(app.message)
    return failure if failure.reason == Reason.MODEL_CHANGED else None


def follow_model(observed: Observed) -> InferenceDeployment:
    """The deployment; with `updatePolicy: Automatic` it names the model that is to serve, which makes a revision of each.

    A revision whose replicas find another model is followed by that one. Which revision is the last follows from the
    applications, and where there are none from the status.
    """
    deployment = observed.deployment
    if deployment.spec.model.update_policy is not UpdatePolicy.AUTOMATIC or not isinstance(observed.pool, Pool):
        return deployment
    apps = applications_of(deployment, observed.pool)
    known = {*recorded_models(deployment).values(), *(declared_digest(app) for app in apps.values())}
    versions = {names.revision(deployment): deployment}
    for digest in known:
        pinned = _pin(deployment, digest) if digest else deployment
        versions[names.revision(pinned)] = pinned
    last = _last_declared(deployment, apps, versions)
    change = change_of(apps.get(last))
    if change is not None and change.digest is not None:
        return _pin(deployment, change.digest)
    return versions[last]


def _last_declared(
    deployment: InferenceDeployment,
    apps: Mapping[str, ObservedApplication],
    versions: Mapping[str, InferenceDeployment],
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


def _pin(deployment: InferenceDeployment, digest: str) -> InferenceDeployment:
    model: ModelSource = deployment.spec.model.model_copy(update={"digest": digest})
    return deployment.model_copy(update={"spec": deployment.spec.model_copy(update={"model": model})})
