"""What holds of a rollout whatever comes, with an operator that is started anew before each look."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.unit.rollout.scenes import NOW, B, C, S, arm, judge, sight, spec

from penstock.api.rollout import OnFailure, OnInconclusive, RolloutAnalysis, RolloutPhase, RolloutStatus, RolloutType
from penstock.api.rollout_commands import RolloutVerb
from penstock_operator.rollout.evidence.findings import AnalysisSettings, EvidenceLook, Findings
from penstock_operator.rollout.machine import Judge, RolloutDecision, judge_rollout
from penstock_operator.rollout.sight import ArmSight, RolloutSight

STEPS = (1, 5, 25, 50)
ENDS = {RolloutPhase.WATCHING, RolloutPhase.PROMOTED, RolloutPhase.ROLLED_BACK}
EDGES = {
    RolloutPhase.STARTING: {
        RolloutPhase.SHADOWING,
        RolloutPhase.STEPPING,  # in place, unjudged
        RolloutPhase.HELD,
        *ENDS,
    },
    RolloutPhase.SHADOWING: {RolloutPhase.STEPPING, RolloutPhase.HELD, *ENDS},
    RolloutPhase.STEPPING: {
        RolloutPhase.SHADOWING,  # of another type now, which shares no requests
        RolloutPhase.HELD,
        *ENDS,
    },
    RolloutPhase.HELD: {RolloutPhase.SHADOWING, RolloutPhase.STEPPING, *ENDS},
    RolloutPhase.WATCHING: {RolloutPhase.HELD, RolloutPhase.PROMOTED, RolloutPhase.ROLLED_BACK},
    RolloutPhase.PROMOTED: set(),
    RolloutPhase.ROLLED_BACK: set(),
}
"""Where a rollout may go from each phase. What begins anew, as told to retry, is another rollout."""
JUDGED = [RolloutType.CANARY, RolloutType.SHADOW, RolloutType.BLUE_GREEN]


@dataclass(frozen=True)
class Happening:
    """What one look finds."""

    seconds: float
    sizes: tuple[int, int, int]
    """Of the candidate, the stable revision and the baseline that are there, of as many as are wanted at most."""
    waits: bool
    comparable: bool
    harm: bool
    missing: tuple[str, ...]
    skewed: bool
    requests: int
    verb: RolloutVerb | None
    about: str
    paused: bool


happenings = st.builds(
    Happening,
    seconds=st.sampled_from([0.0, 2.0, 15.0, 31.0, 200.0]),
    sizes=st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)),
    waits=st.booleans(),
    comparable=st.sampled_from([True, True, True, False]),
    harm=st.sampled_from([False] * 9 + [True]),
    missing=st.sampled_from([(), ("errors",), ("errors", "parity")]),
    skewed=st.sampled_from([False, False, False, True]),
    requests=st.sampled_from([0, 3, 400]),
    verb=st.sampled_from([None] * 6 + list(RolloutVerb)),
    about=st.sampled_from([C, C, S]),
    paused=st.sampled_from([False, False, False, True]),
)


def arms_of(found: Happening, decided: RolloutDecision | None, counts: Mapping[str, int]) -> dict[str, ArmSight]:
    """The applications that were declared, with as many replicas as there are of them by now."""
    wanted = {S: 2} if decided is None else {name: each.least for name, each in decided.replicas.items()}
    there = dict(zip((C, S, B), found.sizes, strict=True))
    return {
        name: arm(
            min(there[name], max(least, 2)),
            name=name,
            declared=least,
            waiting_since=NOW if found.waits else None,
            replicas=replicas_of(name, min(there[name], max(least, 2)), counts[name]),
        )
        for name, least in wanted.items()
    }


def replicas_of(name: str, count: int, ended: int) -> dict[str, Any]:
    found = arm(count, name=name).replicas
    return {
        key: type(each)(
            outcomes=each.outcomes.model_copy(update={"answered": ended}) if each.outcomes else None, idle_seconds=0.0
        )
        for key, each in found.items()
    }


Machine: TypeAlias = Callable[[RolloutSight, Judge], RolloutDecision]


class Watched:
    """A rollout, and whether each look keeps what must hold."""

    def __init__(self, kind: RolloutType, *, holds: bool, parity: str, machine: Machine = judge_rollout) -> None:
        self.machine = machine
        self.spec = {
            "type": kind,
            "on_failure": OnFailure.HOLD if holds else OnFailure.ROLLBACK,
            "on_inconclusive": OnInconclusive.HOLD if holds else OnInconclusive.ROLLBACK,
            "deadline_seconds": 600,
            "analysis": RolloutAnalysis(output_parity=parity),
        }
        self.parity = parity != "0"
        self.now, self.record, self.decided = NOW, None, None
        self.counts = {C: 0, S: 0, B: 0}
        self.proved = self.harmed = False

    now: float
    record: RolloutStatus | None
    decided: RolloutDecision | None

    def look(self, found: Happening) -> None:
        self.now += found.seconds
        for name in self.counts:
            self.counts[name] += found.requests
        told = f"{found.verb} {found.about}" if found.verb is not None else ""
        seen = sight(
            self.record,
            spec=spec(**self.spec, paused=found.paused),
            arms=arms_of(found, self.decided, self.counts),
            low=1,
            high=4,
            comparable=found.comparable,
            told=told,
            now=self.now,
        )
        judged = judge(
            harm="It fails." if found.harm else None, missing=found.missing, skewed="x" if found.skewed else None
        )
        decided = self.machine(seen, judged)
        assert self.machine(seen, judged) == decided, "another operator decides the same"
        self.check(seen, decided, found)
        self.decided = decided
        self.record = RolloutStatus.model_validate_json(decided.record.model_dump_json())

    def check(self, seen: RolloutSight, decided: RolloutDecision, found: Happening) -> None:
        before, after = seen.record, decided.record
        assert sum(decided.weights.values()) == 100
        assert set(decided.weights) <= {S, B, C}
        assert set(decided.replicas) <= {S, B, C}
        assert (S in decided.replicas) == (after.phase is not RolloutPhase.PROMOTED), "what was there stays until then"
        assert all(each.least >= 1 for each in decided.replicas.values())
        promoted = found.verb is RolloutVerb.PROMOTE and found.about == C
        retried = found.verb is RolloutVerb.RETRY and found.about == C
        if before is None or (before.phase is RolloutPhase.ROLLED_BACK and retried):
            self.proved = self.harmed = False
        elif after.phase is not before.phase:
            assert after.phase in EDGES[before.phase]
        elif before.phase.ended:
            assert after == before
        looked = before is not None and before.phase is not RolloutPhase.STARTING and not before.phase.ended
        if looked and found.comparable:
            self.harmed = self.harmed or found.harm
            self.proved = self.proved or "parity" not in found.missing
        former = before.weight if before is not None else 0
        if self.harmed and not promoted:
            assert after.weight <= former, "after harm nothing but a command raises it"
        if after.weight > former:
            assert promoted or self.proved or not self.parity, "no client gets an answer before answers agree"
            took_over = after.phase in (RolloutPhase.WATCHING, RolloutPhase.PROMOTED)
            assert took_over or after.weight == (
                100 if self.spec["type"] is RolloutType.BLUE_GREEN else STEPS[after.step]
            )
        if promoted:
            self.harmed = False


DRAWN = (
    st.sampled_from(JUDGED),
    st.booleans(),
    st.sampled_from(["0", "0.99"]),
    st.lists(happenings, min_size=5, max_size=40),
)


def test_nothing_follows_on_what_has_ended_and_something_on_all_else() -> None:
    assert {phase for phase, following in EDGES.items() if not following} == {
        each for each in RolloutPhase if each.ended
    }


@settings(max_examples=150, deadline=None)
@given(*DRAWN)
def test_whatever_comes(kind: RolloutType, holds: bool, parity: str, found: list[Happening]) -> None:  # noqa: FBT001 -- drawn
    rollout = Watched(kind, holds=holds, parity=parity)
    for each in found:
        rollout.look(each)


def deaf_to(judge_of: Judge, **unheard: Any) -> Judge:
    """Says what another does, but for this."""

    def say(state: str, look: EvidenceLook, analysis: AnalysisSettings) -> Findings:
        return replace(judge_of(state, look, analysis), **unheard)

    return say


def jump(seen: RolloutSight, judged: Judge) -> RolloutDecision:
    """As the machine, and a fifth more of the requests than it gives."""
    decided = judge_rollout(seen, judged)
    weight = (
        min(decided.record.weight + 20, 99) if decided.record.phase is RolloutPhase.STEPPING else decided.record.weight
    )
    return replace(decided, record=decided.record.model_copy(update={"weight": weight}))


BROKEN: dict[str, Machine] = {
    "one that is deaf to harm": lambda seen, judged: judge_rollout(seen, deaf_to(judged, harm=None)),
    "one that takes all answers to agree": lambda seen, judged: judge_rollout(seen, deaf_to(judged, missing=())),
    "one that forgets where it was": lambda seen, judged: judge_rollout(replace(seen, record=None), judged),
    "one that gives more than its steps say": jump,
}


@pytest.mark.parametrize("machine", BROKEN.values(), ids=BROKEN)
def test_a_machine_that_breaks_a_rule_is_found(machine: Machine) -> None:
    """The negative control: what must hold does not hold whatever the machine does."""

    @settings(
        max_examples=400, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        report_multiple_bugs=False, suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.just(RolloutType.CANARY), st.booleans(), st.just("0.99"), DRAWN[-1])
    def watch_it(kind: RolloutType, holds: bool, parity: str, found: list[Happening]) -> None:  # noqa: FBT001 -- drawn
        rollout = Watched(kind, holds=holds, parity=parity, machine=machine)
        for each in found:
            rollout.look(each)

    with pytest.raises(AssertionError):
        watch_it()
