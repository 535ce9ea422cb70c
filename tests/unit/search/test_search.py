"""What a search does next, on ledgers of worlds whose every result is known."""

from __future__ import annotations

import pytest
from tests.telling import assert_tells
from tests.unit.search.search_world import JUDGEMENTS, World, named, plan, spec

from penstock.optimization.measurements import AccuracyControl, Role
from penstock.optimization.recipes import EngineName
from penstock.optimization.report import Outcome, SearchVerdict
from penstock_optimizer.search.decide import (
    Build,
    Certify,
    Conclude,
    Gate,
    JudgeOutputs,
    LoadTest,
    MeasureSession,
    decide,
)
from penstock_optimizer.search.verdict import conclude

ORT, OPENVINO = EngineName.ONNX_RUNTIME, EngineName.OPENVINO


def good_world(*, budget: float = 1200.0, same_again: list[float] | None = None, test_samples: int = 1000) -> World:
    searched = plan(budget=budget)
    speed = {
        named(searched, ORT, "Static").key: 4.0,
        named(searched, OPENVINO, "Static").key: 3.0,
        named(searched, OPENVINO, "BF16").key: 2.0,
    }
    return World(searched, speed=speed, same_again=same_again or [], test_samples=test_samples)


def outcomes(world: World) -> dict[str, Outcome]:
    found = conclude(world.searched, world.search()[0])
    return {each.recipe.key: each.outcome for each in found.candidates}


def test_the_baselines_are_built_and_compared_before_anything_else() -> None:
    world = good_world()
    _, actions = world.search()
    eager, plain = world.searched.baselines
    assert actions[:4] == [Build(eager), Build(plain), JudgeOutputs(eager, 256), Gate(plain, eager, 256, JUDGEMENTS)]


def test_each_candidate_passes_the_gate_right_after_it_is_built() -> None:
    _, actions = good_world().search()
    kinds = [type(each) for each in actions[4:]]
    first = kinds.index(MeasureSession)
    assert kinds[:first] == [Build, Gate] * (first // 2)


def test_every_session_has_both_baselines_and_both_controls() -> None:
    _, actions = good_world().search()
    for session in (each for each in actions if isinstance(each, MeasureSession)):
        roles = [entrant.role for entrant in session.entrants]
        assert roles[:4] == [Role.BASELINE, Role.SECOND_BASELINE, Role.SAME_AGAIN, Role.NEGATIVE_CONTROL]
        assert set(roles[4:]) == {Role.CANDIDATE}


def test_without_torch_onnx_runtime_is_the_only_baseline() -> None:
    searched = plan(torch=False)
    _, actions = World(searched).search()
    session = next(each for each in actions if isinstance(each, MeasureSession))
    assert [each.role for each in session.entrants][:3] == [Role.BASELINE, Role.SAME_AGAIN, Role.NEGATIVE_CONTROL]
    assert not any(isinstance(each, Gate) and each.recipe in searched.baselines for each in actions)


def test_the_fastest_that_keeps_the_accuracy_is_chosen() -> None:
    world = good_world()
    found = conclude(world.searched, world.search()[0])
    assert found.verdict is SearchVerdict.ACCEPTED
    assert found.chosen == named(world.searched, ORT, "Static")
    assert found.figures is not None
    assert found.figures.speedups == pytest.approx({"TorchEager fp32": 8.0, "ONNXRuntime fp32": 4.0})
    assert found.capacity is not None
    assert found.capacity.requests_per_second == pytest.approx(400)


def test_a_halving_keeps_the_better_half_and_measures_it_longer() -> None:
    searched = plan(spec(search={"strategy": "Thorough"}))
    world = World(searched, speed={each.key: 1 + i / 10 for i, each in enumerate(searched.candidates)})
    _, actions = world.search()
    sessions = [each for each in actions if isinstance(each, MeasureSession) and each.batch_size == 1]
    sizes = [sum(entrant.role is Role.CANDIDATE for entrant in each.entrants) for each in sessions]
    assert sizes[0] == len(searched.candidates)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] <= 4
    assert sessions[-1].seconds_per_round > sessions[0].seconds_per_round
    assert named(searched, ORT) not in [
        entrant.recipe for entrant in sessions[-1].entrants if entrant.role == "Candidate"
    ]


@pytest.mark.parametrize(
    ("noise", "verdict", "attempts"),
    [
        pytest.param([1.3], SearchVerdict.ACCEPTED, 2, id="noise once: measured again, longer"),
        pytest.param([1.3, 0.7], SearchVerdict.ACCEPTED, 3, id="noise twice: measured a third time"),
        pytest.param([1.3, 0.7, 1.2], SearchVerdict.NO_DECISION, 3, id="noise three times: no decision"),
    ],
)
def test_noise(noise: list[float], verdict: SearchVerdict, attempts: int) -> None:
    world = good_world(same_again=noise)
    ledger, actions = world.search()
    first = [each for each in actions if isinstance(each, MeasureSession) and each.rung == 0]
    assert [each.attempt for each in first] == list(range(attempts))
    assert [each.seconds_per_round for each in first] == sorted(each.seconds_per_round for each in first)
    found = conclude(world.searched, ledger)
    assert found.verdict is verdict
    if verdict is SearchVerdict.NO_DECISION:
        assert "SameAgain read 1.20" in found.summary
        assert found.chosen is None
        assert Outcome.UNDECIDED in {each.outcome for each in found.candidates}
        assert not any(isinstance(each, Certify) for each in actions)


def test_what_surely_loses_accuracy_is_rejected_at_the_gate_and_never_measured() -> None:
    world = good_world()
    bad = named(world.searched, ORT, "Static")
    world.lost[bad.key] = 8
    ledger, actions = world.search()
    sessions = [each for each in actions if isinstance(each, MeasureSession)]
    assert all(bad not in [entrant.recipe for entrant in each.entrants] for each in sessions)
    found = conclude(world.searched, ledger)
    report = next(each for each in found.candidates if each.recipe == bad)
    assert report.outcome is Outcome.ACCURACY_LOST
    assert_tells(report.reason, "Accuracy 1.0000 → 0.9200 100 validation 1 points")
    assert found.chosen == named(world.searched, OPENVINO, "Static")


def test_a_finalist_that_fails_the_full_test_gives_way_to_the_next() -> None:
    world = good_world()
    best, second, third = (
        named(world.searched, *pair) for pair in ((ORT, "Static"), (OPENVINO, "Static"), (OPENVINO, "BF16"))
    )
    world.lost_in_test[best.key] = 30
    ledger, actions = world.search()
    assert [each.recipe for each in actions if isinstance(each, Certify)] == [best, second, third]
    found = conclude(world.searched, ledger)
    assert found.chosen == second
    assert outcomes(world)[best.key] is Outcome.ACCURACY_LOST
    assert outcomes(world)[third.key] is Outcome.FINALIST


def test_data_that_cannot_certify_leads_to_no_decision() -> None:
    world = good_world(test_samples=100)
    found = conclude(world.searched, world.search()[0])
    assert found.verdict is SearchVerdict.NO_DECISION
    assert_tells(found.summary, "95% more samples")


def test_where_the_profile_asks_for_no_certificate_the_estimate_is_enough_and_the_report_says_so() -> None:
    searched = plan(spec(constraints={"accuracy": {"minRatio": "0.99", "certify": False}}))
    world = World(searched, speed={named(searched, ORT, "Static").key: 4.0}, test_samples=100)
    found = conclude(searched, world.search()[0])
    assert found.verdict is SearchVerdict.ACCEPTED
    assert any("not certified" in each for each in found.warnings)


def test_nothing_faster_means_rejected_and_the_baseline_is_loaded_for_its_capacity() -> None:
    world = World(plan())
    ledger, actions = world.search()
    found = conclude(world.searched, ledger)
    assert found.verdict is SearchVerdict.REJECTED
    assert found.capacity is not None
    assert [each.recipe for each in actions if isinstance(each, LoadTest)] == [*reversed(world.searched.baselines)]


def test_a_gain_below_the_asked_one_is_none() -> None:
    searched = plan()
    world = World(searched, speed={named(searched, ORT, "Static").key: 1.05})
    found = conclude(searched, world.search()[0])
    report = next(each for each in found.candidates if each.recipe == named(searched, ORT, "Static"))
    assert found.verdict is SearchVerdict.REJECTED
    assert report.outcome is Outcome.NO_GAIN
    assert_tells(report.reason, "1.05x ONNX Runtime fp32 1.10x")


def test_what_an_early_round_left_behind_without_a_gain_is_not_called_merely_slower() -> None:
    searched = plan(spec(search={"finalists": 1}))
    world = World(searched, speed={each.key: 2.0 + i for i, each in enumerate(searched.candidates)})
    none, some = named(searched, ORT, "Dynamic"), named(searched, OPENVINO)
    world.speed |= {none.key: 0.6, some.key: 1.3}
    found = outcomes(world)
    assert found[none.key] is Outcome.NO_GAIN
    assert found[some.key] is Outcome.SLOWER


def test_an_export_that_computes_something_else_ends_the_search() -> None:
    world = good_world()
    plain = world.searched.baselines[1]
    world.lost[plain.key] = 40
    ledger, actions = world.search()
    found = conclude(world.searched, ledger)
    assert len(actions) == 4
    assert found.verdict is SearchVerdict.NO_DECISION
    assert_tells(found.summary, "compute model itself")


def test_a_model_that_onnx_runtime_cannot_run_ends_the_search() -> None:
    world = good_world()
    world.broken = (world.searched.baselines[1].key,)
    ledger, _ = world.search()
    found = conclude(world.searched, ledger)
    assert found.verdict is SearchVerdict.NO_DECISION
    assert_tells(found.summary, "run ONNX Runtime")


def test_what_cannot_be_done_here_is_left_out_and_the_rest_goes_on() -> None:
    world = good_world()
    missing, crashed = named(world.searched, ORT, "BF16"), named(world.searched, OPENVINO, "Static")
    world.infeasible, world.broken = (missing.key,), (crashed.key,)
    found = outcomes(world)
    assert found[missing.key] is Outcome.INFEASIBLE
    assert found[crashed.key] is Outcome.BROKEN
    assert found[named(world.searched, ORT, "Static").key] is Outcome.CHOSEN


def test_memory_above_what_a_replica_is_given_breaks_a_constraint() -> None:
    searched = plan(spec(constraints={"accuracy": {"minRatio": "0.99"}, "memory": "150Mi"}))
    best = named(searched, ORT, "Static")
    world = World(searched, speed={best.key: 4.0}, memory={best.key: 400_000_000})
    found = {each.recipe.key: each for each in conclude(searched, world.search()[0]).candidates}
    assert found[best.key].outcome is Outcome.CONSTRAINT_BROKEN
    assert "400 MB" in found[best.key].reason


def test_p99_above_the_profiles_bound_breaks_a_constraint_and_the_next_is_chosen() -> None:
    constraints = {"accuracy": {"minRatio": "0.99"}, "latencyP99Milliseconds": 5}
    searched = plan(spec(constraints=constraints))
    best, second = named(searched, ORT, "Static"), named(searched, OPENVINO, "Static")
    world = World(searched, speed={best.key: 4.0, second.key: 3.0}, p99={best.key: 50.0})
    found = conclude(searched, world.search()[0])
    assert found.chosen == second
    assert next(each for each in found.candidates if each.recipe == best).outcome is Outcome.CONSTRAINT_BROKEN


def test_for_memory_the_smallest_process_is_chosen() -> None:
    searched = plan(spec(objective="Memory"))
    fast, small = named(searched, ORT, "Static"), named(searched, ORT, "Dynamic")
    world = World(searched, speed={fast.key: 4.0}, memory={fast.key: 80_000_000, small.key: 40_000_000})
    assert conclude(searched, world.search()[0]).chosen == small


@pytest.mark.parametrize(
    ("budget", "verdict", "kinds"),
    [
        pytest.param(1.0, SearchVerdict.NO_DECISION, {Build}, id="no time for more than a baseline"),
        pytest.param(
            8.0,
            SearchVerdict.NO_DECISION,
            {Build, JudgeOutputs, Gate, MeasureSession, LoadTest, Certify},
            id="a little time",
        ),
        pytest.param(
            1200.0,
            SearchVerdict.ACCEPTED,
            {Build, JudgeOutputs, Gate, MeasureSession, Certify, LoadTest},
            id="time enough",
        ),
    ],
)
def test_out_of_budget(budget: float, verdict: SearchVerdict, kinds: set[type]) -> None:
    world = good_world(budget=budget)
    ledger, actions = world.search()
    assert {type(each) for each in actions} <= kinds
    assert sum(trial.seconds for trial in ledger) <= budget
    found = conclude(world.searched, ledger)
    assert found.verdict is verdict or (found.verdict is SearchVerdict.ACCEPTED and budget == 8.0)


def test_what_is_not_built_in_time_is_left_for_what_is() -> None:
    world = good_world(budget=20.0)
    ledger, _ = world.search()
    found = conclude(world.searched, ledger)
    assert found.verdict is SearchVerdict.ACCEPTED
    assert Outcome.OUT_OF_BUDGET in {each.outcome for each in found.candidates}


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(good_world(), id="all is well"),
        pytest.param(good_world(same_again=[1.5, 1.0]), id="noise"),
        pytest.param(good_world(budget=20.0), id="too little time"),
    ],
)
def test_a_search_that_is_killed_anywhere_goes_on_as_if_it_had_not_been(world: World) -> None:
    whole, _ = world.search()
    for stop in range(len(whole)):
        cut, _ = world.search(until=stop)
        assert world.search(cut)[0] == whole


def test_a_finished_search_has_nothing_to_do_however_late_it_is_asked() -> None:
    world = good_world()
    ledger, _ = world.search()
    for seconds in (0.0, 1e9):
        assert decide(world.searched, ledger, seconds) == Conclude()


def test_a_metric_that_does_not_suit_the_data_is_told_before_anything_is_built() -> None:
    world = good_world()
    world.unsuited = "labels are float32 of shape (180,), and no output is like them"
    ledger, actions = world.search()
    assert [type(each) for each in actions] == [Build, Build, JudgeOutputs], "only the baselines"
    found = conclude(world.searched, ledger)
    assert found.verdict is SearchVerdict.NO_DECISION
    assert_tells(found.summary, world.unsuited)
    assert {each.outcome for each in found.candidates[2:]} == {Outcome.UNDECIDED}, "no budget ran out"


@pytest.mark.parametrize(
    ("output", "decides"),
    [
        pytest.param("", False, id="all answers ruined, and it does not show"),
        pytest.param("flag", True, id="one output of several is always the same"),
    ],
)
def test_a_metric_that_cannot_tell_right_from_wrong_decides_nothing(output: str, decides: bool) -> None:  # noqa: FBT001 (a table)
    world = good_world()
    missed = AccuracyControl(name="constant answers", output=output, metric="Cosine", loss=0.0, told=False)
    told = AccuracyControl(name="permuted answers", output="", metric="Cosine", loss=0.4, told=True)
    world.controls = (told, missed)
    ledger, actions = world.search()
    found = conclude(world.searched, ledger)
    if decides:
        assert found.verdict is SearchVerdict.ACCEPTED
        assert any("'flag'" in warning for warning in found.warnings)
        return
    assert len(actions) == 3, "nothing is built that could not be judged"
    assert found.verdict is SearchVerdict.NO_DECISION
    assert_tells(found.summary, "right wrong", missed.name, "0 points Cosine")


def test_where_all_who_were_tried_broke_nobody_was_judged() -> None:
    world = good_world()
    world.broken = tuple(each.key for each in world.searched.candidates)
    found = conclude(world.searched, world.search()[0])
    assert found.verdict is SearchVerdict.NO_DECISION
    assert_tells(found.summary, "judged crashed")  # the commonest cause


def test_where_nothing_can_be_done_here_nobody_is_called_worse() -> None:
    world = good_world()
    world.infeasible = tuple(each.key for each in world.searched.candidates)
    found = conclude(world.searched, world.search()[0])
    assert_tells(found.summary, "nothing profile here", "it needs what is not here")


def test_a_budget_that_ran_out_says_who_broke_meanwhile() -> None:
    world = good_world(budget=12)
    world.broken = tuple(each.key for each in world.searched.candidates)
    found = conclude(world.searched, world.search()[0])
    assert_tells(found.summary, "ran out judged")


def test_a_variant_that_its_neighbours_change_is_loaded_and_served_alone() -> None:
    world = good_world()
    fast = named(world.searched, ORT, "Static")
    world.alone = (fast.key,)
    ledger, actions = world.search()
    found = conclude(world.searched, ledger)
    assert found.chosen == fast, "at batch 1, of which the objective is, it is the fastest all the same"
    assert {each.recipe.key: each.alone for each in actions if isinstance(each, LoadTest)}[fast.key]
    assert not any(each.alone for each in actions if isinstance(each, LoadTest) and each.recipe != fast)
    assert_tells(found.summary, "zeros 40% own")


def test_a_variant_that_its_neighbours_change_is_refused_where_the_objective_is_of_a_batch() -> None:
    searched = plan(spec(workload={"batchSizes": [8]}))
    fast, other = named(searched, ORT, "Static"), named(searched, OPENVINO, "Static")
    world = World(searched, speed={fast.key: 4.0, other.key: 3.0}, alone=(fast.key,))
    ledger, _ = world.search()
    found = conclude(searched, ledger)
    assert found.chosen == other
    ended = next(each for each in found.candidates if each.recipe == fast)
    assert ended.outcome is Outcome.ACCURACY_LOST
    assert_tells(ended.reason, "joined batch 8")
