"""What a deployment says where Kubernetes' API refuses what a look needs, or what it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.deployment.world import NOW, OLD, World, deployment

from penstock.api.conditions import DeploymentCondition, Reason
from penstock.api.meta import Condition, ConditionStatus, Manifest
from penstock.api.v1alpha1 import InferenceDeploymentStatus
from penstock.errors import Unavailable
from penstock_operator.deployment.number import NumberWrite
from penstock_operator.deployment.plan import Plan, plan
from penstock_operator.deployment.reconcile import DeploymentReconciler
from penstock_operator.deployment.refusal import refused_status
from penstock_operator.kinds import INFERENCE_DEPLOYMENT
from penstock_operator.runtime.cluster import DENIED, ResourceKind
from penstock_operator.runtime.cluster.embedded import EmbeddedCluster

WORDS = "deployments need the label team"


def serving(ready: ConditionStatus, generation: int) -> InferenceDeploymentStatus:
    of = {
        DeploymentCondition.READY: (ready, Reason.READY),
        DeploymentCondition.POOL_READY: (ConditionStatus.TRUE, Reason.POOL_AVAILABLE),
        DeploymentCondition.MODEL_RESOLVED: (ConditionStatus.TRUE, Reason.MODEL_LOADED),
        DeploymentCondition.SERVING: (ConditionStatus.TRUE, Reason.REPLICAS_READY),
        DeploymentCondition.PROGRESSING: (ConditionStatus.TRUE, Reason.ROLLED_OUT),
    }
    conditions = tuple(
        Condition(type=kind, status=status, reason=reason, message="", last_transition_time="1970-01-01T00:00:00Z")
        for kind, (status, reason) in of.items()
    )
    return InferenceDeploymentStatus(observed_generation=generation, conditions=conditions, active_revision=OLD)


def statuses(conditions: Sequence[Condition]) -> dict[str, tuple[str, str]]:
    return {each.type: (each.status, each.reason) for each in conditions}


ROWS = [
    ("one that serves what it should stays ready", serving(ConditionStatus.TRUE, 3), ("True", "Ready")),
    ("one whose change is refused is not ready", serving(ConditionStatus.TRUE, 2), ("False", "ApiRefused")),
    ("a new one is not ready", InferenceDeploymentStatus(), ("False", "ApiRefused")),
]


@pytest.mark.parametrize(("before", "ready"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_a_refusal_is_told(before: InferenceDeploymentStatus, ready: tuple[str, str]) -> None:
    told = refused_status(deployment(status=before), WORDS, NOW)
    found = statuses(told.conditions)
    assert found["Ready"] == ready
    assert found["Progressing"] == ("False", "ApiRefused")
    assert next(each for each in told.conditions if each.type == "Progressing").message == WORDS
    assert told.active_revision == before.active_revision, "what serves goes on"
    assert found.get("Serving") == statuses(before.conditions).get("Serving")
    again = refused_status(deployment(status=told), WORDS, NOW + 5)
    assert again == told, "it is told once"


class NoRuns(EmbeddedCluster):
    """A policy refuses optimization runs."""

    def create(self, kind: ResourceKind, manifest: Manifest) -> Manifest:
        raise Unavailable(DENIED, f"{kind.plural}: {manifest['metadata']['name']}: denied")


def test_a_model_is_served_although_its_run_is_refused(tmp_path: Path) -> None:
    cluster = NoRuns(tmp_path / "cluster.sqlite")
    world = World(deployment())
    observed = world.observed()
    planned: Plan = replace(plan(observed, NOW), run={"metadata": {"name": "digits-1"}}, route=None, number=None)
    reconciler = DeploymentReconciler(cluster, None, None, None)  # type: ignore[arg-type]  # it observes and tells nothing here
    applied = reconciler.apply((observed, None), planned, NOW)
    assert applied.status is not None
    condition = next(each for each in applied.status.conditions if each.type == DeploymentCondition.PROFILE_APPLIED)
    assert (condition.status, condition.reason) == ("False", "ApiRefused")
    assert "optimizationruns: digits-1: denied" in condition.message
    cluster.close()


class NoNumbers(EmbeddedCluster):
    """A policy refuses that the number of replicas is written."""

    def apply(self, kind: ResourceKind, manifest: Manifest, manager: str) -> Manifest:
        if kind is INFERENCE_DEPLOYMENT:
            raise Unavailable(DENIED, f"{kind.plural}: {manifest['metadata']['name']}: denied by {manager}")
        return super().apply(kind, manifest, manager)


def test_a_number_that_may_not_be_written_is_a_condition_and_an_event(tmp_path: Path) -> None:
    """It was in the log alone: `/scale` showed another number than there was, and nobody was told why."""
    cluster = NoNumbers(tmp_path / "cluster.sqlite")
    world = World(deployment())
    planned = replace(plan(world.observed(), NOW), route=None, number=NumberWrite(3))
    reconciler = DeploymentReconciler(cluster, None, None, None)  # type: ignore[arg-type]  # it observes and tells nothing here
    told = reconciler.apply((world.observed(), None), planned, NOW).status
    assert told is not None
    assert statuses(told.conditions)["ScaleWritten"] == ("False", "ApiRefused")
    event = next(
        each for each in reconciler.announce(InferenceDeploymentStatus(), told) if "ScaleWritten" in each.message
    )
    assert event.warning
    assert "spec.replicas" in event.message
    assert "denied by" in event.message
    healed = plan(World(deployment(status=told)).observed(), NOW + 5).status
    assert healed is not None
    assert "ScaleWritten" not in statuses(healed.conditions)
    cluster.close()
