"""What a replica asks of Ray: accelerators by Ray's names, and labels of the nodes that it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from penstock.api.conditions import Reason
from penstock.api.pool import GroupAccelerator, WorkerGroup
from penstock.api.quantity import number
from penstock.api.v1alpha1 import Accelerator, Resources
from penstock.errors import Invalid
from penstock.names import ACCELERATOR_LABEL

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

    As KubeRay has it (`IsGPUResourceKey`); and `nvidia.com/gpu.shared`, as NVIDIA's device plugin may name shares.
    """
    resource = accelerator.resource
    return resource.endswith(("gpu", "gpu.shared")) or resource.startswith("nvidia.com/mig-")


def needs_cuda(resource: str) -> bool:
    """Whether what Kubernetes counts by `resource` is NVIDIA's: a GPU, whole, a slice or a share."""
    return resource.startswith("nvidia.com/")


def required_resources(resources: Resources, groups: Sequence[WorkerGroup] = ()) -> dict[str, float]:
    """What a replica takes from a Ray node, by Ray's names: CPU (cores), memory (bytes), GPU and others (pieces).

    Args:
        resources: of the deployment.
        groups: the pool's worker groups, which say what kind of thing an accelerator is; without any it is a GPU.

    Raises:
        Invalid: a quantity is none, or a share is asked of what cannot be shared.
    """
    required = {"CPU": number(resources.cpu)}
    if resources.memory is not None:
        required["memory"] = number(resources.memory)
    if resources.accelerator is not None:
        required[_accelerator_resource(resources.accelerator, groups)] = number(resources.accelerator.count)
    return required


def actor_options(resources: Resources, groups: Sequence[WorkerGroup] = ()) -> dict[str, Any]:
    """`ray_actor_options` of a replica. Arguments and errors are those of `required_resources`."""
    required = required_resources(resources, groups)
    options: dict[str, Any] = {"num_cpus": required.pop("CPU")}
    if "memory" in required:
        options["memory"] = required.pop("memory")
    if GPU in required:
        options["num_gpus"] = required.pop(GPU)
    if required:
        options["resources"] = required
    labels = required_labels(resources)
    if labels:
        options["label_selector"] = labels
    return options


def required_labels(resources: Resources) -> dict[str, str]:
    """Labels of the Ray nodes where a replica may run."""
    labels = dict(resources.node_labels)
    if resources.accelerator is not None:
        labels[ACCELERATOR_LABEL] = resources.accelerator.type
    return labels


def _accelerator_resource(accelerator: Accelerator, groups: Sequence[WorkerGroup]) -> str:
    of_type = [each.accelerator for each in groups if each.accelerator and each.accelerator.type == accelerator.type]
    if not of_type or any(is_gpu(each) for each in of_type):
        return GPU
    if number(accelerator.count) % 1:
        raise Invalid(
            Reason.INVALID_SPEC,
            f"resources.accelerator.count is {accelerator.count}, and {accelerator.type} ({of_type[0].resource}) is no "
            "GPU: only a GPU can be shared. Write a whole number, such as 1",
        )
    return accelerator.type
