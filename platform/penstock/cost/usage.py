"""What a replica has used and what was kept for it, since its process started.

All only ever grows, so that two looks tell what happened in between (Prometheus' counters). Use is what was consumed, reservation what
nobody else could have meanwhile; in the words of OpenCost, `usage` and `request`, of FinOps, usage and commitment.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import ConfigDict, Field

from penstock.models import Frozen

FINITE: Final = ConfigDict(allow_inf_nan=False)
"""Of what a tenant's replica says: JSON has no word for what is no number."""
MOST_CHARACTERS: Final = 253


class EnergySource(StrEnum):
    """Where joules come from."""

    RAPL = "rapl"
    """The processors' counters: the replica's share of them, by CPU time."""
    NVML = "nvml"
    """The GPU's counter: the replica's share of it."""
    ESTIMATED = "estimated"
    """From CPU time and memory; nothing was measured (`penstock.cost.energy`)."""


Amount = Annotated[float, Field(ge=0)]


class ReservedResources(Frozen):
    """What Ray keeps for one replica."""

    model_config = FINITE

    cpus: Amount = 0.0
    memory_bytes: Amount = 0.0
    """0: nothing is kept, it takes what there is."""
    accelerators: Amount = 0.0
    """Pieces, or a share of one."""
    accelerator: Annotated[str, Field(max_length=MOST_CHARACTERS)] = ""
    """Their kind."""


class UsageCounts(Frozen):
    """Sums since the replica's process started."""

    model_config = FINITE

    seconds: Amount = 0.0
    """For which the sums are."""
    answered: Annotated[int, Field(ge=0)] = 0
    """Inference requests."""
    cpu_seconds: Amount = 0.0
    """Of the replica's server, its Ray actor, and what they started."""
    overhead_cpu_seconds: Amount = 0.0
    """The replica's part of what else its worker's processes used (raylet, agents, Serve's controller and proxies), by CPU time of
    the worker's replicas."""
    memory_byte_seconds: Amount = 0.0
    """Resident memory of the same processes. Pages that several share count for each."""
    accelerator_seconds: Amount = 0.0
    """Time for which the engine had a run under way, of a replica that holds an accelerator."""
    joules: dict[EnergySource, Amount] = Field(default={})
    reserved_cpu_seconds: Amount = 0.0
    reserved_memory_byte_seconds: Amount = 0.0
    reserved_accelerator_seconds: Amount = 0.0
