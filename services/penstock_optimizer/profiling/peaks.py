"""What this machine does at best: one large matrix product, and one copy."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from penstock.optimization.profiling import Peak

_SIDE: Final = 768
_SECONDS: Final = 0.3
_LEAST_BYTES: Final = 1 << 20
_MOST_BYTES: Final = 1 << 28


def measure_peak(threads: int, working_set: int) -> Peak:
    """Measure both peaks, in less than a second.

    Args:
        threads: that work at once.
        working_set: bytes that the model moves in one run. What fits into a cache is copied faster, so the copy is as large.
    """
    return Peak(gigaflops=_gigaflops(threads), gigabytes_per_second=_gigabytes(threads, working_set))


def _gigaflops(threads: int) -> float:
    weights = np.random.default_rng(0).standard_normal((_SIDE, _SIDE), dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [_SIDE, _SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [_SIDE, _SIDE])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=onnx.IR_VERSION_2023_5_5)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    best = _best_seconds(lambda: session.run(None, {"x": weights}))
    return 2.0 * _SIDE**3 / best / 1e9


def _gigabytes(threads: int, working_set: int) -> float:
    each = max(_LEAST_BYTES, min(_MOST_BYTES, working_set)) // 2 // threads
    pairs = [(np.ones(each // 8), np.empty(each // 8)) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        best = _best_seconds(lambda: list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pairs)))
    return 2.0 * each * threads / best / 1e9


def _best_seconds(act: Callable[[], object]) -> float:
    act()
    best = float("inf")
    until = time.perf_counter() + _SECONDS
    while time.perf_counter() < until:
        begun = time.perf_counter()
        act()
        best = min(best, time.perf_counter() - begun)
    return best
