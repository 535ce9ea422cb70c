"""A revision that has taken over is watched: what its surroundings do for a while is not its doing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import pytest
from tests.benchmarks.rollout_traffic import Trial
from tests.benchmarks.rollout_watch import WatchTrial, watch_trials
from tests.unit.rollout.evidence_world import ArmWorld, CountingReplica, LookedWorld
from tests.unit.rollout.scenes import C, S, judge, record, sight

from penstock.api.rollout import RolloutPhase
from penstock_operator.rollout.evidence.findings import Findings
from penstock_operator.rollout.evidence.ledger import AnalysisSettings
from penstock_operator.rollout.evidence.looks import EvidenceLook
from penstock_operator.rollout.evidence.watch import LONGEST_WATCH, watch
from penstock_operator.rollout.machine import DOUBTING_SHARE, WATCHING_SHARE, Judge, judge_rollout

SETTINGS: Final = AnalysisSettings()
BEGINS: Final = 150


@pytest.mark.parametrize(
    ("worse", "seconds", "reverted"),
    [
        pytest.param({"slower": 5.0, "cpu": 5.0}, 60, 0, id="five times as slow for a minute: a neighbour's doing"),
        pytest.param(
            {"failing": 0.3}, 60, 0, id="three in ten fail for a minute: inputs of one client that the model refuses"
        ),
        pytest.param({"expiring": 0.3}, 60, 0, id="three in ten deadlines are over for a minute: a neighbour's doing"),
        pytest.param({"unfit": 0.3}, 600, 0, id="three in ten inputs are wrong for good: a client's doing"),
        pytest.param({"expiring": 0.3, "deadline": 0.005}, 600, 0, id="clients set deadlines that answers never kept"),
        pytest.param({"expiring": 0.3}, 600, 10, id="three in ten deadlines are over for good"),
        pytest.param({"slower": 5.0}, 600, 10, id="five times as slow for good"),
        pytest.param({"failing": 0.3}, 600, 10, id="three in ten fail for good"),
    ],
)
def test_what_lasts_a_minute_is_not_reverted(worse: dict[str, float], seconds: int, reverted: int) -> None:
    """Where each look may multiply evidence by 5, all of which three in ten fail for a minute are, and some that are slow."""
    trial = Trial("", 100, bursty=True, **worse, begins=BEGINS, ends=BEGINS + seconds // 2)
    told = watch_trials(WatchTrial("", trial, 300), SETTINGS, count=10)
    assert (told["false alarms"], told["reverted"]) == (0, reverted)


@dataclass(slots=True)
class Fleet:
    """Replicas of a revision that has all requests, beside one of the former that is shown what one of them is."""

    slow: tuple[str, ...]
    """Those that take three times as long from some time on."""
    replicas: dict[str, LookedWorld] = field(
        default_factory=lambda: {name: LookedWorld(rate=30.0, pairs=1, share=1.0) for name in ("a", "b", "c")}
    )

    def look(self, *, worse: bool) -> EvidenceLook:
        """Five seconds later."""
        for name, world in self.replicas.items():
            world.candidate.milliseconds = 30 if worse and name in self.slow else 10
            world.go_on(5)
        first = self.replicas["a"].look()
        return replace(
            first, candidate={name: world.candidate.replica.outcomes() for name, world in self.replicas.items()}
        )


@pytest.mark.parametrize(
    ("slow", "reverted"),
    [
        pytest.param(("b",), False, id="one replica: its node's doing, however long it lasts"),
        pytest.param(("a", "b", "c"), True, id="all replicas: its own"),
    ],
)
def test_what_shows_in_one_replica_alone_is_not_the_revision_s(slow: tuple[str, ...], *, reverted: bool) -> None:
    fleet, state = Fleet(slow), ""
    for number in range(120):
        found = watch(state, fleet.look(worse=number >= 40), SETTINGS, 3600)
        state = found.state
    assert (found.harm is not None) is reverted


@pytest.mark.parametrize(
    ("refused", "reverted"),
    [
        pytest.param(True, False, id="it fails at them: that is its own doing"),
        pytest.param(False, True, id="its answers are others"),
    ],
)
def test_what_the_former_revision_is_shown(*, refused: bool, reverted: bool) -> None:
    world, state = LookedWorld(share=1.0, refused=refused), ""
    for number in range(80):
        world.wrong = 0.3 if number >= 40 else 0.0
        found = watch(state, world.go_on(5), SETTINGS, 3600)
        state = found.state
    assert (found.harm is not None) is reverted


def doubting(doubt: str | None) -> Judge:
    """Finds what it is watched for, half of it."""

    def say(state: str, look: EvidenceLook, settings: AnalysisSettings) -> Findings:
        return replace(judge()(state, look, settings), doubt=doubt)

    return say


WHAT: Final = "slow answers: median 16 ms of late, 10 ms with the former revision"
WATCHES = [
    ("in doubt: more is shown to the former revision, which stays", 60, WHAT, RolloutPhase.WATCHING, DOUBTING_SHARE),
    ("not in doubt: little is shown", 60, None, RolloutPhase.WATCHING, WATCHING_SHARE),
    ("in doubt when its time is over: it is watched on", 3601, WHAT, RolloutPhase.WATCHING, DOUBTING_SHARE),
    ("in doubt for as long again: it has taken over", 3600 * LONGEST_WATCH, WHAT, RolloutPhase.PROMOTED, None),
]


@pytest.mark.parametrize(
    ("seconds", "doubt", "phase", "share"), [row[1:] for row in WATCHES], ids=[row[0] for row in WATCHES]
)
def test_a_watch_goes_on(seconds: float, doubt: str | None, phase: RolloutPhase, share: float | None) -> None:
    decided = judge_rollout(sight(record(RolloutPhase.WATCHING, 100, seconds=seconds)), doubting(doubt))
    comparison = decided.comparison
    assert (decided.record.phase, comparison and comparison.shadow_share) == (phase, share)
    assert (WHAT in decided.record.message) is (doubt is not None)
    if comparison is not None:
        assert (comparison.candidate, comparison.stable) == (S, C)


def test_a_doubt_that_passes_is_told_no_more() -> None:
    before = record(RolloutPhase.WATCHING, 100)
    doubted = judge_rollout(sight(before), doubting(WHAT)).record
    assert WHAT not in judge_rollout(sight(doubted), doubting(None)).record.message


def test_a_watch_tells_of_its_doubt_before_it_is_sure() -> None:
    world = LookedWorld(share=1.0, rate=200.0, candidate=ArmWorld(replica=CountingReplica()))
    state, told = "", []
    for number in range(120):
        world.candidate.failing = 0.03 if number >= 40 else 0.0
        found = watch(state, world.go_on(5), SETTINGS, 3600)
        state = found.state
        told.append((found.doubt is not None, found.harm is not None))
    assert told[39] == (False, False)
    assert told.index((True, False)) < told.index((False, True))
