"""The plan of an `InferenceDeployment`, by what is observed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.telling import Telling, assert_tells
from tests.unit.deployment.world import NEW, NEW_MODEL, NOW, OLD, OLD_MODEL, World, deployment, gateway, serve_app

from penstock import names
from penstock.api.conditions import REASONS, Fault, Reason
from penstock.api.conditions import DeploymentCondition as Kind
from penstock.api.meta import Condition, ConditionStatus
from penstock.api.v1alpha1 import InferenceDeploymentStatus
from penstock.api.verdicts import timestamp
from penstock.routing.leases import ReplicaStats
from penstock.serving.arguments import FAILURE_MARKER, Attempt, StartFailure
from penstock_operator.deployment.observed import ApplicationState, GatewayProblem, Node, PoolProblem
from penstock_operator.deployment.plan import Plan, invalid_route, plan

FAILED = ApplicationState.DEPLOY_FAILED


def failing(reason: Reason, message: str = "It is so.") -> str:
    """Serve's message on a replica that says why it does not start."""
    return f"Traceback…\nX: {FAILURE_MARKER}{StartFailure(reason=reason, message=message).model_dump_json()}"


DIGEST = failing(Reason.DIGEST_MISMATCH, "It is sha256:aa, not sha256:bb.")
NODE = Node("10.0.0.1", {"CPU": 4.0, "memory": 2.0**33}, {"CPU": 4.0, "memory": 2.0**33})
FULL = Node("10.0.0.1", {"CPU": 4.0, "memory": 2.0**33}, {"CPU": 0.5, "memory": 2.0**33})


def verdict(result: Plan, kind: Kind) -> tuple[str, str]:
    assert result.status is not None
    found = next(each for each in result.status.conditions if each.type == kind)
    return found.status.value, found.reason


def message(result: Plan, kind: Kind) -> str:
    assert result.status is not None
    return next(each.message for each in result.status.conditions if each.type == kind)


def revisions(result: Plan) -> list[str]:
    assert result.applications is not None
    return sorted(each["args"]["replica"]["revision"] for each in result.applications)


SETTLED = World(deployment(), (serve_app(deployment()),), (gateway({NEW: 100}, {NEW: 1}),))
OLD_SERVES = World(deployment(NEW_MODEL), (serve_app(deployment(OLD_MODEL)),), (gateway({OLD: 100}, {OLD: 1}),))


def starting(**changes: object) -> World:
    app = serve_app(deployment(), ApplicationState.DEPLOYING, running=0, **changes)  # type: ignore[arg-type]  # test data
    return World(deployment(), (app,), (gateway({NEW: 100}),))


CONFLICT = World(deployment(), (replace(serve_app(deployment()), arguments=None),))
OF_A_NEWER_RELEASE = InferenceDeploymentStatus(
    conditions=(Condition(type=Kind.MODEL_RESOLVED, status=ConditionStatus.FALSE, reason="OfANewerRelease"),)
)
CONDITIONS = [
    ("nothing there yet: the application is declared", World(deployment()), Kind.PROGRESSING, "True", Reason.PENDING),
    ("nothing there yet: not serving", World(deployment()), Kind.SERVING, "False", Reason.PENDING),
    ("replicas start: progressing", starting(), Kind.PROGRESSING, "True", Reason.STARTING_REPLICAS),
    ("replicas start: not ready", starting(), Kind.READY, "False", Reason.STARTING_REPLICAS),
    ("one replica answers: ready", SETTLED, Kind.READY, "True", Reason.READY),
    ("one replica answers: the model is loaded", SETTLED, Kind.MODEL_RESOLVED, "True", Reason.MODEL_LOADED),
    ("all is rolled out: nothing progresses", SETTLED, Kind.PROGRESSING, "True", Reason.ROLLED_OUT),
    (
        "a digest that differs is the model's fault",
        SETTLED.but(
            apps=(serve_app(deployment(), FAILED, running=0, message=DIGEST),), gateways=(gateway({NEW: 100}),)
        ),
        Kind.MODEL_RESOLVED,
        "False",
        Reason.DIGEST_MISMATCH,
    ),
    (
        "a digest that differs is why it is not ready",
        SETTLED.but(
            apps=(serve_app(deployment(), FAILED, running=0, message=DIGEST),), gateways=(gateway({NEW: 100}),)
        ),
        Kind.READY,
        "False",
        Reason.DIGEST_MISMATCH,
    ),
    (
        "a failed import says DeployFailed",
        SETTLED.but(
            apps=(serve_app(deployment(), FAILED, running=0, message="Traceback\nModuleNotFoundError: No module 'x'"),),
            gateways=(gateway({NEW: 100}),),
        ),
        Kind.SERVING,
        "False",
        Reason.DEPLOY_FAILED,
    ),
    (
        "a failure that Serve already tells while it deploys is told",
        starting(message=DIGEST),
        Kind.MODEL_RESOLVED,
        "False",
        Reason.DIGEST_MISMATCH,
    ),
    (
        "a replica without a node for ten seconds is unschedulable",
        starting(waiting_since=NOW - 11).but(nodes=(FULL,)),
        Kind.READY,
        "False",
        Reason.UNSCHEDULABLE,
    ),
    (
        "a replica that waits although a node has room is being started",
        starting(waiting_since=NOW - 11).but(nodes=(FULL, NODE)),
        Kind.PROGRESSING,
        "True",
        Reason.STARTING_REPLICAS,
    ),
    (
        "a replica without a node for five seconds is starting",
        starting(waiting_since=NOW - 5).but(nodes=(FULL,)),
        Kind.READY,
        "False",
        Reason.STARTING_REPLICAS,
    ),
    (
        "no pool: told",
        World(deployment(), problem=PoolProblem(Reason.POOL_NOT_FOUND, "create one", exists=False)),
        Kind.READY,
        "False",
        Reason.POOL_NOT_FOUND,
    ),
    (
        "what was said of the model by a newer release is not known: pending",
        World(deployment(status=OF_A_NEWER_RELEASE), problem=PoolProblem(Reason.POOL_UNREACHABLE, "no answer")),
        Kind.MODEL_RESOLVED,
        "Unknown",
        Reason.PENDING,
    ),
    (
        "the pool refuses the token: told",
        World(deployment(), problem=PoolProblem(Reason.POOL_UNAUTHORIZED, "token")),
        Kind.POOL_READY,
        "False",
        Reason.POOL_UNAUTHORIZED,
    ),
    (
        "the pool is gone but replicas answer: serving",
        World(
            deployment(status=InferenceDeploymentStatus(active_revision=NEW)),
            gateways=(gateway({NEW: 100}, {NEW: 2}),),
            problem=PoolProblem(Reason.POOL_UNREACHABLE, "no answer"),
        ),
        Kind.SERVING,
        "True",
        Reason.REPLICAS_READY,
    ),
    (
        "no gateway answers: unknown whether it serves",
        SETTLED.but(gateways=(GatewayProblem("refused"),)),
        Kind.SERVING,
        "Unknown",
        Reason.GATEWAY_UNREACHABLE,
    ),
    (
        "no gateway answers: not ready",
        SETTLED.but(gateways=(GatewayProblem("refused"),)),
        Kind.READY,
        "False",
        Reason.GATEWAY_UNREACHABLE,
    ),
    (
        "at zero replicas by idleness it serves",
        World(
            deployment(scaling={"minReplicas": 0}),
            (serve_app(deployment(scaling={"minReplicas": 0}), running=0, wanted=0),),
            (gateway({NEW: 100}),),
        ),
        Kind.READY,
        "True",
        Reason.READY,
    ),
    (
        "the new revision fails while the old one serves: serving",
        OLD_SERVES.but(apps=(*OLD_SERVES.apps, serve_app(deployment(), FAILED, running=0, message=DIGEST))),
        Kind.SERVING,
        "True",
        Reason.REPLICAS_READY,
    ),
    (
        "the new revision fails while the old one serves: not progressing",
        OLD_SERVES.but(apps=(*OLD_SERVES.apps, serve_app(deployment(), FAILED, running=0, message=DIGEST))),
        Kind.PROGRESSING,
        "False",
        Reason.DIGEST_MISMATCH,
    ),
    (
        "the new revision fails while the old one serves: not ready",
        OLD_SERVES.but(apps=(*OLD_SERVES.apps, serve_app(deployment(), FAILED, running=0, message=DIGEST))),
        Kind.READY,
        "False",
        Reason.DIGEST_MISMATCH,
    ),
    (
        "an application of another's with our name is a conflict",
        CONFLICT,
        Kind.READY,
        "False",
        Reason.NAME_CONFLICT,
    ),
]


@pytest.mark.parametrize(
    ("world", "kind", "status", "reason"), [row[1:] for row in CONDITIONS], ids=[row[0] for row in CONDITIONS]
)
def test_conditions(world: World, kind: Kind, status: str, reason: Reason) -> None:
    assert verdict(plan(world.observed(), NOW), kind) == (status, reason)


BOTH = (serve_app(deployment(OLD_MODEL)), serve_app(deployment(NEW_MODEL)))
ROLLS = [
    ("nothing there: the wanted revision is declared and routed", World(deployment()), [NEW], {NEW: 100}),
    ("a new model: it starts beside the old, which keeps the requests", OLD_SERVES, sorted([OLD, NEW]), {OLD: 100}),
    (
        "the new one runs but no gateway lists it: the old keeps the requests",
        OLD_SERVES.but(apps=BOTH),
        sorted([OLD, NEW]),
        {OLD: 100},
    ),
    (
        "the new one runs and the gateway lists it: it gets the requests, and the old stays",
        OLD_SERVES.but(apps=BOTH, gateways=(gateway({OLD: 100}, {OLD: 1}, listed_only={NEW: 1}),)),
        sorted([OLD, NEW]),
        {NEW: 100},
    ),
    (
        "of two gateways one does not list it: the old keeps the requests",
        OLD_SERVES.but(
            apps=BOTH,
            gateways=(
                gateway({OLD: 100}, {OLD: 1}, listed_only={NEW: 1}),
                gateway({OLD: 100}, {OLD: 1}),
            ),
        ),
        sorted([OLD, NEW]),
        {OLD: 100},
    ),
    (
        "the old one runs three: one new is not enough",
        OLD_SERVES.but(
            of=deployment(scaling={"maxReplicas": 4}),
            apps=(serve_app(deployment(OLD_MODEL), running=3, wanted=3), serve_app(deployment())),
            gateways=(gateway({OLD: 100}, {OLD: 3}, listed_only={NEW: 1}),),
        ),
        sorted([OLD, NEW]),
        {OLD: 100},
    ),
    (
        "requests go to the new one, and the old still receives: both stay",
        OLD_SERVES.but(apps=BOTH, gateways=(gateway({NEW: 100}, {NEW: 1, OLD: 1}),)),
        sorted([OLD, NEW]),
        {NEW: 100},
    ),
    (
        "requests go to the new one alone: the old is dropped",
        OLD_SERVES.but(apps=BOTH, gateways=(gateway({NEW: 100}, {NEW: 1}, listed_only={OLD: 1}),)),
        [NEW],
        {NEW: 100},
    ),
    (
        "requests are to go to the new one alone, but the gateway is about it still: both stay",
        OLD_SERVES.but(apps=BOTH, gateways=(gateway({NEW: 100}, {NEW: 1}, listed_only={OLD: 1}, settled=False),)),
        sorted([OLD, NEW]),
        {NEW: 100},
    ),
    (
        "the model is changed back before the switch: the new one is dropped",
        World(deployment(OLD_MODEL), BOTH, (gateway({OLD: 100}, {OLD: 1}, listed_only={NEW: 1}),)),
        [OLD],
        {OLD: 100},
    ),
    (
        "the model is changed back after the switch: the requests go back",
        World(deployment(OLD_MODEL), BOTH, (gateway({NEW: 100}, {NEW: 1}, listed_only={OLD: 1}),)),
        sorted([OLD, NEW]),
        {OLD: 100},
    ),
    (
        "the gateways disagree after a half-done switch: the wanted one wins",
        World(deployment(), BOTH, (gateway({NEW: 100}, {NEW: 1}), gateway({OLD: 100}, {OLD: 1}))),
        sorted([OLD, NEW]),
        {NEW: 100},
    ),
    (
        "the gateway was restarted and knows no route: the status tells which is active",
        World(
            deployment(status=InferenceDeploymentStatus(active_revision=OLD)),
            (BOTH[0], serve_app(deployment(), ApplicationState.DEPLOYING, running=0)),
            (gateway(None, {}),),
        ),
        sorted([OLD, NEW]),
        {OLD: 100},
    ),
    (
        "the old one's application is gone: the wanted one gets the requests",
        World(deployment(), (serve_app(deployment()),), (gateway({OLD: 100}),)),
        [NEW],
        {NEW: 100},
    ),
    (
        "a third revision that is neither active nor wanted is dropped",
        OLD_SERVES.but(apps=(*BOTH, serve_app(deployment("file:///models/third")))),
        sorted([OLD, NEW]),
        {OLD: 100},
    ),
    (
        "scaled to none by the user: no application, no revision",
        SETTLED.but(of=deployment(scaling={"replicas": 0})),
        [],
        {},
    ),
]


@pytest.mark.parametrize(
    ("world", "applications", "weights"), [row[1:] for row in ROLLS], ids=[row[0] for row in ROLLS]
)
def test_rollout(world: World, applications: list[str], weights: dict[str, int]) -> None:
    result = plan(world.observed(), NOW)
    assert revisions(result) == applications
    assert result.route is not None
    assert result.route.revisions == weights


def test_what_is_settled_is_planned_as_it_is_deployed() -> None:
    result = plan(SETTLED.observed(), NOW)
    assert result.applications == tuple(app.config for app in SETTLED.apps)
    assert result.requeue is not None
    assert result.requeue.after_seconds >= 30


@pytest.mark.parametrize("wanted", [0, 2], ids=["one too many", "one too few"])
def test_while_replicas_come_or_go_it_is_looked_at_soon(wanted: int) -> None:
    result = plan(SETTLED.but(apps=(serve_app(deployment(), wanted=wanted),)).observed(), NOW)
    assert result.requeue is not None
    assert result.requeue.after_seconds <= 5


def test_the_status_of_what_is_settled_does_not_change_with_time() -> None:
    first = plan(SETTLED.observed(), NOW)
    assert first.status is not None
    again = plan(SETTLED.but(of=deployment(status=first.status)).observed(), NOW + 500)
    assert again.status == first.status


def test_the_new_revision_starts_with_as_many_replicas_as_the_old_one_runs() -> None:
    world = OLD_SERVES.but(
        of=deployment(scaling={"maxReplicas": 4}), apps=(serve_app(deployment(OLD_MODEL), running=3, wanted=3),)
    )
    planned = {a["args"]["replica"]["revision"]: a for a in plan(world.observed(), NOW).applications or ()}
    assert planned[NEW]["deployments"][0]["autoscaling_config"]["min_replicas"] == 3


def test_a_batch_size_changes_in_place_in_both_revisions_of_a_roll() -> None:
    world = OLD_SERVES.but(of=deployment(batching={"maxBatchSize": 7}))
    sizes = {
        a["args"]["replica"]["revision"]: a["deployments"][0]["user_config"]["batching"]["maxBatchSize"]
        for a in plan(world.observed(), NOW).applications or ()
    }
    assert sizes == {OLD: 7, NEW: 7}


def attempt_of(result: Plan) -> Attempt:
    assert result.applications is not None
    return Attempt.model_validate(result.applications[0]["args"]["attempt"])


ATTEMPTS = [
    ("before its time a failed attempt stays", FAILED, Attempt(number=0, attempted_at=int(NOW) - 9), 0),
    ("after ten seconds the second attempt is made", FAILED, Attempt(number=0, attempted_at=int(NOW) - 10), 1),
    ("the third waits for twenty", FAILED, Attempt(number=1, attempted_at=int(NOW) - 19), 1),
    ("the tenth waits for five minutes", FAILED, Attempt(number=9, attempted_at=int(NOW) - 299), 9),
    ("and then it is made", FAILED, Attempt(number=9, attempted_at=int(NOW) - 300), 10),
    ("after half an hour the back-off begins anew", FAILED, Attempt(number=9, attempted_at=int(NOW) - 1801), 0),
    ("what deploys is not tried again", ApplicationState.DEPLOYING, Attempt(number=2, attempted_at=1), 2),
    ("what runs keeps its attempt", ApplicationState.RUNNING, Attempt(number=2, attempted_at=1), 2),
]


@pytest.mark.parametrize(
    ("state", "attempt", "number"), [row[1:] for row in ATTEMPTS], ids=[row[0] for row in ATTEMPTS]
)
def test_attempts(state: ApplicationState, attempt: Attempt, number: int) -> None:
    world = World(deployment(), (serve_app(deployment(), state, running=0, attempt=attempt),))
    planned = attempt_of(plan(world.observed(), NOW))
    assert planned.number == number
    assert planned.attempted_at == (int(NOW) if planned != attempt else attempt.attempted_at)


def test_while_a_failed_model_is_tried_again_the_reason_stays() -> None:
    failed = World(deployment(), (serve_app(deployment(), FAILED, running=0, message=DIGEST),))
    status = plan(failed.observed(), NOW).status
    again = World(
        deployment(status=status),
        (serve_app(deployment(), ApplicationState.DEPLOYING, running=0, attempt=Attempt(number=1, attempted_at=1)),),
    )
    planned = plan(again.observed(), NOW)
    assert verdict(planned, Kind.READY) == ("False", Reason.DIGEST_MISMATCH)
    assert verdict(planned, Kind.PROGRESSING) == ("False", Reason.DIGEST_MISMATCH)


UNAVAILABLE = [
    ("a model that cannot be loaded", starting(message=DIGEST), "DigestMismatch: "),
    ("a replica that no node can hold", starting(waiting_since=NOW - 11).but(nodes=(FULL,)), "Unschedulable: "),
    ("a replica whose Secret is not mounted", starting(message=failing(Reason.SECRET_NOT_FOUND)), "SecretNotFound: "),
    ("a node's cache that is full", starting(message=failing(Reason.CACHE_UNAVAILABLE)), "CacheUnavailable: "),
    ("settings that no replica takes", starting(message=failing(Reason.INVALID_SPEC)), "InvalidSpec: "),
    ("a replica that ended, of which Ray starts another", starting(message=failing(Reason.REPLICA_FAILED)), None),
    ("a replica that is starting", starting(), None),
    ("a model that serves", SETTLED, None),
    ("another's application of the same name", CONFLICT, "NameConflict: "),
]


@pytest.mark.parametrize(("world", "problem"), [row[1:] for row in UNAVAILABLE], ids=[row[0] for row in UNAVAILABLE])
def test_requests_are_told_what_keeps_a_model_from_starting(world: World, problem: str | None) -> None:
    route = plan(world.observed(), NOW).route
    assert route is not None
    assert (route.unavailable or "").startswith(problem or "")
    assert (route.unavailable is None) == (problem is None)


@pytest.mark.parametrize("reason", sorted(Reason))
def test_a_start_that_fails_is_told_as_its_reason_says(reason: Reason) -> None:
    made = plan(starting(message=failing(reason)).observed(), NOW)
    assert made.route is not None
    assert verdict(made, Kind.PROGRESSING) == ("False", reason)
    assert made.route.unavailable == (f"{reason}: It is so." if REASONS[reason].refuses else None)
    of_model = REASONS[reason].fault is Fault.MODEL
    assert verdict(made, Kind.MODEL_RESOLVED) == (("False", reason) if of_model else ("Unknown", Reason.PENDING))


def test_what_serves_under_the_name_goes_on_where_another_s_application_takes_the_next_name() -> None:
    assert plan(CONFLICT.but(gateways=(gateway({OLD: 100}, {OLD: 1}),)).observed(), NOW).route is None


def test_requests_to_what_cannot_be_carried_out_are_told_so_unless_something_serves() -> None:
    told = invalid_route(World(deployment()).observed(), "It is so.", NOW)
    assert told is not None
    assert (told.unavailable, told.revisions) == ("InvalidSpec: It is so.", {})
    assert invalid_route(SETTLED.observed(), "It is so.", NOW) is None


def test_a_failure_and_the_time_of_the_next_attempt_are_sentences() -> None:
    failed = World(deployment(), (serve_app(deployment(), FAILED, running=0, message=DIGEST),))
    assert_tells(message(plan(failed.observed(), NOW), Kind.PROGRESSING), "next attempt", timestamp(NOW - 90))


def test_unschedulable_says_what_is_needed_and_what_there_is() -> None:
    of = deployment(resources={"cpu": "64"})
    app = serve_app(of, ApplicationState.DEPLOYING, running=0, waiting_since=NOW - 20)
    text = message(plan(World(of, (app,), nodes=(NODE,)).observed(), NOW), Kind.PROGRESSING)
    assert "64 CPU" in text
    assert "4 CPU" in text


def test_the_wake_url_is_declared_only_where_zero_replicas_are_allowed() -> None:
    route = plan(World(deployment(scaling={"minReplicas": 0, "maxReplicas": 2})).observed(), NOW).route
    assert route is not None
    assert route.wake_url == f"http://ray:8000/-/penstock/penstock-vision-digits-{NEW}"
    fixed = plan(World(deployment()).observed(), NOW).route
    assert fixed is not None
    assert fixed.wake_url is None


def test_requests_to_a_model_that_the_user_scaled_to_none_are_not_held() -> None:
    route = plan(World(deployment(scaling={"replicas": 0})).observed(), NOW).route
    assert route is not None
    assert route.max_held_requests == 0


def test_the_status_says_how_many_and_why() -> None:
    of = deployment(scaling={"minReplicas": 1, "maxReplicas": 8, "targetInFlightRequests": 16})
    world = World(
        of,
        (serve_app(of, running=4, wanted=4),),
        (gateway({NEW: 100}, {NEW: 4}, stats=ReplicaStats(in_flight=15.25)),),
    )
    status = plan(world.observed(), NOW).status
    assert status is not None
    assert (status.replicas.desired, status.replicas.ready) == (4, 4)
    assert status.replicas.reason == Telling("4 61 in flight target 16")


def test_the_status_has_the_digest_that_replicas_loaded_and_keeps_it_while_none_runs() -> None:
    of = deployment()
    world = World(of, (serve_app(of),), (gateway({NEW: 100}, {NEW: 1}, digest="sha256:abc"),))
    status = plan(world.observed(), NOW).status
    assert status is not None
    assert status.digest == "sha256:abc"
    asleep = World(deployment(status=status), (serve_app(of, running=0, wanted=0),), (gateway({NEW: 100}),))
    later = plan(asleep.observed(), NOW).status
    assert later is not None
    assert later.digest == "sha256:abc"


DELETED = timestamp(NOW - 5)
LONG_AGO = timestamp(NOW - 601)
UNREACHABLE = PoolProblem(Reason.POOL_UNREACHABLE, "no answer")
GOING = replace(serve_app(deployment()), state=ApplicationState.DELETING, config=None, arguments=None)
DELETIONS = [
    ("the application runs: it is dropped first", SETTLED.but(of=deployment(deleted_at=DELETED)), False, ()),
    (
        "the application is still going: wait",
        World(deployment(deleted_at=DELETED), (GOING,)),
        False,
        (),
    ),
    ("all is gone: release", World(deployment(deleted_at=DELETED)), True, ()),
    (
        "the route is still declared: wait",
        World(deployment(deleted_at=DELETED), gateways=(gateway({NEW: 100}),)),
        False,
        (),
    ),
    (
        "the pool object is gone: release",
        World(deployment(deleted_at=DELETED), problem=PoolProblem(Reason.POOL_NOT_FOUND, "none", exists=False)),
        True,
        None,
    ),
    (
        "the pool does not answer: wait",
        World(deployment(deleted_at=DELETED), problem=UNREACHABLE),
        False,
        None,
    ),
    (
        "the pool has not answered for ten minutes: release",
        World(deployment(deleted_at=LONG_AGO), problem=UNREACHABLE),
        True,
        None,
    ),
    (
        "a gateway has not answered for ten minutes: release",
        World(deployment(deleted_at=LONG_AGO), gateways=(GatewayProblem("refused"),)),
        True,
        (),
    ),
]


@pytest.mark.parametrize(
    ("world", "release", "applications"), [row[1:] for row in DELETIONS], ids=[row[0] for row in DELETIONS]
)
def test_deletion(world: World, *, release: bool, applications: tuple[object, ...] | None) -> None:
    result = plan(world.observed(), NOW)
    assert result.release is release
    assert result.applications == applications
    assert result.delete_route


def test_waiting_for_a_pool_at_deletion_says_so() -> None:
    result = plan(World(deployment(deleted_at=DELETED), problem=UNREACHABLE).observed(), NOW)
    assert_tells(message(result, Kind.PROGRESSING), "waiting pool", UNREACHABLE.message)


def test_a_deleted_object_without_our_finalizer_is_left_alone() -> None:
    assert plan(World(deployment(deleted_at=DELETED, finalizers=("other/one",))).observed(), NOW) == Plan()


def test_a_condition_keeps_its_time_while_its_status_is_the_same() -> None:
    before = Condition(
        type=Kind.SERVING,
        status=ConditionStatus.TRUE,
        reason=Reason.SCALED_TO_ZERO,
        last_transition_time="2026-01-01T00:00:00Z",
    )
    world = SETTLED.but(of=deployment(status=InferenceDeploymentStatus(conditions=(before,))))
    status = plan(world.observed(), NOW).status
    assert status is not None
    times = {each.type: each.last_transition_time for each in status.conditions}
    assert times[Kind.SERVING] == "2026-01-01T00:00:00Z"
    assert times[Kind.READY] == timestamp(NOW)


def test_the_names_are_those_of_the_contract() -> None:
    assert names.model_url("http://g/", "vision", "digits") == "http://g/vision/v2/models/digits"
    assert names.route_prefix("penstock-a-b-v1") == "/-/penstock/penstock-a-b-v1"
