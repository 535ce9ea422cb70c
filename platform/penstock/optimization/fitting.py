"""Whether an artifact may run on a machine, and what an artifact made on a machine needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from penstock.engines import ENGINES, GpuUse
from penstock.optimization.hardware import KNOWN_INSTRUCTION_SETS, Hardware, HardwareRequirement
from penstock.optimization.recipes import EngineSettings, Precision

_INT8: Final = ("avx512_vnni", "avx_vnni", "asimddp")
"""Without an 8-bit dot product, x86 kernels add pairs in 16 bits and saturate: other answers, and slower. The first
that a machine has is enough: AMX computes the same as VNNI, only faster."""
NATIVE: Final[Mapping[Precision, tuple[str, ...]]] = {
    Precision.FP32: (),
    Precision.BF16: ("avx512_bf16", "amx_bf16", "bf16"),
    Precision.FP16: ("avx512_fp16", "asimd"),
}
"""Instruction sets that compute in a precision. One is enough; without any it is slower than fp32."""


def why_unfit(requirement: HardwareRequirement, hardware: Hardware) -> str | None:
    """What the machine lacks of a requirement, as a sentence without its stop; None where it has all."""
    if requirement.architecture != hardware.architecture:
        return f"it needs a {requirement.architecture} processor, and this machine has {hardware.architecture}"
    missing = [each for each in requirement.instruction_sets if each not in hardware.instruction_sets]
    if missing:
        return f"it needs the instruction sets {', '.join(missing)}, which {hardware.cpu} here does not have"
    names = [gpu.name for gpu in hardware.gpus]
    if requirement.gpu is not None and requirement.gpu not in names:
        return f"it is made for the GPU {requirement.gpu}, and this machine has {', '.join(names) or 'none'}"
    return None


def requirement_of(hardware: Hardware, engine: EngineSettings, weight_precision: str) -> HardwareRequirement:
    """What an artifact needs that was made and measured on a machine.

    Args:
        hardware: where it was measured.
        engine: what runs it.
        weight_precision: such as `int8`, `fp32`.

    Returns:
        The architecture; the instructions that its low-precision arithmetic used there, since without them the same
        file gives other answers or loses what was measured; all instruction sets for machine code; the GPU for an
        engine that runs on one.
    """
    if ENGINES[engine.name].gpu is GpuUse.ALWAYS:
        gpu = hardware.gpus[0].name if hardware.gpus else None
        return HardwareRequirement(architecture=hardware.architecture, gpu=gpu)
    if ENGINES[engine.name].native:
        return HardwareRequirement(architecture=hardware.architecture, instruction_sets=hardware.instruction_sets)
    wanted: set[str] = set()
    if weight_precision == "int8":
        wanted |= _first_of(_INT8, hardware)
    wanted |= _first_of(NATIVE[engine.precision], hardware)
    needed = tuple(each for each in KNOWN_INSTRUCTION_SETS if each in wanted)
    return HardwareRequirement(architecture=hardware.architecture, instruction_sets=needed)


def _first_of(names: tuple[str, ...], hardware: Hardware) -> set[str]:
    return {name for name in names if name in hardware.instruction_sets} and {
        next(name for name in names if name in hardware.instruction_sets)
    }
