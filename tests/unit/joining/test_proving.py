"""Which axes count rows is proved by trial runs: models whose rows depend on each other are found out, others are not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.telling import assert_tells
from tests.unit.joining.graphs import COUPLED, SEPARATE, Graph

from penstock.errors import Invalid
from penstock.optimization.recipes import EngineName, EngineSettings
from penstock.serving.joining import Joining
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_runtime.engines import Array, load_engine
from penstock_runtime.joining import Trial, prove

ONNX = EngineSettings(name=EngineName.ONNX_RUNTIME)


def tried(graph: Graph, folder: Path, declared: Joining | None = None, rows: int = 32) -> Trial:
    return prove(load_engine(graph.save(folder / "model.onnx"), ONNX), ONNX, rows, declared)


@pytest.mark.parametrize("graph", COUPLED.values(), ids=COUPLED)
def test_requests_are_not_joined_where_rows_depend_on_each_other(graph: Graph, tmp_path: Path) -> None:
    found = tried(graph, tmp_path)
    assert found.joining is None, found
    assert found.reason
    assert len(found.reason) < 253


@pytest.mark.parametrize(("graph", "takes", "gives"), SEPARATE.values(), ids=SEPARATE)
def test_requests_are_joined_where_every_row_is_its_own(
    graph: Graph, takes: dict[str, int], gives: dict[str, int], tmp_path: Path
) -> None:
    found = tried(graph, tmp_path)
    assert found.joining is not None, found
    assert (found.joining.inputs, found.joining.outputs) == (takes, gives)


def test_openvino_is_tried_as_onnx_runtime_is(tmp_path: Path) -> None:
    settings = EngineSettings(name=EngineName.OPENVINO)
    found = {}
    for name, graph in (COUPLED | {name: graph for name, (graph, _, _) in SEPARATE.items()}).items():
        try:
            engine = load_engine(graph.save(tmp_path / "model.onnx"), settings)
        except Invalid:
            continue  # an operator or a type that it has not
        found[name] = prove(engine, settings, 32).joining is not None
    assert len(found) > 60
    assert {name for name, joined in found.items() if joined} == found.keys() & SEPARATE.keys()


LABEL = SEPARATE["a label that is declared as one"][0]
SUM = COUPLED["a running sum over an axis called time"]
DECLARED: dict[str, tuple[Graph, Joining, str | None]] = {
    "the right axes": (LABEL, Joining(inputs={"x": 0}, outputs={"y": 0}), None),
    "never": (LABEL, Joining(), "manifest"),
    "an axis that is fixed": (LABEL, Joining(inputs={"x": 1}, outputs={"y": 0}), "'x' open"),
    "another axis of the output": (SEPARATE["a batch on the last axis"][0], Joining(inputs={"x": 1}, outputs={"y": 1}), "outputs rows 1"),
    "an output left out": (LABEL, Joining(inputs={"x": 0}), "axis [] outputs ['y']"),
    "an axis of time": (SUM, Joining(inputs={"x": 0}, outputs={"y": 0}), "each other's answers"),
}  # fmt: skip


@pytest.mark.parametrize(("graph", "declared", "problem"), DECLARED.values(), ids=DECLARED)
def test_what_a_manifest_declares_is_tried_as_well(
    graph: Graph, declared: Joining, problem: str | None, tmp_path: Path
) -> None:
    found = tried(graph, tmp_path, declared)
    assert (found.joining is None) is (problem is not None), found
    if problem is not None:
        assert_tells(found.reason, problem)


class Python:
    """An engine in Python: 2 numbers a row to 2 numbers a row."""

    platform = "python"
    signature = Signature(
        inputs=(TensorSpec(name="x", datatype=DataType.FP32, shape=(-1, 2)),),
        outputs=(TensorSpec(name="y", datatype=DataType.FP32, shape=(-1, 2)),),
    )

    def __init__(self, problem: str = "") -> None:
        self.problem = problem
        self.runs = 0

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        x: np.ndarray[Any, Any] = inputs["x"]
        self.runs += 1
        match self.problem:
            case "counts runs":
                return {"y": x + self.runs}
            case "takes one row" if len(x) != 1:
                raise ValueError("one row, please")
            case "takes two rows at most" if len(x) > 2:
                raise ValueError("two rows, please")
            case "takes nothing":
                raise ValueError("nothing, please")
            case "refuses what is not finite" if not np.isfinite(x).all():
                raise ValueError("numbers, please")
            case "refuses zeros" if not x.all(axis=1).all():
                raise ValueError("no zeros, please")
            case "gives nothing":
                return {"y": np.full_like(x, np.nan)}
            case _:
                return {"y": x * 2}


ENGINES: dict[str, tuple[str, str | None]] = {
    "a good one": ("", None),
    "one that refuses NaN": ("refuses what is not finite", None),
    "one that refuses zeros": ("refuses zeros", None),
    "one that counts its runs": ("counts runs", "two answers same"),
    "one that takes one row": ("takes one row", "1 row 2"),
    "one that takes two rows": ("takes two rows at most", "together two rows, please"),
    "one that takes nothing": ("takes nothing", "none nothing, please"),
    "one that gives NaN alone": ("gives nothing", "proves nothing"),
}


@pytest.mark.parametrize(("problem", "reason"), ENGINES.values(), ids=ENGINES)
def test_any_engine_is_tried_by_its_protocol_alone(problem: str, reason: str | None) -> None:
    found = prove(Python(problem), ONNX, 8)
    assert (found.joining is None) is (reason is not None), found
    if reason is not None:
        assert_tells(found.reason, reason)


def test_what_was_not_proved_in_time_is_not_joined() -> None:
    found = prove(Python(), ONNX, 8, seconds=-1.0)
    assert found.joining is None
    assert_tells(found.reason, "not proved time")
