"""What a profile says of arithmetic, limits and steps, without a model."""

from __future__ import annotations

import pytest

from penstock.optimization.hardware import Hardware
from penstock.optimization.measurements import Limit
from penstock.optimization.profiling import (
    Circumstances,
    Kernel,
    LimitShares,
    Peak,
    flops_of,
    limit_of,
    limits_of,
    operator_shares,
)
from penstock_optimizer.profiling.advice import advise

PEAK = Peak(gigaflops=100, gigabytes_per_second=10)
VNNI = Hardware(architecture="x86_64", cpu="c", cores=2, instruction_sets=("avx512f", "avx512_vnni"))
PLAIN = Hardware(architecture="x86_64", cpu="c", cores=2)


@pytest.mark.parametrize(
    ("operator", "inputs", "outputs", "flops"),
    [
        pytest.param(
            "MatMul", [(8, 64), (64, 32)], [(8, 32)], 2 * 8 * 64 * 32, id="a product: two for each weight and row"
        ),
        pytest.param(
            "Gemm", [(64, 8), (64, 32)], [(8, 32)], 2 * 8 * 64 * 32, id="a product whose first input is transposed"
        ),
        pytest.param(
            "Conv", [(1, 64, 8, 8), (128, 64, 3, 3)], [(1, 128, 8, 8)], 2 * 128 * 64 * 64 * 9, id="a convolution"
        ),
        pytest.param(
            "Conv", [(1, 64, 8, 8), (64, 1, 3, 3)], [(1, 64, 8, 8)], 2 * 64 * 64 * 9, id="a depthwise convolution"
        ),
        pytest.param(
            "ConvTranspose",
            [(1, 4, 5, 5), (4, 8, 2, 2)],
            [(1, 8, 10, 10)],
            2 * 4 * 25 * 8 * 4,
            id="a transposed convolution: each input goes into one filter",
        ),
        pytest.param(
            "QLinearConv",
            [(1, 3, 4, 4), (), (), (5, 3, 1, 1), (), (), (), ()],
            [(1, 5, 4, 4)],
            2 * 5 * 16 * 3,
            id="a quantized convolution has its weights fourth",
        ),
        pytest.param("Relu", [(2, 3)], [(2, 3)], 6, id="all else: one for each element"),
        pytest.param("MatMul", [(8, 64)], [(8, 32)], 8 * 32, id="weights that are not shown are not guessed"),
    ],
)
def test_arithmetic(operator: str, inputs: list[tuple[int, ...]], outputs: list[tuple[int, ...]], flops: float) -> None:
    assert flops_of(operator, inputs, outputs) == flops


@pytest.mark.parametrize(
    ("kernel", "limit"),
    [
        pytest.param(Kernel("Conv", 100, 9e6, 1e4), Limit.COMPUTE, id="much arithmetic on few bytes"),
        pytest.param(Kernel("Gemm", 100, 1e5, 9e5), Limit.MEMORY, id="much traffic for little arithmetic"),
        pytest.param(Kernel("Add", 5, 100, 800), Limit.OVERHEAD, id="short, and far from both roofs"),
        pytest.param(Kernel("Add", 5, 100, 40_000), Limit.MEMORY, id="short, and near the roof"),
        pytest.param(
            Kernel("Gemm", 18, 9e5, 9e5), Limit.COMPUTE, id="faster than memory can: its data is in the caches"
        ),
    ],
)
def test_what_limits_a_kernel(kernel: Kernel, limit: Limit) -> None:
    assert limit_of(kernel, PEAK) is limit


def test_time_that_no_kernel_accounts_for_is_overhead() -> None:
    limits = limits_of([Kernel("Conv", 100, 9e6, 1e4)], wall_milliseconds=0.4, peak=PEAK)
    assert limits == LimitShares(compute=0.25, memory=0.0, overhead=0.75)
    assert limits.greatest is Limit.OVERHEAD


def test_nothing_is_divided_among_nothing() -> None:
    assert limits_of([], 0.0, PEAK) == LimitShares(compute=0, memory=0, overhead=0)
    assert operator_shares([], 1) == ()


def test_shares_of_several_runs() -> None:
    first, second = operator_shares([("Add", 100.0), ("Conv", 300.0), ("Add", 100.0), ("Conv", 300.0)], runs=2)
    assert (first.operator, first.calls, first.milliseconds, first.share) == ("Conv", 1, 0.3, 0.75)
    assert (second.operator, second.calls, second.milliseconds, second.share) == ("Add", 1, 0.1, 0.25)


CONV = (Kernel("Conv", 900, 9e7, 1e4), Kernel("Relu", 100, 1e3, 1e4))
ATTENTION = (*(Kernel("MatMul", 200, 1e7, 1e5) for _ in range(6)), Kernel("Softmax", 50, 1e3, 1e4))
INT8 = (Kernel("QLinearConv", 900, 9e7, 1e4, quantized=True), Kernel("Relu", 100, 1e3, 1e4))
SMALL = tuple(Kernel("Add", 4, 10, 100) for _ in range(20))
COMPUTE = LimitShares(compute=0.9, memory=0.1, overhead=0.0)
MEMORY = LimitShares(compute=0.3, memory=0.7, overhead=0.0)
OVERHEAD = LimitShares(compute=0.1, memory=0.1, overhead=0.8)


@pytest.mark.parametrize(
    ("kernels", "limits", "hardware", "wanted"),
    [
        pytest.param(CONV, COMPUTE, VNNI, ("quantize Static", "likely", "avx512_vnni"), id="int8 where the CPU has it"),
        pytest.param(
            CONV, COMPUTE, PLAIN, ("quantize Static", "possible", "no instructions"), id="int8 where it has not"
        ),
        pytest.param(INT8, COMPUTE, VNNI, ("quantize Static", "unlikely", "already"), id="int8 that is there already"),
        pytest.param(SMALL, OVERHEAD, VNNI, ("quantize Static", "unlikely", "only"), id="int8 without products"),
        pytest.param(ATTENTION, COMPUTE, VNNI, ("quantize Static", "likely", "OpenVINO"), id="int8 of attention"),
        pytest.param(
            CONV, COMPUTE, VNNI, ("quantize BF16", "unlikely", "no instructions"), id="bf16 without instructions"
        ),
        pytest.param(
            ATTENTION, MEMORY, VNNI, ("quantize Dynamic", "likely", "a quarter"), id="int8 weights that are waited for"
        ),
        pytest.param(
            CONV, COMPUTE, VNNI, ("quantize Dynamic", "unlikely", "0%"), id="int8 weights without matrix products"
        ),
        pytest.param(SMALL, OVERHEAD, VNNI, ("graphOptimize", "possible", "20 of 20"), id="many tiny kernels"),
        pytest.param(CONV, COMPUTE, VNNI, ("graphOptimize", "unlikely", "10%"), id="one large kernel"),
        pytest.param(SMALL, OVERHEAD, VNNI, ("batching", "likely", "80%"), id="overhead is paid once a batch"),
        pytest.param(CONV, COMPUTE, VNNI, ("batching", "unlikely", "little"), id="compute is paid for each row"),
        pytest.param(
            CONV, COMPUTE, VNNI, ("prune Unstructured", "unlikely", "zeros"), id="zeros cost as much as anything"
        ),
        pytest.param(
            CONV, COMPUTE, VNNI, ("prune Structured", "possible", "import path"), id="pruning wants the module"
        ),
    ],
)
def test_advice(
    kernels: tuple[Kernel, ...], limits: LimitShares, hardware: Hardware, wanted: tuple[str, str, str]
) -> None:
    step, likelihood, word = wanted
    around = Circumstances(hardware, batch_size=1, weight_bytes=90_000_000, module=False)
    advice = {each.step: each for each in advise(kernels, limits, around)}
    assert advice[step].likelihood == likelihood
    assert word in advice[step].reason


def test_the_most_promising_goes_first() -> None:
    order = [each.likelihood for each in advise(CONV, COMPUTE, Circumstances(VNNI, 1, 1, module=True))]
    assert order == sorted(order, key=["likely", "possible", "unlikely"].index)
