"""Where a rollout goes from where it is."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.rollout.scenes import (
    HARM,
    NOW,
    OPEN,
    PROVED,
    SHOWN_ONLY,
    UNLIKE,
    B,
    C,
    S,
    arm,
    judge,
    notes,
    record,
    sight,
    spec,
)

from penstock.api.conditions import Reason
from penstock.api.rollout import (
    BaselineKind,
    OnFailure,
    OnInconclusive,
    RolloutAnalysis,
    RolloutPhase,
    RolloutStatus,
    RolloutType,
)
from penstock.api.verdicts import timestamp
from penstock_operator.rollout.machine import Judge, judge_rollout
from penstock_operator.rollout.notes import ArmNotes, write_notes

STARTING, SHADOWING, STEPPING, HELD, WATCHING, PROMOTED, ROLLED_BACK = RolloutPhase
ALIKE = RolloutAnalysis(output_parity="0.99")
NONE_CAME = write_notes(notes(at_step=1000))
QUIET = write_notes(notes(busy_at=NOW - 20, candidate=ArmNotes(grown=3), stable=ArmNotes(grown=5)))
QUIET_AFTER_MANY = write_notes(notes(busy_at=NOW - 20))
LATE = timestamp(NOW - 1)
NOT_READY = arm(0, name="c", declared=1)

Row = tuple[str, RolloutStatus | None, dict[str, Any], Judge, RolloutPhase, int]
BEGINNING: list[Row] = [
    ("it begins: its replicas start", None, {"arms": {S: arm()}}, OPEN, STARTING, 0),
    ("its replicas do not answer yet", record(STARTING), {"arms": {C: NOT_READY, S: arm()}}, OPEN, STARTING, 0),
    ("its replicas answer: it is shown samples", record(STARTING), {}, OPEN, SHADOWING, 0),
    ("it was paused before it started: it is held before it is shown any", record(STARTING), {"spec": spec(paused=True)}, OPEN, HELD, 0),
    ("answers need not agree: it gets a share", record(SHADOWING), {}, OPEN, STEPPING, 1),
    ("answers are to agree and are not proved to: it gets none", record(SHADOWING), {"spec": spec(analysis=ALIKE)}, UNLIKE, SHADOWING, 0),
    ("answers are proved to agree: it gets a share", record(SHADOWING), {"spec": spec(analysis=ALIKE)}, OPEN, STEPPING, 1),
    (
        "its baseline does not answer yet: it gets none",
        record(SHADOWING, notes=write_notes(notes(baseline_at=NOW - 10))),
        {"arms": {C: arm(name="c"), S: arm(), B: NOT_READY}},
        OPEN,
        SHADOWING,
        0,
    ),
    (
        "its baseline was given up: it gets a share",
        record(SHADOWING, baseline=BaselineKind.FLEET),
        {"arms": {C: arm(name="c"), S: arm()}},
        OPEN,
        STEPPING,
        1,
    ),
]  # fmt: skip
STEPS: list[Row] = [
    ("its step is not over", record(STEPPING, 1, seconds=29), {}, OPEN, STEPPING, 1),
    ("its step is over and requests came: it gets more", record(STEPPING, 1), {}, OPEN, STEPPING, 5),
    ("its step is over and no request came", record(STEPPING, 1, notes=NONE_CAME), {}, OPEN, STEPPING, 1),
    ("its step is over and no request came to what live traffic has proved", record(STEPPING, 1, notes=NONE_CAME), {}, PROVED, STEPPING, 1),
    ("its step is over and no request came to what is proved by what it was shown", record(STEPPING, 1, notes=NONE_CAME), {}, SHOWN_ONLY, STEPPING, 5),
    ("the last step is over and no request came to what is proved by what it was shown", record(STEPPING, 50, notes=NONE_CAME), {}, SHOWN_ONLY, WATCHING, 100),
    ("the last step is not over, whatever it was shown", record(STEPPING, 50, seconds=29, notes=NONE_CAME), {}, SHOWN_ONLY, STEPPING, 50),
    (
        "its next step needs more replicas than are there",
        record(STEPPING, 5),
        {"arms": {C: arm(name="c"), S: arm(8), B: arm(name="b")}, "high": 8},
        OPEN,
        STEPPING,
        5,
    ),
    (
        "its next step's replicas are there, and not its baseline's",
        record(STEPPING, 5),
        {"arms": {C: arm(2, name="c"), S: arm(8), B: arm(name="b")}, "high": 8},
        OPEN,
        STEPPING,
        5,
    ),
    (
        "its next step's replicas are there, and its baseline's",
        record(STEPPING, 5),
        {"arms": {C: arm(2, name="c"), S: arm(8), B: arm(2, name="b")}, "high": 8},
        OPEN,
        STEPPING,
        25,
    ),
    ("the last step is over and something is unproved", record(STEPPING, 50), {}, OPEN, STEPPING, 50),
    ("the last step is over and all is proved: it takes over", record(STEPPING, 50), {}, PROVED, WATCHING, 100),
    ("all is proved before the last step: it goes on by steps", record(STEPPING, 5), {}, PROVED, STEPPING, 25),
    ("nothing is to be kept: it has taken over", record(STEPPING, 50), {"spec": spec(keep_seconds=0)}, PROVED, PROMOTED, 100),
    (
        "it takes over only with as many replicas as the other runs",
        record(STEPPING, 50),
        {"arms": {C: arm(4, name="c"), S: arm(8), B: arm(4, name="b")}, "high": 8},
        PROVED,
        STEPPING,
        50,
    ),
    (
        "the rest of them found no node for half a minute: it takes over with what there is",
        record(STEPPING, 50),
        {"arms": {C: arm(4, name="c", waiting_since=NOW - 31), S: arm(8), B: arm(4, name="b")}, "high": 8},
        PROVED,
        WATCHING,
        100,
    ),
    ("steps were changed to fewer: the last of them is the last", record(STEPPING, 50), {"spec": spec(steps=(1, 5))}, PROVED, WATCHING, 100),
]  # fmt: skip
QUIET_WAYS: list[Row] = [
    (
        "nobody asks, and all was proved by what it was shown: it takes over",
        record(SHADOWING, notes=QUIET, baseline=None),
        {"spec": spec(analysis=ALIKE)},
        SHOWN_ONLY,
        WATCHING,
        100,
    ),
    (
        "nobody asks, and nothing but answers to what it was shown is proved",
        record(SHADOWING, notes=QUIET, baseline=None),
        {"spec": spec(analysis=ALIKE)},
        OPEN,
        SHADOWING,
        0,
    ),
    (
        "nobody asks, and answers to what it was shown are not proved to agree",
        record(SHADOWING, notes=QUIET, baseline=None),
        {"spec": spec(analysis=ALIKE)},
        UNLIKE,
        SHADOWING,
        0,
    ),
    ("nobody asks, and nothing was shown: silence proves nothing", record(SHADOWING, notes=QUIET, baseline=None), {}, OPEN, SHADOWING, 0),
    ("nobody asks any more, after many did: it waits for those who do", record(STEPPING, 50, notes=QUIET_AFTER_MANY), {"spec": spec(analysis=ALIKE)}, OPEN, STEPPING, 50),
]  # fmt: skip
HARMS: list[Row] = [
    ("it is worse: it is rolled back", record(STEPPING, 25), {}, HARM, ROLLED_BACK, 0),
    ("it is worse before it had a share: it is rolled back", record(SHADOWING), {}, HARM, ROLLED_BACK, 0),
    ("it is worse while it is paused: it is rolled back", record(HELD, 25), {"spec": spec(paused=True)}, HARM, ROLLED_BACK, 0),
    ("it is worse and is to be held: it keeps its share", record(STEPPING, 25), {"spec": spec(on_failure=OnFailure.HOLD)}, HARM, HELD, 25),
    (
        "it was worse once: it stays held though nothing says so now",
        record(HELD, 25, reason=Reason.ROLLOUT_FAILED, notes=write_notes(notes(harm="It failed."))),
        {"spec": spec(on_failure=OnFailure.HOLD)},
        PROVED,
        HELD,
        25,
    ),
    (
        "it was worse once and is told to go on: it stays held",
        record(HELD, 25, reason=Reason.ROLLOUT_FAILED, notes=write_notes(notes(harm="It failed."))),
        {"spec": spec(on_failure=OnFailure.HOLD), "told": f"resume {C}"},
        PROVED,
        HELD,
        25,
    ),
    (
        "it was worse once and is told to take over all the same",
        record(HELD, 25, reason=Reason.ROLLOUT_FAILED, notes=write_notes(notes(harm="It failed."))),
        {"spec": spec(on_failure=OnFailure.HOLD), "told": f"promote {C}"},
        PROVED,
        WATCHING,
        100,
    ),
    ("it turns out to be worse after it took over: the former one is back", record(WATCHING, 100), {}, HARM, ROLLED_BACK, 0),
    (
        "it turns out to be worse and the former one has too few replicas: they start first",
        record(WATCHING, 100, notes=write_notes(notes(turning_since=NOW - 5))),
        {"arms": {C: arm(4, name="c"), S: arm()}, "high": 8},
        HARM,
        WATCHING,
        100,
    ),
    (
        "and those do not start for half a minute: the former one is back with what there is",
        record(WATCHING, 100, notes=write_notes(notes(turning_since=NOW - 31))),
        {"arms": {C: arm(4, name="c"), S: arm()}, "high": 8},
        HARM,
        ROLLED_BACK,
        0,
    ),
]  # fmt: skip
HOLDS: list[Row] = [
    ("it is paused by the spec", record(STEPPING, 5), {"spec": spec(paused=True)}, PROVED, HELD, 5),
    ("it is paused no more", record(HELD, 5, reason=Reason.ROLLOUT_PAUSED), {}, OPEN, STEPPING, 5),
    ("it is paused no more before it had a share", record(HELD, reason=Reason.ROLLOUT_PAUSED), {}, OPEN, SHADOWING, 0),
    ("a gateway cannot compare", record(STEPPING, 5), {"comparable": False}, PROVED, HELD, 5),
    ("requests are not shared as they were to be", record(STEPPING, 5), {}, judge(skewed="7 beside 90"), HELD, 5),
    ("its time is over: it is held", record(STEPPING, 5, deadline=LATE), {}, OPEN, HELD, 5),
    ("its time is over, and all is proved: it goes on", record(STEPPING, 5, deadline=LATE), {}, PROVED, STEPPING, 25),
    ("it was held for its time, and all is proved: it goes on", record(HELD, 5, deadline=LATE, reason=Reason.ROLLOUT_INCONCLUSIVE), {}, PROVED, STEPPING, 5),
    ("its time is over while it waits for room: that is no judgement", record(STARTING), {"arms": {C: NOT_READY, S: arm()}}, OPEN, STARTING, 0),
    (
        "its time is over, and that turns it back",
        record(STEPPING, 5, deadline=LATE),
        {"spec": spec(on_inconclusive=OnInconclusive.ROLLBACK)},
        OPEN,
        ROLLED_BACK,
        0,
    ),
    (
        "its time is over while it is paused: that does not turn it back",
        record(HELD, 5, deadline=LATE, reason=Reason.ROLLOUT_PAUSED),
        {"spec": spec(on_inconclusive=OnInconclusive.ROLLBACK, paused=True)},
        OPEN,
        HELD,
        5,
    ),
    (
        "time for which it was paused does not count",
        record(HELD, 5, deadline=LATE, reason=Reason.ROLLOUT_PAUSED),
        {"spec": spec(on_inconclusive=OnInconclusive.ROLLBACK)},
        OPEN,
        STEPPING,
        5,
    ),
]  # fmt: skip
COMMANDS: list[Row] = [
    ("promote: it takes over unproved", record(STEPPING, 1), {"told": f"promote {C}"}, OPEN, WATCHING, 100),
    ("promote before it started: it waits for its replicas", record(STARTING), {"told": f"promote {C}", "arms": {C: NOT_READY, S: arm()}}, OPEN, STARTING, 0),
    ("promote what took over: it is watched no longer", record(WATCHING, 100), {"told": f"promote {C}"}, OPEN, PROMOTED, 100),
    ("promote another revision: nothing", record(STEPPING, 1, seconds=1), {"told": "promote v1other"}, OPEN, STEPPING, 1),
    ("promote, which was obeyed: nothing", record(STEPPING, 1, seconds=1, obeyed=f"promote {C}"), {"told": f"promote {C}"}, OPEN, STEPPING, 1),
    ("pause", record(STEPPING, 1), {"told": f"pause {C}"}, OPEN, HELD, 1),
    ("pause, which was obeyed: it stays held", record(HELD, 1, obeyed=f"pause {C}"), {"told": f"pause {C}"}, PROVED, HELD, 1),
    ("pause, which somebody took away: it stays held", record(HELD, 1, obeyed=f"pause {C}"), {}, PROVED, HELD, 1),
    ("resume", record(HELD, 1, obeyed=f"pause {C}"), {"told": f"resume {C}"}, OPEN, STEPPING, 1),
    ("resume what ran out of time: it has as much again", record(HELD, 1, deadline=LATE, reason=Reason.ROLLOUT_INCONCLUSIVE), {"told": f"resume {C}"}, OPEN, STEPPING, 1),
    ("abort", record(STEPPING, 50), {"told": f"abort {C}"}, PROVED, ROLLED_BACK, 0),
    ("abort before it started", record(STARTING), {"told": f"abort {C}"}, OPEN, ROLLED_BACK, 0),
    ("abort what took over: that is called undo", record(WATCHING, 100, seconds=1), {"told": f"abort {C}"}, OPEN, WATCHING, 100),
    ("undo what took over", record(WATCHING, 100), {"told": f"undo {C}"}, OPEN, ROLLED_BACK, 0),
    ("undo what took over for good: it is too late", record(PROMOTED, 100), {"told": f"undo {C}"}, OPEN, PROMOTED, 100),
    ("retry what was rolled back", record(ROLLED_BACK, reason=Reason.ROLLOUT_FAILED), {"told": f"retry {C}"}, OPEN, SHADOWING, 0),
    ("retry, which was obeyed and failed again", record(ROLLED_BACK, obeyed=f"retry {C}"), {"told": f"retry {C}"}, OPEN, ROLLED_BACK, 0),
    ("a command that was there before it began", None, {"told": f"promote {C}"}, OPEN, SHADOWING, 0),
    ("retry what goes on: nothing", record(STEPPING, 1, seconds=1), {"told": f"retry {C}"}, OPEN, STEPPING, 1),
]  # fmt: skip
SHADOW, BLUE_GREEN = RolloutType.SHADOW, RolloutType.BLUE_GREEN
OTHERS: list[Row] = [
    ("Shadow: all is proved, and it takes over at once", record(SHADOWING), {"spec": spec(type=SHADOW)}, SHOWN_ONLY, WATCHING, 100),
    ("Shadow: answers are proved to agree, and errors are not proved", record(SHADOWING), {"spec": spec(type=SHADOW)}, OPEN, SHADOWING, 0),
    ("Shadow: what only a baseline could tell is not asked where there is none", record(SHADOWING, baseline=BaselineKind.FLEET), {"spec": spec(type=SHADOW)}, judge(missing=("latency", "cpu")), WATCHING, 100),
    ("Shadow: errors are asked for where there is no baseline, too", record(SHADOWING, baseline=BaselineKind.FLEET), {"spec": spec(type=SHADOW)}, OPEN, SHADOWING, 0),
    ("Shadow: answers are not proved to agree", record(SHADOWING), {"spec": spec(type=SHADOW)}, UNLIKE, SHADOWING, 0),
    ("BlueGreen: it has as many replicas as the other before it gets any request", record(STARTING), {"spec": spec(type=BLUE_GREEN), "arms": {C: arm(3, name="c"), S: arm(4)}, "high": 4}, OPEN, STARTING, 0),
    ("BlueGreen: all is proved by what both were shown, and it gets all requests at once", record(SHADOWING), {"spec": spec(type=BLUE_GREEN)}, SHOWN_ONLY, STEPPING, 100),
    ("BlueGreen: not all is proved, and it gets none", record(SHADOWING), {"spec": spec(type=BLUE_GREEN)}, OPEN, SHADOWING, 0),
    ("BlueGreen: answers are to agree and are not proved to", record(SHADOWING), {"spec": spec(type=BLUE_GREEN, analysis=ALIKE)}, UNLIKE, SHADOWING, 0),
    ("it was made BlueGreen at a share: it gets none until all is proved", record(STEPPING, 1), {"spec": spec(type=BLUE_GREEN)}, OPEN, SHADOWING, 0),
    ("it was made BlueGreen at a share, and all is proved: it gets none, and then all, and stays beside the other", record(STEPPING, 50), {"spec": spec(type=BLUE_GREEN)}, PROVED, SHADOWING, 0),
    ("it was made BlueGreen while it was held: it gets none once it goes on", record(HELD, 5, reason=Reason.ROLLOUT_PAUSED), {"spec": spec(type=BLUE_GREEN)}, OPEN, SHADOWING, 0),
    ("it was made Shadow at a share: no client sees an answer that was not judged", record(STEPPING, 5), {"spec": spec(type=SHADOW)}, OPEN, SHADOWING, 0),
    ("it was made Canary with all requests: it is watched", record(STEPPING, 100), {}, OPEN, WATCHING, 100),
    ("BlueGreen: its step is over", record(STEPPING, 100), {"spec": spec(type=BLUE_GREEN)}, OPEN, WATCHING, 100),
    ("BlueGreen: it is worse, and all requests go back at once", record(STEPPING, 100), {"spec": spec(type=BLUE_GREEN)}, HARM, ROLLED_BACK, 0),
    ("BlueGreen: paused with all requests", record(STEPPING, 100), {"spec": spec(type=BLUE_GREEN, paused=True)}, OPEN, HELD, 100),
    ("it was watched for long enough", record(WATCHING, 100, seconds=3600), {}, OPEN, PROMOTED, 100),
    ("it is watched still", record(WATCHING, 100, seconds=3599), {}, OPEN, WATCHING, 100),
    ("what is rolled back stays so", record(ROLLED_BACK), {}, PROVED, ROLLED_BACK, 0),
    ("what has taken over for good stays so", record(PROMOTED, 100), {}, HARM, PROMOTED, 100),
]  # fmt: skip
ROWS = [*BEGINNING, *STEPS, *QUIET_WAYS, *HARMS, *HOLDS, *COMMANDS, *OTHERS]


@pytest.mark.parametrize(
    ("before", "changes", "judged", "phase", "weight"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_a_rollout_goes(
    before: RolloutStatus | None, changes: dict[str, Any], judged: Judge, phase: RolloutPhase, weight: int
) -> None:
    decided = judge_rollout(sight(before, **changes), judged)
    assert (decided.record.phase, decided.record.weight) == (phase, weight), decided.record.message
    assert sum(decided.weights.values()) == 100
