"""Waits until a deployment serves, saying on the way what it waits for."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from penstock.api.conditions import DeploymentCondition, Reason, facts_of
from penstock.api.meta import Condition, ConditionStatus
from penstock.api.reading import read
from penstock.api.v1alpha1 import InferenceDeployment
from penstock.errors import Invalid, Unavailable
from penstock.names import DEPLOYMENT_MANAGER, POOL_MANAGER
from penstock_operator.kinds import INFERENCE_DEPLOYMENT, SERVING_POOL
from penstock_operator.runtime.cluster import Cluster, Key, Manifest, NotFound

_POLL_SECONDS = 0.1


class NotServing(Unavailable):
    """A deployment does not serve, for a reason of its own: the platform and others go on."""


def wait_until_ready(
    cluster: Cluster,
    key: Key,
    seconds: float,
    say: Callable[[str], None],
    check: Callable[[], None],
    *,
    applied: float | None = None,
) -> InferenceDeployment:
    """Wait until the deployment's present generation is Ready.

    Args:
        cluster: where it is.
        key: its namespace and name.
        seconds: how long to wait.
        say: told what a condition says, whenever that changes.
        check: called on the way; raises to give up.
        applied: monotonic seconds at which it was applied; None: now.

    Raises:
        NotServing: it failed for a reason that waiting does not mend, or the time is up; with its conditions.
        NotFound: it is gone.
    """
    began = time.monotonic()
    deadline = began + seconds
    while True:
        check()
        manifest = cluster.get(INFERENCE_DEPLOYMENT, key)
        if manifest is None:
            raise NotFound("NotFound", f"InferenceDeployment {key} was deleted while it was waited for")
        try:
            deployment = read(InferenceDeployment, manifest)
        except Invalid as error:
            raise NotServing(Reason.INVALID_SPEC, error.message) from error
        ready = _condition(deployment, DeploymentCondition.READY)
        if ready is not None and ready.status is ConditionStatus.TRUE:
            return deployment
        lasting = next(
            (c for c in _present_conditions(deployment) if _has_failed(c) and facts_of(c.reason).lasts), None
        )
        if lasting is not None:
            raise NotServing(lasting.reason, lasting.message)
        if time.monotonic() > deadline:
            waited = time.monotonic() - (began if applied is None else applied)
            raise NotServing(
                "NotReady", f"{key} was not Ready within {waited:.0f} s.\n{_describe_conditions(deployment)}"
            )
        say(_waiting_for(deployment))
        time.sleep(_POLL_SECONDS)


def url_if_ready(manifest: Manifest | None) -> str | None:
    """Where a deployment serves; None where it does not."""
    with suppress(Invalid):
        deployment = read(InferenceDeployment, manifest or {})
        ready = _condition(deployment, DeploymentCondition.READY)
        if ready is not None and ready.status is ConditionStatus.TRUE:
            return (deployment.status.url or "").rstrip("/")
    return None


def forget_readiness(cluster: Cluster) -> None:
    """Take back every status in a store: what a former run's operator said is true no longer, since all has ended.

    To be called before this run's operator starts, which then says anew how things are.
    """
    # In the name of the operator's own field manager: an apply that leaves fields out removes them.
    for kind, manager in ((SERVING_POOL, POOL_MANAGER), (INFERENCE_DEPLOYMENT, DEPLOYMENT_MANAGER)):
        for manifest in cluster.list(kind).items:
            name = {field: manifest["metadata"][field] for field in ("name", "namespace")}
            blank: Manifest = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": name, "status": {}}
            cluster.apply_status(kind, blank, manager)


def _present_conditions(deployment: InferenceDeployment) -> list[Condition]:
    """Conditions that speak of the present spec."""
    generation = deployment.metadata.generation
    return [c for c in deployment.status.conditions if c.observed_generation >= generation]


def _condition(deployment: InferenceDeployment, kind: DeploymentCondition) -> Condition | None:
    return next((c for c in _present_conditions(deployment) if c.type == kind), None)


def _has_failed(condition: Condition) -> bool:
    return condition.status is ConditionStatus.FALSE and condition.type != DeploymentCondition.PROGRESSING


def _waiting_for(deployment: InferenceDeployment) -> str:
    name = deployment.metadata.name
    ready = _condition(deployment, DeploymentCondition.READY)
    if ready is None:
        return f"{name}: waiting for the operator"
    return f"{name}: {ready.reason}{f': {ready.message}' if ready.message else ''}"


def _describe_conditions(deployment: InferenceDeployment) -> str:
    lines = [f"  {c.type}={c.status} {c.reason}: {c.message}" for c in deployment.status.conditions]
    return "\n".join(lines) or "  The operator has set no condition."
