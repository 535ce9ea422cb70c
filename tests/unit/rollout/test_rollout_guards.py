"""What is noted from look to look, and what guards make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest
from tests.unit.rollout.scenes import NOW, B, C, S, arm, record, replica, sight

from penstock.api.rollout import RolloutPhase, RolloutPoint
from penstock_operator.rollout.arms import expected_share, full_size, shares, size_for
from penstock_operator.rollout.guards import ABSENT_SECONDS, STUCK_SECONDS, find_harm, is_idle
from penstock_operator.rollout.history import MOST_POINTS, add_point
from penstock_operator.rollout.notes import MOST_REPLICAS, RolloutNotes, read_notes, take_notes, write_notes
from penstock_operator.rollout.sight import ArmReplica, ArmSight, RolloutSight

STEPPING = record(RolloutPhase.STEPPING, 5)


def seen(
    at: float, candidate: ArmSight, stable: ArmSight | None = None, baseline: ArmSight | None = None
) -> RolloutSight:
    arms = {C: candidate, S: stable or arm(name="s"), B: baseline or arm(name="b")}
    return sight(STEPPING, arms=arms, now=at)


def named(*names: str, count: int = 1) -> ArmSight:
    """An application of `count` replicas, of which these are listed."""
    return arm(count, replicas={name: replica() for name in names}, listed=len(names))


def noted(*looks: RolloutSight, weight: int = 5) -> RolloutNotes:
    notes = RolloutNotes()
    for look in looks:
        notes = read_notes(write_notes(take_notes(notes, look, weight)))
    return notes


A, D, E = named("a"), named("d"), named("e")
DEATHS: list[tuple[str, list[RolloutSight], bool]] = [
    ("none died", [seen(NOW, A), seen(NOW + 2, A)], False),
    ("one died", [seen(NOW, A), seen(NOW + 2, D)], False),
    ("two died", [seen(NOW, A), seen(NOW + 2, D), seen(NOW + 4, E)], True),
    ("one was missed at a look and came again", [seen(NOW, A), seen(NOW + 2, named()), seen(NOW + 4, A)], False),
    ("more were asked for", [seen(NOW, A), seen(NOW + 2, named("a", "d", "e", count=3))], False),
    (
        "as many of the baseline died",
        [seen(NOW, A, baseline=A), seen(NOW + 2, D, baseline=D), seen(NOW + 4, E, baseline=E)],
        False,
    ),
    (
        "of three, all that lay on one node died at once",
        [seen(NOW, named("a", "b", "c", count=3)), seen(NOW + 2, named("d", "e", "f", count=3))],
        False,
    ),
    (
        "of three, those that came for them die, too",
        [
            seen(NOW, named("a", "b", "c", count=3)),
            seen(NOW + 2, named("d", "e", "f", count=3)),
            seen(NOW + 4, named("d", "e", "g", count=3)),
        ],
        True,
    ),
    (
        "they were started anew because we asked for it",
        [
            seen(NOW, replace(A, made_of="1")),
            seen(NOW + 2, replace(D, made_of="2")),
            seen(NOW + 4, replace(E, made_of="3")),
        ],
        False,
    ),
    (
        "there are too many to tell",
        [seen(NOW, named(*(f"r{place:03}" for place in range(MOST_REPLICAS + 5)))) for _ in range(2)],
        False,
    ),
]


@pytest.mark.parametrize(("looks", "harm"), [row[1:] for row in DEATHS], ids=[row[0] for row in DEATHS])
def test_replicas_that_die_are_harm(looks: list[RolloutSight], *, harm: bool) -> None:
    assert bool(find_harm(noted(*looks), looks[-1])) is harm


def stuck(
    at: float, *, late: int, answered: int, others: int, slowest: Mapping[int, int] | None = None
) -> RolloutSight:
    candidate = arm(replicas={"c": replica(answered=answered, late=late)})
    other = replica(answered=others)
    if slowest is not None and other.outcomes is not None:
        other = ArmReplica(outcomes=other.outcomes.model_copy(update={"seconds": dict(slowest)}))
    return seen(at, candidate, arm(replicas={"s": other}))


AFTER = NOW + STUCK_SECONDS
SILENCES: list[tuple[str, list[RolloutSight], bool]] = [
    (
        "it answers none for half a minute while others do",
        [stuck(at, late=1, answered=7, others=int(at - NOW) * 10) for at in (NOW, NOW + 2, AFTER + 2)],
        True,
    ),
    (
        "not for so long yet",
        [stuck(at, late=1, answered=7, others=int(at - NOW) * 10) for at in (NOW, NOW + 2, AFTER - 2)],
        False,
    ),
    (
        "it has no request",
        [stuck(at, late=0, answered=7, others=int(at - NOW) * 10) for at in (NOW, NOW + 2, AFTER + 2)],
        False,
    ),
    (
        "it answered one meanwhile",
        [stuck(at, late=1, answered=answered, others=int(at - NOW) * 10) for at, answered in ((NOW, 7), (NOW + 2, 7), (NOW + 20, 8), (AFTER + 2, 8))],
        False,
    ),
    ("nobody else answers either", [stuck(at, late=1, answered=7, others=50) for at in (NOW, NOW + 2, AFTER + 2)], False),
    (
        "the others take nearly a minute for some",
        [stuck(at, late=1, answered=7, others=int(at - NOW) * 10, slowest={138: 4}) for at in (NOW, NOW + 2, AFTER + 2)],
        False,
    ),
    (
        "no gateway lists any replica of it, which may be on its way to another node",
        [seen(at, named(), arm(replicas={"s": replica(answered=int(at - NOW) * 10)})) for at in (NOW, NOW + 2, AFTER + 2)],
        False,
    ),
    (
        "nor does any after five minutes",
        [seen(at, named(), arm(replicas={"s": replica(answered=int(at - NOW) * 10)})) for at in (NOW, NOW + 2, NOW + ABSENT_SECONDS + 2)],
        True,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("looks", "harm"), [row[1:] for row in SILENCES], ids=[row[0] for row in SILENCES])
def test_requests_that_are_not_answered_are_harm(looks: list[RolloutSight], *, harm: bool) -> None:
    assert bool(find_harm(noted(*looks), looks[-1])) is harm


def test_what_gets_no_requests_cannot_be_stuck() -> None:
    looks = [stuck(at, late=1, answered=7, others=int(at - NOW) * 10) for at in (NOW, NOW + 2, AFTER + 2)]
    assert not find_harm(noted(*looks, weight=0), looks[-1])


def asked(at: float, answered: int, idle: float = 0.0) -> RolloutSight:
    return seen(at, arm(replicas={"c": replica()}), arm(replicas={"s": replica(answered=answered, idle=idle)}))


IDLE: list[tuple[str, list[RolloutSight], bool]] = [
    ("it had been idle for long when it began", [asked(NOW, 9, idle=60)], True),
    ("it answers", [asked(NOW, 9), asked(NOW + 20, 10)], False),
    ("it answered, and for a while no more", [asked(NOW, 9), asked(NOW + 2, 10), asked(NOW + 17, 10)], True),
    ("it answered, and for a moment no more", [asked(NOW, 9), asked(NOW + 2, 10), asked(NOW + 16, 10)], False),
    ("what it answers is what it is shown, which it does not count", [asked(NOW, 9, idle=60), asked(NOW + 2, 9, idle=0)], True),
    ("a replica's first counts are of long ago", [seen(NOW, arm(0), arm(replicas={"s": ArmReplica(idle_seconds=60)})), asked(NOW + 2, 10**6)], True),
]  # fmt: skip


@pytest.mark.parametrize(("looks", "idle"), [row[1:] for row in IDLE], ids=[row[0] for row in IDLE])
def test_a_model_is_idle(looks: list[RolloutSight], *, idle: bool) -> None:
    assert is_idle(noted(*looks), looks[-1].now) is idle


def test_notes_of_another_release_are_none() -> None:
    assert read_notes('{"later": 1}') == read_notes("x") == read_notes("") == RolloutNotes()


def test_notes_stay_small_however_many_replicas_there_are_with_whatever_names() -> None:
    many = arm(replicas={f"{place:04}" * 60: replica(answered=10**12) for place in range(1000)})
    notes = write_notes(noted(seen(NOW, many, many, many), seen(NOW + 2, many, many, many)))
    assert len(notes) < 24_576


SHARES = [
    ("none", 0, True, {"s": 100}),
    ("a small one, and as much for the baseline", 5, True, {"s": 90, "s-b": 5, "c": 5}),
    ("half of all: some is left to what was there before, to show", 50, True, {"s": 1, "s-b": 49, "c": 50}),
    ("more than half: the baseline gets the rest", 80, True, {"s": 1, "s-b": 19, "c": 80}),
    ("nearly all: the baseline gets what there is", 99, True, {"s-b": 1, "c": 99}),
    ("without a baseline", 25, False, {"s": 75, "c": 25}),
    ("all", 100, True, {"c": 100}),
]


@pytest.mark.parametrize(("weight", "beside", "given"), [row[1:] for row in SHARES], ids=[row[0] for row in SHARES])
def test_requests_are_shared(weight: int, given: dict[str, int], *, beside: bool) -> None:
    assert shares("s", "c", "s-b" if beside else "", weight) == given


def test_the_candidate_s_part_of_both_arms_requests() -> None:
    assert [expected_share(weight, has_baseline=True) for weight in (0, 5, 80)] == [0.0, 0.5, 80 / 99]
    assert expected_share(25, has_baseline=False) == 0.25


def test_sizes() -> None:
    assert [size_for(weight, 8) for weight in (1, 12, 13, 50, 100)] == [1, 1, 2, 4, 8]
    assert [full_size(*each) for each in ((3, 1, 8), (9, 1, 8), (0, 0, 8), (0, 2, 8))] == [3, 8, 1, 2]


def test_the_way_here_is_told_in_a_bounded_number_of_points_that_span_it() -> None:
    history: tuple[RolloutPoint, ...] = ()
    for after in range(0, 50_000, 2):
        weight = min(50, after // 1000)
        history = add_point(history, RolloutPoint(after=after, phase=RolloutPhase.STEPPING, weight=weight // 10 * 10))
    assert len(history) <= MOST_POINTS
    assert (history[0].after, {each.weight for each in history}) == (0, {0, 10, 20, 30, 40})
    assert history[-1].after > 45_000
    distances = [later.after - sooner.after for sooner, later in pairwise(history)]
    assert max(distances) < 10_000
