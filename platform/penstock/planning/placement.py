"""Says why replicas find no node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.api.v1alpha1 import Accelerator
from penstock.planning.names import ACCELERATOR_LABEL
from penstock.planning.observed import Node
from penstock.planning.quantities import readable_bytes


def obstacle(required: Mapping[str, float], accelerator: Accelerator | None, nodes: Sequence[Node]) -> str | None:
    """A sentence on what a replica needs and what the pool's nodes have; None where a node has room."""
    wanted = _listing(required) + (f" on {accelerator.type}" if accelerator else "")
    if not nodes:
        return f"A replica needs {wanted}; the pool has no live node."
    matching = [node for node in nodes if _matches(node, accelerator)]
    if not matching:
        types = sorted({node.labels.get(ACCELERATOR_LABEL, "no accelerator") for node in nodes})
        return f"A replica needs {wanted}; the pool's nodes have {', '.join(types)}."
    if not any(_fits(required, node.total) for node in matching):
        most = {name: max(node.total.get(name, 0.0) for node in matching) for name in required}
        return f"A replica needs {wanted}; no node is that large: the most that one has is {_listing(most)}."
    if any(_fits(required, node.available) for node in matching):
        return None  # it is placed, and its process is being started
    free = "; ".join(
        f"{node.name} has {_listing({n: node.available.get(n, 0.0) for n in required})}" for node in matching[:5]
    )
    return f"A replica needs {wanted}; the nodes that could hold it are full now. Free: {free}."


def _matches(node: Node, accelerator: Accelerator | None) -> bool:
    return accelerator is None or node.labels.get(ACCELERATOR_LABEL) == accelerator.type


def _fits(required: Mapping[str, float], resources: Mapping[str, float]) -> bool:
    return all(resources.get(name, 0.0) >= amount for name, amount in required.items())


def _listing(resources: Mapping[str, float]) -> str:
    return ", ".join(
        f"{readable_bytes(amount)} memory" if name == "memory" else f"{amount:g} {name}"
        for name, amount in resources.items()
    )
