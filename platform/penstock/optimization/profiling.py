"""What a profile says before any search: where the time goes, what limits it, and which steps could help.

What limits a kernel is told by the roofline model (Williams, Waterman and Patterson, 2009): no kernel takes less than its
arithmetic at the machine's peak rate, nor than its traffic at the machine's peak bandwidth. The greater of the two is what
limits it; a kernel that is short and far from both is limited by what it takes to start it. These are estimates: traffic is
counted as if each tensor were moved once, and the peaks are measured on one kernel each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.models import Frozen
from penstock.optimization.hardware import Hardware
from penstock.optimization.measurements import Limit, OperatorShare

MATRIX_OPERATORS = frozenset({
    "Conv", "FusedConv", "ConvTranspose", "ConvInteger", "QLinearConv", "Gemm", "FusedGemm", "FusedMatMul", "MatMul",
    "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm", "MatMulNBits", "Attention",
    "QAttention", "MultiHeadAttention", "LSTM", "GRU",
})  # fmt: skip
"""ONNX Runtime's, whose arithmetic grows faster than their traffic. All others move data."""
_CONVOLUTIONS = frozenset({"Conv", "FusedConv", "ConvTranspose", "ConvInteger", "QLinearConv"})
_PROJECTED_ATTENTION = frozenset({"Attention", "QAttention"})
_GENERAL_PRODUCTS = frozenset({"Gemm", "FusedGemm", "QGemm"})
"""Whose first input may be transposed."""
_WEIGHTS_FOURTH = frozenset({"QLinearConv", "QLinearMatMul", "QGemm"})
"""Their inputs are x, its scale, its zero point, then the weights."""
_TINY_MICROSECONDS = 10.0
_CACHED = 1.2
"""Traffic at so many times the peak bandwidth is none of main memory's; below, the peak may have been measured low."""
_NEAR_PEAK = 0.25
"""A short kernel that runs at less than this share of its roof is limited by its start, not by the roof."""

Shape = tuple[int, ...]


class Peak(Frozen):
    """What this machine does at best, with the threads of the profile."""

    gigaflops: float
    """fp32, of one large matrix product."""
    gigabytes_per_second: float
    """Read and written, of a copy as large as what the model moves in one run."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One node of one run."""

    operator: str
    microseconds: float
    flops: float
    moved_bytes: float
    """Inputs, weights and outputs."""
    quantized: bool = False
    """It multiplies int8."""


class LimitShares(Frozen):
    """Shares of the time of one run, by what limits it. They sum to 1."""

    compute: float
    memory: float
    overhead: float

    @property
    def greatest(self) -> Limit:
        """What holds the model back most."""
        shares = {Limit.COMPUTE: self.compute, Limit.MEMORY: self.memory, Limit.OVERHEAD: self.overhead}
        return max(shares, key=lambda limit: shares[limit])


class Advice(Frozen):
    """What one step could do here."""

    step: str
    """Such as `quantize Static`, or `batching`."""
    likelihood: str
    """`likely`, `possible` or `unlikely`."""
    reason: str


class ModelProfile(Frozen):
    """`penstock profile --json`."""

    model: str
    engine: str
    batch_size: int
    threads: int
    milliseconds: float
    """Median wall time of one run, without the profiler."""
    operators: tuple[OperatorShare, ...]
    """By falling time. Shares are of the kernels' time."""
    torch_operators: tuple[OperatorShare, ...] = ()
    """The same of torch eager, where the source is torch's."""
    torch_milliseconds: float | None = None
    limits: LimitShares
    limit: Limit
    kernels: int
    """In one run."""
    tiny_kernels: int
    """Of less than 10 microseconds."""
    gigaflops: float
    """Arithmetic of one run, in 10^9 operations."""
    moved_megabytes: float
    peak: Peak
    hardware: Hardware
    advice: tuple[Advice, ...] = ()


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What advice depends on beside the kernels."""

    hardware: Hardware
    batch_size: int
    weight_bytes: int
    module: bool
    """The source has a torch module by import path."""


def flops_of(operator: str, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> float:
    """Arithmetic operations of a node; a multiplication with its addition counts as two.

    Args:
        operator: ONNX's or ONNX Runtime's name.
        inputs: shapes, weights among them, in the node's order.
        outputs: shapes.
    """
    at = 3 if operator in _WEIGHTS_FOURTH else 1
    if operator in MATRIX_OPERATORS and outputs and len(inputs) > at and inputs[0] and outputs[0]:
        return _product_flops(operator, inputs[0], inputs[at], outputs[0])
    return float(sum(math.prod(shape) for shape in outputs))


def _product_flops(operator: str, first: Shape, weights: Shape, output: Shape) -> float:
    if operator in _CONVOLUTIONS:
        # Each output is a sum over one filter; in a transposed one each input goes into one filter.
        positions = math.prod(first if operator == "ConvTranspose" else output)
        return 2.0 * positions * math.prod(weights[1:])
    if operator in _PROJECTED_ATTENTION:
        return 2.0 * math.prod(first[:-1]) * math.prod(weights) + 4.0 * math.prod(first) * first[-2]
    if operator == "MultiHeadAttention":
        return 4.0 * math.prod(output) * weights[-2]
    if operator in _GENERAL_PRODUCTS:
        return 2.0 * math.prod(output) * math.prod(first) / max(output[0], 1)
    return 2.0 * math.prod(output) * first[-1]


def operator_shares(kernels: Sequence[tuple[str, float]], runs: int) -> tuple[OperatorShare, ...]:
    """Sum up kernels of several runs by operator.

    Args:
        kernels: operator and microseconds of each call in all runs.
        runs: how many runs they are of.
    """
    total = sum(microseconds for _, microseconds in kernels)
    calls: dict[str, int] = {}
    spent: dict[str, float] = {}
    for operator, microseconds in kernels:
        calls[operator] = calls.get(operator, 0) + 1
        spent[operator] = spent.get(operator, 0.0) + microseconds
    shares = (
        OperatorShare(
            operator=operator,
            calls=round(calls[operator] / runs),
            milliseconds=time / runs / 1e3,
            share=time / total if total else 0.0,
        )
        for operator, time in spent.items()
    )
    return tuple(sorted(shares, key=lambda each: -each.milliseconds))


def limit_of(kernel: Kernel, peak: Peak) -> Limit:
    """What limits one kernel.

    One that moved its data faster than main memory can found it in the caches, and did not wait for memory.
    """
    compute = kernel.flops / (peak.gigaflops * 1e3)
    memory = kernel.moved_bytes / (peak.gigabytes_per_second * 1e3)
    if memory > kernel.microseconds * _CACHED:
        memory = 0.0
    roof = max(compute, memory)
    if kernel.microseconds < _TINY_MICROSECONDS and roof < kernel.microseconds * _NEAR_PEAK:
        return Limit.OVERHEAD
    return Limit.COMPUTE if compute >= memory else Limit.MEMORY


def limits_of(kernels: Sequence[Kernel], wall_milliseconds: float, peak: Peak) -> LimitShares:
    """Divide the time of one run by what limits it. What no kernel accounts for is overhead."""
    spent = dict.fromkeys(Limit, 0.0)
    for kernel in kernels:
        spent[limit_of(kernel, peak)] += kernel.microseconds
    busy = sum(spent.values())
    spent[Limit.OVERHEAD] += max(0.0, wall_milliseconds * 1e3 - busy)
    total = sum(spent.values()) or 1.0
    return LimitShares(
        compute=spent[Limit.COMPUTE] / total,
        memory=spent[Limit.MEMORY] / total,
        overhead=spent[Limit.OVERHEAD] / total,
    )


def count_tiny(kernels: Sequence[Kernel]) -> int:
    """How many kernels are so short that starting them counts."""
    return sum(kernel.microseconds < _TINY_MICROSECONDS for kernel in kernels)


def time_by(kernels: Sequence[Kernel], operators: frozenset[str]) -> float:
    """The share of the kernels' time, from 0 to 1, that these operators take."""
    total = sum(kernel.microseconds for kernel in kernels)
    return sum(kernel.microseconds for kernel in kernels if kernel.operator in operators) / total if total else 0.0
