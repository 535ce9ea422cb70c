"""One revision takes another's place where there is no room for both."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.rollout.scenes import NOW, OPEN, C, S, arm, record, sight, spec

from penstock.api.rollout import RolloutPhase, RolloutStatus, RolloutType, WithoutRoom
from penstock_operator.rollout.machine import judge_rollout
from penstock_operator.rollout.notes import RolloutNotes, write_notes

STARTING, STEPPING, PROMOTED, ROLLED_BACK = (
    RolloutPhase.STARTING,
    RolloutPhase.STEPPING,
    RolloutPhase.PROMOTED,
    RolloutPhase.ROLLED_BACK,
)
WAITS = arm(0, name="c", declared=1, waiting_since=NOW - 31)
OF_FOUR = write_notes(RolloutNotes(size=4))


def going(weight: int = 0, **changes: Any) -> RolloutStatus:
    given = {"type": RolloutType.IMMEDIATE, "notes": OF_FOUR, "baseline": None, **changes}
    phase = STEPPING if weight else STARTING
    return record(phase, **given).model_copy(update={"weight": weight})


ROWS = [
    ("it is to wait for room", record(STARTING), WithoutRoom.WAIT, WAITS, 4, STARTING, 0, 4),
    ("room may come yet", record(STARTING), WithoutRoom.IN_PLACE, arm(0, declared=1, waiting_since=NOW - 5), 4, STARTING, 0, 4),
    ("one of the others makes room", record(STARTING), WithoutRoom.IN_PLACE, WAITS, 4, STARTING, 0, 3),
    ("one took the first place", going(), WithoutRoom.IN_PLACE, arm(1, name="c", declared=4), 3, STEPPING, 25, 2),
    ("the last of the others stays", going(50), WithoutRoom.IN_PLACE, arm(3, name="c", declared=4), 1, STEPPING, 75, 1),
    ("all took their places", going(75), WithoutRoom.IN_PLACE, arm(4, name="c", declared=4), 1, PROMOTED, 100, None),
    (
        "there is no room for the last while the other's stays: it does without",
        going(75),
        WithoutRoom.IN_PLACE,
        arm(3, name="c", declared=4, waiting_since=NOW - 5),
        1,
        PROMOTED,
        100,
        None,
    ),
    ("it does not start: nothing is given up for it", going(), WithoutRoom.IN_PLACE, arm(0, declared=4, failure="It is broken."), 3, STARTING, 0, 4),
]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "asked", "candidate", "running", "phase", "weight", "kept"),
    [row[1:] for row in ROWS],
    ids=[r[0] for r in ROWS],
)
def test_in_place(  # noqa: PLR0917 -- a row
    before: RolloutStatus,
    asked: WithoutRoom,
    candidate: Any,
    running: int,
    phase: RolloutPhase,
    weight: int,
    kept: int | None,
) -> None:
    arms = {C: candidate, S: arm(running, name="s")}
    decided = judge_rollout(sight(before, spec=spec(without_room=asked), arms=arms, low=1, high=4), OPEN)
    assert (decided.record.phase, decided.record.weight) == (phase, weight)
    assert (decided.replicas[S].least if S in decided.replicas else None) == kept
    assert decided.comparison is None


def test_it_can_be_told_to_stop() -> None:
    arms = {C: arm(1, name="c", declared=4), S: arm(2, name="s")}
    decided = judge_rollout(sight(going(25), told=f"abort {C}", arms=arms, low=1, high=4), OPEN)
    assert (decided.record.phase, decided.weights) == (ROLLED_BACK, {S: 100})
    assert set(decided.replicas) == {S}
