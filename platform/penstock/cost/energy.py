"""Joules of one replica: its share of what a meter counts for all, or an estimate.

Estimates are those of Cloud Carbon Footprint (https://www.cloudcarbonfootprint.org/docs/methodology): a virtual CPU at full use takes
3.5 W (its average of AWS's processors), memory 0.392 W a gigabyte. They are for comparing, no measurement.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from penstock.cost.usage import EnergySource

WATTS_OF_BUSY_CPU: Final = 3.5
WATTS_OF_GIGABYTE: Final = 0.392
_GIGABYTE: Final = 1e9


def estimate(cpu_seconds: float, memory_byte_seconds: float) -> float:
    """Joules that so much CPU time and memory take, where nothing is measured."""
    return cpu_seconds * WATTS_OF_BUSY_CPU + memory_byte_seconds / _GIGABYTE * WATTS_OF_GIGABYTE


def share_of_package(joules: float, cpu_seconds: float, busy_seconds: float) -> float:
    """A replica's share of what all the machine's processors took, in the way of Kepler: by CPU time.

    Args:
        joules: of all packages.
        cpu_seconds: of the replica.
        busy_seconds: CPU time of all that ran on the machine.
    """
    return joules * min(cpu_seconds / busy_seconds, 1.0) if busy_seconds > 0 else 0.0


def share_of_accelerator(joules: float, reserved: float) -> float:
    """A replica's share of what the accelerators took that it can see: what it holds of them. Ray shows it no more than it needs."""
    return joules * reserved / math.ceil(reserved) if reserved > 0 else 0.0


def add_joules(before: Mapping[EnergySource, float], more: Mapping[EnergySource, float]) -> dict[EnergySource, float]:
    """Sums by source; sources that gave nothing yet are left out."""
    return {
        source: total
        for source in EnergySource
        if (total := before.get(source, 0.0) + more.get(source, 0.0)) > 0 or source in before
    }
