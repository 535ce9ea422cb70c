"""When a replacement begins that many pools want at the same time, by table, and when one is given up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.telling import assert_tells
from tests.unit.deployment.world import NEW_MODEL, deployment, serve_app
from tests.unit.pool.pools import NOW, SECRET, SETTINGS, observed, pool, running

from penstock.api.conditions import Reason
from penstock.api.meta import ConditionStatus
from penstock_operator.nodes.forecast import KubernetesNode, PodDemand, place_waiting
from penstock_operator.pool.names import TOOK_OVER, UNCHECKED_SURGE
from penstock_operator.pool.observed import PodView, PoolObserved, RayClusterView
from penstock_operator.pool.plan import PoolPlan, begins, plan
from penstock_operator.pool.raycluster import GroupCount, replacement_name
from penstock_operator.pool.surge import AT_ONCE, START_SECONDS, starting_candidates

FIRST = "penstock-default"
ROOMY = KubernetesNode("big", allocatable={"cpu": 8.0, "memory": 64.0 * 2**30, "ephemeral-storage": 2.0**40})
OLD, NEW = pool(), pool(image="mine:2")
SECOND = replacement_name(NEW, SETTINGS, SECRET, FIRST)
OTHER = replace(running(NEW, SECOND, took_over=None, ready=False), owner="another", created=NOW - 60)


def waits(*others: RayClusterView, **more: Any) -> PoolObserved:
    """A pool to be replaced, and what starts of other pools."""
    return observed(NEW, running(OLD), elsewhere=others, **{"nodes": (ROOMY,), **more})


def begun(made: PoolPlan) -> bool:
    return [each["metadata"]["name"] for each in made.apply] == [SECOND]


BEGINS = [
    ("while no other pool is being replaced", waits()),
    ("while few others start", waits(*[OTHER] * (AT_ONCE - 1))),
    ("while others have been starting for so long that something else is wrong with them",
     waits(*[replace(OTHER, created=NOW - START_SECONDS - 1)] * AT_ONCE)),
    ("while one that KubeRay never took up is that old",
     waits(replace(OTHER, head_since=None, created=NOW - START_SECONDS - 1))),
]  # fmt: skip


@pytest.mark.parametrize("world", [row[1] for row in BEGINS], ids=[row[0] for row in BEGINS])
def test_a_replacement_begins(world: PoolObserved) -> None:
    assert begun(plan(world, NOW))


WAITS = [
    (
        "as many as may start at once",
        waits(*[OTHER] * AT_ONCE),
        f"{AT_ONCE} other pools",
    ),
    ("more, as after a restart", waits(*[OTHER] * 9), "9 other pools"),
    ("one whose pods are not there yet", waits(replace(OTHER, head_since=None)), "just begun"),
]


@pytest.mark.parametrize(("world", "facts"), [row[1:] for row in WAITS], ids=[row[0] for row in WAITS])
def test_it_waits_for_others(world: PoolObserved, facts: str) -> None:
    made = plan(world, NOW)
    assert not made.apply
    assert made.candidate is None
    assert made.serving == FIRST
    assert (made.progressing.status, made.progressing.reason) == (ConditionStatus.TRUE, Reason.PENDING)
    assert_tells(made.progressing.message, facts)
    assert not made.settled


def test_one_that_has_begun_waits_for_nobody() -> None:
    candidate = running(NEW, SECOND, took_over=None, ready=False)
    made = plan(observed(NEW, running(OLD), candidate, elsewhere=(OTHER,) * AT_ONCE), NOW)
    assert made.candidate == SECOND
    assert made.progressing.reason is Reason.REPLACING


def test_what_waits_for_a_node_leaves_less_room() -> None:
    others = PodDemand("another pool's worker", {"cpu": 6.0})
    made = plan(waits(room=place_waiting([others], (ROOMY,))), NOW)
    assert not made.apply
    assert made.progressing.reason is Reason.SURGE_DOES_NOT_FIT


REFUSED = PodView("w-2", SECOND, "cpu", unschedulable="0/1 nodes are available")
LATE = replace(
    running(NEW, SECOND, took_over=None, ever=False, counts={"cpu": GroupCount(2)}),
    created=NOW - START_SECONDS,
    ready=1,
)
MODEL = serve_app(deployment(NEW_MODEL), running=1, wanted=1)


def lacks(*pods: PodView, candidate: RayClusterView = LATE, **more: Any) -> PoolObserved:
    """A pool whose candidate lacks a worker, and does not run the model that is to be there."""
    world = {"nodes": (ROOMY,), "applications": {FIRST: (MODEL,), SECOND: ()}, **more}
    return observed(NEW, running(OLD), candidate, pods=pods, **world)


def test_a_candidate_that_found_no_node_for_long_is_given_up() -> None:
    full = replace(ROOMY, requested=ROOMY.allocatable)
    made = plan(lacks(REFUSED, nodes=(full,)), NOW)
    assert made.delete == (SECOND,)
    assert (made.serving, made.candidate, made.mirror, made.apply) == (FIRST, None, None, ())
    assert (made.progressing.status, made.progressing.reason) == (ConditionStatus.FALSE, Reason.SURGE_DOES_NOT_FIT)
    assert_tells(made.progressing.message, "15 minutes group cpu needs")


UNCHECKED = NEW.model_copy(
    update={"metadata": NEW.metadata.model_copy(update={"annotations": {UNCHECKED_SURGE: "Unchecked"}})}
)
KEPT = [
    ("while it is young", lacks(REFUSED, candidate=replace(LATE, created=NOW - 60))),
    ("where it had all pods before", lacks(REFUSED, candidate=replace(LATE, ever_ready=True))),
    ("where something else keeps its pod", lacks(PodView("w-2", SECOND, "cpu", stuck="ImagePullBackOff"))),
    ("where it is what serves that lacks a node", lacks(replace(REFUSED, cluster=FIRST))),
    ("where nodes are added on demand", replace(lacks(REFUSED), pool=UNCHECKED)),
    ("where nothing is known of nodes", lacks(REFUSED, nodes=None)),
]


@pytest.mark.parametrize("world", [row[1] for row in KEPT], ids=[row[0] for row in KEPT])
def test_a_candidate_is_waited_for(world: PoolObserved) -> None:
    made = plan(world, NOW)
    assert not made.delete
    assert made.candidate == SECOND


def test_a_candidate_on_which_all_runs_takes_over_whether_or_not_it_has_all_pods() -> None:
    made = plan(lacks(REFUSED, applications={FIRST: (MODEL,), SECOND: (MODEL,)}), NOW)
    assert not made.delete
    assert TOOK_OVER in made.apply[0]["metadata"]["annotations"]


COUNTED = [
    ("a candidate without its head", OTHER, True),
    ("a candidate that lacks workers", replace(OTHER, head_ready=True, desired=2, ready=1), True),
    ("a candidate that has all pods", replace(OTHER, head_ready=True, desired=1, ready=1), False),
    ("one that serves", replace(OTHER, took_over=NOW), False),
    ("one that goes", replace(OTHER, deleting=True), False),
]


@pytest.mark.parametrize(("cluster", "counts"), [row[1:] for row in COUNTED], ids=[row[0] for row in COUNTED])
def test_what_starts_is_counted(cluster: RayClusterView, counts: bool) -> None:  # noqa: FBT001  # a column of the table
    assert bool(starting_candidates([cluster])) is counts


ASKED = [
    ("where a second RayCluster is to begin", observed(NEW, running(OLD)), True),
    ("where only an outdated one has begun", observed(NEW, running(OLD), running(OLD, "x", took_over=None)), True),
    ("where it has begun", observed(NEW, running(OLD), running(NEW, SECOND, took_over=None)), False),
    ("where nothing changes", observed(OLD, running(OLD)), False),
    ("where nothing ever ran", observed(NEW, running(OLD, ready=False, ever=False)), False),
    ("where there is none yet", observed(NEW), False),
    ("where the pool is suspended", observed(pool(image="mine:2", suspend=True), running(OLD)), False),
]


@pytest.mark.parametrize(("world", "asked"), [row[1:] for row in ASKED], ids=[row[0] for row in ASKED])
def test_other_pools_are_looked_at(world: PoolObserved, asked: bool) -> None:  # noqa: FBT001  # a column of the table
    assert begins(world) is asked
