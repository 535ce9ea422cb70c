"""Which steps could help a model, told from its profile alone. The search decides by measurement; this says what to expect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from penstock.optimization.profiling import (
    MATRIX_OPERATORS,
    Advice,
    Circumstances,
    Kernel,
    LimitShares,
    count_tiny,
    time_by,
)

_INT8_SETS = ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp")
_BF16_SETS = ("amx_bf16", "avx512_bf16", "bf16")
"""The fastest first."""
_MUCH = 0.5
_SOME = 0.15
_MANY_TINY = 0.5
_LARGE_WEIGHTS = 1024 * 1024
_ATTENTION_PRODUCTS = 4


@dataclass(frozen=True, slots=True)
class _Findings:
    kernels: Sequence[Kernel]
    limits: LimitShares
    around: Circumstances
    products: float
    """Share of the kernels' time in fp32 matrix products and convolutions."""
    quantized: float
    """Share in int8 ones."""
    moving: float
    """Share in all others."""
    names: str
    """The greatest of the first, for people."""


def advise(kernels: Sequence[Kernel], limits: LimitShares, around: Circumstances) -> tuple[Advice, ...]:
    """What each step could do, the most promising first.

    Args:
        kernels: of one run.
        limits: of the same run.
        around: hardware, batch and source.
    """
    plain = [kernel for kernel in kernels if not kernel.quantized]
    busy = sum(kernel.microseconds for kernel in kernels) or 1.0
    products = sum(kernel.microseconds for kernel in plain if kernel.operator in MATRIX_OPERATORS) / busy
    quantized = sum(kernel.microseconds for kernel in kernels if kernel.quantized) / busy
    found = _Findings(
        kernels, limits, around, products, quantized, max(0.0, 1 - products - quantized), _product_names(plain)
    )
    order = ("likely", "possible", "unlikely")
    return tuple(sorted(_every_advice(found), key=lambda advice: order.index(advice.likelihood)))


def _every_advice(found: _Findings) -> Iterator[Advice]:
    yield _static_advice(found)
    yield _bf16_advice(found)
    yield _dynamic_advice(found)
    yield _graph_advice(found)
    yield _batching_advice(found)
    yield from _shrinking_advice(found)
    yield Advice(
        step="prune Unstructured",
        likelihood="unlikely",
        reason="dense kernels multiply by zeros as by anything else: no speed is gained by single weights",
    )


def _static_advice(found: _Findings) -> Advice:
    step = "quantize Static"
    if found.quantized >= found.products and found.quantized > 0:
        return Advice(
            step=step, likelihood="unlikely", reason=f"{found.quantized:.0%} of the time is in int8 products already"
        )
    if found.products < _SOME:
        return Advice(
            step=step, likelihood="unlikely", reason=f"only {_time_share(found)}, which is what int8 makes faster"
        )
    sets = _find_instructions(found, _INT8_SETS)
    caution = (
        "; with attention, OpenVINO's keeps accuracy where ONNX Runtime's seldom does" if _has_attention(found) else ""
    )
    if not sets:
        reason = f"{_time_share(found)}, but this processor has no instructions for int8 products{caution}"
        return Advice(step=step, likelihood="possible", reason=reason)
    likelihood = "likely" if found.products >= _MUCH else "possible"
    return Advice(step=step, likelihood=likelihood, reason=f"{_time_share(found)}, and {sets} multiplies int8{caution}")


def _bf16_advice(found: _Findings) -> Advice:
    step = "quantize BF16"
    sets = _find_instructions(found, _BF16_SETS)
    if not sets:
        return Advice(step=step, likelihood="unlikely", reason="this processor has no instructions for bf16 products")
    if found.products < _SOME:
        return Advice(step=step, likelihood="unlikely", reason=f"only {_time_share(found)}")
    likelihood = "likely" if found.products >= _MUCH else "possible"
    return Advice(
        step=step,
        likelihood=likelihood,
        reason=f"{_time_share(found)}, and {sets} multiplies bf16 (on OpenVINO), which loses next to nothing",
    )


def _dynamic_advice(found: _Findings) -> Advice:
    step = "quantize Dynamic"
    linear = time_by(found.kernels, frozenset({"MatMul", "Gemm", "FusedGemm", "FusedMatMul"}))
    if linear < _SOME:
        return Advice(step=step, likelihood="unlikely", reason=f"{linear:.0%} of the time is in matrix products")
    memory = found.limits.memory >= _SOME and found.around.weight_bytes >= _LARGE_WEIGHTS
    if memory:
        megabytes = found.around.weight_bytes / 1e6
        reason = (
            f"{found.limits.memory:.0%} of the time waits for memory at batch {found.around.batch_size}: of"
            f" {megabytes:.1f} MB weights, int8 reads a quarter"
        )
        return Advice(step=step, likelihood="likely", reason=reason)
    reason = (
        f"{linear:.0%} of the time is in matrix products; activations are quantized at each run, which costs some of it"
    )
    return Advice(step=step, likelihood="possible", reason=reason)


def _graph_advice(found: _Findings) -> Advice:
    step = "graphOptimize"
    share = count_tiny(found.kernels) / max(len(found.kernels), 1)
    if found.moving >= _SOME or (share >= _MANY_TINY and len(found.kernels) > 1):
        reason = (
            f"{found.moving:.0%} of the time is outside products, and {count_tiny(found.kernels)} of {len(found.kernels)} kernels"
            " take less than 10 µs: what can be fused is"
        )
        return Advice(step=step, likelihood="possible", reason=reason)
    reason = f"only {found.moving:.0%} of the time is outside products, and the engine fuses the usual patterns itself"
    return Advice(step=step, likelihood="unlikely", reason=reason)


def _batching_advice(found: _Findings) -> Advice:
    if found.limits.overhead >= _SOME and found.around.batch_size == 1:
        return Advice(
            step="batching",
            likelihood="likely" if found.limits.overhead >= _MUCH else "possible",
            reason=f"{found.limits.overhead:.0%} of the time is overhead, which a batch pays once; compile may help too",
        )
    if found.limits.memory >= _SOME and found.around.batch_size == 1:
        reason = f"{found.limits.memory:.0%} of the time waits for memory, and a batch reads the weights once"
        return Advice(step="batching", likelihood="possible", reason=reason)
    reason = f"{found.limits.overhead:.0%} of the time is overhead: on a CPU, a batch gains little else"
    return Advice(step="batching", likelihood="unlikely", reason=reason)


def _shrinking_advice(found: _Findings) -> Iterator[Advice]:
    work = found.products + found.quantized
    for step, what in (
        ("prune Structured", "half the channels is about a quarter of the arithmetic, before it is quantized"),
        ("distil", "a student of a quarter of the width has about a sixteenth of the arithmetic"),
    ):
        if work < _SOME:
            yield Advice(step=step, likelihood="unlikely", reason=f"only {work:.0%} of the time is in products")
        elif not found.around.module:
            yield Advice(
                step=step,
                likelihood="possible",
                reason=f"{what}; it needs samples to train on and the torch module: safetensors with an import path",
            )
        else:
            yield Advice(step=step, likelihood="possible", reason=f"{what}; it needs samples to train on")


def _time_share(found: _Findings) -> str:
    return f"{found.products:.0%} of the time is in fp32 {found.names or 'products'}"


def _product_names(kernels: Sequence[Kernel]) -> str:
    spent: dict[str, float] = {}
    for kernel in kernels:
        if kernel.operator in MATRIX_OPERATORS:
            spent[kernel.operator] = spent.get(kernel.operator, 0.0) + kernel.microseconds
    return " and ".join(sorted(spent, key=lambda name: -spent[name])[:2])


def _find_instructions(found: _Findings, wanted: Sequence[str]) -> str:
    return next((each for each in wanted if each in found.around.hardware.instruction_sets), "")


def _has_attention(found: _Findings) -> bool:
    names = [kernel.operator for kernel in found.kernels]
    fused = any("Attention" in name for name in names)
    return fused or ("Softmax" in names and names.count("MatMul") + names.count("FusedMatMul") > _ATTENTION_PRODUCTS)
