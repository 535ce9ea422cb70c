"""OpenVINO's own counters, read."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import openvino as ov

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.optimization.measurements import OperatorShare
from penstock.optimization.profiling import operator_shares
from penstock.optimization.recipes import EngineSettings, Precision
from penstock_runtime.engines import Array

_SECONDS: Final = 1.0
_WARM_UP: Final = 3
_FEWEST_RUNS: Final = 3
_MOST_RUNS: Final = 200
_HINTS: Final = {Precision.FP32: "f32", Precision.BF16: "bf16", Precision.FP16: "f16"}


def profile_openvino(path: Path, feeds: Mapping[str, Array], settings: EngineSettings) -> tuple[OperatorShare, ...]:
    """Time by operator of one run, the longest first.

    Args:
        path: of the `.xml`, or of an ONNX model.
        feeds: an array for each input.
        settings: threads and precision.

    Raises:
        Invalid: ModelInvalid: OpenVINO cannot load it, or cannot run it on these arrays.
    """
    properties = {
        "PERF_COUNT": True,
        "INFERENCE_NUM_THREADS": settings.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": _HINTS[settings.precision],
        "ENABLE_CPU_PINNING": False,
    }
    kernels: list[tuple[str, float]] = []
    try:
        request = ov.Core().compile_model(str(path), "CPU", properties).create_infer_request()
        for _ in range(_WARM_UP):
            request.infer(dict(feeds))
        runs, until = 0, time.perf_counter() + _SECONDS
        while runs < _FEWEST_RUNS or (time.perf_counter() < until and runs < _MOST_RUNS):
            request.infer(dict(feeds))
            kernels += [
                (each.node_type, each.real_time.total_seconds() * 1e6)
                for each in request.profiling_info
                if each.status == ov.ProfilingInfo.Status.EXECUTED
            ]
            runs += 1
    except RuntimeError as error:
        raise Invalid(Reason.MODEL_INVALID, f"OpenVINO cannot run {path.name}: {error}") from error
    return operator_shares(kernels, runs)
