"""What a managed pool's status says of its Ray cluster: whether it runs, what it waits for, and its groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from penstock.api.conditions import Reason
from penstock.api.pool import GroupStatus, ManagedRayCluster
from penstock.api.verdicts import Verdict, false
from penstock_operator.nodes.forecast import PodDemand, closest
from penstock_operator.pool import raypods
from penstock_operator.pool.observed import PodView, PoolObserved, RayClusterView

_NO_NODE: Final = "no node takes it: "
_OF_WORKERS: Final = {
    "FailedCreateWorkerPod": "KubeRay could not create a worker",
    "FailedDeleteWorkerPod": "KubeRay could not delete a worker, and creates none meanwhile",
}
"""KubeRay's failures that are no fault of the head. It ends at the first, whichever group that is of."""


@dataclass(frozen=True, slots=True)
class GroupReport:
    """Groups as the status has them."""

    groups: tuple[GroupStatus, ...]
    head: str | None
    """What keeps the head from running."""


def report(observed: PoolObserved, serving: RayClusterView) -> GroupReport:
    """The groups, each with what keeps its workers from running; nothing where they are just starting."""
    spec = observed.pool.spec.managed
    pods = [each for each in observed.pods if each.cluster == serving.name]
    if spec is None:
        return GroupReport((), None)
    head = _why([each for each in pods if not each.group], raypods.head_demand(spec.head), observed)
    if head is None and not serving.head_ready and serving.problem_reason not in _OF_WORKERS:
        head = serving.problem or None
    return GroupReport(tuple(_groups(observed, spec, serving, pods)), head)


def hindrance(observed: PoolObserved, cluster: RayClusterView) -> str | None:
    """What keeps a RayCluster's pods from running, in a sentence; None where they are just starting."""
    reported = report(observed, cluster)
    if reported.head is not None:
        return f"The head does not run: {_sentence(reported.head.removeprefix(_NO_NODE))}"
    return next(iter(problems(reported.groups)), None)


def missing_pods(cluster: RayClusterView) -> bool:
    """Whether pods must be looked at: only a cluster that lacks some has something to tell."""
    return not cluster.suspended and (not cluster.head_ready or cluster.ready < wanted(cluster))


def wanted(cluster: RayClusterView) -> int:
    """Workers that there are to be."""
    return max(cluster.desired, sum(each.replicas for each in cluster.groups.values()))


def starting(observed: PoolObserved, serving: RayClusterView | None, head: str | None, waiting: str) -> Verdict:
    """Why the pool cannot be used yet. `waiting` says it where there is no RayCluster yet."""
    if observed.pool.spec.suspend:
        said = "Its nodes are given back. The deployments stay; set spec.suspend to false to start them again."
        return false(Reason.SUSPENDED, said)
    if serving is None:
        return false(Reason.STARTING_POOL, waiting)
    if head is not None:
        reason = Reason.UNSCHEDULABLE if head.startswith(_NO_NODE) else Reason.STARTING_POOL
        return false(reason, f"RayCluster {serving.name} does not run: {_sentence(head.removeprefix(_NO_NODE))}")
    if not serving.head_ready:
        return false(Reason.STARTING_POOL, f"The head of RayCluster {serving.name} is starting.")
    return false(Reason.STARTING_POOL, f"The head of {serving.name} runs; Ray is starting on it.")


def _groups(
    observed: PoolObserved, spec: ManagedRayCluster, serving: RayClusterView, pods: Sequence[PodView]
) -> list[GroupStatus]:
    complete = not missing_pods(serving)
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
        why = _why([each for each in own if not each.ready], raypods.worker_demand(group), observed)
        if why is None and failed is not None and (len(own) if pods else least) < desired:
            why = f"{failed}: {serving.problem}"
        message = _sentence(why.removeprefix(_NO_NODE)) if why else ""
        found.append(GroupStatus(name=group.name, desired=desired, ready=min(ready, desired), message=message))
    return found


def _why(pods: Sequence[PodView], demand: PodDemand, observed: PoolObserved) -> str | None:
    """The first thing that keeps one of these pods from running."""
    for each in pods:
        if each.stuck is not None:
            return f"pod {each.name}: {each.stuck}"
    refused = next((each for each in pods if each.unschedulable is not None), None)
    if refused is None:
        return None
    lacking = closest(demand, observed.nodes) if observed.nodes else None
    return _NO_NODE + (lacking or f"pod {refused.name}: {refused.unschedulable}")


def problems(groups: Sequence[GroupStatus]) -> tuple[str, ...]:
    """What keeps workers from running, a sentence or two for each group, which is named in it."""
    return tuple(
        each.message
        if f"group {each.name} " in each.message
        else f"A worker of group {each.name} waits: {each.message}"
        for each in groups
        if each.message
    )


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
