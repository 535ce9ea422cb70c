"""Tiny ONNX graphs: some whose rows depend on each other, and some whose rows do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto as Type
from onnx import helper
from tests.integration.replica_process import save_model

node = helper.make_node
F: Final = Type.FLOAT
I64: Final = Type.INT64
Tensors = Mapping[str, tuple[int, Sequence[int | str]]]

_generator = np.random.default_rng(5)
W: Final = _generator.normal(size=(4, 4)).astype(np.float32)


def const(value: Any, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.asarray(value, dtype)


@dataclass(frozen=True)
class Graph:
    """A graph; the usual one takes and gives x and y of n rows of 4 floats."""

    nodes: Sequence[onnx.NodeProto]
    inputs: Tensors = field(default_factory=lambda: {"x": (F, ["n", 4])})
    outputs: Tensors = field(default_factory=lambda: {"y": (F, ["n", 4])})
    constants: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)

    def save(self, path: Path) -> Path:
        return save_model(path, self.nodes, self.inputs, self.outputs, self.constants)


def branch(
    condition: Sequence[onnx.NodeProto], constants: Mapping[str, np.ndarray[Any, Any]], *, inputs: Tensors | None = None
) -> Graph:
    """Twice x where a condition `c` of the whole run holds, else x."""
    kind = next(iter(inputs.values()))[0] if inputs else F
    shape = next(iter(inputs.values()))[1] if inputs else ["n", 4]
    then = helper.make_graph(
        [node("Add", ["x", "x"], ["t"])], "then", [], [helper.make_tensor_value_info("t", kind, shape)]
    )
    other = helper.make_graph(
        [node("Identity", ["x"], ["e"])], "else", [], [helper.make_tensor_value_info("e", kind, shape)]
    )
    nodes = [*condition, node("If", ["c"], ["y"], then_branch=then, else_branch=other)]
    tensors = inputs or {"x": (F, ["n", 4])}
    return Graph(nodes, tensors, {"y": (kind, shape)}, constants)


def _compared(reduce: str, operator: str, bound: float) -> Graph:
    return branch(
        [node(reduce, ["x"], ["s"], keepdims=0), node(operator, ["s", "bound"], ["c"])], {"bound": const(bound)}
    )


def _more_rows_than(count: int) -> Graph:
    return branch(
        [
            node("Shape", ["x"], ["shape"], start=0, end=1),
            node("Greater", ["shape", "k"], ["c1"]),
            node("Squeeze", ["c1"], ["c"]),
        ],
        {"k": const([count], np.int64)},
    )


def _positions(dtype: Any = np.float32) -> list[onnx.NodeProto]:
    """`p`: the number of each row in the run, as a column."""
    return [
        node("Shape", ["x"], ["shape"], start=0, end=1),
        node("Squeeze", ["shape"], ["rows"]),
        node("Range", ["zero", "rows", "one"], ["r"]),
        node("Cast", ["r"], ["rf"], to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype))),
        node("Unsqueeze", ["rf", "last"], ["p"]),
    ]


_COUNTING: Final = {"zero": const(0, np.int64), "one": const(1, np.int64), "last": const([1], np.int64)}


def recurrent(kind: str, time: str, batch: str, gates: int) -> Graph:
    """torch's layout: x[time, batch, 3] to y[time, 1, batch, 2]."""
    weights = {
        "w": _generator.normal(size=(1, 2 * gates, 3)).astype(np.float32),
        "r": _generator.normal(size=(1, 2 * gates, 2)).astype(np.float32),
    }
    return Graph(
        [node(kind, ["x", "w", "r"], ["y"], hidden_size=2)],
        {"x": (F, [time, batch, 3])}, {"y": (F, [time, 1, batch, 2])}, weights,
    )  # fmt: skip


# fmt: off
COUPLED: Final[dict[str, Graph]] = {
    "a running sum over an axis called time": Graph(
        [node("CumSum", ["x", "a"], ["y"])], {"x": (F, ["time", 4])}, {"y": (F, ["time", 4])}, {"a": const(0, np.int64)}
    ),
    "a running sum over an axis called batch": Graph(
        [node("CumSum", ["x", "a"], ["y"])], {"x": (F, ["batch", 4])}, {"y": (F, ["batch", 4])}, {"a": const(0, np.int64)}
    ),
    "a running sum of integers": Graph(
        [node("CumSum", ["x", "a"], ["y"])], {"x": (I64, ["n", 4])}, {"y": (I64, ["n", 4])}, {"a": const(0, np.int64)}
    ),
    "minus the mean over rows": Graph([node("ReduceMean", ["x"], ["m"], axes=[0]), node("Sub", ["x", "m"], ["y"])]),
    "a trillionth of the mean over rows": Graph(
        [node("ReduceMean", ["x"], ["m"], axes=[0]), node("Mul", ["m", "e"], ["q"]), node("Sub", ["x", "q"], ["y"])],
        constants={"e": const(1e-12)},
    ),
    "rows reversed": Graph(
        [node("Slice", ["x", "s", "e", "a", "t"], ["y"])],
        constants={"s": const([-1], np.int64), "e": const([-(2**31)], np.int64), "a": const([0], np.int64), "t": const([-1], np.int64)},
    ),
    "a scale for each run": Graph([node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])]),
    "quantized at run time": Graph(
        [
            node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
            node("MatMulInteger", ["q", "w", "z"], ["i"]),
            node("Cast", ["i"], ["f"], to=F),
            node("Mul", ["f", "s"], ["y"]),
        ],
        constants={"w": (W * 30).astype(np.int8)},
    ),
    "the softmax over rows": Graph([node("Softmax", ["x"], ["y"], axis=0)]),
    "the largest row": Graph([node("ArgMax", ["x"], ["y"], axis=0, keepdims=1)], outputs={"y": (I64, ["n", 4])}),
    "sorted over rows": Graph(
        [node("Shape", ["x"], ["k"], start=0, end=1), node("TopK", ["x", "k"], ["y", "i"], axis=0)],
    ),
    "rows without doubles": Graph([node("Unique", ["x"], ["y"], axis=0)]),
    "each row the one before": Graph(
        [
            node("Slice", ["x", "m", "far", "a"], ["last"]),
            node("Slice", ["x", "z", "m", "a"], ["front"]),
            node("Concat", ["last", "front"], ["y"], axis=0),
        ],
        constants={"m": const([-1], np.int64), "far": const([2**31], np.int64), "a": const([0], np.int64), "z": const([0], np.int64)},
    ),
    "normalised as in training": Graph(
        [
            node("ReduceMean", ["x"], ["m"], axes=[0]),
            node("Sub", ["x", "m"], ["d"]),
            node("Mul", ["d", "d"], ["dd"]),
            node("ReduceMean", ["dd"], ["v"], axes=[0]),
            node("Add", ["v", "e"], ["ve"]),
            node("Sqrt", ["ve"], ["s"]),
            node("Div", ["d", "s"], ["y"]),
        ],
        constants={"e": const(1e-5)},
    ),
    "over the largest of all, where it is above 100": Graph(
        [node("ReduceMax", ["x"], ["m"], keepdims=0), node("Max", ["m", "k"], ["d"]), node("Div", ["x", "d"], ["y"])],
        constants={"k": const(100.0)},
    ),
    "clipped at a hundred times the smallest of all": Graph(
        [node("ReduceMin", ["x"], ["m"], keepdims=0), node("Mul", ["m", "k"], ["d"]), node("Max", ["x", "d"], ["y"])],
        constants={"k": const(100.0)},
    ),
    "an If on the sum": _compared("ReduceSum", "Greater", 0.0),
    "an If on a large sum": _compared("ReduceSum", "Greater", 5000.0),
    "an If on a small sum": _compared("ReduceSum", "Less", -5000.0),
    "an If on a value below -100": _compared("ReduceMin", "Less", -100.0),
    "an If on a value above 1000": _compared("ReduceMax", "Greater", 1000.0),
    "an If on a value of exactly 0": branch(
        [
            node("Equal", ["x", "k"], ["q"]),
            node("Cast", ["q"], ["f"], to=F),
            node("ReduceMax", ["f"], ["m"], keepdims=0),
            node("Cast", ["m"], ["c"], to=Type.BOOL),
        ],
        {"k": const(0.0)},
    ),
    "an If on an id above 500": branch(
        [node("ReduceMax", ["x"], ["s"], keepdims=0), node("Greater", ["s", "k"], ["c"])],
        {"k": const(500, np.int64)}, inputs={"x": (I64, ["n", 3])},
    ),
    **{f"an If on more than {count} rows": _more_rows_than(count) for count in (1, 2, 4, 5, 7, 8, 16, 24)},
    "plus the row's number": Graph([*_positions(), node("Add", ["x", "p"], ["y"])], constants=_COUNTING),
    "an embedding of the row's number": Graph(
        [*_positions(np.int64), node("Squeeze", ["p", "last"], ["id"]), node("Gather", ["table", "id"], ["g"]), node("Add", ["x", "g"], ["y"])],
        constants={**_COUNTING, "table": _generator.normal(size=(64, 4)).astype(np.float32)},
    ),
    "where it is not zero": Graph(
        [node("NonZero", ["x"], ["z"]), node("Transpose", ["z"], ["y"])], outputs={"y": (I64, ["k", 2])}
    ),
    "finds of a detector": Graph(
        [
            node("ReduceMax", ["x"], ["m"], axes=[1], keepdims=0),
            node("Greater", ["m", "k"], ["c"]),
            node("Compress", ["x", "c"], ["y"], axis=0),
        ],
        outputs={"y": (F, ["finds", 4])}, constants={"k": const(0.5)},
    ),
    "boxes that suppress each other": Graph(
        [
            node("Abs", ["x"], ["boxes3"]),
            node("Unsqueeze", ["boxes3", "first"], ["boxes"]),
            node("ReduceSum", ["x", "last"], ["s1"], keepdims=0),
            node("Unsqueeze", ["s1", "both"], ["scores"]),
            node("NonMaxSuppression", ["boxes", "scores", "most", "iou", "least"], ["y"]),
        ],
        outputs={"y": (I64, ["finds", 3])},
        constants={
            "first": const([0], np.int64), "last": const([1], np.int64), "both": const([0, 1], np.int64),
            "most": const([100], np.int64), "iou": const([0.5]), "least": const([-1e9]),
        },
    ),
    "the number of rows": Graph(
        [node("Shape", ["x"], ["r"], start=0, end=1), node("Cast", ["r"], ["f"], to=F), node("Mul", ["x", "z"], ["o"]), node("Add", ["o", "f"], ["y"])],
        constants={"z": const(0.0)},
    ),
    "rows mixed by a reshape": Graph(
        [
            node("Transpose", ["x"], ["t"]),
            node("Reshape", ["t", "s"], ["y"]),
        ],
        constants={"s": const([-1, 4], np.int64)},
    ),
    "noise": Graph([node("RandomNormalLike", ["x"], ["r"]), node("Add", ["x", "r"], ["y"])]),
    "a product of rows with rows": Graph([node("Transpose", ["x"], ["t"]), node("MatMul", ["x", "t"], ["y"])], outputs={"y": (F, ["n", "m"])}),
    "queries times documents": Graph(
        [node("Transpose", ["d"], ["t"]), node("MatMul", ["q", "t"], ["y"])],
        {"q": (F, ["queries", 4]), "d": (F, ["documents", 4])}, {"y": (F, ["queries", "documents"])},
    ),
    "attention between rows": Graph(
        [
            node("Transpose", ["x"], ["t"]), node("MatMul", ["x", "t"], ["s"]), node("Softmax", ["s"], ["p"], axis=1), node("MatMul", ["p", "x"], ["y"]),
        ]
    ),
    "a convolution over time": Graph(
        [
            node("Transpose", ["x"], ["t"]), node("Unsqueeze", ["t", "first"], ["u"]),
            node("Conv", ["u", "w"], ["v"], pads=[1, 1]), node("Squeeze", ["v", "first"], ["s"]), node("Transpose", ["s"], ["y"]),
        ],
        {"x": (F, ["time", 4])}, {"y": (F, ["time", 4])},
        {"w": _generator.normal(size=(4, 4, 3)).astype(np.float32), "first": const([0], np.int64)},
    ),
    "an output of no rows": Graph(
        [node("Identity", ["x"], ["y"]), node("ReduceMax", ["x"], ["top"], keepdims=0)],
        outputs={"y": (F, ["n", 4]), "top": (F, [])},
    ),
    "a time-major LSTM whose batch is 1": recurrent("LSTM", "time", 1, 4),  # type: ignore[arg-type]  # a length is an axis, too
    "a time-major GRU whose batch is 1": recurrent("GRU", "time", 1, 3),  # type: ignore[arg-type]  # as above
    "a scalar beside": Graph(
        [node("Mul", ["x", "rate"], ["y"])], {"x": (F, ["n", 4]), "rate": (F, [])},
    ),
    "a vocabulary beside": Graph(
        [node("Gather", ["table", "x"], ["y"])], {"table": (F, [8, 4]), "x": (I64, ["n"])}, {"y": (F, ["n", 4])},
    ),
    "a reshape that holds one request": Graph(
        [node("Reshape", ["x", "s"], ["r"]), node("Identity", ["r"], ["y"])], outputs={"y": (F, [1, 4])}, constants={"s": const([1, 4], np.int64)},
    ),
    "the same for all but huge values": Graph(
        [node("Sub", ["x", "k"], ["d"]), node("Relu", ["d"], ["r"]), node("CumSum", ["r", "a"], ["y"])],
        constants={"k": const(1e30), "a": const(0, np.int64)},
    ),
    "always the same": Graph(
        [node("Mul", ["x", "z"], ["o"]), node("Div", ["o", "o"], ["y"])], constants={"z": const(0.0)},
    ),
}
"""Requests to these must not be joined."""

SEPARATE: Final[dict[str, tuple[Graph, dict[str, int], dict[str, int]]]] = {
    "a product": (Graph([node("MatMul", ["x", "w"], ["y"])], constants={"w": W}), {"x": 0}, {"y": 0}),
    "a product of a time axis that changes nothing": (
        Graph([node("MatMul", ["x", "w"], ["y"])], {"x": (F, ["time", 4])}, {"y": (F, ["time", 4])}, {"w": W}), {"x": 0}, {"y": 0},
    ),
    "a label that is declared as one": (
        Graph([node("MatMul", ["x", "w"], ["s"]), node("ArgMax", ["s"], ["y"], axis=1, keepdims=0)], outputs={"y": (I64, [1])}, constants={"w": W}),
        {"x": 0}, {"y": 0},
    ),
    "a state with the batch on its second axis": (
        Graph(
            [node("ReduceMean", ["state"], ["s"], axes=[0], keepdims=0), node("Add", ["x", "s"], ["y"]), node("Mul", ["state", "two"], ["next"])],
            {"x": (F, ["batch", 4]), "state": (F, [2, "batch", 4])},
            {"y": (F, ["batch", 4]), "next": (F, [2, "batch", 4])}, {"two": const(2.0)},
        ),
        {"x": 0, "state": 1}, {"y": 0, "next": 1},
    ),
    "a time-major LSTM": (recurrent("LSTM", "time", "batch", 4), {"x": 1}, {"y": 2}),
    "a time-major GRU without names": (recurrent("GRU", "a", "b", 3), {"x": 1}, {"y": 2}),
    "a batch on the last axis": (
        Graph([node("Transpose", ["x"], ["t"]), node("MatMul", ["t", "w"], ["y"])], {"x": (F, [4, "n"])}, constants={"w": W}), {"x": 1}, {"y": 0},
    ),
    "ids of a table of two": (
        Graph([node("Gather", ["table", "x"], ["y"])], {"x": (I64, ["n", 3])}, {"y": (F, ["n", 3, 4])}, {"table": W[:2]}), {"x": 0}, {"y": 0},
    ),
    "a mask beside ids": (
        Graph(
            [
                node("Gather", ["table", "ids"], ["e"]), node("Cast", ["mask"], ["m"], to=F), node("Unsqueeze", ["m", "last"], ["u"]),
                node("Mul", ["e", "u"], ["p"]), node("ReduceSum", ["p", "middle"], ["y"], keepdims=0),
            ],
            {"ids": (I64, ["n", "seq"]), "mask": (I64, ["n", "seq"])}, {"y": (F, ["n", 4])},
            {"table": _generator.normal(size=(12, 4)).astype(np.float32), "last": const([2], np.int64), "middle": const([1], np.int64)},
        ),
        {"ids": 0, "mask": 0}, {"y": 0},
    ),
    "a running sum over the second axis": (
        Graph([node("CumSum", ["x", "a"], ["y"])], {"x": (F, ["n", "time"])}, {"y": (F, ["n", "time"])}, {"a": const(1, np.int64)}), {"x": 0}, {"y": 0},
    ),
    "pictures of any size": (
        Graph(
            [node("Conv", ["x", "w"], ["c"], strides=[2, 2]), node("GlobalAveragePool", ["c"], ["g"]), node("Flatten", ["g"], ["y"])],
            {"x": (F, ["n", 3, "height", "width"])}, {"y": (F, ["n", 4])}, {"w": _generator.normal(size=(4, 3, 3, 3)).astype(np.float32)},
        ),
        {"x": 0}, {"y": 0},
    ),
    "bytes of pictures": (
        Graph([node("Cast", ["x"], ["f"], to=F), node("MatMul", ["f", "w"], ["y"])], {"x": (Type.UINT8, ["n", 4])}, constants={"w": W}), {"x": 0}, {"y": 0},
    ),
    "truths": (Graph([node("Not", ["x"], ["y"])], {"x": (Type.BOOL, ["n"])}, {"y": (Type.BOOL, ["n"])}), {"x": 0}, {"y": 0}),
    "strings": (Graph([node("Identity", ["x"], ["y"])], {"x": (Type.STRING, ["n", 2])}, {"y": (Type.STRING, ["n", 2])}), {"x": 0}, {"y": 0}),
    "numbers in strings": (Graph([node("Cast", ["x"], ["y"], to=F)], {"x": (Type.STRING, ["n", 2])}, {"y": (F, ["n", 2])}), {"x": 0}, {"y": 0}),
    "a root, which is NaN for half of what is sent": (Graph([node("Sqrt", ["x"], ["y"])]), {"x": 0}, {"y": 0}),
    "halves": (Graph([node("MatMul", ["x", "w"], ["y"])], {"x": (Type.FLOAT16, ["n", 4])}, {"y": (Type.FLOAT16, ["n", 4])}, {"w": W.astype(np.float16)}), {"x": 0}, {"y": 0}),
    "doubles": (Graph([node("MatMul", ["x", "w"], ["y"])], {"x": (Type.DOUBLE, ["n", 4])}, {"y": (Type.DOUBLE, ["n", 4])}, {"w": W.astype(np.float64)}), {"x": 0}, {"y": 0}),
    "two inputs whose axes have other names": (
        Graph([node("Add", ["a", "b"], ["y"])], {"a": (F, ["n", 4]), "b": (F, ["m", 4])}), {"a": 0, "b": 0}, {"y": 0},
    ),
    "attention within a row": (
        Graph(
            [node("Transpose", ["x"], ["t"], perm=[0, 2, 1]), node("MatMul", ["x", "t"], ["s"]), node("Softmax", ["s"], ["p"], axis=2), node("MatMul", ["p", "x"], ["y"])],
            {"x": (F, ["n", "seq", 4])}, {"y": (F, ["n", "seq", 4])},
        ),
        {"x": 0}, {"y": 0},
    ),
    "a static quantization": (
        Graph(
            [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["d"]), node("MatMul", ["d", "w"], ["y"])],
            constants={"s": const(0.05), "z": const(0, np.int8), "w": W},
        ),
        {"x": 0}, {"y": 0},
    ),
}
"""Requests to these can be joined: the axis by input and output."""
# fmt: on
