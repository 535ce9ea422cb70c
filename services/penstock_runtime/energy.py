"""Joules, where the machine tells them: RAPL for processors, NVML for NVIDIA's GPUs. Virtual machines mostly show neither."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from penstock.optimization.measurements import EnergyMethod

POWERCAP: Final = Path("/sys/class/powercap")
_MICRO: Final = 1e-6
_MILLI: Final = 1e-3


class Meter(Protocol):
    """Reads energy."""

    @property
    def method(self) -> EnergyMethod:
        """Where its joules come from."""

    def read(self) -> float | None:
        """Joules since some moment in the past; None where they cannot be read."""

    def joules_between(self, before: float | None, after: float | None) -> float | None:
        """Joules from one reading to the next."""


@dataclass(frozen=True)
class Estimated:
    """Nothing can be read: CPU seconds are all that is known."""

    method: EnergyMethod = EnergyMethod.ESTIMATED

    def read(self) -> None:
        """Nothing."""

    def joules_between(self, before: float | None, after: float | None) -> None:
        """Nothing."""


class Rapl:
    """The package counters of the kernel's powercap. They count all that the processor does, so the machine must be idle.

    A counter begins anew after some hundred thousand joules, each by itself: what it had counted by then is kept, so that
    readings only grow. It is to be read more often than that, some minutes under full load.

    Args:
        ranges: of each package's folder, the count (µJ) after which its counter begins anew.
    """

    method = EnergyMethod.MEASURED_RAPL

    def __init__(self, ranges: Mapping[Path, int]) -> None:
        self._ranges = ranges
        self._last: dict[Path, int] = {}
        self._before = 0

    def read(self) -> float | None:
        """Joules of all packages together."""
        try:
            now = {package: int((package / "energy_uj").read_text()) for package in self._ranges}
        except (OSError, ValueError):
            return None
        self._before += sum(self._ranges[each] for each, count in now.items() if count < self._last.get(each, 0))
        self._last = now
        return (self._before + sum(now.values())) * _MICRO

    def joules_between(self, before: float | None, after: float | None) -> float | None:
        """Joules between."""
        return None if before is None or after is None else after - before


class Nvml:
    """The total energy counter of one GPU, read from NVIDIA's own library (Volta and later)."""

    method = EnergyMethod.MEASURED_NVML

    def __init__(self, library: ctypes.CDLL, device: ctypes.c_void_p) -> None:
        self._library = library
        self._device = device

    def read(self) -> float | None:
        """Joules since the driver was loaded."""
        found = ctypes.c_ulonglong()
        if self._library.nvmlDeviceGetTotalEnergyConsumption(self._device, ctypes.byref(found)) != 0:
            return None
        return found.value * _MILLI

    def joules_between(self, before: float | None, after: float | None) -> float | None:
        """Joules between."""
        return None if before is None or after is None else after - before


def meter(*, gpu: bool, device: int = 0, powercap: Path = POWERCAP) -> Meter:
    """The best meter that there is for what does the work; of GPUs, by NVML's number."""
    return (_nvml(device) if gpu else _rapl(powercap)) or Estimated()


def visible_devices(told: str | None) -> tuple[int, ...]:
    """Numbers of the GPUs that a process may use, from its `CUDA_VISIBLE_DEVICES`; none where it names them otherwise."""
    if told is None:
        return (0,)
    names = [each.strip() for each in told.split(",") if each.strip()]
    return tuple(int(each) for each in names) if all(each.isdigit() for each in names) else ()


def _rapl(powercap: Path) -> Rapl | None:
    """RAPL's packages, if their counters may be read; subzones (`intel-rapl:0:1`) are part of them."""
    packages = tuple(sorted(zone for zone in powercap.glob("intel-rapl:*") if zone.name.count(":") == 1))
    if not packages:
        return None
    try:
        found = Rapl({package: int((package / "max_energy_range_uj").read_text()) for package in packages})
    except (OSError, ValueError):
        return None
    return found if found.read() is not None else None


def _nvml(number: int) -> Nvml | None:
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    device = ctypes.c_void_p()
    if library.nvmlInit_v2() != 0 or library.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(device)) != 0:
        return None
    found = Nvml(library, device)
    return found if found.read() is not None else None
