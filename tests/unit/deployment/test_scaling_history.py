"""`status.scalingHistory`: what changed the number of replicas, kept so that a restarted operator goes on with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.telling import Telling
from tests.unit.deployment.world import NEW, SERVE, World, deployment, gateway, serve_app

from penstock import names
from penstock.api.pool import GroupStatus, WorkerGroup
from penstock.api.v1alpha1 import InferenceDeploymentStatus, ScalingBound, ScalingChange
from penstock.routing.leases import ReplicaStats
from penstock.scaling.policy import ScalingRule
from penstock_operator.deployment.news import SCALED, news
from penstock_operator.deployment.observed import Pool
from penstock_operator.deployment.plan import plan
from penstock_operator.deployment.scaling_trace import scaling_spans
from penstock_operator.quota.plan import Excess

LOADED = ReplicaStats(in_flight=15.25, arrival_rate=30.0)


def look(
    wanted: int, before: InferenceDeploymentStatus | None, now: float, **more: object
) -> InferenceDeploymentStatus:
    """The status after a look at a deployment of which Serve wants so many replicas."""
    of = deployment(scaling=more.pop("scaling", {"minReplicas": 1, "maxReplicas": 8, "targetInFlightRequests": 16}))
    if before is not None:
        of = of.model_copy(update={"status": before})
    app = replace(serve_app(of, running=int(str(more.pop("running", wanted))), wanted=wanted), **more)  # type: ignore[arg-type]  # test data
    stats = LOADED if wanted > 1 else ReplicaStats()
    status = plan(World(of, (app,), (gateway({NEW: 100}, {NEW: 4}, stats=stats),)).observed(), now).status
    assert status is not None
    return status


def numbers(status: InferenceDeploymentStatus) -> list[tuple[int, int]]:
    return [(each.from_replicas, each.to_replicas) for each in status.scaling_history]


def test_a_change_is_told_with_its_rule_its_inputs_and_its_time() -> None:
    last = look(4, look(1, None, 1000.0), 1060.0).scaling_history[-1]
    assert (last.from_replicas, last.to_replicas, last.rule) == (1, 4, ScalingRule.IN_FLIGHT)
    assert last.reason == Telling("61 in flight target 16")
    assert last.time == "1970-01-01T00:17:40Z"
    assert (last.inputs["inFlight"], last.inputs["reporting"], last.inputs["requestsPerSecond"]) == ("61", "4", "120")
    assert last.bound_by is None


def test_the_same_number_again_is_no_change() -> None:
    first = look(4, look(1, None, 1000.0), 1060.0)
    again = look(4, first, 1070.0)
    assert again.scaling_history == first.scaling_history
    assert numbers(again) == [(0, 1), (1, 4)]


def test_an_operator_that_was_away_finds_the_number_and_goes_on() -> None:
    """Nothing is remembered but the status: what changed meanwhile is one change, from the last one that is known."""
    before = InferenceDeploymentStatus.model_validate_json(look(2, None, 1000.0).model_dump_json())
    assert numbers(look(5, before, 2000.0)) == [(0, 2), (2, 5)]


def test_the_history_is_bounded_and_the_oldest_go() -> None:
    status = None
    for turn in range(50):
        status = look(2 + turn % 2, status, 1000.0 + turn)
    assert status is not None
    assert len(status.scaling_history) == 20
    assert numbers(status)[-1] == (2, 3)


@pytest.mark.parametrize(
    ("name", "scaling", "wanted", "bound"),
    [
        ("the maximum", {"minReplicas": 1, "maxReplicas": 3, "targetInFlightRequests": 16}, 3, ScalingBound.MAXIMUM),
        ("the minimum", {"minReplicas": 6, "maxReplicas": 8, "targetInFlightRequests": 16}, 6, ScalingBound.MINIMUM),
        ("nothing", {"minReplicas": 1, "maxReplicas": 8, "targetInFlightRequests": 16}, 4, None),
    ],
)
def test_what_bound_the_number_is_told(
    name: str, scaling: dict[str, object], wanted: int, bound: ScalingBound | None
) -> None:
    assert look(wanted, None, 1000.0, scaling=scaling).scaling_history[-1].bound_by is bound, name


def test_replicas_that_wait_for_a_node_are_told_of_the_last_change() -> None:
    first = look(4, look(1, None, 1000.0), 1060.0)
    starting = look(4, first, 1070.0, running=2, waiting_since=1061.0)
    assert starting.scaling_history[-1].bound_by is None, "any replica is without a node until it has started"
    waiting = look(4, starting, 1072.0, running=2, waiting_since=1061.0)
    assert waiting.scaling_history[-1].bound_by is ScalingBound.NODES
    assert len(waiting.scaling_history) == len(first.scaling_history)


def bound_of(world: World, now: float, **changes: object) -> ScalingBound | None:
    status = plan(replace(world.observed(), **changes), now).status  # type: ignore[arg-type]  # test data
    assert status is not None
    return status.scaling_history[-1].bound_by


def crowded(wanted: int, running: int, *, stats: ReplicaStats = LOADED, waiting_since: float | None = None) -> World:
    """One whose last change is the wanted number already."""
    scaling = {"minReplicas": 1, "maxReplicas": 8, "targetInFlightRequests": 16}
    of = deployment(scaling=scaling, resources={"cpu": "2"})
    before = InferenceDeploymentStatus(
        scaling_history=(
            ScalingChange(time="1970-01-01T00:00:00Z", from_replicas=1, to_replicas=wanted, rule=ScalingRule.RATE),
        )
    )
    app = replace(serve_app(of, running=running, wanted=wanted), waiting_since=waiting_since)
    seen = gateway({names.revision(of): 100}, {names.revision(of): running}, stats=stats)
    return World(of.model_copy(update={"status": before}), (app,), (seen,))


def test_a_tenants_quota_that_lets_no_more_start_is_told_as_the_bound() -> None:
    """Serve wants no other number then, so that the last change is the one that says it."""
    full = Excess("The TenantQuota team allows 2 replicas", 2)
    busy, quiet = crowded(2, 2, stats=ReplicaStats(in_flight=60)), crowded(2, 2, stats=ReplicaStats(in_flight=16))
    assert bound_of(busy, 1000.0, quota=full) is ScalingBound.QUOTA
    assert bound_of(busy, 1000.0) is None, "there is no quota"
    assert bound_of(quiet, 1000.0, quota=full) is None, "load asks for no more"


@pytest.mark.parametrize(
    ("name", "group", "message", "bound"),
    [
        (
            "a quota",
            "cpu",
            'FailedCreatePod: pods "w" is forbidden: exceeded quota: team, requested: cpu=4',
            ScalingBound.QUOTA,
        ),
        ("a quota on workers that hold no replica", "small", "exceeded quota: team", ScalingBound.NODES),
        ("no room on the nodes", "cpu", "0/3 nodes are available", ScalingBound.NODES),
    ],
)
def test_a_quota_that_refuses_the_pods_of_workers_is_told_as_the_bound(
    name: str, group: str, message: str, bound: ScalingBound
) -> None:
    world = crowded(4, 2, waiting_since=985.0)
    groups = tuple(WorkerGroup(name=each, cpu=cpu, memory="8Gi") for each, cpu in (("cpu", "4"), ("small", "1")))
    workers = tuple(GroupStatus(name=each, message=message if each == group else "") for each in ("cpu", "small"))
    pool = Pool(SERVE, world.apps, groups=groups, workers=workers)
    assert bound_of(world, 1000.0, pool=pool) is bound, name


OWNER = ("vision", "digits", "u-1")


def test_each_change_but_the_first_is_a_span_with_inputs_rule_result_and_bound() -> None:
    first, second = look(1, None, 1000.0), look(8, look(1, None, 1000.0), 1060.0)
    (span,) = scaling_spans(OWNER, first, second)
    told = dict(span.attributes)
    assert (span.name, span.start_ns, span.end_ns, span.parent) == ("scaling", 1060 * 10**9, 1060 * 10**9, None)
    assert (told["penstock.namespace"], told["penstock.model.name"], told["penstock.revision"]) == (
        "vision",
        "digits",
        NEW,
    )
    assert (told["penstock.scaling.from"], told["penstock.scaling.to"]) == (1, 8)
    assert (told["penstock.scaling.rule"], told["penstock.scaling.reason"]) == ("InFlight", Telling("61 in flight"))
    assert told["penstock.scaling.input.inFlight"] == 61.0
    assert "penstock.scaling.bound_by" not in told
    assert not scaling_spans(OWNER, InferenceDeploymentStatus(), first)
    assert not scaling_spans(OWNER, second, second)


def test_a_change_that_is_told_again_after_a_kill_is_the_same_span_and_another_is_another() -> None:
    first = look(1, None, 1000.0)
    scaling = {"minReplicas": 1, "maxReplicas": 4, "targetInFlightRequests": 16}
    (span,) = scaling_spans(OWNER, first, look(4, first, 1060.0, scaling=scaling))
    (later,) = scaling_spans(OWNER, first, look(4, first, 1062.0, scaling=scaling))
    (other,) = scaling_spans(OWNER, first, look(3, first, 1060.0, scaling=scaling))
    assert span.context == later.context != other.context


def test_a_span_says_what_bound_the_number() -> None:
    first = look(1, None, 1000.0)
    (span,) = scaling_spans(
        OWNER, first, look(3, first, 1060.0, scaling={"maxReplicas": 3, "targetInFlightRequests": 16})
    )
    assert (span.attributes["penstock.scaling.to"], span.attributes["penstock.scaling.bound_by"]) == (3, "Maximum")


def test_a_fixed_number_is_told_as_such() -> None:
    assert look(3, None, 1000.0, scaling={"replicas": 3}).scaling_history[-1].rule is ScalingRule.FIXED


def test_each_change_but_the_first_is_an_event() -> None:
    first, second = look(1, None, 1000.0), look(4, look(1, None, 1000.0), 1060.0)
    said = [each.message for each in news(first, second) if each.reason == SCALED]
    assert said == [Telling("From 1 to 4 replicas 61 in flight")]
    assert not [each for each in news(InferenceDeploymentStatus(), first) if each.reason == SCALED]
    assert not [each for each in news(second, second) if each.reason == SCALED]


def test_a_change_says_all_of_itself_on_the_wire() -> None:
    change = look(4, look(1, None, 1000.0), 1060.0).scaling_history[-1]
    assert ScalingChange.model_validate_json(change.model_dump_json(exclude_none=True)) == change


def test_a_scheduled_floor_holds_and_is_told_as_the_bound() -> None:
    """1970-01-01 was a Thursday."""
    floor = {"days": ["Thu"], "start": "00:00", "end": "01:00", "minReplicas": 3}
    of = deployment(scaling={"minReplicas": 1, "maxReplicas": 8, "schedule": [floor]})
    app = serve_app(of, running=3, wanted=3)
    world = World(of, (app,), (gateway({NEW: 100}, {NEW: 3}),))
    made = plan(world.observed(), 3590.0)
    assert made.applications is not None
    assert made.status is not None
    assert made.applications[0]["deployments"][0]["autoscaling_config"]["min_replicas"] == 3
    assert made.status.scaling_history[-1].bound_by is ScalingBound.SCHEDULE
    assert made.requeue is not None
    assert made.requeue.after_seconds == 10.0
    after = plan(world.observed(), 3600.0).applications
    assert after is not None
    assert after[0]["deployments"][0]["autoscaling_config"]["min_replicas"] == 1
