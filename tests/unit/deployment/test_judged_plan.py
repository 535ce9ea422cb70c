"""Judged rollouts, from a spec to their end, as plans that are carried out one after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.deployment.stage import SECONDS, Behaviour, Stage
from tests.unit.deployment.test_optimization_plan import BASE, FAST, OF, accepted, profiled
from tests.unit.deployment.test_optimization_plan import PROFILE as BALANCED
from tests.unit.deployment.world import NEW, NEW_MODEL, OLD, OLD_MODEL, deployment

from penstock import names
from penstock.api.conditions import DeploymentCondition as Kind
from penstock.api.conditions import Reason
from penstock.api.rollout import BaselineKind
from penstock.api.v1alpha1 import InferenceDeployment
from penstock.optimization.measurements import MetricName
from penstock.routing.outcomes import Losses
from penstock.serving.arguments import FAILURE_MARKER, StartFailure
from penstock_operator.deployment.observed import OptimizationView
from penstock_operator.deployment.plan import Plan
from penstock_operator.deployment.refusal import refused_status

YOUNG = f"{OLD}-b"
CANARY = {"type": "Canary"}
ALIKE = {"type": "Canary", "analysis": {"outputParity": "0.99"}}
THIRD_MODEL = "file:///models/third"


def deployed(model: str, rollout: dict[str, Any], **spec: Any) -> InferenceDeployment:
    base = deployment(model, **spec).model_dump(mode="json", exclude_none=True)
    return InferenceDeployment.model_validate(base | {"spec": base["spec"] | {"rollout": rollout}})


def begun(rollout: dict[str, Any] | None = None, *, scaling: dict[str, Any] | None = None, **stage: Any) -> Stage:
    """The old model serves, and the spec names the new one."""
    asked = CANARY if rollout is None else rollout
    found = Stage(deployed(OLD_MODEL, asked, scaling=scaling), **stage)
    for _ in range(3):
        found.act()
    assert found.rollout is None, "the first one is not judged"
    assert found.weights == {OLD: 100}
    found.of = deployed(NEW_MODEL, asked, scaling=scaling)
    return found


def optimized(rollout: dict[str, Any] | None = None, **stage: Any) -> Stage:
    """The model itself serves, and an optimization was accepted."""
    found = Stage(
        profiled(rollout=CANARY if rollout is None else rollout), optimization=OptimizationView(BALANCED, ()), **stage
    )
    for _ in range(3):
        found.act()
    found.optimization = OptimizationView(BALANCED, (accepted(OF),))
    return found


def condition(made: Plan, kind: Kind) -> tuple[str, str]:
    assert made.status is not None
    return next((each.status.value, each.reason) for each in made.status.conditions if each.type == kind)


def message(made: Plan, kind: Kind) -> str:
    assert made.status is not None
    return next(each.message for each in made.status.conditions if each.type == kind)


def shares(stage: Stage) -> list[dict[str, int]]:
    """What requests were shared by, one after another."""
    told = [dict(each.route.revisions) for each in stage.seen if each.route is not None]
    return [each for place, each in enumerate(told) if not place or each != told[place - 1]]


def test_a_good_revision_gets_more_and_more_beside_a_baseline_as_young_and_takes_over() -> None:
    stage = begun()
    stage.until("Watching")
    assert shares(stage)[-6:] == [
        {OLD: 100},
        {OLD: 98, YOUNG: 1, NEW: 1},
        {OLD: 90, YOUNG: 5, NEW: 5},
        {OLD: 50, YOUNG: 25, NEW: 25},
        {OLD: 1, YOUNG: 49, NEW: 50},
        {NEW: 100},
    ]
    assert stage.judged.baseline is BaselineKind.YOUNG
    for _ in range(3):
        made = stage.act()
    assert set(stage.configs) == {NEW, OLD}
    assert condition(made, Kind.PROGRESSING) == ("True", Reason.ROLLED_OUT)
    assert condition(made, Kind.READY) == ("True", Reason.READY)
    assert stage.status.active_revision == NEW
    stage.now += 3600
    stage.until("Promoted")
    stage.act()
    assert set(stage.configs) == {NEW}


def test_while_one_is_judged_the_other_serves_and_is_ready() -> None:
    stage = begun()
    for made in stage.until("Stepping"):
        assert condition(made, Kind.READY) == ("True", Reason.READY)
    made = stage.act()
    assert condition(made, Kind.PROGRESSING) == ("True", Reason.ROLLING_OUT)
    assert (stage.status.active_revision, stage.status.candidate_revision) == (OLD, NEW)
    assert made.requeue is not None
    assert made.requeue.after_seconds == 2


def test_one_that_cannot_start_leaves_what_serves_ready_and_the_conditions_say_why() -> None:
    failure = StartFailure(reason=Reason.MODEL_NOT_FOUND, message="there is nothing at file:///models/new")
    stage = begun(behaviours={NEW: Behaviour(broken=f"X: {FAILURE_MARKER}{failure.model_dump_json()}")})
    for _ in range(10):
        made = stage.act()
    assert condition(made, Kind.READY) == ("True", Reason.READY), "the former one answers all requests"
    assert condition(made, Kind.SERVING) == ("True", Reason.REPLICAS_READY)
    for kind in (Kind.MODEL_RESOLVED, Kind.PROGRESSING):
        assert condition(made, kind) == ("False", Reason.MODEL_NOT_FOUND)
    assert (stage.status.active_revision, stage.status.candidate_revision) == (OLD, NEW)
    refused = refused_status(stage.of.model_copy(update={"status": stage.status}), "no", stage.now)
    assert next(each.status for each in refused.conditions if each.type == Kind.READY) == "True"
    stage.replicas = []
    made = stage.act(0)
    assert condition(made, Kind.READY)[0] == "False", "nobody answers any"


@pytest.mark.parametrize(
    ("model", "profile", "named"),
    [
        pytest.param(None, None, None, id="neither names any"),
        pytest.param(None, "s3://data/profile", "s3://data/profile", id="the profile's"),
        pytest.param("s3://data/model.npz", "s3://data/profile", "s3://data/model.npz", id="the model's own go first"),
    ],
)
def test_samples_that_are_named_are_shown_while_one_is_judged(
    model: str | None, profile: str | None, named: str | None
) -> None:
    data = BALANCED.data.model_copy(update={"storage_uri": profile})
    stage = begun()
    asked = stage.of.spec.model.model_copy(update={"data_uri": model})
    stage.of = stage.of.model_copy(update={"spec": stage.of.spec.model_copy(update={"model": asked})})
    stage.optimization = OptimizationView(BALANCED.model_copy(update={"data": data}), ())
    looks = stage.until("Watching")
    shown = {each.route.comparison.samples for each in looks[:-1] if each.route and each.route.comparison}
    assert {each.uri if each else None for each in shown} == {named}
    last = stage.act().route
    assert last is not None
    assert last.comparison is not None
    assert last.comparison.samples is None, "clients' requests are shown from now on"


def test_answers_are_compared_by_what_the_profile_judges() -> None:
    accuracy = BALANCED.constraints.accuracy.model_copy(update={"metric": MetricName.COSINE})
    constraints = BALANCED.constraints.model_copy(update={"accuracy": accuracy})
    profile, run = BALANCED.model_copy(update={"constraints": constraints}), accepted(OF)
    named = run.metadata.model_copy(update={"name": names.run_name(OF, profile)})
    stage = optimized()
    stage.optimization = OptimizationView(profile, (run.model_copy(update={"metadata": named}),))
    stage.until("Shadowing")
    stage.act()
    assert stage.judged.loss is Losses.COSINE
    assert stage.judged.output_parity == "0.99"
    assert stage.route is not None
    assert stage.route.comparison is not None
    assert (stage.route.comparison.loss, stage.route.comparison.loss_where_it_suits) == (Losses.COSINE, True)


BAD = [
    ("requests that fail", Behaviour(failed=0.05), CANARY, "failed requests"),
    ("slow answers", Behaviour(seconds=0.04), CANARY, "slow answers"),
    ("other answers", Behaviour(loss=0.5), ALIKE, "answers that differ"),
    ("replicas that die", Behaviour(dies=20), CANARY, "died 2 times"),
    ("requests that nobody answers", Behaviour(silent=True), CANARY, "answered no request for"),
]


@pytest.mark.parametrize(("behaviour", "asked", "told"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_revision_is_rolled_back_and_the_status_says_why(
    behaviour: Behaviour, asked: dict[str, Any], told: str
) -> None:
    stage = begun(asked, behaviours={NEW: behaviour})
    stage.until("RolledBack")
    assert stage.weights == {OLD: 100}
    assert told in stage.judged.message
    assert stage.judged.reason == Reason.ROLLOUT_FAILED
    for _ in range(200):
        made = stage.act()
    assert set(stage.configs) == {OLD}, "it is not tried again"
    assert condition(made, Kind.PROGRESSING) == ("False", Reason.ROLLOUT_FAILED)
    assert told in message(made, Kind.PROGRESSING)
    assert condition(made, Kind.READY) == ("True", Reason.READY)
    assert (stage.status.active_revision, stage.status.candidate_revision) == (OLD, None)
    assert made.requeue is not None
    assert made.requeue.after_seconds >= 30


def test_no_client_gets_an_answer_before_answers_are_proved_to_agree() -> None:
    stage = begun(ALIKE)
    looks = stage.until("Stepping")
    compared = [each.route for each in looks if each.route is not None and each.route.comparison is not None]
    assert len(compared) * SECONDS > 50, "some hundred pairs at five a second"
    assert all(NEW not in each.revisions for each in compared[:-1])


@pytest.mark.parametrize(
    "rollout", [ALIKE, CANARY], ids=["by answers that agree", "by answers that are none of errors"]
)
def test_nobody_asks_and_it_takes_over_by_what_it_was_shown(rollout: dict[str, Any]) -> None:
    stage = begun(rollout, rate=0.0)
    looks = stage.until("Watching")
    assert len(looks) * SECONDS <= 120
    assert all(NEW not in each for each in shares(stage)[:-1])
    asked = [each.route.comparison for each in looks if each.route is not None and each.route.comparison is not None]
    assert all(each.replay for each in asked[:-1])
    assert YOUNG in {name for each in looks for name in revisions(each)}, "what both are shown is compared"
    assert {each.proved_by for each in stage.judged.metrics if each.proved} <= {"ShownRequests", "MadeInputs", None}


def revisions(made: Plan) -> set[str]:
    return {each["args"]["replica"]["revision"] for each in made.applications or ()}


def test_silence_proves_nothing() -> None:
    stage = begun(CANARY, rate=0.0, behaviours={})
    stage.shows = False
    for _ in range(100):
        stage.act()
    assert stage.judged.phase == "Shadowing"


def test_without_room_for_a_baseline_it_is_compared_with_the_fleet() -> None:
    stage = begun(behaviours={YOUNG: Behaviour(starts=False)})
    stage.until("Stepping")
    assert stage.judged.baseline is BaselineKind.FLEET
    assert stage.weights == {OLD: 99, NEW: 1}
    stage.act()
    assert YOUNG not in stage.configs
    stage.until("Watching")


def test_without_room_for_it_what_serves_goes_on_and_no_baseline_is_made() -> None:
    stage = begun(behaviours={NEW: Behaviour(starts=False)})
    for _ in range(60):
        made = stage.act()
    assert stage.judged.phase == "Starting"
    assert stage.weights == {OLD: 100}
    assert set(stage.configs) == {OLD, NEW}
    assert condition(made, Kind.PROGRESSING)[1] in (Reason.UNSCHEDULABLE, Reason.ROLLING_OUT)


def test_more_replicas_come_before_a_larger_share_and_the_stable_ones_stay() -> None:
    stage = begun(scaling={"replicas": 8})
    sizes: dict[int, set[tuple[int, int, int]]] = {}
    for _ in range(200):
        stage.act()
        weight = stage.weights.get(NEW, 0)
        sizes.setdefault(weight, set()).add((stage.size(NEW), stage.size(YOUNG), stage.size(OLD)))
        if stage.judged.phase == "Watching":
            break
    assert {least for least, _, _ in sizes[1]} == {1}
    assert min(least for least, _, _ in sizes[25]) == 2
    assert min(least for least, _, _ in sizes[50]) == 4
    assert all(young == new for weight in (1, 5) for new, young, _ in sizes[weight])
    assert {old for weight in (0, 1, 5, 25, 50) for _, _, old in sizes[weight]} == {8}
    assert stage.size(NEW) == 8
    for _ in range(3):
        stage.act()
    assert stage.size(OLD) == 8, "a fixed number is the least there is"


def test_the_stable_revision_is_not_scaled_down_while_another_takes_its_requests() -> None:
    stage = begun(scaling={"minReplicas": 1, "maxReplicas": 8})
    for _ in range(6):
        stage._bear(OLD)
    stage.until("Stepping")
    scaling = stage.configs[OLD]["deployments"][0]["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (stage.size(OLD), 8)
    stage.until("Watching")
    assert stage.size(NEW) == stage.size(OLD) == 7
    for _ in range(3):
        stage.act()
    assert stage.size(OLD) == 1, "it is kept at its least size"


def test_a_third_revision_is_judged_against_what_serves() -> None:
    stage = begun()
    stage.until("Stepping")
    stage.of = deployed(THIRD_MODEL, CANARY)
    stage.act()
    third = names.revision(stage.of)
    assert (stage.judged.candidate, stage.judged.stable, stage.judged.phase) == (third, OLD, "Starting")
    assert stage.weights == {OLD: 100}
    stage.until("Watching")
    assert stage.weights == {third: 100}


def test_a_third_revision_that_is_long_in_starting_is_shown_what_clients_send() -> None:
    stage = begun()
    stage.until("Stepping")
    stage.of = deployed(THIRD_MODEL, ALIKE)
    stage.behaviours = {names.revision(stage.of): Behaviour(starts=False)}
    for _ in range(15):
        stage.act()
    stage.behaviours = {}
    looks = stage.until("Stepping")
    assert not any("Nobody sends" in message(each, Kind.PROGRESSING) for each in looks)


def test_a_spec_that_changes_back_ends_it_quietly() -> None:
    stage = begun()
    stage.until("Stepping")
    stage.of = deployed(OLD_MODEL, CANARY)
    for _ in range(3):
        made = stage.act()
    assert stage.rollout is None
    assert set(stage.configs) == {OLD}
    assert stage.weights == {OLD: 100}
    assert condition(made, Kind.PROGRESSING) == ("True", Reason.ROLLED_OUT)


def test_a_spec_that_changes_to_it_again_after_it_was_rolled_back_tries_it_again() -> None:
    stage = begun(behaviours={NEW: Behaviour(failed=0.2)})
    stage.until("RolledBack")
    stage.of = deployed(OLD_MODEL, CANARY)
    stage.act()
    stage.of = deployed(NEW_MODEL, CANARY)
    stage.act()
    assert stage.judged.phase == "Starting"


def test_undo_brings_the_former_revision_back_while_it_stays() -> None:
    stage = begun()
    stage.until("Watching")
    stage.told = f"undo {NEW}"
    stage.act()
    assert stage.weights == {OLD: 100}
    assert (stage.judged.phase, stage.judged.reason) == ("RolledBack", Reason.ROLLOUT_ABORTED)
    for _ in range(10):
        stage.act()
    assert set(stage.configs) == {OLD}
    assert stage.judged.obeyed == stage.told
    stage.told = f"retry {NEW}"
    stage.act()
    assert (stage.judged.phase, stage.judged.obeyed) == ("Starting", stage.told)


def test_a_regression_that_begins_an_hour_after_it_took_over_is_found_and_reverted() -> None:
    stage = begun({"type": "Canary", "keepSeconds": 7200})
    stage.until("Watching")
    for _ in range(720):
        stage.act(5)
    assert stage.judged.phase == "Watching", "as long as it stays as it was"
    stage.behaviours = {NEW: Behaviour(failed=0.2)}
    for _ in range(24):
        stage.act(5)
    assert (stage.judged.phase, stage.weights) == ("RolledBack", {OLD: 100})
    assert "failed requests" in stage.judged.message


def test_an_optimized_model_is_judged_by_default_and_its_live_speed_is_told() -> None:
    stage = optimized(behaviours={FAST: Behaviour(seconds=0.002)})
    looks = stage.until("Watching")
    assert {condition(each, Kind.PROFILE_APPLIED)[0] for each in looks[:-1]} == {"Unknown"}
    assert all(condition(each, Kind.READY) == ("True", Reason.READY) for each in looks)
    made = stage.act()
    assert condition(made, Kind.PROFILE_APPLIED) == ("True", Reason.OPTIMIZED)
    assert message(made, Kind.PROFILE_APPLIED).startswith("4.10x faster. On live traffic: ")
    assert stage.judged.speedup is not None
    assert 1.8 < float(stage.judged.speedup.removesuffix("x")) < 2.2


def test_an_optimized_model_that_nobody_asks_takes_over_within_two_minutes() -> None:
    stage = optimized(rate=0.0)
    looks = stage.until("Watching")
    assert len(looks) * SECONDS <= 120
    made = stage.act()
    assert condition(made, Kind.PROFILE_APPLIED) == ("True", Reason.OPTIMIZED)
    assert "On requests that both were shown" in message(made, Kind.PROFILE_APPLIED)


def test_an_optimized_model_whose_answers_differ_is_turned_back_to_the_model_itself() -> None:
    stage = optimized(behaviours={FAST: Behaviour(loss=0.3)})
    stage.until("RolledBack")
    for _ in range(50):
        made = stage.act()
    assert (stage.weights, set(stage.configs)) == ({BASE: 100}, {BASE})
    assert condition(made, Kind.PROFILE_APPLIED) == ("False", Reason.ROLLOUT_FAILED)
    assert condition(made, Kind.PROGRESSING) == ("False", Reason.ROLLOUT_FAILED)
    assert condition(made, Kind.READY) == ("True", Reason.READY)
    assert stage.status.speedup is None
    stage.configs, stage.replicas = {}, []
    for _ in range(3):
        stage.act()
    assert set(stage.configs) == {BASE}, "whose application can be made anew after the loss of the pool"
    stage.told = f"retry {FAST}"
    stage.act()
    assert stage.judged.phase == "Starting"


def test_gateways_that_cannot_compare_leave_an_optimized_model_to_take_over_by_what_was_measured() -> None:
    stage = optimized({}, features=frozenset())
    for _ in range(4):
        stage.act()
    assert stage.rollout is None
    assert stage.weights == {FAST: 100}
    assert all(each.route is None or each.route.comparison is None for each in stage.seen)


def test_gateways_that_cannot_compare_hold_what_the_spec_wants_judged() -> None:
    stage = begun(features=frozenset())
    stage.until("Held")
    made = stage.act()
    assert condition(made, Kind.PROGRESSING) == ("False", Reason.ROLLOUT_HELD)
    assert all(each.route is None or each.route.comparison is None for each in stage.seen)
    assert made.requeue is not None
    assert made.requeue.after_seconds == 5
    stage.features = frozenset({"orders"})
    stage.until("Watching")


def test_immediate_writes_nothing_of_a_rollout_and_ends_one_that_is_under_way() -> None:
    stage = begun()
    stage.until("Stepping")
    stage.of = deployed(NEW_MODEL, {"type": "Immediate"})
    for _ in range(4):
        stage.act()
    assert stage.rollout is None
    assert (stage.weights, set(stage.configs)) == ({NEW: 100}, {NEW})


def test_a_baseline_has_all_that_the_stable_application_has_but_its_name() -> None:
    stage = begun()
    stage.until("Stepping")
    stable, young = stage.configs[OLD], stage.configs[YOUNG]
    assert young["args"]["replica"] == stable["args"]["replica"] | {"revision": YOUNG}
    assert young["args"]["owner"] == stable["args"]["owner"]
    assert young["deployments"][0]["user_config"] == stable["deployments"][0]["user_config"]
    before = young["args"]["attempt"]
    stage.act()
    assert stage.configs[YOUNG]["args"]["attempt"] == before, "it is not started anew"


def test_a_deployment_that_goes_waits_for_its_baseline_to_go() -> None:
    stage = begun()
    stage.until("Stepping")
    gone = stage.of.metadata.model_copy(update={"deletion_timestamp": "1970-01-12T13:46:40Z"})
    stage.of = stage.of.model_copy(update={"metadata": gone})
    made = stage.act()
    assert made.applications == ()
    assert not made.release


def test_a_model_that_sleeps_is_judged_by_what_it_is_shown_and_wakes_for_that() -> None:
    stage = begun(ALIKE, rate=0.0, scaling={"minReplicas": 0, "maxReplicas": 2})
    stage.until("Watching")
    assert stage.weights == {NEW: 100}


def lose_pool(stage: Stage) -> None:
    """As where a Ray cluster is lost, or its ServingPool made anew."""
    stage.configs, stage.replicas, stage.since = {}, [], {}


def rest(stage: Stage) -> None:
    """Scaled to none by the spec, and up again."""
    present = stage.of
    stage.of = deployed(NEW_MODEL, CANARY, scaling={"replicas": 0})
    for _ in range(3):
        stage.act()
    assert stage.configs == {}
    stage.of = present


@pytest.mark.parametrize("lose", [lose_pool, rest], ids=["the pool is lost", "it is scaled to none"])
def test_one_that_was_turned_back_does_not_serve_after_all_are_gone(lose: Callable[[Stage], None]) -> None:
    stage = begun(behaviours={NEW: Behaviour(failed=0.2)})
    stage.until("RolledBack")
    lose(stage)
    for _ in range(10):
        made = stage.act()
    assert (stage.weights, set(stage.configs), stage.size(OLD)) == ({OLD: 100}, {OLD}, 1)
    assert stage.configs[OLD]["args"]["replica"]["storageUri"] == OLD_MODEL
    assert (stage.judged.phase, stage.status.active_revision) == ("RolledBack", OLD)
    assert condition(made, Kind.READY) == ("True", Reason.READY)


@pytest.mark.parametrize("lose", [lose_pool, rest], ids=["the pool is lost", "it is scaled to none"])
def test_a_rollout_goes_on_where_it_was_after_all_replicas_are_gone(lose: Callable[[Stage], None]) -> None:
    stage = begun()
    stage.until("Stepping")
    lose(stage)
    for _ in range(3):
        stage.act()
    assert (stage.judged.phase, stage.weights[NEW]) == ("Stepping", 1)
    assert set(stage.configs) == {OLD, NEW, YOUNG}
    stage.until("Watching")


def test_a_clock_that_is_set_back_is_not_waited_for() -> None:
    stage = begun()
    stage.until("Stepping")
    stage.now -= 7200
    for each in stage.replicas:
        each.born -= 7200  # they tell their age by a clock that nobody sets
    stage.until("Watching", 200)
