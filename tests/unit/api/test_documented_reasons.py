"""The documentation of conditions keeps up with the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.api.conditions import DeploymentCondition, Reason

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "conditions.md").read_text()
GOOD = {Reason.READY, Reason.MODEL_LOADED, Reason.POOL_AVAILABLE, Reason.REPLICAS_READY, Reason.ROLLED_OUT}


@pytest.mark.parametrize("reason", sorted(set(Reason) - GOOD))
def test_each_reason_that_a_user_may_have_to_act_on_is_explained(reason: Reason) -> None:
    assert f"`{reason}`" in TEXT


@pytest.mark.parametrize("kind", list(DeploymentCondition))
def test_each_condition_is_explained(kind: DeploymentCondition) -> None:
    assert f"| `{kind}` |" in TEXT
