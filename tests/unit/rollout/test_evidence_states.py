"""What is kept of evidence between looks."""

from __future__ import annotations

import pytest

from penstock.routing.outcomes import ReplicaOutcomes
from penstock_operator.rollout.evidence.findings import AnalysisSettings, Findings, Look, learn

SETTINGS = AnalysisSettings()


def look(at: float, answered: int, failed: int = 0, name: str = "a") -> Look:
    candidate = {
        name: ReplicaOutcomes(
            age_seconds=100 + at, answered=answered - failed, failed=failed, seconds={50: answered - failed}
        )
    }
    baseline = {"b": ReplicaOutcomes(age_seconds=100 + at, answered=100 * int(at), seconds={50: 100 * int(at)})}
    return Look(at, candidate, baseline, {}, 0.5)


def seen(*looks: Look, state: str = "") -> Findings:
    for each in looks:
        found = learn(state, each, SETTINGS)
        state = found.state
    return found


def test_the_first_look_is_what_the_next_is_held_against_and_no_evidence() -> None:
    assert seen(look(1000, 10**6)).requests == 0
    assert seen(look(1000, 10**6), look(1002, 10**6 + 7)).requests == 7


def test_the_same_look_twice_changes_nothing() -> None:
    once = seen(look(1000, 0), look(1002, 50))
    assert learn(once.state, look(1002, 50), SETTINGS) == once


@pytest.mark.parametrize("after", [look(1004, 20), look(1004, 20, name="another")])
def test_a_replica_that_begins_anew_starts_from_zero_and_loses_no_evidence(after: Look) -> None:
    before = seen(look(1000, 0), look(1002, 50))
    assert seen(after, state=before.state).requests == 50
    assert learn(before.state, after, SETTINGS).metrics[0].samples == 50


@pytest.mark.parametrize("state", ["x", "{}", "c$@()", "\x00\ud800"])
def test_a_state_that_is_none_begins_anew(state: str) -> None:
    assert learn(state, look(1000, 50), SETTINGS).requests == 0
