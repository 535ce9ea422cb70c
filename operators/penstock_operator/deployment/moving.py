"""Has replicas apart: once all of a model's are on one worker, node or zone, and another has room, one of them moves there.

Ray places a replica where there is room when it starts, and where that is one worker alone, all come to lie on it. Serve can
neither be told where a replica is to start nor which one to stop. So one more is started, which Ray puts on the nodes in turn, and
then that one is told to leave without which the others are farthest apart. There are never fewer than there were.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from penstock.api.v1alpha1 import InferenceDeployment, ReplicaSpread
from penstock.names import SERVE_DEPLOYMENT
from penstock.serving.arguments import Move
from penstock_operator.deployment.application import ServeApplication
from penstock_operator.deployment.observed import ApplicationState, Node, ObservedApplication, ObservedReplica, Pool
from penstock_operator.deployment.unschedulable import fits, has
from penstock_operator.pool.placement import required_labels, required_resources

MOVE_SECONDS: Final = 300
"""A replica that does not come to run, or to leave, in this time is not waited for."""
PAUSE_SECONDS: Final = 600
"""Between two moves of a model."""
_MISSES: Final = 4
"""The one more may come to lie where the others are: it is tried so often in turn."""
_HOSTNAME: Final = ("kubernetes.io/hostname",)
_ZONE: Final = ("topology.kubernetes.io/zone", "ray.io/availability-zone")
"""The second is Ray's own, where whoever started its nodes has told."""


@dataclass(frozen=True, slots=True)
class _Sight:
    """What a move is decided on."""

    deployment: InferenceDeployment
    app: ObservedApplication
    nodes: Mapping[str, Node]
    fitting: tuple[Node, ...]
    """Nodes that have room for one more replica."""


def may_move(deployment: InferenceDeployment, applications: Iterable[ObservedApplication]) -> bool:
    """Whether it matters where nodes are."""
    return deployment.spec.placement.spread is not ReplicaSpread.NONE and any(
        len(each.replicas) > 1 for each in applications
    )


def is_under_way(app: ObservedApplication) -> bool:
    """Whether a replica of it is being moved, and Serve says nothing against that."""
    going = (ApplicationState.RUNNING, ApplicationState.DEPLOYING)
    return app.move is not None and app.move.under_way and app.state in going


def plan_move(
    deployment: InferenceDeployment, app: ObservedApplication, pool: Pool, now: float, *, settled: bool
) -> Move | None:
    """What the replicas are to be told.

    Args:
        deployment: whose they are.
        app: their application, the only one of the deployment.
        pool: where it runs, with its nodes if those need be known.
        now: epoch seconds.
        settled: whether nothing else is under way with the deployment.

    Raises:
        Invalid: a quantity in the spec is none.
    """
    move, at = app.move, int(now)
    if move is not None and move.under_way and (not settled or at >= move.until):
        return _end(at, move)
    if not settled or deployment.spec.placement.spread is ReplicaSpread.NONE or not pool.nodes:
        return move
    sight = _Sight(deployment, app, {each.id: each for each in pool.nodes}, tuple(_fitting(deployment, pool)))
    if move is None or not move.under_way:
        return _begin(sight, move, at)
    return _go_on(sight, move, at)


def _go_on(sight: _Sight, move: Move, at: int) -> Move:
    app = sight.app
    if any(each.id == move.leaving for each in app.replicas):
        return move
    if not move.leaving or move.again:
        arrived = not app.changing and len(app.replicas) > move.replicas
        return _send_away(sight, move) if arrived else move
    return _end(at, move)


def with_move(application: ServeApplication, move: Move | None) -> ServeApplication:
    """The application whose replicas are told of a move; as it is where they are of a release that knows of none."""
    deployment: dict[str, Any] = application["deployments"][0]
    if "move" not in deployment["user_config"] or move is None:
        return application
    scaling = dict(deployment["autoscaling_config"])
    if move.under_way:
        scaling["max_replicas"] += 1
    told = {**deployment["user_config"], "move": move.model_dump(mode="json")}
    return {
        **application,
        "deployments": [
            {**each, "user_config": told, "autoscaling_config": scaling} if each["name"] == SERVE_DEPLOYMENT else each
            for each in application["deployments"]
        ],
    }


def _begin(sight: _Sight, move: Move | None, at: int) -> Move | None:
    waits = move is not None and at < move.until
    if waits or sight.app.changing or not _is_crowded(sight, with_room=True):
        return move
    return Move(
        under_way=True,
        replicas=len(sight.app.replicas),
        until=at + MOVE_SECONDS,
    )


def _send_away(sight: _Sight, move: Move) -> Move:
    """Once there is one more: which is to leave, and whether another is to come in its place."""
    missed = _is_crowded(sight)
    misses = move.misses + 1 if missed else 0
    return move.model_copy(update={"leaving": _choose(sight), "misses": misses, "again": missed and misses < _MISSES})


def _end(at: int, move: Move) -> Move:
    return move.model_copy(update={"under_way": False, "until": at + PAUSE_SECONDS, "misses": 0, "again": False})


def _is_crowded(sight: _Sight, *, with_room: bool = False) -> bool:
    """Whether all replicas share what they are not to have in common; with `with_room`, and one could be elsewhere."""
    replicas = sight.app.replicas
    return len(replicas) > 1 and any(
        len(shared) == 1
        and (not with_room or any(_domain(each, level) not in {None, *shared} for each in sight.fitting))
        for level in _levels(sight.deployment)
        if (shared := _domains(sight, replicas, level))
    )


def _choose(sight: _Sight) -> str:
    """Serve's id of the replica without which the others share least; of several such ones the newest, which knows least."""

    def shares(left_out: ObservedReplica) -> tuple[int, ...]:
        others = [each for each in sight.app.replicas if each != left_out]
        return tuple(max(_domains(sight, others, level).values(), default=0) for level in _levels(sight.deployment))

    return min(sight.app.replicas, key=lambda each: (shares(each), -each.started, each.id)).id


def _levels(deployment: InferenceDeployment) -> tuple[tuple[str, ...], ...]:
    """Labels that name what replicas may share, the widest first; none: the worker itself."""
    wide = (_ZONE,) if deployment.spec.placement.spread is ReplicaSpread.ZONE else ()
    return (*wide, _HOSTNAME, ())


def _domains(sight: _Sight, replicas: Iterable[ObservedReplica], level: tuple[str, ...]) -> Counter[str]:
    """How many replicas are in each zone, node or worker; none where it is not known of all."""
    found = [_domain(sight.nodes[each.node], level) if each.node in sight.nodes else None for each in replicas]
    return Counter(each for each in found if each is not None) if None not in found else Counter()


def _domain(node: Node, level: tuple[str, ...]) -> str | None:
    if not level:
        return node.id
    return next((node.labels[label] for label in level if node.labels.get(label)), None)


def _fitting(deployment: InferenceDeployment, pool: Pool) -> Iterator[Node]:
    resources = deployment.spec.resources
    required, labels = required_resources(resources, pool.groups), required_labels(resources)
    return (each for each in pool.nodes if fits(required, each.available) and has(each.labels, labels))
