"""Tiny ONNX graphs of every kind, made from a seed: datatypes x ranks x open axes x place of the batch x optional inputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto as Type
from onnx import helper
from tests.unit.joining.graphs import COUPLED, SEPARATE, Graph, const

node = helper.make_node

FLOATS: Final = (Type.FLOAT, Type.DOUBLE, Type.FLOAT16)
INTEGERS: Final = (Type.INT64, Type.INT32, Type.INT8, Type.UINT8)
KINDS: Final = (*FLOATS, *INTEGERS, Type.BOOL, Type.STRING)
_RANKS: Final = (1, 2, 3, 4)
_NOT_COMPARED: Final = {"noise"}
"""Graphs that answer otherwise each time."""


@dataclass(frozen=True)
class Item:
    """A graph of the battery."""

    name: str
    save: Callable[[Path], Path]
    joined: bool | None
    """Whether requests can be joined; None: either is right, as long as answers are."""


def battery(seed: int) -> Iterator[Item]:
    """All graphs; the seed draws which axes are open and where the batch is."""
    for name, graph, joined in _graphs(np.random.default_rng(seed)):
        yield Item(name, graph.save, joined)
    yield Item("maps by number", lambda path: _save_maps(path, strings=False), joined=True)
    yield Item("maps by word", lambda path: _save_maps(path, strings=True), joined=True)
    yield Item("no stated shape", _save_any_rank, joined=False)


def _graphs(generator: np.random.Generator) -> Iterator[tuple[str, Graph, bool | None]]:
    for kind, rank in itertools.product(KINDS, _RANKS):
        place = int(generator.integers(rank))
        axes = _axes(generator, rank, place)
        name = f"{_called(kind)} {list(axes)}"
        yield f"each element by itself: {name}", _elementwise(kind, axes), True
        alone = len(_open(axes)) == 1
        yield f"reversed: {name}", _reversed(kind, axes, place), False if alone else None
    for kind, rank in itertools.product((Type.FLOAT, Type.INT64), (1, 2, 3)):
        axes = _axes(generator, rank, 0)
        name = f"{_called(kind)} {list(axes)}"
        yield f"two inputs: {name}", _two_inputs(kind, axes), True
        yield f"an input that may be left out: {name}", _optional(kind, axes), True
        yield f"a running sum: {name}", _running_sum(kind, axes), False if len(_open(axes)) == 1 else None
    yield "a sequence inside", _sequence_inside(), True
    yield (
        "no input",
        Graph([node("Identity", ["c"], ["y"])], {}, {"y": (Type.FLOAT, (2,))}, {"c": const([1, 2], np.float32)}),
        False,
    )
    yield from ((f"separate: {name}", graph, True) for name, (graph, _, _) in SEPARATE.items())
    yield from ((f"coupled: {name}", graph, False) for name, graph in COUPLED.items() if name not in _NOT_COMPARED)


def _called(kind: int) -> str:
    return helper.tensor_dtype_to_string(kind).partition(".")[2]


def _axes(generator: np.random.Generator, rank: int, place: int) -> tuple[int | str, ...]:
    """Axes, the batch `b` at its place; others open or fixed by chance."""
    return tuple(
        "b" if axis == place else f"o{axis}" if generator.random() < 0.4 else int(generator.integers(1, 4))
        for axis in range(rank)
    )


def _open(axes: Sequence[int | str]) -> list[str]:
    return [axis for axis in axes if isinstance(axis, str)]


def _elementwise(kind: int, axes: tuple[int | str, ...]) -> Graph:
    tensors = {"x": (kind, axes)}
    what = (
        node("Sin", ["x"], ["y"]) if kind == Type.FLOAT
        else node("Not", ["x"], ["y"]) if kind == Type.BOOL
        else node("Identity", ["x"], ["y"]) if kind == Type.STRING
        else node("Mul", ["x", "x"], ["y"]) if kind in (Type.DOUBLE, Type.FLOAT16, Type.INT64, Type.INT32)
        else node("Identity", ["x"], ["y"])
    )  # fmt: skip
    return Graph([what], tensors, {"y": (kind, axes)})


def _reversed(kind: int, axes: tuple[int | str, ...], place: int) -> Graph:
    return Graph(
        [node("Slice", ["x", "s", "e", "a", "t"], ["y"])], {"x": (kind, axes)}, {"y": (kind, axes)},
        {"s": const([-1], np.int64), "e": const([-(2**31)], np.int64), "a": const([place], np.int64), "t": const([-1], np.int64)},
    )  # fmt: skip


def _two_inputs(kind: int, axes: tuple[int | str, ...]) -> Graph:
    """The second has the batch on an axis of its own, behind one of two."""
    second = (2, *axes)
    return Graph(
        [node("ReduceMax", ["z"], ["m"], axes=[0], keepdims=0), node("Add", ["x", "m"], ["y"]), node("Add", ["z", "z"], ["next"])],
        {"x": (kind, axes), "z": (kind, second)}, {"y": (kind, axes), "next": (kind, second)},
    )  # fmt: skip


def _optional(kind: int, axes: tuple[int | str, ...]) -> Graph:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    return Graph(
        [node("Mul", ["x", "scale"], ["y"])], {"x": (kind, axes), "scale": (kind, [1])}, {"y": (kind, axes)}, {"scale": const([3], dtype)}
    )  # fmt: skip


def _running_sum(kind: int, axes: tuple[int | str, ...]) -> Graph:
    return Graph(
        [node("CumSum", ["x", "a"], ["y"])], {"x": (kind, axes)}, {"y": (kind, axes)}, {"a": const(0, np.int64)}
    )


def _save_maps(path: Path, *, strings: bool) -> Path:
    """A classifier of two classes that gives a map for each row."""
    classes: dict[str, Any] = {"classlabels_strings": ["no", "yes"]} if strings else {"classlabels_int64s": [4, 7]}
    maps = helper.make_map_type_proto(
        Type.STRING if strings else Type.INT64, helper.make_tensor_type_proto(Type.FLOAT, None)
    )
    graph = helper.make_graph(
        [node("Softmax", ["x"], ["p"], axis=1), node("ZipMap", ["p"], ["maps"], domain="ai.onnx.ml", **classes)],
        "maps",
        [helper.make_tensor_value_info("x", Type.FLOAT, ["b", 2])],
        [helper.make_value_info("maps", helper.make_sequence_type_proto(maps))],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(path))
    return path


def _save_any_rank(path: Path) -> Path:
    """One that states no shape."""
    graph = helper.make_graph(
        [node("Relu", ["x"], ["y"])],
        "any",
        [helper.make_tensor_value_info("x", Type.FLOAT, None)],
        [helper.make_tensor_value_info("y", Type.FLOAT, None)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def _sequence_inside() -> Graph:
    return Graph(
        [node("SequenceConstruct", ["x", "x"], ["s"]), node("ConcatFromSequence", ["s"], ["y"], axis=1)],
        {"x": (Type.FLOAT, ["b", 2])}, {"y": (Type.FLOAT, ["b", 4])},
    )  # fmt: skip
