"""What this machine is, read from the kernel."""

from __future__ import annotations

import math
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from penstock.optimization.hardware import KNOWN_INSTRUCTION_SETS, Gpu, Hardware

_GPU_SECONDS: Final = 20.0
_GPU_QUERY: Final = (
    "nvidia-smi",
    "--query-gpu=index,uuid,name,memory.total,compute_cap",
    "--format=csv,noheader,nounits",
)
_MIB: Final = 1 << 20


def probe() -> Hardware:
    """The fingerprint of the machine, as far as this process may use it: affinity and control groups count."""
    cpu, flags = read_cpuinfo(_text(Path("/proc/cpuinfo")))
    groups = _control_groups()
    quotas = [quota for group in groups if (quota := read_quota(_text(group / "cpu.max"))) is not None]
    limits = [limit for group in groups if (limit := read_limit(_text(group / "memory.max"))) is not None]
    return Hardware(
        architecture=platform.machine(),
        cpu=cpu or platform.machine(),
        cores=min(len(os.sched_getaffinity(0)), *(max(1, math.ceil(quota)) for quota in quotas), 1 << 16),
        instruction_sets=tuple(each for each in KNOWN_INSTRUCTION_SETS if each in flags),
        memory_bytes=min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *limits, 1 << 62),
        gpus=_gpus(),
    )


def read_cpuinfo(text: str) -> tuple[str, frozenset[str]]:
    """Model name and flags of the first processor in /proc/cpuinfo; Arm calls them part and Features."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
    model = fields.get("model name") or " ".join(
        f"{name.removeprefix('CPU ')} {fields[name]}" for name in ("CPU implementer", "CPU part") if name in fields
    )
    return model, frozenset((fields.get("flags") or fields.get("Features") or "").split())


def read_quota(text: str) -> float | None:
    """Cores that a control group's `cpu.max` allows; None where there is no limit."""
    quota, _, period = text.strip().partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def read_limit(text: str) -> int | None:
    """Bytes that a control group's `memory.max` allows; None where there is no limit."""
    return int(text) if text.strip().isdigit() else None


def read_gpus(text: str, visible: str | None = None) -> tuple[Gpu, ...]:
    """The GPUs in nvidia-smi's answer to `_GPU_QUERY`.

    Args:
        text: one line a GPU: index, UUID, name, memory in MiB, compute capability.
        visible: CUDA_VISIBLE_DEVICES. Of what it lists, all before the first that is unknown count, as CUDA has it.
    """
    rows = [[field.strip() for field in line.split(",")] for line in text.splitlines() if line.count(",") == 4]  # noqa: PLR2004 -- the fields asked for
    if visible is not None:
        chosen = []
        for wanted in visible.split(","):
            row = next(
                (r for r in rows if wanted.strip() and (r[0] == wanted.strip() or r[1].startswith(wanted.strip()))),
                None,
            )
            if row is None:
                break
            chosen.append(row)
        rows = chosen
    return tuple(
        Gpu(name=name, memory_bytes=int(memory) * _MIB if memory.isdigit() else 0, compute_capability=capability)
        for _, _, name, memory, capability in rows
    )


def _gpus() -> tuple[Gpu, ...]:
    """No driver, no tool, or a tool that fails: no GPU can be used."""
    if not Path("/proc/driver/nvidia/version").exists() or shutil.which(_GPU_QUERY[0]) is None:
        return ()
    try:
        answer = subprocess.run(_GPU_QUERY, capture_output=True, text=True, timeout=_GPU_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return read_gpus(answer.stdout, os.environ.get("CUDA_VISIBLE_DEVICES"))


def _control_groups() -> list[Path]:
    """The process's version-2 control group and those above it: each may limit it."""
    match = re.search(r"^0::/(.*)$", _text(Path("/proc/self/cgroup")), re.MULTILINE)
    root = Path("/sys/fs/cgroup")
    if match is None:
        return []
    group = root / match[1]
    return [group, *(each for each in group.parents if each.is_relative_to(root))]


def _text(path: Path) -> str:
    """The file's text; empty where it is not there or may not be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
