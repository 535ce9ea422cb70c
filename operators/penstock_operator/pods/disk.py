"""What a pod asks for beside cores and memory for its containers: the disk and the memory that its emptyDir volumes may hold.

What asks for no disk is put on nodes that have none, and is the first to be evicted where one runs full.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from penstock.api.meta import Manifest
from penstock.api.quantity import number

DISK: Final = "ephemeral-storage"
_MEBI: Final = 2**20
_LOGS_BYTES: Final = 256 * _MEBI
"""For containers' logs, which the kubelet turns over at 10 MiB five times, and their own layers, which are read-only."""


def with_volumes(spec: Manifest, container: str) -> Manifest:
    """A pod's spec whose container of this name asks for what its volumes may hold, unless it says itself how much disk.

    Memory-backed volumes count as memory of the containers that fill them, so their limits come on top of that.

    Raises:
        Invalid: a size is no quantity.
    """
    disk, memory = (
        _sum_limits(spec.get("volumes") or (), in_memory=False),
        _sum_limits(spec.get("volumes") or (), in_memory=True),
    )
    containers = [
        {**each, "resources": _with_amounts(each.get("resources") or {}, disk + _LOGS_BYTES, memory)}
        if each["name"] == container
        else each
        for each in spec["containers"]
    ]
    return {**spec, "containers": containers}


def _with_amounts(resources: Mapping[str, Any], disk: int, memory: int) -> Manifest:
    amounts = {kind: dict(resources.get(kind) or {}) for kind in ("requests", "limits")}
    if not any(DISK in each for each in amounts.values()):
        for each in amounts.values():
            each[DISK] = _mebibytes(disk)
    if memory:
        for each in amounts.values():
            if "memory" in each:
                each["memory"] = _mebibytes(int(number(str(each["memory"]))) + memory)
    return {**resources, **amounts}


def _sum_limits(volumes: Iterable[Mapping[str, Any]], *, in_memory: bool) -> int:
    """Bytes. A volume without a limit is left out: how much it holds nobody knows."""
    empty = [each["emptyDir"] for each in volumes if each.get("emptyDir")]
    return sum(
        int(number(str(each["sizeLimit"])))
        for each in empty
        if each.get("sizeLimit") and (each.get("medium") == "Memory") == in_memory
    )


def _mebibytes(amount: int) -> str:
    return f"{-(-amount // _MEBI)}Mi"
