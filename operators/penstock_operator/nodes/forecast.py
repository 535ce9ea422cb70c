"""Kubernetes' nodes as the planner sees them: whether pods fit, and if not, which nodes came closest and what they lack.

It answers as the scheduler's filters for resources, taints, node selectors and cordons do; of affinity between pods,
volumes and topology spread it knows nothing, so "fits" is a forecast and never a promise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from penstock.api.pool import TaintEffect, Toleration, TolerationOperator
from penstock.api.quantity import readable_bytes
from penstock.wording import join_some

PODS: Final = "pods"
"""Kubernetes' name for how many pods a node takes."""
_OF_NOT_READY: Final = frozenset({"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"})
_OF_CORDONED: Final = "node.kubernetes.io/unschedulable"
_TOLERANCE: Final = 1e-6
_NAMED: Final = 3
"""Nodes that are named of those that lack the same."""
_KINDS: Final = 4
"""Different lacks that are told."""


@dataclass(frozen=True, slots=True)
class Taint:
    """`corev1.Taint`: keeps pods away that do not tolerate it."""

    key: str
    value: str = ""
    effect: str = TaintEffect.NO_SCHEDULE

    def __str__(self) -> str:
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"


@dataclass(frozen=True, slots=True)
class KubernetesNode:
    """A node. Resources by Kubernetes' names: cpu (cores), memory (bytes), pods and extended resources (pieces)."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    allocatable: Mapping[str, float] = field(default_factory=dict)
    requested: Mapping[str, float] = field(default_factory=dict)
    """By the pods that are bound to it and have not ended."""
    ready: bool = True
    unschedulable: bool = False
    """Whether it is cordoned."""

    def free(self, resource: str) -> float:
        """How much of a resource no pod has asked for."""
        return max(0.0, self.allocatable.get(resource, 0.0) - self.requested.get(resource, 0.0))


@dataclass(frozen=True, slots=True)
class PodDemand:
    """What a pod needs of its node."""

    what: str
    """For the sentence: `a worker of group l4`."""
    requests: Mapping[str, float]
    """By Kubernetes' names, as in `KubernetesNode`."""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()


def describe_closest(demand: PodDemand, nodes: Sequence[KubernetesNode]) -> str | None:
    """What a pod needs, and which nodes came closest and what each of them lacks, in a sentence or two.

    None where a node lacks nothing: what else keeps the pod from it, only the scheduler knows.
    """
    needs = f"{_capital(demand.what)} needs {_needs(demand)}"
    if not nodes:
        return f"{needs}; the cluster has no node that is known here."
    ranked = sorted(((_lacks(demand, node), node) for node in nodes), key=lambda each: (_rank(each[0]), each[1].name))
    if not ranked[0][0]:
        return None
    told: dict[str, list[str]] = {}
    for lacks, node in ranked:
        told.setdefault("; ".join(each.text for each in lacks), []).append(node.name)
    kinds = [f"{join_some(names, _NAMED)}: {text}" for text, names in list(told.items())[:_KINDS]]
    count = f"none of the {len(nodes)} nodes offers that" if len(nodes) > 1 else "the only node does not offer that"
    return f"{needs}; {count}. Closest: {'. '.join(kinds)}."


def why_no_room(demands: Sequence[PodDemand], nodes: Sequence[KubernetesNode]) -> str | None:
    """Whether all pods find room beside each other: None, or the sentence on the first that does not.

    The largest go first, each to the first node that takes it. A cleverer packing may exist where this finds none, so
    it errs on the side of saying no.
    """
    left = list(nodes)
    for demand in sorted(demands, key=_size, reverse=True):
        if not _place(demand, left):
            return describe_closest(demand, left)
    return None


def place_waiting(waiting: Sequence[PodDemand], nodes: Sequence[KubernetesNode]) -> tuple[KubernetesNode, ...]:
    """The nodes with the pods that wait for one placed as in `why_no_room`. One that no node takes takes no room, either."""
    left = list(nodes)
    refused: list[PodDemand] = []
    for demand in sorted(waiting, key=_size, reverse=True):
        # Room only shrinks, and pods that wait are mostly alike.
        if demand not in refused and not _place(demand, left):
            refused.append(demand)
    return tuple(left)


@dataclass(frozen=True, slots=True)
class _Lack:
    """One thing that keeps a pod from a node. The heavier, the farther the node is from taking the pod."""

    weight: int
    text: str


def _lacks(demand: PodDemand, node: KubernetesNode) -> list[_Lack]:
    """What keeps the pod away, the worst first; empty where the node takes it."""
    found = [
        _Lack(64, f"lacks the label {key}={value}" + (f" (has {node.labels[key]})" if key in node.labels else ""))
        for key, value in demand.node_selector.items()
        if node.labels.get(key) != value
    ]
    found += _lacking_resources(demand, node)
    found += [
        _Lack(8, f"has the taint {taint}, which is not tolerated")
        for taint in node.taints
        if taint.effect != TaintEffect.PREFER_NO_SCHEDULE
        and not _is_tolerated(taint, demand.tolerations)
        and not _is_told_otherwise(taint, node)
    ]
    if node.unschedulable:
        found.append(_Lack(2, "is cordoned"))
    if not node.ready:
        found.append(_Lack(2, "is not ready"))
    return sorted(found, key=lambda each: -each.weight)


def _lacking_resources(demand: PodDemand, node: KubernetesNode) -> list[_Lack]:
    found = []
    for resource, amount in _with_pod(demand, node).items():
        total, free = node.allocatable.get(resource, 0.0), node.free(resource)
        if total <= _TOLERANCE:
            found.append(_Lack(32, f"has no {resource}"))
        elif total + _TOLERANCE < amount:
            found.append(_Lack(16, f"has {_amount(resource, total)} in all"))
        elif free + _TOLERANCE < amount:
            found.append(_Lack(1, f"has {_amount(resource, free)} free of {_amount(resource, total, unit=False)}"))
    return found


def _with_pod(demand: PodDemand, node: KubernetesNode) -> Mapping[str, float]:
    """The pod counts itself where the node counts pods."""
    asked = {resource: amount for resource, amount in demand.requests.items() if amount > 0}
    return {**asked, PODS: 1.0} if PODS in node.allocatable else asked


def _place(demand: PodDemand, nodes: list[KubernetesNode]) -> bool:
    """Put a pod on the first node that takes it, in place; whether there is one."""
    place = next((index for index, node in enumerate(nodes) if not _lacks(demand, node)), None)
    if place is not None:
        nodes[place] = _with_demand(nodes[place], demand)
    return place is not None


def _with_demand(node: KubernetesNode, demand: PodDemand) -> KubernetesNode:
    requested = dict(node.requested)
    for resource, amount in _with_pod(demand, node).items():
        requested[resource] = requested.get(resource, 0.0) + amount
    return replace(node, requested=requested)


def _is_tolerated(taint: Taint, tolerations: Sequence[Toleration]) -> bool:
    """As `ToleratesTaint` of k8s.io/api/core/v1 does it."""
    return any(
        (each.effect is None or each.effect == taint.effect)
        and (each.key is None or each.key == taint.key)
        and (each.operator is TolerationOperator.EXISTS or (each.value or "") == taint.value)
        for each in tolerations
    )


def _is_told_otherwise(taint: Taint, node: KubernetesNode) -> bool:
    """Whether it is Kubernetes' own taint of a node that is cordoned, or not ready."""
    return (taint.key in _OF_NOT_READY and not node.ready) or (taint.key == _OF_CORDONED and node.unschedulable)


def _rank(lacks: Sequence[_Lack]) -> int:
    return sum(each.weight for each in lacks)


def _size(demand: PodDemand) -> tuple[float, float, float]:
    """Scarce things first: extended resources, then memory, then cores."""
    extended = sum(amount for name, amount in demand.requests.items() if name not in {"cpu", "memory"})
    return extended, demand.requests.get("memory", 0.0), demand.requests.get("cpu", 0.0)


def _needs(demand: PodDemand) -> str:
    parts = [_amount(resource, amount) for resource, amount in demand.requests.items() if amount > 0]
    parts += [f"the node label {key}={value}" for key, value in demand.node_selector.items()]
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1] if parts else "nothing but a node"


def _amount(resource: str, amount: float, *, unit: bool = True) -> str:
    text = readable_bytes(amount) if resource in {"memory", "ephemeral-storage"} else f"{round(amount, 3):g}"
    return f"{text} {resource}" if unit else text


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
