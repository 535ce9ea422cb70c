"""What a managed pool's status says of its Ray cluster: whether it runs, what it waits for, and its groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from penstock.api.conditions import Reason
from penstock.api.pool import GroupStatus, ManagedRayCluster
from penstock.api.verdicts import Verdict, false
from penstock.wording import end_sentence
from penstock_operator.nodes.forecast import PodDemand, describe_closest
from penstock_operator.pool import raypods
from penstock_operator.pool.observed import PodView, PoolObserved, RayClusterView
from penstock_operator.pool.refusals import with_remedy

_OF_WORKERS: Final = {
    "FailedCreateWorkerPod": "KubeRay could not create a worker",
    "FailedDeleteWorkerPod": "KubeRay could not delete a worker, and creates none meanwhile",
}
"""KubeRay's failures that are no fault of the head. It ends at the first, whichever group that is of."""
_HEAD_REFUSED: Final = "FailedCreateHeadPod"


@dataclass(frozen=True, slots=True)
class PodProblem:
    """What keeps a pod from running."""

    message: str
    unschedulable: bool = False
    """Whether it is that no node takes it."""
    refused: bool = False
    """Whether the API takes no such pod."""


@dataclass(frozen=True, slots=True)
class GroupReport:
    """Groups as the status has them."""

    groups: tuple[GroupStatus, ...]
    head: PodProblem | None
    """What keeps the head from running."""


def report(observed: PoolObserved, serving: RayClusterView) -> GroupReport:
    """The groups, each with what keeps its workers from running; nothing where they are just starting."""
    spec = observed.pool.spec.managed
    pods = [each for each in observed.pods if each.cluster == serving.name]
    if spec is None:
        return GroupReport((), None)
    head = _find_problem(
        [each for each in pods if not each.group],
        raypods.head_demand(observed.pool.metadata, spec, observed.settings),
        observed,
    )
    if head is None and not serving.head_ready and serving.problem_reason not in _OF_WORKERS and serving.problem:
        head = PodProblem(with_remedy(serving.problem), refused=serving.problem_reason == _HEAD_REFUSED)
    return GroupReport(tuple(_groups(observed, spec, serving, pods)), head)


def hindrance(observed: PoolObserved, cluster: RayClusterView) -> str | None:
    """What keeps a RayCluster's pods from running, in a sentence; None where they are just starting."""
    reported = report(observed, cluster)
    if reported.head is not None:
        return f"The head does not run: {end_sentence(reported.head.message)}"
    return next(filter(None, map(worker_problem, reported.groups)), None)


def lacks_pods(cluster: RayClusterView) -> bool:
    """Whether pods must be looked at: only a cluster that lacks some has something to tell."""
    return not cluster.suspended and (not cluster.head_ready or cluster.ready < wanted_workers(cluster))


def wanted_workers(cluster: RayClusterView) -> int:
    """Workers that there are to be."""
    return max(cluster.desired, sum(each.replicas for each in cluster.groups.values()))


def judge_start(
    observed: PoolObserved, serving: RayClusterView | None, head: PodProblem | None, waiting: str
) -> Verdict:
    """Why the pool cannot be used yet. `waiting` says it where there is no RayCluster yet."""
    if observed.pool.spec.suspend:
        said = "Its nodes are given back. The deployments stay; set spec.suspend to false to start them again."
        return false(Reason.SUSPENDED, said)
    if serving is None:
        return false(Reason.STARTING_POOL, waiting)
    if head is not None:
        refused = Reason.PODS_REFUSED if head.refused else Reason.STARTING_POOL
        reason = Reason.UNSCHEDULABLE if head.unschedulable else refused
        return false(reason, f"RayCluster {serving.name} does not run: {end_sentence(head.message)}")
    if not serving.head_ready:
        return false(Reason.STARTING_POOL, f"The head of RayCluster {serving.name} is starting.")
    return false(Reason.STARTING_POOL, f"The head of {serving.name} runs; Ray is starting on it.")


def _groups(
    observed: PoolObserved, spec: ManagedRayCluster, serving: RayClusterView, pods: Sequence[PodView]
) -> list[GroupStatus]:
    complete = not lacks_pods(serving)
    failed = _OF_WORKERS.get(serving.problem_reason)
    counts = {name: each.replicas for name, each in serving.groups.items()}
    counts |= {each.name: max(counts.get(each.name, 0), each.min_workers) for each in spec.worker_groups}
    found = []
    for group in spec.worker_groups:
        desired = counts[group.name] if not serving.suspended else 0
        own = [each for each in pods if each.group == group.name]
        # Where pods may not be seen, KubeRay's sum over all groups says how many of this one there are at least.
        least = max(0, serving.ready - (sum(counts.values()) - counts[group.name]))
        ready = desired if complete else sum(1 for each in own if each.ready) if pods else least
        demand = raypods.worker_demand(observed.pool.metadata, spec, group, observed.settings)
        why = _find_problem([each for each in own if not each.ready], demand, observed)
        if why is None and failed is not None and (len(own) if pods else least) < desired:
            why = PodProblem(f"{failed}: {with_remedy(serving.problem)}")
        message = end_sentence(why.message) if why else ""
        found.append(GroupStatus(name=group.name, desired=desired, ready=min(ready, desired), message=message))
    return found


def _find_problem(pods: Sequence[PodView], demand: PodDemand, observed: PoolObserved) -> PodProblem | None:
    """The first thing that keeps one of these pods from running."""
    for each in pods:
        if each.stuck is not None:
            return PodProblem(f"pod {each.name}: {each.stuck}")
    refused = next((each for each in pods if each.unschedulable is not None), None)
    if refused is None:
        return None
    lacking = describe_closest(demand, observed.nodes) if observed.nodes else None
    return PodProblem(lacking or f"pod {refused.name}: {refused.unschedulable}", unschedulable=True)


def worker_problem(group: GroupStatus) -> str | None:
    """What keeps a group's workers from running, in a sentence or two that name the group; None: nothing."""
    if not group.message:
        return None
    if f"group {group.name} " in group.message:  # as where no node offers what the group's workers need
        return group.message
    return f"A worker of group {group.name} waits: {group.message}"
