"""Deletion in the cluster: what is left of a namespace's models and pools, and operators that come anew meanwhile."""

from __future__ import annotations

import json

from tests.chart.helm import NAMESPACE
from tests.e2e.cluster.installation import Installation

_OURS = "infdep,servingpool,raycluster,pod,networkpolicy,job,optimizationrun,service"


def left(installation: Installation, namespace: str) -> list[str]:
    """What there is in a namespace of ours or of KubeRay's."""
    kubectl = installation.cluster.kubectl
    found = json.loads(kubectl("get", _OURS, "-n", namespace, "-o", "json"))["items"]
    found += json.loads(kubectl("get", "secret", "-n", namespace, "-l", "penstock.dev/pool", "-o", "json"))["items"]
    return [f"{each['kind']}/{each['metadata']['name']}" for each in found]


def restart_operators(installation: Installation) -> None:
    """Let other operators take over; returns at once."""
    installation.cluster.kubectl("rollout", "restart", "deployment/penstock-operator", "-n", NAMESPACE)
