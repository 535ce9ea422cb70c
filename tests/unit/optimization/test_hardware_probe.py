"""What the kernel and the driver say becomes a fingerprint."""

from __future__ import annotations

import os
import platform

import pytest

from penstock.optimization.hardware import Gpu
from penstock_runtime.hardware import probe, read_cpuinfo, read_gpus, read_limit, read_quota

ARM = "processor : 0\nFeatures : fp asimd i8mm\nCPU implementer : 0x41\nCPU part : 0xd4f\n"
INTEL = "processor\t: 0\nmodel name\t: Xeon\nflags\t\t: fpu avx2 amx_int8\n\nprocessor\t: 1\nmodel name\t: Other\n"
GPUS = "0, GPU-aa11, NVIDIA H200, 143771, 9.0\n1, GPU-bb22, NVIDIA L4, 23034, 8.9\nnot a line of it\n"
H200 = Gpu(name="NVIDIA H200", memory_bytes=143771 << 20, compute_capability="9.0")
L4 = Gpu(name="NVIDIA L4", memory_bytes=23034 << 20, compute_capability="8.9")


def test_the_processor_is_the_first_one_named() -> None:
    assert read_cpuinfo(INTEL) == ("Xeon", frozenset({"fpu", "avx2", "amx_int8"}))
    assert read_cpuinfo(ARM) == ("implementer 0x41 part 0xd4f", frozenset({"fp", "asimd", "i8mm"}))
    assert read_cpuinfo("") == ("", frozenset())


def test_limits_are_read_and_max_is_none() -> None:
    assert [read_quota(text) for text in ("150000 100000\n", "max 100000\n", "")] == [1.5, None, None]
    assert [read_limit(text) for text in ("1024\n", "max\n", "")] == [1024, None, None]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [(None, (H200, L4)), ("1", (L4,)), ("GPU-bb,0", (L4, H200)), ("", ()), ("-1", ()), ("0,7,1", (H200,))],
    ids=["all", "by index", "by UUID", "empty hides all", "-1 hides all", "an unknown one ends the list"],
)
def test_gpus_are_those_that_cuda_would_show(visible: str | None, expected: tuple[Gpu, ...]) -> None:
    assert read_gpus(GPUS, visible) == expected


def test_this_machine_is_what_the_kernel_says() -> None:
    found = probe()
    assert found.architecture == platform.machine()
    assert 1 <= found.cores <= len(os.sched_getaffinity(0))
    assert 0 < found.memory_bytes <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert found == probe()
