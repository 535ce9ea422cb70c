"""The documentation of conditions keeps up with the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from penstock.api.conditions import REASONS, DeploymentCondition, Reason, RunCondition, facts_of

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "conditions.md").read_text()


def documented() -> dict[str, list[str]]:
    """By reason, what the table says of it: what is at fault, whether that lasts, what becomes of requests."""
    table = TEXT.partition("| reason |")[2]
    rows = [re.split(r" *\| *", line)[1:-1] for line in table.splitlines() if line.startswith("| `")]
    return {reason: cells[1:4] for cells in rows for reason in re.findall(r"`(\w+)`", cells[0])}


def test_no_reason_is_without_an_entry() -> None:
    assert set(REASONS) == set(Reason)


def test_each_reason_is_explained_and_none_that_there_is_not() -> None:
    assert sorted(documented()) == sorted(Reason)


@pytest.mark.parametrize("reason", sorted(Reason))
def test_what_follows_from_a_reason_is_documented(reason: Reason) -> None:
    facts = REASONS[reason]
    lasts, requests = "yes" if facts.lasts else "no", "refused" if facts.refuses else "held"
    assert documented()[reason] == [facts.fault, lasts, requests]


def test_a_reason_that_only_a_newer_release_knows_warns_and_is_waited_for() -> None:
    facts = facts_of("OfANewerRelease")
    assert (facts.warns, facts.lasts, facts.refuses) == (True, False, False)


@pytest.mark.parametrize("kind", [*DeploymentCondition, *RunCondition])
def test_each_condition_is_explained(kind: DeploymentCondition | RunCondition) -> None:
    assert f"| `{kind}` |" in TEXT
