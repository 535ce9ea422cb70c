"""Moves what one Ray cluster runs to another: first it runs on both, then the first may go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from penstock_operator.deployment.application import ServeApplication
from penstock_operator.deployment.observed import ApplicationState, ObservedApplication
from penstock_operator.pool.observed import PoolObserved, RayClusterView

LOST_SECONDS: Final = 600.0
"""For so long workers with a Redis wait for their head, and those without no longer: nothing serves under it after that."""
TOLD_SECONDS: Final = 60.0
"""From a head's start: in this time its deployments have told it again what it is to run."""
_UNDER_WAY: Final = {ApplicationState.RUNNING, ApplicationState.DEPLOYING, ApplicationState.UNHEALTHY}


def known_applications(
    observed: PoolObserved, serving: RayClusterView, now: float
) -> tuple[ObservedApplication, ...] | None:
    """What the present cluster runs; None where it does not say, or its head is too new to have been told all of it."""
    # KubeRay's clock may be ahead of ours.
    new = serving.head_ready and serving.head_since is not None and abs(now - serving.head_since) < TOLD_SECONDS
    return None if new else observed.applications.get(serving.name)


def leaves_unasked(serving: RayClusterView, candidates: Sequence[ObservedApplication], now: float) -> bool:
    """Whether to leave a cluster that does not say what it runs: waiting for its head for ever would never mend a broken one.

    Either the candidate runs all that it was given while the head could be asked, or no worker is left here, or the head
    has been away for so long that none has waited for it.
    """
    given = [each for each in candidates if each.config is not None and each.state is not ApplicationState.DELETING]
    if given and all(_runs(each) for each in given):
        return True
    if serving.head_ready:
        return False
    return not serving.running or (serving.head_since is not None and now - serving.head_since > LOST_SECONDS)


def answers_too(app: ObservedApplication, candidates: Sequence[ObservedApplication]) -> bool:
    """Whether the candidate runs as much of an application as the present cluster does, from the same arguments."""
    if app.config is None or app.state is ApplicationState.DELETING or not app.running:
        return True  # what does not run here need not run there first
    twin = next((each for each in candidates if each.name == app.name and each.config is not None), None)
    return (
        twin is not None and _has_same_arguments(twin, app) and twin.state in _UNDER_WAY and twin.running >= app.running
    )


def copy_application(app: ObservedApplication) -> ServeApplication:
    """The application as it is to start on the candidate: with as many replicas as run now."""
    deployments = [_with_minimum(each, app.running) for each in (app.config or {}).get("deployments", ())]
    return {**(app.config or {}), "deployments": deployments}


def _runs(app: ObservedApplication) -> bool:
    return app.state is ApplicationState.RUNNING and app.running >= app.wanted


def _has_same_arguments(one: ObservedApplication, other: ObservedApplication) -> bool:
    return (one.config or {}).get("args") == (other.config or {}).get("args")


def _with_minimum(deployment: dict[str, Any], running: int) -> dict[str, Any]:
    scaling = deployment.get("autoscaling_config")
    if not isinstance(scaling, dict):
        return deployment
    least = max(int(scaling.get("min_replicas") or 0), running)
    most = max(int(scaling.get("max_replicas") or 1), least)
    return {**deployment, "autoscaling_config": {**scaling, "min_replicas": least, "max_replicas": most}}
