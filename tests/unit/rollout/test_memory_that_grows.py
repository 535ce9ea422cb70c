"""A candidate that was proved in memory and grows afterwards."""

from __future__ import annotations

from tests.unit.rollout.evidence_world import LookedWorld

from penstock_operator.rollout.evidence.findings import AnalysisSettings, Findings, learn

SETTINGS = AnalysisSettings()


def learned(world: LookedWorld, state: str, looks: int) -> Findings:
    for _ in range(looks):
        found = learn(state, world.go_on(), SETTINGS)
        state = found.state
    return found


def test_what_was_proved_of_memory_holds_only_while_it_stays() -> None:
    world = LookedWorld()
    proved = learned(world, "", 40)
    assert "memory" not in proved.missing
    world.candidate.replica.memory *= 2.8
    leaking = learned(world, proved.state, 1)
    assert "memory" in leaking.missing
    world.candidate.replica.memory /= 2.8
    assert "memory" not in learned(world, leaking.state, 1).missing


def test_memory_that_grows_in_both_stays_proved() -> None:
    world = LookedWorld()
    proved = learned(world, "", 40)
    for arm in (world.candidate, world.baseline):
        arm.replica.memory *= 1.4
    assert "memory" not in learned(world, proved.state, 3).missing
