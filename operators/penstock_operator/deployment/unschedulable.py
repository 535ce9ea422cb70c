"""Says why a replica has no node: what it needs, what there is, and whether waiting will help."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from penstock.api.pool import WorkerGroup
from penstock.api.quantity import number, readable_bytes
from penstock.api.v1alpha1 import Resources
from penstock.names import ACCELERATOR_LABEL
from penstock_operator.deployment.observed import Node, Pool
from penstock_operator.pool.placement import required_labels, required_resources
from penstock_operator.pool.raypods import ray_labels, ray_resources
from penstock_operator.pool.status import worker_problem

NODE_GROUP_LABEL: Final = "ray.io/node-group"
"""Ray's own label of a node: the worker group that it is of."""
UNSCHEDULABLE_AFTER_SECONDS: Final = 10.0
"""For which a replica may be without a node before that is told. Serve names none before a replica has started, and which of those that
start for long have one is asked after some seconds (`penstock_operator.pool.writer`)."""
_TOLD: Final = 5


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a replica has no node yet."""

    message: str
    starting: bool = False
    """Whether a worker that would take it is on its way."""


def why_unschedulable(resources: Resources, groups: Sequence[WorkerGroup]) -> str | None:
    """Why no worker of any group could ever hold a replica; None where one could, or there are no groups to know of."""
    if not groups:
        return None
    required = required_resources(resources, groups)
    wanted = _describe_needs(resources, required)
    alike = [group for group in groups if has(ray_labels(group), required_labels(resources))]
    if not alike:
        return (
            f"{wanted}; no worker group of the pool has that: {_list(_describe_group(each) for each in groups)}. Ask for "
            "what one of them has, or add a worker group to the ServingPool."
        )
    if not any(fits(required, _offers(group)) for group in alike):
        return (
            f"{wanted}; no worker is that large: "
            f"{_list(f'one of group {group.name} has {_amounts(required, _offers(group))}' for group in alike)}. Ask "
            "for less, or give the worker group more."
        )
    return None


def groups_that_fit(resources: Resources, groups: Sequence[WorkerGroup]) -> list[WorkerGroup]:
    """The groups whose workers have what a replica needs.

    Raises:
        Invalid: as `penstock_operator.pool.placement.required_resources`.
    """
    required, labels = required_resources(resources, groups), required_labels(resources)
    return [group for group in groups if has(ray_labels(group), labels) and fits(required, _offers(group))]


def find_obstacle(resources: Resources, pool: Pool) -> Obstacle | None:
    """Why a replica that has waited for a while has no node; None where a node has room for it.

    Raises:
        Invalid: as `penstock_operator.pool.placement.required_resources`.
    """
    required = required_resources(resources, pool.groups)
    wanted = _describe_needs(resources, required)
    if not pool.groups:
        message = _find_obstacle_of_nodes(wanted, required, required_labels(resources), pool.nodes)
        return None if message is None else Obstacle(message)
    impossible = why_unschedulable(resources, pool.groups)
    if impossible is not None:
        return Obstacle(impossible)
    groups = groups_that_fit(resources, pool.groups)
    workers = {group.name: _workers(group, pool.nodes) for group in groups}
    if any(fits(required, node.available) for group in groups for node in workers[group.name]):
        return None  # it is placed, and its process is being started
    growing = [group for group in groups if len(workers[group.name]) < group.max_workers]
    if not growing:
        full = (f"{len(workers[each.name])} of at most {each.max_workers} of group {each.name}" for each in groups)
        free = _free_amounts(required, [node for group in groups for node in workers[group.name]])
        return Obstacle(
            f"{wanted}; all workers that could hold it are full: {_list(full)}. Free: {free}. Raise maxWorkers of the "
            "group, or scale something down."
        )
    told = {each.name: worker_problem(each) for each in pool.workers}
    hindered = {group.name: told.get(group.name) for group in growing}
    if all(hindered.values()):
        return Obstacle(f"{wanted}; no worker can start. {' '.join(filter(None, hindered.values()))}")
    on_the_way = _list(
        f"group {each.name} to start ({len(workers[each.name])} of at most {each.max_workers} run)"
        for each in growing
        if hindered[each.name] is None
    )
    return Obstacle(f"Waiting for a worker of {on_the_way}.", starting=True)


def _offers(group: WorkerGroup) -> dict[str, float]:
    return {name: number(amount) for name, amount in ray_resources(group).items()}


def _workers(group: WorkerGroup, nodes: Sequence[Node]) -> list[Node]:
    return [node for node in nodes if node.labels.get(NODE_GROUP_LABEL) == group.name]


def _find_obstacle_of_nodes(
    wanted: str, required: Mapping[str, float], labels: Mapping[str, str], nodes: Sequence[Node]
) -> str | None:
    """As `find_obstacle`, where only the live nodes are known: a Ray cluster of someone else's."""
    if not nodes:
        return f"{wanted}; the pool has no live node. Start one in the Ray cluster that the ServingPool names."
    matching = [node for node in nodes if has(node.labels, labels)]
    if not matching:
        types = sorted({_describe_labels(node.labels, labels) for node in nodes})
        return f"{wanted}; the pool's nodes have {', '.join(types)}. Ask for what one of them has, or add a node."
    if not any(fits(required, node.total) for node in matching):
        most = {name: max(node.total.get(name, 0.0) for node in matching) for name in required}
        return (
            f"{wanted}; no node is that large: the most that one has is {_listing(most)}. Ask for less in "
            "spec.resources, or add a larger node."
        )
    if any(fits(required, node.available) for node in matching):
        return None  # it is placed, and its process is being started
    return (
        f"{wanted}; the nodes that could hold it are full now. Free: {_free_amounts(required, matching)}. Ask for less "
        "in spec.resources, delete or scale down something, or add a node."
    )


def _describe_labels(found: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """What a node has of the labels that are wanted."""
    accelerator = found.get(ACCELERATOR_LABEL, "no accelerator") if ACCELERATOR_LABEL in wanted else ""
    others = [f"{key}={found[key]}" if key in found else f"no {key}" for key in wanted if key != ACCELERATOR_LABEL]
    return " with ".join(filter(None, (accelerator, " and ".join(others))))


def _describe_group(group: WorkerGroup) -> str:
    parts = [f"{group.accelerator.count} {group.accelerator.type}" if group.accelerator else "no accelerator"]
    parts += [f"{key}={value}" for key, value in group.node_selector.items()]
    return f"group {group.name} has {', '.join(parts)}"


def _describe_needs(resources: Resources, required: Mapping[str, float]) -> str:
    on = f" on {resources.accelerator.type}" if resources.accelerator else ""
    labels = "".join(f", {key}={value}" for key, value in resources.node_labels.items())
    return f"A replica needs {_listing(required)}{on}{labels}"


def has(found: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether labels are among others."""
    return all(found.get(key) == value for key, value in wanted.items())


def fits(required: Mapping[str, float], resources: Mapping[str, float]) -> bool:
    """Whether there is as much as is required."""
    return all(resources.get(name, 0.0) >= amount for name, amount in required.items())


def _free_amounts(required: Mapping[str, float], nodes: Sequence[Node]) -> str:
    return _list(f"{node.name} has {_amounts(required, node.available)}" for node in nodes) or "nothing"


def _amounts(names: Iterable[str], resources: Mapping[str, float]) -> str:
    return _listing({name: resources.get(name, 0.0) for name in names})


def _listing(resources: Mapping[str, float]) -> str:
    return ", ".join(
        f"{readable_bytes(amount)} memory" if name == "memory" else f"{round(amount, 3):g} {name}"
        for name, amount in resources.items()
    )


def _list(parts: Iterable[str]) -> str:
    told = list(parts)
    more = f"; and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
    return "; ".join(told[:_TOLD]) + more
