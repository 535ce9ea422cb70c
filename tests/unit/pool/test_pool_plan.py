"""What becomes of a managed pool, by table: first start, changes in place, replacements, suspension, losses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.telling import Telling, assert_tells
from tests.unit.deployment.world import NEW_MODEL, deployment, serve_app
from tests.unit.pool.pools import CPU, GPU, NOW, SECRET, SETTINGS, UID, observed, pool, running

from penstock.api.conditions import Reason
from penstock.api.meta import ConditionStatus
from penstock.api.pool import PoolChange, ServingPool
from penstock_operator.deployment.observed import ApplicationState, ObservedApplication
from penstock_operator.nodes.forecast import KubernetesNode
from penstock_operator.pool.names import TOOK_OVER, UNCHECKED_SURGE
from penstock_operator.pool.observed import PodView, PoolObserved, RayClusterView, pod_view, view, with_warnings
from penstock_operator.pool.plan import DEPARTURE_SECONDS, RETIREMENT_SECONDS, PoolPlan, plan, sort_clusters
from penstock_operator.pool.raycluster import GroupCount, replacement_name
from penstock_operator.pool.replacement import LOST_SECONDS, TOLD_SECONDS
from penstock_operator.pool.status import judge_start, report, worker_problem

FIRST = "penstock-default"
ROOMY = KubernetesNode("big", allocatable={"cpu": 64.0, "memory": 512.0 * 2**30, "ephemeral-storage": 2.0**40})
SMALL = KubernetesNode("small", allocatable={"cpu": 2.0, "memory": 4.0 * 2**30, "ephemeral-storage": 2.0**40})
OLD, NEW = pool(), pool(image="mine:2")


def second(of: ServingPool = NEW, serving: str = FIRST) -> str:
    """The name of a replacement for this spec."""
    return replacement_name(of, SETTINGS, SECRET, serving)


def app(running_: int = 2, state: ApplicationState = ApplicationState.RUNNING) -> ObservedApplication:
    return serve_app(deployment(NEW_MODEL), state, running=running_, wanted=2)


def names(made: PoolPlan) -> list[str]:
    return [each["metadata"]["name"] for each in made.apply]


def test_the_first_raycluster_serves_at_once() -> None:
    made = plan(observed(pool()), NOW)
    (manifest,) = made.apply
    assert manifest["metadata"]["name"] == FIRST == made.serving
    assert manifest["metadata"]["annotations"][TOOK_OVER] == str(int(NOW))
    assert made.progressing.reason is Reason.STARTING_POOL


def test_what_is_as_it_should_be_is_left_alone() -> None:
    made = plan(observed(OLD, running(OLD, counts={"cpu": GroupCount(1)})), NOW)
    assert made.settled
    assert made == PoolPlan(serving=FIRST)


def test_a_raycluster_of_a_former_pool_is_waited_for() -> None:
    other = replace(running(OLD), owner="another-uid")
    made = plan(observed(OLD, other), NOW)
    assert not made.apply
    assert made.serving is None
    assert "being deleted" in made.progressing.message


def test_one_that_is_being_deleted_is_no_longer_the_pools() -> None:
    made = plan(observed(OLD, replace(running(OLD), deleting=True)), NOW)
    assert not made.apply
    assert "being deleted" in made.progressing.message


IN_PLACE = [
    ("more workers", pool({**CPU, "maxWorkers": 9})),
    ("fewer workers at least", pool({**CPU, "minWorkers": 0})),
    ("another group", pool(CPU, GPU)),
    ("another idle time", pool(idleTimeoutSeconds=60)),
]


@pytest.mark.parametrize("changed", [row[1] for row in IN_PLACE], ids=[row[0] for row in IN_PLACE])
def test_changed_in_place(changed: ServingPool) -> None:
    made = plan(observed(changed, running(OLD, counts={"cpu": GroupCount(1)})), NOW)
    assert names(made) == [FIRST]
    assert made.apply[0]["metadata"]["resourceVersion"] == "17", "what the autoscaler wrote since must not be undone"
    assert made.change is PoolChange.IN_PLACE
    assert made.progressing.reason is Reason.CHANGING_IN_PLACE
    assert made.serving == FIRST


def test_a_group_comes_back_as_something_else_only_by_a_replacement() -> None:
    both = pool(CPU, GPU)
    lingering = running(both, counts={"cpu": GroupCount(1), "l4": GroupCount(1)})
    other = pool(CPU, {**GPU, "accelerator": {"type": "nvidia-t4"}})
    assert plan(observed(other, lingering, nodes=None), NOW).change is PoolChange.REPLACEMENT


REPLACED = [
    ("another image", NEW),
    ("another head", pool(head={"memory": "4Gi"})),
    ("a Redis", pool(gcsFaultTolerance={"redisAddress": "r:6379"})),
    ("larger workers", pool({**CPU, "memory": "16Gi"})),
]


@pytest.mark.parametrize("changed", [row[1] for row in REPLACED], ids=[row[0] for row in REPLACED])
def test_replaced_beside_what_serves(changed: ServingPool) -> None:
    made = plan(observed(changed, running(OLD), nodes=(ROOMY,)), NOW)
    assert names(made) == [second(changed)]
    assert TOOK_OVER not in made.apply[0]["metadata"]["annotations"]
    assert made.change is PoolChange.REPLACEMENT
    assert made.serving == FIRST
    assert not made.delete


def test_a_replacement_starts_with_as_many_workers_as_run() -> None:
    old = running(OLD, counts={"cpu": GroupCount(3)})
    (manifest,) = plan(observed(NEW, old, nodes=(ROOMY,)), NOW).apply
    assert manifest["spec"]["workerGroupSpecs"][0]["replicas"] == 3


def test_a_replacement_that_has_no_room_is_not_begun_and_says_what_is_missing() -> None:
    made = plan(observed(NEW, running(OLD), nodes=(SMALL,)), NOW)
    assert not made.apply
    assert made.serving == FIRST
    assert made.progressing.reason is Reason.SURGE_DOES_NOT_FIT
    assert made.progressing.status is ConditionStatus.FALSE
    assert_tells(made.progressing.message, "group cpu small")


def test_where_nodes_are_added_on_demand_room_is_not_asked_for() -> None:
    annotated = NEW.model_copy(
        update={"metadata": NEW.metadata.model_copy(update={"annotations": {UNCHECKED_SURGE: "Unchecked"}})}
    )
    assert names(plan(observed(annotated, running(OLD), nodes=(SMALL,)), NOW)) == [second()]


def replacing(
    old: tuple[ObservedApplication, ...] | None, new: tuple[ObservedApplication, ...] | None, **candidate: Any
) -> PoolObserved:
    """A candidate beside what serves, and what runs on either; None: it does not answer."""
    known = {FIRST: old, second(): new}
    return observed(
        NEW,
        running(OLD),
        running(NEW, second(), **{"took_over": None, **candidate}),
        nodes=(SMALL,),
        applications={name: apps for name, apps in known.items() if apps is not None},
    )


STAYS = [
    ("while the candidate starts", replacing((app(),), None, ready=False)),
    ("while the candidate does not answer", replacing((app(),), None)),
    ("while what serves does not say what it runs", replacing(None, ())),
    ("while a model is not there", replacing((app(),), ())),
    ("while fewer replicas run there", replacing((app(2),), (app(1),))),
    ("while a model has failed there", replacing((app(2),), (app(0, ApplicationState.DEPLOY_FAILED),))),
]


@pytest.mark.parametrize("world", [row[1] for row in STAYS], ids=[row[0] for row in STAYS])
def test_what_serves_goes_on(world: PoolObserved) -> None:
    made = plan(world, NOW)
    assert made.serving == FIRST
    assert made.candidate == second()
    assert not made.delete
    assert not made.withdraw
    assert all(TOOK_OVER not in each["metadata"]["annotations"] for each in made.apply)


def test_what_keeps_a_candidate_from_starting_is_told() -> None:
    stuck = PodView("h-1", second(), "", stuck="ImagePullBackOff: no such image")
    made = plan(replace(replacing((app(),), None, ready=False), pods=(stuck,)), NOW)
    assert made.progressing.status is ConditionStatus.FALSE
    assert made.progressing.reason is Reason.REPLACING
    assert_tells(made.progressing.message, "head pod h-1 ImagePullBackOff: no such image")


def test_all_that_runs_is_started_on_the_candidate_with_as_many_replicas() -> None:
    made = plan(replacing((app(2),), ()), NOW)
    assert made.mirror is not None
    (copied,) = made.mirror
    assert copied["args"] == (app().config or {})["args"]
    assert copied["deployments"][0]["autoscaling_config"]["min_replicas"] == 2


TAKES_OVER = [
    ("when every model runs there too", replacing((app(2),), (app(2),))),
    ("when nothing runs yet", replacing((), ())),
    ("when the only model runs nowhere", replacing((app(0, ApplicationState.DEPLOY_FAILED),), ())),
]


@pytest.mark.parametrize("world", [row[1] for row in TAKES_OVER], ids=[row[0] for row in TAKES_OVER])
def test_the_candidate_takes_over_by_one_write(world: PoolObserved) -> None:
    made = plan(world, NOW)
    (manifest,) = made.apply
    assert manifest["metadata"]["name"] == second()
    assert manifest["metadata"]["annotations"][TOOK_OVER] == str(int(NOW))
    assert not made.delete


def test_with_a_token_that_was_changed_nobody_can_ask_so_the_candidate_takes_over() -> None:
    old = running(OLD, secret="penstock-default-ray-of-before")
    new = running(NEW, second(), took_over=None)
    made = plan(observed(NEW, old, new, applications={second(): ()}), NOW)
    assert made.apply[0]["metadata"]["annotations"][TOOK_OVER] == str(int(NOW))
    assert made.mirror is None


def unasked(
    new: tuple[ObservedApplication, ...], old: tuple[ObservedApplication, ...] | None = None, **head: Any
) -> PoolObserved:
    """A candidate beside one whose head is away, or has just come back, while its worker serves."""
    world = replacing(old, new)
    serving = running(OLD, **{"ready": False, "started": 1, "since": NOW - 30, **head})
    return replace(world, clusters=(serving, *world.clusters[1:]))


STAYS_UNASKED = [
    ("while its workers may serve and the candidate was given nothing", unasked(())),
    ("while a model starts on the candidate", unasked((app(2), app(0, ApplicationState.DEPLOYING)))),
    ("while fewer replicas run on the candidate than it was given", unasked((app(1),))),
    ("while its new head has not been told what to run", unasked((app(1),), (), ready=True)),
]


@pytest.mark.parametrize("world", [row[1] for row in STAYS_UNASKED], ids=[row[0] for row in STAYS_UNASKED])
def test_one_that_cannot_say_what_it_runs_serves_on(world: PoolObserved) -> None:
    made = plan(world, NOW)
    assert (made.serving, made.candidate) == (FIRST, second())
    assert made.mirror is None, "what the candidate was given must stay"
    assert not made.apply
    assert_tells(made.progressing.message, FIRST, "not say")


LEFT_UNASKED = [
    ("when the candidate runs all that it was given", unasked((app(2),))),
    ("when the candidate does so before a new head was told anything", unasked((app(2),), (), ready=True)),
    ("when none of its workers is left", unasked((), started=0)),
    ("when its head was away for longer than any worker waits", unasked((), since=NOW - LOST_SECONDS - 1)),
]


@pytest.mark.parametrize("world", [row[1] for row in LEFT_UNASKED], ids=[row[0] for row in LEFT_UNASKED])
def test_one_that_cannot_say_what_it_runs_is_left(world: PoolObserved) -> None:
    made = plan(world, NOW)
    (manifest,) = made.apply
    assert manifest["metadata"]["name"] == second()
    assert manifest["metadata"]["annotations"][TOOK_OVER] == str(int(NOW))
    assert made.mirror is None, "what the candidate was given must stay"


def test_a_head_that_has_been_back_for_a_while_is_believed() -> None:
    made = plan(unasked((app(1),), (), ready=True, since=NOW - TOLD_SECONDS), NOW)
    assert made.mirror == ()
    assert made.apply


def took_over(seconds_ago: float, left: tuple[ObservedApplication, ...] | None) -> PoolObserved:
    new = running(NEW, second(), took_over=NOW - seconds_ago, counts={"cpu": GroupCount(1)})
    return observed(NEW, running(OLD), new, applications={} if left is None else {FIRST: left})


AFTERWARDS = [
    ("at first both run, while routes move", took_over(1, (app(),)), (), ()),
    ("then the old one's models are taken down", took_over(RETIREMENT_SECONDS + 1, (app(),)), (FIRST,), ()),
    ("then it goes", took_over(RETIREMENT_SECONDS + 1, ()), (), (FIRST,)),
    (
        "it goes in the end though it does not answer",
        took_over(RETIREMENT_SECONDS + DEPARTURE_SECONDS + 1, None),
        (),
        (FIRST,),
    ),
]


@pytest.mark.parametrize(
    ("world", "withdrawn", "deleted"), [row[1:] for row in AFTERWARDS], ids=[row[0] for row in AFTERWARDS]
)
def test_after_the_takeover(world: PoolObserved, withdrawn: tuple[str, ...], deleted: tuple[str, ...]) -> None:
    made = plan(world, NOW)
    assert made.serving == second()
    assert made.withdraw == withdrawn
    assert made.delete == deleted
    assert not made.settled


def test_a_spec_that_goes_back_gives_the_candidate_up() -> None:
    candidate = running(NEW, second(), took_over=None)
    made = plan(observed(OLD, running(OLD, counts={"cpu": GroupCount(1)}), candidate), NOW)
    assert made.serving == FIRST
    assert made.delete == (second(),)


def test_a_candidate_of_an_older_change_gives_way_to_the_newest() -> None:
    newest = pool(image="mine:3")
    made = plan(observed(newest, running(OLD), running(NEW, second(), took_over=None), nodes=(ROOMY,)), NOW)
    assert made.delete == (second(),)
    assert names(made) == [second(newest)]


LARGER, LARGEST = pool({**CPU, "memory": "16Gi"}), pool({**CPU, "memory": "32Gi"})


def test_a_group_that_changes_again_gets_another_name_than_what_took_over_for_its_last_change() -> None:
    took_over = running(LARGER, second(LARGER))
    (manifest,) = plan(observed(LARGEST, took_over, nodes=(ROOMY,)), NOW).apply
    assert manifest["metadata"]["name"] == second(LARGEST, serving=took_over.name) != took_over.name
    assert "resourceVersion" not in manifest["metadata"]


def test_a_group_that_changes_while_its_replacement_starts_gets_another_name_than_that() -> None:
    outdated = running(LARGER, second(LARGER), took_over=None)
    made = plan(observed(LARGEST, running(OLD), outdated, nodes=(ROOMY,)), NOW)
    assert made.delete == (outdated.name,)
    assert names(made) == [second(LARGEST)]
    assert second(LARGEST) != outdated.name


TAKEN = [
    ("while one of before is being deleted", {"deleting": True}),
    ("while one of before is of a former pool", {"owner": "another-uid"}),
    ("while an outdated one has it still", {"kind": "another"}),
]


@pytest.mark.parametrize("changes", [row[1] for row in TAKEN], ids=[row[0] for row in TAKEN])
def test_no_replacement_begins_under_a_name_that_is_taken(changes: dict[str, Any]) -> None:
    holder = replace(running(NEW, second(), took_over=None), **changes)
    made = plan(observed(NEW, running(OLD), holder, nodes=(ROOMY,)), NOW)
    assert not made.apply
    assert made.candidate is None
    assert made.serving == FIRST
    assert "then one of the same name starts" in made.progressing.message


def test_one_that_never_ran_is_replaced_without_a_surge() -> None:
    made = plan(observed(NEW, running(OLD, ready=False, ever=False), nodes=(SMALL,)), NOW)
    assert made.delete == (FIRST,)
    assert not made.apply


def test_one_that_serves_and_never_had_all_its_pods_is_not_deleted_while_its_head_starts_anew() -> None:
    incomplete = running(OLD, ready=False, ever=False, started=1)
    made = plan(observed(NEW, incomplete, nodes=(ROOMY,)), NOW)
    assert not made.delete
    assert names(made) == [second()]
    assert made.serving == FIRST


def test_a_candidate_serves_where_somebody_deleted_what_did() -> None:
    made = plan(observed(NEW, running(NEW, second(), took_over=None)), NOW)
    assert made.serving == second()
    assert made.apply[0]["metadata"]["annotations"][TOOK_OVER] == str(int(NOW))


def test_suspended_all_pods_go_and_the_raycluster_stays() -> None:
    suspended = pool(suspend=True)
    made = plan(observed(suspended, running(OLD), running(NEW, second(), took_over=None)), NOW)
    (manifest,) = made.apply
    assert manifest["spec"]["suspend"] is True
    assert made.delete == (second(),)
    assert made.progressing.reason is Reason.SUSPENDED


def test_resumed_it_starts_again() -> None:
    made = plan(observed(OLD, running(pool(suspend=True))), NOW)
    (manifest,) = made.apply
    assert manifest["spec"]["suspend"] is False


def test_what_cannot_change_in_place_starts_anew_after_a_suspension() -> None:
    made = plan(observed(pool(suspend=True, image="mine:2"), running(OLD)), NOW)
    assert made.delete == (FIRST,)
    assert not made.apply


def test_the_latest_to_take_over_serves() -> None:
    clusters = [running(OLD, name, took_over=NOW - age) for name, age in (("a", 50), ("b", 10), ("c", 30))]
    standing = sort_clusters(UID, clusters)
    assert standing.serving is not None
    assert standing.serving.name == "b"
    assert {each.name for each in standing.retired} == {"a", "c"}


def test_annotations_that_somebody_broke_make_no_mistake() -> None:
    broken = {
        "metadata": {"name": "x", "annotations": {TOOK_OVER: "soon", "penstock.dev/group-hashes": "{"}},
        "spec": {"workerGroupSpecs": [{"groupName": "cpu"}]},
    }
    assert view(broken) == RayClusterView("x", groups={"cpu": GroupCount(template={"groupName": "cpu"})})


def pod(conditions: list[dict[str, str]] | None = None, **container: Any) -> dict[str, Any]:
    labels = {"ray.io/cluster": FIRST, "ray.io/node-type": "worker", "ray.io/group": "cpu"}
    statuses = [{"name": "ray-worker", "state": container}] if container else []
    return {
        "metadata": {"name": "w-1", "labels": labels},
        "status": {"conditions": conditions or [], "containerStatuses": statuses},
    }


def ended(reason: str, message: str) -> dict[str, Any]:
    made = pod(terminated={"exitCode": 137, "reason": "Error"})
    return made | {"status": made["status"] | {"phase": "Failed", "reason": reason, "message": message}}


PODS = [
    (
        "an eviction, in the kubelet's words and not as the signal that it sent",
        ended("Evicted", "The node was low on resource: ephemeral-storage."),
        "Evicted: The node was low on resource: ephemeral-storage.",
        None,
    ),
    (
        "a pod that makes room for another",
        pod(
            [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "preempting"}]
        ),
        Telling("being ended PreemptionByScheduler preempting"),
        None,
    ),
    ("one that pulls is only starting", pod(waiting={"reason": "ContainerCreating"}), None, None),
    (
        "an image that is not there",
        pod(waiting={"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x"'}),
        'ImagePullBackOff: Back-off pulling image "x"',
        None,
    ),
    ("a crash loop", pod(waiting={"reason": "CrashLoopBackOff"}), "CrashLoopBackOff", None),
    (
        "a container that ended",
        pod(terminated={"exitCode": 137, "reason": "OOMKilled"}),
        Telling("ray-worker 137 OOMKilled"),
        None,
    ),
    (
        "no node",
        pod([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]),
        None,
        "0/1 nodes",
    ),
]


@pytest.mark.parametrize(("manifest", "stuck", "refused"), [row[1:] for row in PODS], ids=[row[0] for row in PODS])
def test_what_a_pod_waits_for(manifest: dict[str, Any], stuck: str | Telling | None, refused: str | None) -> None:
    seen = pod_view(manifest)
    assert (seen.stuck, seen.unschedulable) == (stuck, refused)
    assert (seen.cluster, seen.group) == (FIRST, "cpu")


PREPARED = PodView("w-1", FIRST, "cpu", is_prepared=True)


def event(reason: str, at: int, *, type: str = "Warning", pod: str = "w-1", message: str = "") -> dict[str, Any]:  # noqa: A002  # the API's word
    time = f"2026-12-01T00:00:{at:02}Z"
    about = {"kind": "Pod", "name": pod}
    return {
        "metadata": {"creationTimestamp": time},
        "involvedObject": about,
        "type": type,
        "reason": reason,
        "message": message,
    }


MOUNT = event("FailedMount", 20, message='MountVolume.SetUp failed for volume "model": secret "token" not found')
ATTACH = event("FailedAttachVolume", 10, message='Multi-Attach error for volume "pvc-1"')
SERIES = {**event("FailedMount", 5, message="again"), "series": {"lastObservedTime": "2026-12-01T00:00:50.000000Z"}}

WARNED: dict[str, tuple[PodView, list[dict[str, Any]], str | None]] = {
    "a volume that is not attached": (PREPARED, [ATTACH], 'FailedAttachVolume: Multi-Attach error for volume "pvc-1"'),
    "the last of several": (
        PREPARED, [MOUNT, ATTACH], 'FailedMount: MountVolume.SetUp failed for volume "model": secret "token" not found',
    ),
    "one that goes on is later than when it began": (PREPARED, [SERIES, MOUNT], "FailedMount: again"),
    "what went on since is of the past": (PREPARED, [MOUNT, event("Pulling", 30, type="Normal")], None),
    "what the scheduler said before": (PREPARED, [event("FailedScheduling", 1)], None),
    "another pod's": (PREPARED, [event("FailedMount", 1, pod="w-2")], None),
    "a pod that runs": (replace(PREPARED, is_prepared=False), [MOUNT], None),
    "a pod that says itself": (replace(PREPARED, stuck="ErrImagePull"), [MOUNT], "ErrImagePull"),
    "nothing": (PREPARED, [], None),
}  # fmt: skip


@pytest.mark.parametrize(("seen", "events", "stuck"), WARNED.values(), ids=WARNED.keys())
def test_what_only_an_event_tells(seen: PodView, events: list[dict[str, Any]], stuck: str | None) -> None:
    assert [each.stuck for each in with_warnings([seen], events)] == [stuck]


def test_a_pod_is_made_ready_from_when_it_has_a_node_until_a_container_has_started() -> None:
    scheduled = [{"type": "PodScheduled", "status": "True"}]
    creating = pod(scheduled, waiting={"reason": "ContainerCreating"})
    unscheduled = pod([{"type": "PodScheduled", "status": "False"}], waiting={"reason": "ContainerCreating"})
    started = pod(scheduled, running={})
    for manifest, expected in ((creating, True), (pod(scheduled), True), (unscheduled, False), (started, False)):
        manifest["status"]["phase"] = "Pending"
        assert pod_view(manifest).is_prepared is expected


def waiting(*seen: PodView, nodes: tuple[KubernetesNode, ...] | None = None) -> PoolObserved:
    return observed(OLD, pods=seen, nodes=nodes)


def test_a_group_says_why_a_worker_is_missing() -> None:
    serving = replace(running(OLD, counts={"cpu": GroupCount(2)}), ready=1)
    seen = [PodView("w-1", FIRST, "cpu", ready=True), PodView("w-2", FIRST, "cpu", stuck="ErrImagePull: no such image")]
    (group,) = report(waiting(*seen), serving).groups
    assert (group.desired, group.ready) == (2, 1)
    assert_tells(group.message, "pod w-2 ErrImagePull: no such image")
    assert worker_problem(group) == Telling("worker group cpu", group.message)


def test_a_worker_without_a_node_says_which_came_closest() -> None:
    serving = replace(running(OLD, counts={"cpu": GroupCount(1)}), ready=0)
    lonely = PodView("w-1", FIRST, "cpu", unschedulable="0/1 nodes are available")
    (group,) = report(waiting(lonely, nodes=(SMALL,)), serving).groups
    assert_tells(group.message, "group cpu small")
    assert worker_problem(group) == group.message


def test_a_worker_that_is_just_starting_is_no_problem() -> None:
    serving = replace(running(OLD, counts={"cpu": GroupCount(1)}), ready=0)
    (group,) = report(waiting(PodView("w-1", FIRST, "cpu")), serving).groups
    assert group.message == ""
    assert worker_problem(group) is None


def test_a_head_without_a_node_makes_the_pool_unschedulable() -> None:
    serving = running(OLD, ready=False)
    tiny = replace(SMALL, allocatable={"cpu": 0.5, "memory": 2.0**30, "ephemeral-storage": 2.0**40})
    world = waiting(PodView("h", FIRST, "", unschedulable="0/1"), nodes=(tiny,))
    reported = report(world, serving)
    verdict = judge_start(world, serving, reported.head, "starting")
    assert verdict.reason is Reason.UNSCHEDULABLE
    assert_tells(verdict.message, "head Ray small cpu")


WAITING = [
    ("before there is a RayCluster", None, "it is being made"),
    ("while its head starts", running(OLD, ready=False), "head penstock-default starting"),
    ("while Ray starts on it", running(OLD), "head penstock-default runs Ray"),
]


@pytest.mark.parametrize(("serving", "facts"), [row[1:] for row in WAITING], ids=[row[0] for row in WAITING])
def test_what_a_pool_that_just_starts_says(serving: RayClusterView | None, facts: str) -> None:
    verdict = judge_start(waiting(), serving, None, "it is being made")
    assert (verdict.reason, verdict.message) == (Reason.STARTING_POOL, Telling(facts))
