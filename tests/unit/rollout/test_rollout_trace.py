"""The spans that a rollout leaves, by the statuses that follow one another."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.rollout.scenes import NOW, C, S, record

from penstock.api.conditions import Reason
from penstock.api.rollout import MetricEvidence, RolloutPhase, RolloutStatus
from penstock.api.verdicts import timestamp
from penstock_operator.rollout.trace import rollout_spans

OWNER = ("vision", "digits", "u1")
SHADOWING, STEPPING, WATCHING = RolloutPhase.SHADOWING, RolloutPhase.STEPPING, RolloutPhase.WATCHING
PROMOTED, ROLLED_BACK = RolloutPhase.PROMOTED, RolloutPhase.ROLLED_BACK
BEGAN = {"started_at": timestamp(NOW - 100)}


def at(phase: RolloutPhase, weight: int, seconds: float, **changes: Any) -> RolloutStatus:
    return record(phase, weight, seconds=seconds, **BEGAN, **changes)


ROWS = [
    ("nothing is rolled out", None, None, []),
    ("it begins", None, at(SHADOWING, 0, 0), []),
    ("nothing moved", at(STEPPING, 5, 30), at(STEPPING, 5, 30, message="Other words."), []),
    ("a phase ends", at(SHADOWING, 0, 60), at(STEPPING, 1, 0), [("rollout-phase", 60, "Stepping")]),
    ("a step ends", at(STEPPING, 1, 40), at(STEPPING, 5, 0), [("rollout-phase", 40, "Stepping")]),
    (
        "it is worse",
        at(STEPPING, 5, 20),
        at(ROLLED_BACK, 0, 0, reason=Reason.ROLLOUT_FAILED),
        [("rollout", 100, "RolloutFailed"), ("rollout-phase", 20, "RolloutFailed")],
    ),
    (
        "it has taken over for good",
        at(WATCHING, 100, 50),
        at(PROMOTED, 100, 0),
        [("rollout", 100, "Promoted"), ("rollout-phase", 50, "Promoted")],
    ),
    ("it was over before", at(PROMOTED, 100, 50), at(PROMOTED, 100, 50), []),
    ("another change came", at(STEPPING, 5, 20), None, [("rollout", 80, "Superseded")]),
]


@pytest.mark.parametrize(("before", "after", "told"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_spans_end_with_what_ended_them(
    before: RolloutStatus | None, after: RolloutStatus | None, told: list[tuple[str, int, str]]
) -> None:
    spans = rollout_spans(OWNER, before, after)
    assert [
        (each.name, (each.end_ns - each.start_ns) // 10**9, each.attributes["penstock.rollout.verdict"])
        for each in spans
    ] == told
    assert rollout_spans(OWNER, before, after) == spans, "told twice, they are the same"


def test_all_of_a_rollout_are_in_one_trace_and_say_what_was_known() -> None:
    errors = MetricEvidence(name="errors", proof="1.40")
    (phase,) = rollout_spans(OWNER, at(SHADOWING, 0, 60), at(STEPPING, 1, 20, metrics=(errors,), harm="-0.20"))
    whole, last = rollout_spans(OWNER, at(STEPPING, 1, 20), at(ROLLED_BACK, 0, 0, reason=Reason.ROLLOUT_FAILED))
    assert phase.parent == last.parent == whole.context
    assert phase.context != last.context
    assert whole.error is not None
    facts = {
        "penstock.namespace": "vision", "penstock.model.name": "digits", "penstock.revision": C, "penstock.rollout.stable": S,
        "penstock.rollout.phase": "Shadowing", "penstock.rollout.weight": 0, "penstock.rollout.harm": "-0.20",
        "penstock.rollout.proof.errors": "1.40",
    }  # fmt: skip
    assert facts.items() <= phase.attributes.items()
