"""The documentation of conditions keeps up with the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.api.conditions import DeploymentCondition, Reason, RunCondition

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "conditions.md").read_text()


@pytest.mark.parametrize("reason", sorted(Reason))
def test_each_reason_is_explained(reason: Reason) -> None:
    assert f"`{reason}`" in TEXT


@pytest.mark.parametrize("kind", [*DeploymentCondition, *RunCondition])
def test_each_condition_is_explained(kind: DeploymentCondition | RunCondition) -> None:
    assert f"| `{kind}` |" in TEXT
