"""A branch on what requests hold is found wherever a file has it: in an operator's own graph, a loop's end, or a function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import pytest
from onnx import TensorProto as Type
from onnx import helper
from tests.unit.joining.graphs import F, Graph, const, node

from penstock.optimization.recipes import EngineName, EngineSettings
from penstock_runtime.engines import load_engine
from penstock_runtime.joining import prove

ROWS: Final = (F, ["n", 4])
BOUNDS: Final = {"low": const(50.0), "high": const(300.0)}
"""No request of the trial has its greatest value between them."""
TURNS: Final = {"turns": const(2, np.int64), "true": const(True, np.bool_), "two": const(2.0)}


def between(of: str, found: str) -> list[onnx.NodeProto]:
    """Whether the greatest value of all rows is between the bounds."""
    return [
        node("ReduceMax", [of], ["greatest"], keepdims=0),
        node("Greater", ["greatest", "low"], ["above"]), node("Less", ["greatest", "high"], ["below"]),
        node("And", ["above", "below"], [found]),
    ]  # fmt: skip


def body(nodes: Sequence[onnx.NodeProto], takes: dict[str, Any], gives: dict[str, Any]) -> onnx.GraphProto:
    """An operator's own graph."""
    inputs, outputs = (
        [helper.make_tensor_value_info(name, *what) for name, what in each.items()] for each in (takes, gives)
    )
    return helper.make_graph(list(nodes), "body", inputs, outputs)


def doubled_where(of: str, condition: str, given: str) -> onnx.NodeProto:
    """If: twice the rows, or the rows as they are."""
    return node(
        "If", [condition], [given],
        then_branch=body([node("Add", [of, of], ["twice"])], {}, {"twice": ROWS}),
        else_branch=body([node("Identity", [of], ["same"])], {}, {"same": ROWS}),
    )  # fmt: skip


def loop(nodes: Sequence[onnx.NodeProto], constants: dict[str, Any]) -> Graph:
    """`made` of `rows`, over and over, as long as `on`."""
    takes = {"turn": (Type.INT64, []), "before": (Type.BOOL, []), "rows": ROWS}
    inside = body(nodes, takes, {"on": (Type.BOOL, []), "made": ROWS})
    return Graph([node("Loop", ["turns", "true", "x"], ["y"], body=inside)], constants={**TURNS, **constants})


DOUBLED: Final = node("Mul", ["rows", "two"], ["made"])

BRANCHING: Final = {
    "an If in a branch of an If on shapes": Graph(
        [
            node("Shape", ["x"], ["width"], start=1, end=2), node("Greater", ["width", "one"], ["wide1"]), node("Squeeze", ["wide1"], ["wide"]),
            node(
                "If", ["wide"], ["y"],
                then_branch=body([*between("x", "c"), doubled_where("x", "c", "z")], {}, {"z": ROWS}),
                else_branch=body([node("Identity", ["x"], ["as_is"])], {}, {"as_is": ROWS}),
            ),
        ],
        constants={"one": const([1], np.int64), **BOUNDS},
    ),
    "an If in a Scan over time": Graph(
        [node("Scan", ["x"], ["y"], num_scan_inputs=1, body=body([*between("step", "c"), doubled_where("step", "c", "out")], {"step": ROWS}, {"out": ROWS}))],
        {"x": (F, ["time", "n", 4])}, {"y": (F, ["time", "n", 4])}, BOUNDS,
    ),
    "an If in a Loop": loop([node("Identity", ["before"], ["on"]), *between("rows", "c"), doubled_where("rows", "c", "made")], BOUNDS),
    "a Loop that ends by what it made": loop([DOUBLED, *between("made", "there"), node("Not", ["there"], ["on"])], BOUNDS),
}  # fmt: skip

STRAIGHT: Final = {
    "a Loop of so many turns": loop([node("Identity", ["before"], ["on"]), DOUBLED], {}),
    "a Loop that ends by the number of its turn": loop([DOUBLED, node("Less", ["turn", "last"], ["on"])], {"last": const(1, np.int64)}),
    "a Scan over time": Graph(
        [node("Scan", ["x"], ["y"], num_scan_inputs=1, body=body([node("Add", ["step", "step"], ["out"])], {"step": ROWS}, {"out": ROWS}))],
        {"x": (F, ["time", "n", 4])}, {"y": (F, ["time", "n", 4])},
    ),
}  # fmt: skip


def joined(path: Path, name: EngineName) -> bool:
    settings = EngineSettings(name=name)
    return prove(load_engine(path, settings), settings, 32).joining is not None


@pytest.mark.parametrize("engine", [EngineName.ONNX_RUNTIME, EngineName.OPENVINO])
@pytest.mark.parametrize("graph", BRANCHING.values(), ids=BRANCHING)
def test_requests_are_not_joined_where_a_branch_is_inside(graph: Graph, engine: EngineName, tmp_path: Path) -> None:
    assert not joined(graph.save(tmp_path / "model.onnx"), engine)


@pytest.mark.parametrize(("name", "graph"), STRAIGHT.items(), ids=STRAIGHT)
def test_requests_are_joined_where_all_take_one_way(name: str, graph: Graph, tmp_path: Path) -> None:
    path = graph.save(tmp_path / "model.onnx")
    assert joined(path, EngineName.ONNX_RUNTIME)
    # Of OpenVINO's own form it is not known what a loop's end hangs on.
    assert joined(path, EngineName.OPENVINO) is not name.startswith("a Loop that ends")


@pytest.mark.parametrize(("condition", "expected"), [("x", False), ("shape", True)])
def test_functions_of_the_file_are_looked_into(condition: str, expected: bool, tmp_path: Path) -> None:  # noqa: FBT001 -- a row of a table
    bounds = [node("Constant", [], [name], value_float=float(value)) for name, value in BOUNDS.items()]
    shape = [node("Shape", ["x"], ["sizes"]), node("Cast", ["sizes"], ["shape"], to=F)]
    inner = helper.make_function(
        "own", "Inner", ["x"], ["y"], [*bounds, *shape, *between(condition, "c"), doubled_where("x", "c", "y")],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    outer = helper.make_function(
        "own", "Outer", ["x"], ["y"], [helper.make_node("Inner", ["x"], ["y"], domain="own")],
        [helper.make_opsetid("own", 1)],
    )  # fmt: skip
    graph = body([helper.make_node("Outer", ["x"], ["y"], domain="own")], {"x": ROWS}, {"y": ROWS})
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=[inner, outer]), str(path))
    assert joined(path, EngineName.ONNX_RUNTIME) is expected
