"""What an ONNX file says of its tensors and ONNX Runtime does not tell. Source of the numbers of fields: onnx/onnx.proto3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock_runtime.protobuf import MalformedError, Span, Wire

_GRAPH: Final = 7
_VALUE_NAME, _VALUE_TYPE, _TENSOR_TYPE, _TENSOR_SHAPE = 1, 2, 1, 2
_NODE_INPUTS, _NODE_OUTPUTS, _NODE_KIND, _NODE_ATTRIBUTES = 1, 2, 4, 5
_RECURRENT: Final = frozenset({"LSTM", "GRU", "RNN"})
_CONDITIONS: Final = {"If": 1, "Loop": 2}
"""How many of the first inputs of an operator decide which way it goes, or how often."""
_OF_SHAPES: Final = frozenset({"Shape", "Size"})
_ATTRIBUTE_NAME, _ATTRIBUTE_NUMBERS, _ATTRIBUTE_TEXTS = 1, 8, 9


@dataclass
class Stated:
    """What a file says of the tensors of its graph."""

    without_rank: set[str] = field(default_factory=set)
    """Inputs and outputs whose type has no shape, not even an empty one."""
    classes: dict[str, tuple[str | int, ...]] = field(default_factory=dict)
    """By the output of each ZipMap, the classes that it makes the keys of its maps."""
    recurrent: bool = False
    """Whether a layer is recurrent."""
    branch: str | None = None
    """An operator by whose scalar condition, made from inputs' values, the whole run takes one way or another."""
    told: set[str] = field(default_factory=set)
    """Tensors that hold something of the inputs' values, and not of their shapes alone."""


def read(path: Path) -> Stated:
    """Read an ONNX file, passing over its weights.

    Raises:
        Invalid: ModelInvalid: it is not what protobuf writes, or cannot be read.
    """
    found = Stated()
    try:
        with path.open("rb") as file:
            wire = Wire(file, path.stat().st_size)
            for graph in wire.parts((0, wire.size), _GRAPH):
                _graph(wire, graph, found)
    except (MalformedError, OSError) as error:
        raise Invalid(
            Reason.MODEL_INVALID, f"{path.name} is no ONNX file that can be read ({error}): export the model again"
        ) from error
    return found


def _graph(wire: Wire, graph: Span, found: Stated) -> None:
    nodes: list[Span] = []
    for tag, _, part in wire.fields(graph):
        match tag >> 3:
            case 11 | 12 as which:  # inputs and outputs
                _value(wire, part, found)
                if which == 11:  # noqa: PLR2004 -- the number of a field
                    found.told |= {wire.text(name) for name in wire.parts(part, _VALUE_NAME)}
            case 1:
                nodes.append(part)
    for node in nodes:
        _node(wire, node, found)


def _value(wire: Wire, value: Span, found: Stated) -> None:
    shaped = any(True for kind in _tensors(wire, value) for _ in wire.parts(kind, _TENSOR_SHAPE))
    if not shaped:
        found.without_rank |= {wire.text(part) for part in wire.parts(value, _VALUE_NAME)}


def _tensors(wire: Wire, value: Span) -> Iterator[Span]:
    for kind in wire.parts(value, _VALUE_TYPE):
        yield from wire.parts(kind, _TENSOR_TYPE)


def _node(wire: Wire, node: Span, found: Stated) -> None:
    kind = "".join([wire.text(part) for part in wire.parts(node, _NODE_KIND)][-1:])
    found.recurrent |= kind in _RECURRENT
    inputs = [wire.text(part) for part in wire.parts(node, _NODE_INPUTS)]
    if kind in _CONDITIONS and not found.told.isdisjoint(inputs[: _CONDITIONS[kind]]):
        found.branch = found.branch or kind
    # What an operator's own graphs take from around them is no input of it: it may hold anything.
    if kind not in _OF_SHAPES and (kind in _CONDITIONS or not found.told.isdisjoint(inputs)):
        found.told |= {wire.text(part) for part in wire.parts(node, _NODE_OUTPUTS)}
    if kind == "ZipMap":
        _maps(wire, node, found)


def _maps(wire: Wire, node: Span, found: Stated) -> None:
    classes: list[str | int] = []
    for attribute in wire.parts(node, _NODE_ATTRIBUTES):
        match [wire.text(part) for part in wire.parts(attribute, _ATTRIBUTE_NAME)][-1:]:
            case ["classlabels_strings"]:
                classes += [wire.text(part) for part in wire.parts(attribute, _ATTRIBUTE_TEXTS)]
            case ["classlabels_int64s"]:
                classes += wire.numbers(attribute, _ATTRIBUTE_NUMBERS)
    for output in wire.parts(node, _NODE_OUTPUTS):
        found.classes[wire.text(output)] = tuple(classes)
