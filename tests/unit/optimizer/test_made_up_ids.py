"""Samples that are made up keep inside the tables that a graph indexes by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.telling import telling

from penstock.errors import Invalid
from penstock.optimization.variants import PreparedSource
from penstock.serving.manifest import ModelFormat
from penstock_optimizer.samples.arrays import read
from penstock_optimizer.samples.data import prepare_data, read_splits
from penstock_optimizer.sources.onnx import signature_of
from penstock_optimizer.sources.vocabulary import find_limits, rows_of_tables

Node = Any
INT, FLOAT = TensorProto.INT64, TensorProto.FLOAT


def weight(name: str, *shape: int) -> Any:
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


def scalar(name: str, value: int) -> Any:
    return numpy_helper.from_array(np.array(value, np.int64), name)


TABLE = weight("table", 12, 4)
NODES: dict[str, tuple[list[Node], list[Any], dict[str, int]]] = {
    "an index": ([helper.make_node("Gather", ["table", "ids"], ["y"])], [TABLE], {"ids": 12}),
    "after a cast and a reshape": (
        [
            helper.make_node("Cast", ["ids"], ["a"], to=TensorProto.INT32),
            helper.make_node("Reshape", ["a", "shape"], ["b"]),
            helper.make_node("Gather", ["table", "b"], ["y"]),
        ],
        [TABLE, numpy_helper.from_array(np.array([-1, 2], np.int64), "shape")],
        {"ids": 12},
    ),
    "moved by a constant": (
        [helper.make_node("Add", ["ids", "two"], ["a"]), helper.make_node("Gather", ["table", "a"], ["y"])],
        [TABLE, scalar("two", 2)],
        {"ids": 10},
    ),
    "clipped from below": (
        [helper.make_node("Clip", ["ids", "two"], ["a"]), helper.make_node("Gather", ["table", "a"], ["y"])],
        [TABLE, scalar("two", 0)],
        {"ids": 12},
    ),
    "clipped on both sides": (
        [helper.make_node("Clip", ["ids", "low", "high"], ["a"]), helper.make_node("Gather", ["table", "a"], ["y"])],
        [TABLE, scalar("low", 0), scalar("high", 11)],
        {},
    ),
    "another axis of the table": (
        [helper.make_node("Gather", ["table", "ids"], ["y"], axis=1)],
        [TABLE],
        {"ids": 4},
    ),
    "the least of two tables": (
        [helper.make_node("Gather", ["table", "ids"], ["a"]), helper.make_node("Gather", ["small", "ids"], ["y"])],
        [TABLE, weight("small", 7, 4)],
        {"ids": 7},
    ),
    "a table that is a constant": (
        [
            helper.make_node("Constant", [], ["t"], value=weight("", 9, 2)),
            helper.make_node("Gather", ["t", "ids"], ["y"]),
        ],
        [],
        {"ids": 9},
    ),
    "a table that is stored in halves": (
        [
            helper.make_node("Cast", ["table"], ["t"], to=TensorProto.FLOAT16),
            helper.make_node("Gather", ["t", "ids"], ["y"]),
        ],
        [TABLE],
        {"ids": 12},
    ),
    "an index of elements": (
        [helper.make_node("GatherElements", ["table", "ids"], ["y"], axis=0)],
        [TABLE],
        {"ids": 12},
    ),
    "no index": ([helper.make_node("Cast", ["ids"], ["y"], to=FLOAT)], [], {}),
}  # fmt: skip


def model(nodes: list[Node], weights: list[Any], kind: int = INT) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("ids", kind, ["batch", 6])],
        [helper.make_tensor_value_info("y", FLOAT, None)], weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("name", NODES)
def test_the_rows_of_tables_are_told_from_the_graph(name: str) -> None:
    nodes, weights, expected = NODES[name]
    assert rows_of_tables(model(nodes, weights)) == expected


def test_a_table_in_a_branch_counts_too() -> None:
    inner = [
        helper.make_graph(
            [helper.make_node("Gather", ["table", "ids"], ["z"])], name, [],
            [helper.make_tensor_value_info("z", FLOAT, None)], [],
        )
        for name in ("then", "else")
    ]  # fmt: skip
    nodes = [
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["yes"], ["y"], then_branch=inner[0], else_branch=inner[1]),
    ]
    assert rows_of_tables(model(nodes, [TABLE])) == {"ids": 12}


def source(path: Path, rows: dict[str, int], unsuited: str | None) -> PreparedSource:
    return PreparedSource(
        name="m", digest="sha256:" + "0" * 64, format=ModelFormat.ONNX, signature=signature_of(path), onnx="m.onnx",
        parameters=1, size_bytes=4, vocabulary=rows, unsuited=unsuited, files={},
    )  # fmt: skip


def saved(folder: Path, made: onnx.ModelProto) -> Path:
    del made.graph.output[0].type.tensor_type.shape.dim[:]
    for axis in ("batch", "a", "b"):
        made.graph.output[0].type.tensor_type.shape.dim.add().dim_param = axis
    onnx.save(made, str(folder / "m.onnx"))
    return folder / "m.onnx"


def test_samples_that_are_made_up_run(tmp_path: Path) -> None:
    path = saved(tmp_path, model(*NODES["an index"][:2]))
    rows, unsuited = find_limits(path, signature_of(path), {})
    assert (rows, unsuited) == ({"ids": 12}, None)
    prepare_data(None, source(path, rows, unsuited), tmp_path / "data", max_samples=64, seed=0)
    made = read(Path(read_splits(tmp_path / "data").test))["ids"]
    assert made.min() >= 0
    assert made.max() == 11, "all of the table"


def test_where_the_graph_does_not_tell_zeros_are_tried(tmp_path: Path) -> None:
    hidden = [helper.make_node("Mul", ["ids", "one"], ["a"]), helper.make_node("Gather", ["table", "a"], ["y"])]
    path = saved(tmp_path, model(hidden, [TABLE, scalar("one", 5)]))
    assert find_limits(path, signature_of(path), {}) == ({"ids": 1}, None)


def test_where_nothing_that_is_made_up_runs_data_is_asked_for(tmp_path: Path) -> None:
    never = [helper.make_node("Sub", ["ids", "hundred"], ["a"]), helper.make_node("Gather", ["table", "a"], ["y"])]
    path = saved(tmp_path, model(never, [weight("table", 3, 4), scalar("hundred", 100)]))
    rows, unsuited = find_limits(path, signature_of(path), {})
    assert unsuited is not None
    assert "out of data bounds" in unsuited
    with pytest.raises(Invalid, match=telling("model --data .npz 'ids'")):
        prepare_data(None, source(path, rows, unsuited), tmp_path / "data", max_samples=64, seed=0)
