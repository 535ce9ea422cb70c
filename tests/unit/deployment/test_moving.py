"""When a replica moves to another node, and which one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.deployment.world import NOW, SERVE, deployment, serve_app

from penstock.api.v1alpha1 import InferenceDeployment, Placement, ReplicaSpread
from penstock.serving.arguments import Move
from penstock_operator.clients.ray import ApplicationDetails, application
from penstock_operator.deployment.application import ServeApplication
from penstock_operator.deployment.moving import MOVE_SECONDS, PAUSE_SECONDS, may_move, plan_move, with_move
from penstock_operator.deployment.observed import Node, ObservedApplication, ObservedReplica, Pool

HOST, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
AT = int(NOW)


def node(name: str, *, free: float = 4.0, **labels: str) -> Node:
    known = {HOST: labels.get("host", ""), ZONE: labels.get("zone", "")}
    return Node("10.0.0.1", {"CPU": 4.0}, {"CPU": free}, {key: value for key, value in known.items() if value}, name)


def model(spread: ReplicaSpread = ReplicaSpread.NODE) -> InferenceDeployment:
    of = deployment(scaling={"minReplicas": 1, "maxReplicas": 3})
    return of.model_copy(update={"spec": of.spec.model_copy(update={"placement": Placement(spread=spread)})})


def app_on(*places: str, move: Move | None = None, changing: bool = False) -> ObservedApplication:
    """Replicas `r0`, `r1`, … on these nodes, the later ones started later."""
    replicas = tuple(ObservedReplica(f"r{n}", place, float(n)) for n, place in enumerate(places))
    app = serve_app(model(), running=len(places), wanted=len(places))
    return replace(app, replicas=replicas, move=move, changing=changing)


def planned(
    app: ObservedApplication,
    *nodes: Node,
    spread: ReplicaSpread = ReplicaSpread.NODE,
    settled: bool = True,
    at: float = NOW,
) -> Move | None:
    return plan_move(model(spread), app, Pool(SERVE, (app,), nodes), at, settled=settled)


BEGINS = {
    "two on one worker, and another has room": (("a", "a"), (node("a"), node("b")), ReplicaSpread.NODE),
    "three on one worker": (("a", "a", "a"), (node("a"), node("b")), ReplicaSpread.NODE),
    "on two workers of one node, and another node has room": (
        ("a", "b"), (node("a", host="1"), node("b", host="1"), node("c", host="2")), ReplicaSpread.NODE,
    ),
    "on one worker, and another one of the same node has room": (
        ("a", "a"), (node("a", host="1"), node("b", host="1")), ReplicaSpread.NODE,
    ),
    "on two nodes of one zone, and another zone has room": (
        ("a", "b"), (node("a", host="1", zone="x"), node("b", host="2", zone="x"), node("c", host="3", zone="y")), ReplicaSpread.ZONE,
    ),
    "no other zone has room, and another node has": (
        ("a", "a"), (node("a", host="1", zone="x"), node("b", host="2", zone="x"), node("c", free=0, zone="y")), ReplicaSpread.ZONE,
    ),
}  # fmt: skip

STAYS = {
    "one replica has nobody to be apart from": (("a",), (node("a"), node("b")), ReplicaSpread.NODE),
    "they are apart": (("a", "b"), (node("a"), node("b"), node("c")), ReplicaSpread.NODE),
    "the other worker is full": (("a", "a"), (node("a"), node("b", free=0.5)), ReplicaSpread.NODE),
    "there is no other": (("a", "a"), (node("a"),), ReplicaSpread.NODE),
    "nobody asks for it": (("a", "a"), (node("a"), node("b")), ReplicaSpread.NONE),
    "zones do not matter": (
        ("a", "b"), (node("a", host="1", zone="x"), node("b", host="2", zone="x"), node("c", host="3", zone="y")), ReplicaSpread.NODE,
    ),
    "where a replica's node is not known, nothing is": (("a", "gone"), (node("a"), node("b")), ReplicaSpread.NODE),
    "zones are not known, and they are on two nodes": (
        ("a", "b"), (node("a", host="1"), node("b", host="2"), node("c", host="3", zone="y")), ReplicaSpread.ZONE,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("places", "nodes", "spread"), BEGINS.values(), ids=BEGINS.keys())
def test_one_more_is_started_where(places: tuple[str, ...], nodes: tuple[Node, ...], spread: ReplicaSpread) -> None:
    expected = Move(under_way=True, replicas=len(places), until=AT + MOVE_SECONDS)
    assert planned(app_on(*places), *nodes, spread=spread) == expected


@pytest.mark.parametrize(("places", "nodes", "spread"), STAYS.values(), ids=STAYS.keys())
def test_nothing_moves_where(places: tuple[str, ...], nodes: tuple[Node, ...], spread: ReplicaSpread) -> None:
    assert planned(app_on(*places), *nodes, spread=spread) is None


TWO = (node("a"), node("b"))
ADDING = Move(under_way=True, replicas=2, until=AT + 100)
LEAVING = ADDING.model_copy(update={"leaving": "r1"})
REST = Move(under_way=False, leaving="r1", replicas=2, until=AT + 100)


def changed(move: Move, **update: Any) -> Move:
    return move.model_copy(update=update)


NEXT = {
    "none leaves before the one more runs": (app_on("a", "a", move=ADDING), ADDING),
    "nor while one takes other settings": (app_on("a", "a", "b", move=ADDING, changing=True), ADDING),
    "of those that share a worker the newer one leaves": (
        app_on("a", "a", "b", move=ADDING), changed(ADDING, leaving="r1"),
    ),
    "one that came to lie with the others leaves, and another comes in its place": (
        app_on("a", "a", "a", move=ADDING), changed(ADDING, leaving="r2", misses=1, again=True),
    ),
    "that one is waited for": (
        app_on("a", "a", move=changed(ADDING, leaving="gone", misses=1, again=True)),
        changed(ADDING, leaving="gone", misses=1, again=True),
    ),
    "and where it is elsewhere, one of the others leaves": (
        app_on("a", "a", "b", move=changed(ADDING, leaving="gone", misses=1, again=True)), changed(ADDING, leaving="r1"),
    ),
    "but not for ever": (
        app_on("a", "a", "a", move=changed(ADDING, leaving="gone", misses=3, again=True)),
        changed(ADDING, leaving="r2", misses=4),
    ),
    "it is waited for": (app_on("a", "a", "b", move=LEAVING), LEAVING),
    "once it has left, nothing moves for a while": (
        app_on("a", "b", move=changed(LEAVING, leaving="gone")),
        Move(under_way=False, leaving="gone", replicas=2, until=AT + PAUSE_SECONDS),
    ),
    "what takes too long is given up": (
        app_on("a", "a", move=changed(ADDING, until=AT)), changed(ADDING, under_way=False, until=AT + PAUSE_SECONDS),
    ),
    "a pause is kept": (app_on("a", "a", move=REST), REST),
    "and ends": (
        app_on("a", "a", move=changed(REST, until=AT)), Move(under_way=True, replicas=2, until=AT + MOVE_SECONDS),
    ),
    "none begins while replicas come or go": (app_on("a", "a", changing=True), None),
}  # fmt: skip


@pytest.mark.parametrize(("app", "expected"), NEXT.values(), ids=NEXT.keys())
def test_a_move_goes_on(app: ObservedApplication, expected: Move | None) -> None:
    assert planned(app, *TWO) == expected


def test_a_move_ends_where_something_else_is_under_way() -> None:
    app = app_on("a", "a", "b", move=ADDING)
    assert planned(app, *TWO, settled=False) == changed(ADDING, under_way=False, until=AT + PAUSE_SECONDS)
    assert planned(app_on("a", "a"), *TWO, settled=False) is None


def user_config(application: ServeApplication) -> dict[str, Any]:
    found: dict[str, Any] = application["deployments"][0]["user_config"]
    return found


def test_while_one_moves_there_may_be_one_more_and_what_is_at_rest_is_declared_as_before() -> None:
    built = dict(serve_app(model()).config or {})
    assert with_move(built, None) == built
    moving, resting = with_move(built, ADDING), with_move(built, REST)
    assert [each["deployments"][0]["autoscaling_config"]["max_replicas"] for each in (built, moving, resting)] == [
        3,
        4,
        3,
    ]
    assert Move.model_validate(user_config(moving)["move"]) == ADDING
    assert Move.model_validate(user_config(resting)["move"]) == REST


def seen(state: str, target: int, move: Move | None, *replicas: str) -> ObservedApplication:
    """As Serve tells of an application whose replicas are in these states."""
    listed = [
        {"replica_id": f"r{n}", "state": each, "node_id": "a", "start_time_s": 0.0} for n, each in enumerate(replicas)
    ]
    deployed = {"status": "HEALTHY", "target_num_replicas": target, "replicas": listed}
    config = with_move(dict(serve_app(model()).config or {}), move)
    details = {"name": "a", "status": state, "deployed_app_config": config, "deployments": {"replica": deployed}}
    return application(ApplicationDetails.model_validate(details))


TOLD = {
    "one more is no change of the number": (seen("RUNNING", 3, ADDING, "RUNNING", "RUNNING", "STARTING"), "RUNNING", 2),
    "nor where there is none yet": (seen("RUNNING", 2, ADDING, "RUNNING", "RUNNING"), "RUNNING", 2),
    "what the load adds is": (seen("RUNNING", 4, ADDING, "RUNNING", "RUNNING"), "RUNNING", 3),
    "being told of the move is no deployment": (seen("DEPLOYING", 3, ADDING, "RUNNING", "UPDATING"), "RUNNING", 2),
    "the one that leaves makes nothing unwell": (
        seen("UNHEALTHY", 3, LEAVING, "RUNNING", "RUNNING", "STOPPING"), "RUNNING", 2,
    ),
    "another that is lost does": (seen("UNHEALTHY", 3, LEAVING, "RUNNING", "STOPPING"), "UNHEALTHY", 2),
    "without a move a deployment is one": (seen("DEPLOYING", 2, None, "RUNNING", "UPDATING"), "DEPLOYING", 2),
    "and after it": (seen("DEPLOYING", 2, REST, "RUNNING", "UPDATING"), "DEPLOYING", 2),
}  # fmt: skip


@pytest.mark.parametrize(("app", "state", "wanted"), TOLD.values(), ids=TOLD.keys())
def test_a_move_shows_in_neither_state_nor_number(app: ObservedApplication, state: str, wanted: int) -> None:
    assert (app.state, app.wanted) == (state, wanted)


def test_replicas_of_a_release_that_knows_no_move_are_told_of_none() -> None:
    built = dict(serve_app(model()).config or {})
    del user_config(built)["move"]
    assert with_move(built, ADDING) == built


def test_where_nodes_are_matters_only_of_several_replicas_that_are_to_be_apart() -> None:
    assert may_move(model(), [app_on("a", "a")])
    assert not may_move(model(), [app_on("a")])
    assert not may_move(model(ReplicaSpread.NONE), [app_on("a", "a")])
