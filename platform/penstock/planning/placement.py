"""Where replicas may run: accelerators by Ray's names, and why a replica finds no node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from penstock.api.pool import GroupAccelerator
from penstock.api.v1alpha1 import Accelerator
from penstock.planning.names import ACCELERATOR_LABEL
from penstock.planning.observed import Node
from penstock.planning.quantities import readable_bytes

GPU: Final = "GPU"
"""Ray's name of the resource behind `num_gpus`."""


def ray_resource(accelerator: GroupAccelerator) -> tuple[str, float]:
    """By which name Ray counts a worker's accelerators, and how many it has.

    A GPU, whole or a MIG slice or a time-sliced share, is Ray's `GPU`, so that replicas can ask for fractions and Ray
    sets their visible devices. Anything else is a custom resource named by its type.
    """
    return (GPU if is_gpu(accelerator) else accelerator.type), float(accelerator.count)


def is_gpu(accelerator: GroupAccelerator) -> bool:
    """Whether Kubernetes' resource is a GPU: `nvidia.com/gpu`, `amd.com/gpu`, `nvidia.com/mig-1g.5gb` and the like.

    The rule is KubeRay's (`IsGPUResourceKey`), and `nvidia.com/gpu.shared`, as NVIDIA's plugin may name shares.
    """
    resource = accelerator.resource
    return resource.endswith(("gpu", "gpu.shared")) or resource.startswith("nvidia.com/mig-")


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
