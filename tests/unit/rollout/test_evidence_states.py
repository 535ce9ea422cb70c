"""What is kept of evidence between looks, and what looks add to it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.rollout.evidence_world import ArmWorld, LookedWorld

from penstock.routing.outcomes import ReplicaOutcomes, ShadowOutcomes, ShownOutcomes, UnrunRequests
from penstock_operator.rollout.evidence.findings import AnalysisSettings, Findings, learn
from penstock_operator.rollout.evidence.keeping import MOST_CHARACTERS
from penstock_operator.rollout.evidence.ledger import LIVE_REQUESTS
from penstock_operator.rollout.evidence.looks import EvidenceLook
from penstock_operator.rollout.evidence.watch import watch

SETTINGS = AnalysisSettings()


def look(at: float, answered: int, name: str = "a", age: float = 100) -> EvidenceLook:
    candidate = {name: ReplicaOutcomes(age_seconds=age + at, answered=answered, seconds={50: answered})}
    baseline = {"b": ReplicaOutcomes(age_seconds=age + at, answered=100 * int(at), seconds={50: 100 * int(at)})}
    return EvidenceLook(at, candidate, baseline, {}, 0.5)


def learn_all(*looks: EvidenceLook, state: str = "") -> Findings:
    for each in looks:
        found = learn(state, each, SETTINGS)
        state = found.state
    return found


def test_the_first_look_is_what_the_next_is_held_against_and_no_evidence() -> None:
    assert learn_all(look(1000, 10**6)).requests == 0
    assert learn_all(look(1000, 10**6), look(1002, 10**6 + 7)).requests == 7


OLD, NEW = None, UnrunRequests(unfit=90, expired={60: 9})
FAILURES = [
    ("one arm is of a release that tells none apart: so they are compared", (OLD, NEW), ("10 %", "10 %")),
    ("the other is", (NEW, OLD), ("10 %", "10 %")),
    ("both tell: what a signature did not take counts while nothing else would show it", (NEW, NEW), ("9.1 %", "9.1 %")),
    ("the candidate's failed, and the baseline's were its clients'", (UnrunRequests(), NEW), ("10 %", "9.1 %")),
]  # fmt: skip


@pytest.mark.parametrize(("unrun", "figures"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES])
def test_failures_are_told_apart_where_both_arms_tell(
    unrun: tuple[UnrunRequests | None, UnrunRequests | None], figures: tuple[str, str]
) -> None:
    def told(at: float, count: int) -> EvidenceLook:
        arms = [
            {name: ReplicaOutcomes(age_seconds=at, answered=9 * count, failed=count, seconds={50: 9 * count}, unrun=each)}
            for name, each in zip("ab", (each and (each if count else UnrunRequests()) for each in unrun), strict=True)
        ]  # fmt: skip
        return EvidenceLook(at, *arms, {}, 0.5)

    errors = learn_all(told(1000, 0), told(1002, 100)).metrics[0]
    assert (errors.name, errors.candidate, errors.baseline) == ("errors", *figures)


def test_the_same_look_twice_changes_nothing() -> None:
    once = learn_all(look(1000, 0), look(1002, 50))
    assert learn(once.state, look(1002, 50), SETTINGS) == once


def test_looks_in_between_add_up_to_the_same_counts() -> None:
    often = learn_all(*(look(1000 + at / 4, 5 * at) for at in range(41)))
    assert often.requests == learn_all(look(1000, 0), look(1010, 200)).requests == 200


@pytest.mark.parametrize(
    "after", [look(1004, 20), look(1004, 20, name="another"), replace(look(1004, 60), candidate={})]
)
def test_a_replica_that_begins_anew_starts_from_zero_and_loses_no_evidence(after: EvidenceLook) -> None:
    before = learn_all(look(1000, 0), look(1002, 50))
    assert learn_all(after, state=before.state).requests == 50
    assert learn_all(after, replace(after, at=1012.0), state=before.state).metrics[0].samples == 50


def test_a_replica_counts_once_it_is_past_warm_up() -> None:
    young = [look(at, 50 * at, age=-5.0) for at in (6, 8, 10, 12, 16, 18)]
    # At 16 it is 11 s old: what it did before then is not judged.
    assert learn_all(*young).requests == 100


@pytest.mark.parametrize("state", ["x", "{}", "c$@()", "\x00\ud800", "é", "0" * 100])
def test_a_state_that_is_none_begins_anew(state: str) -> None:
    assert learn(state, look(1000, 50), SETTINGS).requests == 0
    assert watch(state, look(1000, 50), SETTINGS, 3600).requests == 0


@given(st.integers(0, 3000), st.characters())
def test_a_state_with_another_letter_somewhere_never_raises(at: int, letter: str) -> None:
    state = learn_all(look(1000, 0), look(1002, 50)).state
    learn(state[:at] + letter + state[at + 1 :], look(1004, 60), SETTINGS)


def test_evidence_under_other_margins_begins_anew_and_under_another_alpha_goes_on() -> None:
    state = learn_all(look(1000, 0), look(1002, 50)).state
    assert learn(state, look(1004, 60), replace(SETTINGS, max_error_increase=0.5)).requests == 0
    assert learn(state, look(1004, 60), replace(SETTINGS, alpha=0.1, beta=0.1)).requests == 60


def test_a_clock_that_was_far_ahead_does_not_stop_it() -> None:
    ahead = learn_all(look(100_000, 0))
    assert learn_all(look(1000, 50), look(1002, 60), state=ahead.state).requests == 10


def many(count: int, factor: int) -> EvidenceLook:
    chance = np.random.default_rng(3)
    replicas = {}
    for number in range(count):
        seconds = {bucket: int(each) * factor for bucket, each in enumerate(chance.integers(1, 10**6, 141))}
        replicas[f"replica-{number:06d}-abcdef"] = ReplicaOutcomes(
            age_seconds=1000.123456 + factor,
            answered=sum(seconds.values()),
            seconds=seconds,
            cpu_seconds=1234.567 * factor,
            memory_bytes=10**9,
            shown=ShownOutcomes(answered=sum(seconds.values()), seconds=seconds, cpu_seconds=1.5 * factor),
            shadow=ShadowOutcomes(
                revision="r", samples=10**6 * factor, excess=dict.fromkeys(range(15), 66_666 * factor)
            ),
        )
    return EvidenceLook(1000.0 + 2 * factor, replicas, replicas, replicas, 0.5)


@pytest.mark.parametrize("replicas", [16, 60])
def test_a_state_is_bounded(replicas: int) -> None:
    found = learn_all(many(replicas, 1), many(replicas, 2))
    assert len(found.state) <= MOST_CHARACTERS
    per_replica = sum(many(1, 1).candidate["replica-000000-abcdef"].seconds.values())
    assert found.requests > 15 * per_replica * 0.5


def test_of_times_that_were_not_seen_nothing_is_told() -> None:
    """The baseline alone got requests, so that it is known above which time answers are slow."""
    world = LookedWorld()
    alone = (replace(world.go_on(), candidate={"c": ReplicaOutcomes(age_seconds=60)}) for _ in range(6))
    told = next(each for each in learn_all(*alone).metrics if each.name == "latency")
    assert (told.candidate, told.samples) == ("", 0)


def test_without_requests_nothing_is_shown() -> None:
    found = learn_all(*(look(1000 + 20 * at, 0) for at in range(50)))
    assert found.harm is None
    assert set(found.missing) == {"errors", "latency", "parity", "cpu", "memory"}
    assert {each.proof for each in found.metrics} == {"0.00", "0"}


def judge(world: LookedWorld, looks: int) -> Findings:
    return learn_all(*(world.go_on() for _ in range(looks)))


def test_a_good_candidate_is_proved_in_all_metrics() -> None:
    found = judge(LookedWorld(), 200)
    assert found.missing == ()
    assert (found.harm, found.skewed) == (None, None)
    assert found.speedup == pytest.approx(1.0, abs=0.05)


def test_without_a_client_it_is_proved_by_what_both_were_shown_and_says_so() -> None:
    found = judge(LookedWorld(rate=0, pairs=10, share=0), 200)
    assert (found.missing, found.harm, found.requests) == ((), None, 0)
    assert {each.name: each.proved_by for each in found.metrics} == {
        "errors": "ShownRequests", "latency": "ShownRequests", "parity": "MadeInputs", "cpu": "ShownRequests", "memory": None,
        "shares": None,
    }  # fmt: skip
    assert (found.replayed, found.speedup) == (True, None)
    assert found.speedup_shown == pytest.approx(1.0, abs=0.06)


def test_where_clients_send_enough_what_both_were_shown_proves_nothing_of_their_requests() -> None:
    world = LookedWorld(pairs=10)
    many = judge(world, 45)
    assert many.requests > LIVE_REQUESTS
    by = {each.name: each.proved_by for each in many.metrics}
    assert "latency" in many.missing or by["latency"] == "LiveTraffic"
    assert set(by.values()) <= {"LiveTraffic", None}


@pytest.mark.parametrize(
    ("world", "subject"),
    [
        pytest.param(
            LookedWorld(candidate=ArmWorld(failing=0.1), rate=0, pairs=10, share=0),
            "failed requests: of what both were shown, ",
            id="it fails at what it is shown",
        ),
        pytest.param(
            LookedWorld(candidate=ArmWorld(milliseconds=15), rate=0, pairs=10, share=0),
            "slow answers: of what both were shown, ",
            id="it is slow at what it is shown",
        ),
        pytest.param(
            LookedWorld(wrong=0.3, rate=0, pairs=10, share=0),
            "answers that differ: of those to inputs that no client sent, ",
            id="it is wrong at made inputs",
        ),
        pytest.param(LookedWorld(candidate=ArmWorld(failing=0.1)), "failed requests: ", id="it fails"),
        pytest.param(LookedWorld(candidate=ArmWorld(milliseconds=15)), "slow answers: ", id="it is slow"),
        pytest.param(LookedWorld(wrong=0.3), "answers that differ: mean loss 0.", id="it is wrong"),
        pytest.param(LookedWorld(candidate=ArmWorld(growth=3e6)), "memory of a replica: ", id="it leaks"),
    ],
)
def test_harm_is_told_with_its_figures(world: LookedWorld, subject: str) -> None:
    found = judge(world, 100)
    assert found.harm is not None
    assert found.harm.startswith(subject)


def test_a_candidate_that_is_twice_as_fast_has_that_speedup() -> None:
    assert judge(LookedWorld(candidate=ArmWorld(milliseconds=5)), 20).speedup == pytest.approx(2.0, rel=0.05)


def test_shares_that_are_not_as_declared_hold_it_and_are_not_its_fault() -> None:
    found = judge(LookedWorld(share=0.2), 60)
    assert found.skewed is not None
    assert found.harm is None


def test_answers_that_are_not_to_be_compared_are_no_metric() -> None:
    found = learn("", LookedWorld().go_on(), replace(SETTINGS, output_parity=0.0))
    assert "parity" not in {each.name for each in found.metrics}
    assert "parity" not in found.missing


def test_a_regression_after_it_took_over_is_found_and_nothing_before() -> None:
    world, state = LookedWorld(share=1.0), ""
    for _ in range(200):
        found = watch(state, world.go_on(10), SETTINGS, 3600)
        state = found.state
    assert found.harm is None
    world.candidate.failing = 0.1
    for _ in range(30):
        found = watch(state, world.go_on(10), SETTINGS, 3600)
        state = found.state
    assert found.harm is not None
    assert found.harm.startswith("failed requests: ")


def watched(world: LookedWorld, proved: tuple[str, ...]) -> Findings:
    """After twenty minutes as it was, and ten at which it takes twice as long and a tenth of its answers are others."""
    state = ""
    for number in range(360):
        if number == 240:
            world.candidate.milliseconds, world.wrong = 20, 0.1
        found = watch(state, world.go_on(5), SETTINGS, 3600, proved)
        state = found.state
    return found


def test_one_that_begins_to_answer_later_than_the_former_revision_is_found_by_what_both_are_shown() -> None:
    found = watched(LookedWorld(share=1.0, pairs=1, rate=0), ("latency",))
    assert found.harm is not None
    assert found.harm.startswith("slow answers: median ")
    assert "ms with the former revision; evidence" in found.harm


def test_one_that_was_let_take_over_unproved_is_not_held_against_the_former_revision() -> None:
    """Whoever promotes what differs or is slow knows it, and does not want it back at once."""
    assert watched(LookedWorld(share=1.0, pairs=1, rate=0), ()).harm is None


def test_a_watch_says_the_same_of_the_same_look() -> None:
    world = LookedWorld(share=1.0)
    first = watch("", world.go_on(), SETTINGS, 3600)
    second = watch(first.state, world.go_on(), SETTINGS, 3600)
    assert watch(second.state, world.look(), SETTINGS, 3600) == second


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("margin", [1e-6, 0.5, 1.0])
def test_margins_as_narrow_and_as_wide_as_can_be_give_numbers(margin: float) -> None:
    asked = AnalysisSettings(
        output_parity=margin,
        max_error_increase=margin,
        max_slow_increase=margin,
        max_cpu_increase=margin,
        max_memory_increase=margin,
    )
    world, state = LookedWorld(wrong=0.1, candidate=ArmWorld(failing=0.02)), ""
    for _ in range(10):
        found = learn(state, world.go_on(), asked)
        state = found.state
    assert found.requests > 0
    assert all(math.isfinite(float(each.harm)) and math.isfinite(float(each.proof)) for each in found.metrics)
