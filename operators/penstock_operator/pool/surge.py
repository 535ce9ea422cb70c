"""Whether a replacement may begin, which takes a pool's room twice, and when one that found no room is given up.

A release replaces nearly every pool. If all began at once, each where there is room for it alone, they would be left with
some of their pods each, waiting for room that the others hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from penstock.api.conditions import Reason
from penstock.api.pool import ManagedRayCluster
from penstock.api.verdicts import Verdict, false, true
from penstock_operator.nodes.forecast import PodDemand, why_no_room
from penstock_operator.pool import raypods
from penstock_operator.pool.names import UNCHECKED_SURGE
from penstock_operator.pool.observed import PoolObserved, RayClusterView
from penstock_operator.pool.raycluster import GroupCount
from penstock_operator.pool.status import hindrance, lacks_pods

AT_ONCE: Final = 4
"""So many candidates may be starting in the whole cluster."""
START_SECONDS: Final = 900.0
"""For a candidate to get all of its pods. After that no other pool waits for it, since a wrong image must not stop everyone's
changes; and where it still lacks a node it gives back what it has, for which others may wait in turn."""


def starting_candidates(clusters: Iterable[RayClusterView]) -> tuple[RayClusterView, ...]:
    """The candidates among RayClusters that lack pods."""
    return tuple(each for each in clusters if each.took_over is None and not each.deleting and lacks_pods(each))


def present_counts(spec: ManagedRayCluster, serving: RayClusterView) -> dict[str, GroupCount]:
    """The groups of a candidate: with as many workers as run, as far as the spec allows."""
    present = {name: count.replicas for name, count in serving.groups.items()}
    return {
        each.name: GroupCount(min(each.max_workers, present.get(each.name, 0))) for each in spec.worker_groups
    }  # fmt: skip


def why_held(
    observed: PoolObserved,
    spec: ManagedRayCluster,
    serving: RayClusterView,
    counts: Mapping[str, GroupCount],
    now: float,
) -> Verdict | None:
    """What keeps a replacement from beginning; None: nothing."""
    turn = _why_not_its_turn([each for each in observed.elsewhere if now - each.created < START_SECONDS])
    if turn is not None:
        return true(Reason.PENDING, turn)
    room = observed.nodes if observed.room is None else observed.room
    obstacle = why_no_room(_demands(observed, spec, counts), room or ()) if _is_checked(observed) else None
    if obstacle is None:
        return None
    said = (
        f"The change needs a second Ray cluster beside {serving.name}, which serves on, and there is no room: "
        f"{obstacle} Free nodes or add some; where nodes are added on demand, annotate the pool with "
        f"{UNCHECKED_SURGE}: Unchecked."
    )
    return false(Reason.SURGE_DOES_NOT_FIT, said)


def why_given_up(observed: PoolObserved, candidate: RayClusterView, now: float) -> Verdict | None:
    """Why a candidate is not waited for any longer; None: it is.

    Where nodes are added on demand, or nothing is known of them, nothing would keep it from beginning again at once.
    """
    in_time = candidate.ever_ready or now - candidate.created < START_SECONDS
    refused = any(each.cluster == candidate.name and each.unschedulable is not None for each in observed.pods)
    if in_time or not refused or not _is_checked(observed):
        return None
    said = (
        f"RayCluster {candidate.name} did not get all of its pods within {START_SECONDS / 60:.0f} minutes and was given up; "
        "what runs goes on, and the change is tried again once there is room."
    )
    return false(Reason.SURGE_DOES_NOT_FIT, f"{said} {hindrance(observed, candidate) or ''}".rstrip())


def _why_not_its_turn(others: list[RayClusterView]) -> str | None:
    if len(others) >= AT_ONCE:
        return f"{len(others)} other pools are being replaced; this one begins after them."
    if any(each.head_since is None for each in others):
        # The room that is left is known only once its pods are there.
        return "Another pool's replacement has just begun; this one follows once the other's pods have been made."
    return None


def _is_checked(observed: PoolObserved) -> bool:
    """Whether the nodes of now must have room for it all."""
    annotations = observed.pool.metadata.annotations
    return observed.nodes is not None and annotations.get(UNCHECKED_SURGE) != "Unchecked"


def _demands(observed: PoolObserved, spec: ManagedRayCluster, counts: Mapping[str, GroupCount]) -> list[PodDemand]:
    metadata, settings = observed.pool.metadata, observed.settings
    demands = [raypods.head_demand(metadata, spec, settings)]
    for group in spec.worker_groups:
        demand = raypods.worker_demand(metadata, spec, group, settings)
        demands += [demand] * max(group.min_workers, counts[group.name].replicas)
    return demands
