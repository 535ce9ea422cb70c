"""What a managed pool says of workers and heads that do not start, in KubeRay's words or the scheduler's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.telling import Telling, assert_tells
from tests.unit.pool.pools import CPU, GPU, manifest_of, observed, pool, running

from penstock.api.pool import GroupStatus, ServingPool
from penstock_operator.nodes.forecast import KubernetesNode
from penstock_operator.pool.observed import PodView, PoolObserved, RayClusterView, view
from penstock_operator.pool.raycluster import GroupCount
from penstock_operator.pool.status import hindrance, report, worker_problem

FIRST = "penstock-default"
BOTH = pool(CPU, GPU)
QUOTA = 'pods "penstock-default-cpu-worker-x" is forbidden: exceeded quota: compute'
ROOMY = KubernetesNode("big", allocatable={"cpu": 64.0, "memory": 512.0 * 2**30, "ephemeral-storage": 2.0**40})
UP = PodView("w-1", FIRST, "cpu", ready=True)
HEAD = PodView("h", FIRST, "", ready=True)


def failed(reason: str, *, head: bool = True, workers: int = 1) -> RayClusterView:
    """A RayCluster of which KubeRay could not make or end a pod. It joins its own word and the API's by a newline."""
    manifest = manifest_of(BOTH, counts={"cpu": GroupCount(2), "l4": GroupCount(0)})
    failure = {"type": "ReplicaFailure", "status": "True", "reason": reason, "message": f"{reason}\n{QUOTA}"}
    conditions: list[dict[str, Any]] = [{"type": "HeadPodReady", "status": str(head)}, failure]
    manifest["status"] = {"conditions": conditions, "desiredWorkerReplicas": 2, "readyWorkerReplicas": workers}
    return view(manifest)


def groups(serving: RayClusterView, *pods: PodView) -> tuple[GroupStatus, ...]:
    return report(observed(BOTH, serving, pods=pods), serving).groups


def test_a_worker_that_kuberay_may_not_make_is_told_of_its_group_alone() -> None:
    cpu, l4 = groups(failed("FailedCreateWorkerPod"), HEAD, UP)
    assert (cpu.desired, cpu.ready) == (2, 1)
    assert_tells(cpu.message, "KubeRay create worker", QUOTA)
    assert l4.message == "", "it wants none"
    assert (worker_problem(cpu), worker_problem(l4)) == (Telling("worker group cpu", cpu.message), None)


def test_a_group_whose_pods_are_all_there_is_not_told_what_another_lacks() -> None:
    (cpu, _) = groups(failed("FailedCreateWorkerPod"), HEAD, UP, PodView("w-2", FIRST, "cpu"))
    assert cpu.message == "", "its second worker is only starting"


UNSEEN = [
    ("of one group, all that run are its own", pool(CPU), {"cpu": 3}, 2, [2]),
    ("of two, what the other cannot be", BOTH, {"cpu": 3, "l4": 1}, 3, [2, 0]),
    ("a group that was left out counts too", pool(CPU), {"cpu": 2, "old": 2}, 3, [1]),
]


@pytest.mark.parametrize(("of", "wanted", "run", "least"), [row[1:] for row in UNSEEN], ids=[row[0] for row in UNSEEN])
def test_where_no_pod_may_be_seen_a_group_has_as_many_as_it_must(
    of: ServingPool, wanted: dict[str, int], run: int, least: list[int]
) -> None:
    serving = replace(running(of), ready=run, groups={name: GroupCount(count) for name, count in wanted.items()})
    assert [each.ready for each in report(observed(of, serving), serving).groups] == least


HINDERED = [
    ("a worker's failure is no head's", failed("FailedCreateWorkerPod"), f"worker group cpu {QUOTA}"),
    (
        "a head's failure is the head's",
        failed("FailedCreateHeadPod", head=False, workers=0),
        f"head {QUOTA}",
    ),
    ("a head that runs has no failure", failed("FailedDeleteHeadPod"), None),
    (
        "a worker that cannot go keeps others from coming",
        failed("FailedDeleteWorkerPod"),
        f"worker group cpu delete {QUOTA}",
    ),
]


@pytest.mark.parametrize(("cluster", "facts"), [row[1:] for row in HINDERED], ids=[row[0] for row in HINDERED])
def test_what_keeps_a_candidate_from_running(cluster: RayClusterView, facts: str | None) -> None:
    found = hindrance(observed(BOTH, cluster, pods=(UP,)), cluster)
    assert found == (None if facts is None else Telling(facts))


def refused(*nodes: KubernetesNode) -> PoolObserved:
    waiting = PodView("w-1", FIRST, "cpu", unschedulable='0/1 nodes: persistentvolumeclaim "models" not found')
    return observed(pool(), pods=(waiting,), nodes=nodes)


def test_where_a_node_has_room_the_scheduler_itself_says_why_it_takes_none() -> None:
    serving = replace(running(pool(), counts={"cpu": GroupCount(1)}), ready=0)
    (group,) = report(refused(ROOMY), serving).groups
    assert_tells(group.message, 'pod w-1 0/1 nodes: persistentvolumeclaim "models" not found')
