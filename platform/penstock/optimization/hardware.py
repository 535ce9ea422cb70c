"""What a machine is, as far as it decides how fast a model runs and whether an artifact may run at all."""

from __future__ import annotations

from penstock.models import Frozen


class Gpu(Frozen):
    """One accelerator."""

    name: str
    memory_bytes: int
    compute_capability: str = ""
    """NVIDIA's, such as `9.0`."""


class Hardware(Frozen):
    """A machine's fingerprint. Two machines with equal fingerprints are expected to measure alike."""

    architecture: str
    """`x86_64` or `aarch64`, as the kernel says it."""
    cpu: str
    """The processor's model name."""
    cores: int
    """Logical cores that this process may use."""
    instruction_sets: tuple[str, ...] = ()
    """Those of `KNOWN_INSTRUCTION_SETS` that it has, in that order, by the kernel's names."""
    memory_bytes: int = 0
    gpus: tuple[Gpu, ...] = ()


class HardwareRequirement(Frozen):
    """What an artifact needs of the machine that serves it."""

    architecture: str
    instruction_sets: tuple[str, ...] = ()
    """All of these must be there."""
    gpu: str | None = None
    """Name of the accelerator, where the artifact is locked to it."""


KNOWN_INSTRUCTION_SETS = (
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
    "asimd", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip
"""Flags of /proc/cpuinfo that change which kernels an engine picks."""
