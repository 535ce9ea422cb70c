"""Moves what one Ray cluster runs to another: first it runs on both, then the first may go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from penstock.planning.application import ServeApplication
from penstock.planning.observed import Application, ApplicationState

_UNDER_WAY: Final = {ApplicationState.RUNNING, ApplicationState.DEPLOYING, ApplicationState.UNHEALTHY}


def answers_too(app: Application, candidates: Sequence[Application]) -> bool:
    """Whether the candidate runs as much of an application as the present cluster does, from the same arguments."""
    if app.config is None or app.state is ApplicationState.DELETING or not app.running:
        return True  # what does not run here need not run there first
    twin = next((each for each in candidates if each.name == app.name and each.config is not None), None)
    return twin is not None and _same(twin, app) and twin.state in _UNDER_WAY and twin.running >= app.running


def copied(app: Application) -> ServeApplication:
    """The application as it is to start on the candidate: with as many replicas as run now."""
    deployments = [_at_least(each, app.running) for each in (app.config or {}).get("deployments", ())]
    return {**(app.config or {}), "deployments": deployments}


def _same(one: Application, other: Application) -> bool:
    return (one.config or {}).get("args") == (other.config or {}).get("args")


def _at_least(deployment: dict[str, Any], running: int) -> dict[str, Any]:
    scaling = deployment.get("autoscaling_config")
    if not isinstance(scaling, dict):
        return deployment
    least = max(int(scaling.get("min_replicas") or 0), running)
    most = max(int(scaling.get("max_replicas") or 1), least)
    return {**deployment, "autoscaling_config": {**scaling, "min_replicas": least, "max_replicas": most}}
