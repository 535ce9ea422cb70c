"""What replicas take of a quota that a new revision is compared with for a while."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.quota.test_quota import OLDER, YOUNGER, of, quota
from tests.unit.rollout.scenes import record

from penstock.api.rollout import BaselineKind, RolloutPhase
from penstock.api.v1alpha1 import InferenceDeployment
from penstock_operator.quota.plan import excess, quota_status, spare_replicas, usage_beside

STEPPING = record(RolloutPhase.STEPPING, 25, replicas=2)
WITHOUT = record(RolloutPhase.STEPPING, 25, replicas=2, baseline=BaselineKind.FLEET)


def judged(name: str, replicas: int, beside: Any = STEPPING, **given: Any) -> InferenceDeployment:
    made = of(name, replicas, **given)
    return made.model_copy(update={"status": made.status.model_copy(update={"rollout": beside})})


@pytest.mark.parametrize(
    ("deployment", "replicas"),
    [
        pytest.param(judged("a", 4), 2, id="a baseline of two"),
        pytest.param(judged("a", 4, WITHOUT), 0, id="it is compared with the fleet"),
        pytest.param(of("a", 4), 0, id="nothing is judged"),
        pytest.param(judged("a", 0), 0, id="scaled to none"),
    ],
)
def test_replicas_beside_its_own(deployment: InferenceDeployment, replicas: int) -> None:
    taken = usage_beside(deployment)
    assert (taken.deployments, taken.replicas, taken.memory) == (0, replicas, replicas * 2**30)


def test_they_are_counted_and_a_younger_deployment_waits_for_them_and_never_their_own() -> None:
    older, younger = judged("a", 4, created=OLDER), of("b", 2, created=YOUNGER)
    everyone = [older, younger]
    assert excess(older, everyone, [quota(replicas=4)]) is None
    assert excess(younger, everyone, [quota(replicas=8)]) is None
    assert excess(younger, everyone, [quota(replicas=7)]) is not None
    assert quota_status(quota(replicas=8), everyone, 0.0).used.replicas == 8


@pytest.mark.parametrize(
    ("hard", "spare"),
    [
        pytest.param({"replicas": 9}, 3, id="of what everyone may have, the rest"),
        pytest.param({"replicas": 6}, 0, id="none"),
        pytest.param({"replicas": 5}, 0, id="less than there is"),
        pytest.param({"memory": "7Gi", "replicas": 100}, 1, id="of each the least"),
        pytest.param({"deployments": 2}, None, id="replicas are not bounded"),
    ],
)
def test_room_beside_what_everyone_may_have(hard: dict[str, Any], spare: int | None) -> None:
    mine = judged("a", 4)
    assert spare_replicas(mine, [mine, of("b", 2)], [quota(**hard)]) == spare
