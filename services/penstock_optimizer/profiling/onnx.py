"""ONNX Runtime's own profiler, read."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnxruntime as ort

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock.optimization.measurements import OperatorShare
from penstock.optimization.profiling import MATRIX_OPERATORS, Kernel, Shape, flops_of, operator_shares
from penstock_optimizer.samples.arrays import as_onnxruntime_takes
from penstock_runtime.engines import Array

_SECONDS: Final = 1.0
"""Of runs, with the profiler and without."""
_WARM_UP: Final = 3
_MOST_RUNS: Final = 200
_FEWEST_RUNS: Final = 3
_KERNEL: Final = "_kernel_time"
_BYTES: Final = {"bool": 1, "int8": 1, "uint8": 1, "float16": 2, "bfloat16": 2, "int16": 2, "uint16": 2, "double": 8,
                 "int64": 8, "uint64": 8}  # fmt: skip
_USUAL_BYTES: Final = 4
_INT8: Final = ("int8", "uint8")


@dataclass(frozen=True, slots=True)
class OnnxProfile:
    """One model, profiled."""

    kernels: tuple[Kernel, ...]
    """Of one run; times are medians over runs."""
    operators: tuple[OperatorShare, ...]
    milliseconds: float
    """Median wall time of one run without the profiler."""


@dataclass(frozen=True, slots=True)
class _Node:
    name: str
    operator: str
    microseconds: float
    inputs: tuple[tuple[str, Shape], ...]
    """Element type and shape."""
    outputs: tuple[tuple[str, Shape], ...]


def profile_onnx(path: Path, feeds: Mapping[str, Array], threads: int) -> tuple[OperatorShare, ...]:
    """Time by operator of one run, the longest first.

    Args:
        path: of the ONNX model.
        feeds: an array for each input.
        threads: of the engine.

    Raises:
        Invalid: ModelInvalid: ONNX Runtime cannot load it, or cannot run it on these arrays.
    """
    nodes, runs = _profile_runs(path, as_onnxruntime_takes(feeds), threads)
    return _shares(nodes, runs)


def profile_kernels(path: Path, feeds: Mapping[str, Array], threads: int) -> OnnxProfile:
    """The same with each kernel's arithmetic and traffic.

    Raises:
        Invalid: as `profile_onnx`.
    """
    feeds = as_onnxruntime_takes(feeds)
    nodes, runs = _profile_runs(path, feeds, threads)
    shown = _nodes_with_weights(path, feeds, threads)
    return OnnxProfile(
        kernels=_kernels(nodes, runs, shown),
        operators=_shares(nodes, runs),
        milliseconds=_wall(path, feeds, threads),
    )


def _wall(path: Path, feeds: Mapping[str, Array], threads: int) -> float:
    session = _session(path, _options(threads))
    times: list[float] = []
    until = time.perf_counter() + _SECONDS
    while len(times) < _WARM_UP + _FEWEST_RUNS or (time.perf_counter() < until and len(times) < _MOST_RUNS * 10):
        begun = time.perf_counter()
        _run(session, path, feeds)
        times.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(times[_WARM_UP:])


def _profile_runs(path: Path, feeds: Mapping[str, Array], threads: int) -> tuple[list[_Node], int]:
    """All kernels of a number of runs, in order, without those of the warm-up."""
    runs = 0

    def run(session: Any) -> None:
        nonlocal runs
        until = time.perf_counter() + _SECONDS
        while runs < _WARM_UP + _FEWEST_RUNS or (time.perf_counter() < until and runs < _WARM_UP + _MOST_RUNS):
            _run(session, path, feeds)
            runs += 1

    nodes = _traced_nodes(path, _options(threads), run)
    first = len(nodes) * _WARM_UP // runs
    return nodes[first:], runs - _WARM_UP


def _nodes_with_weights(path: Path, feeds: Mapping[str, Array], threads: int) -> dict[str, _Node]:
    """Nodes by name, with the shapes of their weights: the profiler does not show those that kernels keep packed."""
    options = _options(threads)
    options.add_session_config_entry("session.disable_prepacking", "1")
    return {node.name: node for node in _traced_nodes(path, options, lambda session: _run(session, path, feeds))}


def _traced_nodes(path: Path, options: Any, run: Callable[[Any], None]) -> list[_Node]:
    """Each kernel that the session ran, in order."""
    with tempfile.TemporaryDirectory(prefix="penstock-profile-") as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "onnxruntime")
        session = _session(path, options)
        run(session)
        events = json.loads(Path(session.end_profiling()).read_bytes())
    return [_node(event) for event in events if event.get("cat") == "Node" and event["name"].endswith(_KERNEL)]


def _kernels(nodes: Sequence[_Node], runs: int, shown: Mapping[str, _Node]) -> tuple[Kernel, ...]:
    kernels = []
    for name, calls in _group_by_name(nodes).items():
        node = shown.get(name, calls[0])
        kernel = Kernel(
            operator=node.operator,
            microseconds=_typical(calls),
            flops=flops_of(node.operator, [shape for _, shape in node.inputs], [shape for _, shape in node.outputs]),
            moved_bytes=float(sum(_size(kind, shape) for kind, shape in (*node.inputs, *node.outputs))),
            quantized=node.operator in MATRIX_OPERATORS and any(kind in _INT8 for kind, _ in node.inputs),
        )
        kernels += [kernel] * _calls_per_run(calls, runs)
    return tuple(kernels)


def _shares(nodes: Sequence[_Node], runs: int) -> tuple[OperatorShare, ...]:
    """By the median of each node, which one interruption does not move."""
    return operator_shares(
        [
            (calls[0].operator, _typical(calls))
            for calls in _group_by_name(nodes).values()
            for _ in range(_calls_per_run(calls, runs))
        ],
        1,
    )


def _group_by_name(nodes: Sequence[_Node]) -> dict[str, list[_Node]]:
    found: dict[str, list[_Node]] = {}
    for node in nodes:
        found.setdefault(node.name, []).append(node)
    return found


def _typical(calls: Sequence[_Node]) -> float:
    return statistics.median(call.microseconds for call in calls)


def _calls_per_run(calls: Sequence[_Node], runs: int) -> int:
    """A node in a loop has several kernels a run."""
    return max(1, round(len(calls) / runs))


def _size(kind: str, shape: Shape) -> int:
    count = 1
    for axis in shape:
        count *= axis
    return count * _BYTES.get(kind, _USUAL_BYTES)


def _node(event: Mapping[str, Any]) -> _Node:
    given = event["args"]
    return _Node(
        name=event["name"].removesuffix(_KERNEL),
        operator=given["op_name"],
        microseconds=float(event["dur"]),
        inputs=_tensors(given.get("input_type_shape", ())),
        outputs=_tensors(given.get("output_type_shape", ())),
    )


def _tensors(given: Sequence[Mapping[str, Sequence[int]]]) -> tuple[tuple[str, Shape], ...]:
    return tuple((kind, tuple(shape)) for each in given for kind, shape in each.items())


def _options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _session(path: Path, options: Any) -> Any:
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common base of their own
        raise Invalid(Reason.MODEL_INVALID, f"ONNX Runtime cannot load {path.name}: {error}") from error


def _run(session: Any, path: Path, feeds: Mapping[str, Array]) -> None:
    try:
        session.run(None, dict(feeds))
    except Exception as error:  # ONNX Runtime's errors have no common base of their own
        raise Invalid(Reason.MODEL_INVALID, f"ONNX Runtime cannot run {path.name} on these inputs: {error}") from error
