"""What an ONNX file says of its tensors and ONNX Runtime does not tell. Source of the numbers of fields: onnx/onnx.proto3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from penstock.api.conditions import Reason
from penstock.errors import Invalid
from penstock_runtime.protobuf import MalformedError, Span, Wire

_GRAPH, _FUNCTION = 7, 25
_GRAPH_NODE, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 11, 12
_FUNCTION_NAME, _FUNCTION_INPUTS, _FUNCTION_NODE = 1, 4, 7
_VALUE_NAME, _VALUE_TYPE, _TENSOR_TYPE, _TENSOR_SHAPE = 1, 2, 1, 2
_NODE_INPUTS, _NODE_OUTPUTS, _NODE_KIND, _NODE_ATTRIBUTES = 1, 2, 4, 5
_RECURRENT: Final = frozenset({"LSTM", "GRU", "RNN"})
_CONDITIONS: Final = {"If": 1, "Loop": 2}
"""How many of the first inputs of an operator decide which way it goes, or how often."""
_OF_SHAPES: Final = frozenset({"Shape", "Size"})
_ATTRIBUTE_NAME, _ATTRIBUTE_GRAPH, _ATTRIBUTE_NUMBERS, _ATTRIBUTE_TEXTS, _ATTRIBUTE_GRAPHS = 1, 6, 8, 9, 11
_SHORT: Final = 48
"""Bytes of an attribute that has no room for a graph with a branch. Nearly all are: numbers, and names of modes."""
_DEEPEST: Final = 32
"""Graphs in graphs, and functions that call functions."""
_FOLLOWED: Final = 3
"""Of loops in loops: what goes around in deeper ones is taken to hold something of the inputs' values."""


@dataclass
class Stated:
    """What a file says of the tensors of its graph."""

    without_rank: set[str] = field(default_factory=set)
    """Inputs and outputs whose type has no shape, not even an empty one."""
    classes: dict[str, tuple[str | int, ...]] = field(default_factory=dict)
    """By the output of each ZipMap, the classes that it makes the keys of its maps."""
    recurrent: bool = False
    """Whether a layer is recurrent, wherever it stands."""
    branch: str | None = None
    """An operator by whose scalar condition, made from inputs' values, the whole run takes one way or another, wherever it
    stands: in the graph, in an operator's own graph, or in a function of the file."""


def read(path: Path) -> Stated:
    """Read an ONNX file, passing over its weights.

    Raises:
        Invalid: ModelInvalid: it is not what protobuf writes, or cannot be read.
    """
    found = Stated()
    try:
        with path.open("rb") as file:
            wire = Wire(file, path.stat().st_size)
            whole = (0, wire.size)
            functions: dict[str, list[Span]] = {}
            for function in wire.parts(whole, _FUNCTION):
                # Of one name in two domains both are looked at.
                functions.setdefault(_text_of(wire, function, _FUNCTION_NAME), []).append(function)
            reader = _Reader(wire, functions, found)
            for graph in wire.parts(whole, _GRAPH):
                reader.main(graph)
    except (MalformedError, OSError) as error:
        raise Invalid(
            Reason.MODEL_INVALID, f"{path.name} is no ONNX file that can be read ({error}): export the model again"
        ) from error
    return found


@dataclass
class _Reader:
    """Follows what the inputs hold through the graphs of one file.

    A set of names goes with each graph: tensors that hold something of the inputs' values, and not of their shapes alone.
    """

    wire: Wire
    functions: dict[str, list[Span]]
    found: Stated
    depth: int = 0
    called: set[tuple[Span, frozenset[int]]] = field(default_factory=set)
    """Functions that were looked at, with the places of the inputs that told."""

    def main(self, graph: Span) -> None:
        """The graph whose inputs are the requests'."""
        for tag, _, part in self.wire.fields(graph):
            if tag >> 3 in (_GRAPH_INPUT, _GRAPH_OUTPUT):
                _value(self.wire, part, self.found)
        self._nodes(graph, _GRAPH_NODE, set(self._names(graph, _GRAPH_INPUT)))

    def _names(self, graph: Span, field_: int) -> list[str]:
        return [_text_of(self.wire, value, _VALUE_NAME) for value in self.wire.parts(graph, field_)]

    def _nodes(self, span: Span, field_: int, told: set[str]) -> None:
        if self.depth >= _DEEPEST:
            raise MalformedError("its graphs are too deep")
        self.depth += 1
        for node in list(self.wire.parts(span, field_)):
            self._node(node, told)
        self.depth -= 1

    def _node(self, node: Span, told: set[str]) -> None:
        wire = self.wire
        kind = _text_of(wire, node, _NODE_KIND)
        self.found.recurrent |= kind in _RECURRENT
        inputs = [wire.text(part) for part in wire.parts(node, _NODE_INPUTS)]
        if kind in _CONDITIONS and not told.isdisjoint(inputs[: _CONDITIONS[kind]]):
            self._branches(kind)
        bodies = [body for attribute in wire.parts(node, _NODE_ATTRIBUTES) for body in self._bodies(attribute)]
        for body in bodies:
            self._body(kind, body, inputs, told)
        for function in self.functions.get(kind, ()):
            self._function(function, inputs, told)
        # What an operator's own graphs take from around them is no input of it: it may hold anything.
        if kind not in _OF_SHAPES and (bodies or not told.isdisjoint(inputs)):
            told |= {wire.text(part) for part in wire.parts(node, _NODE_OUTPUTS)}
        if kind == "ZipMap":
            _maps(wire, node, self.found)

    def _branches(self, kind: str) -> None:
        self.found.branch = self.found.branch or kind

    def _bodies(self, attribute: Span) -> Iterator[Span]:
        start, end = attribute
        if end - start > _SHORT:
            yield from self.wire.parts(attribute, _ATTRIBUTE_GRAPH)
            yield from self.wire.parts(attribute, _ATTRIBUTE_GRAPHS)

    def _body(self, kind: str, body: Span, inputs: list[str], told: set[str]) -> None:
        """An operator's own graph, which sees what is around it.

        A loop's values go around: what one turn makes of the inputs' values, the next one takes.
        """
        taken, given = self._names(body, _GRAPH_INPUT), self._names(body, _GRAPH_OUTPUT)
        # Into Loop go the number of turns and its condition; into its body the number of this turn and the condition.
        carried = dict(zip(given[1:], taken[2:], strict=False)) if kind == "Loop" else {}
        inner = set(taken) if kind != "Loop" else {name for name, of in zip(taken, inputs, strict=False) if of in told}
        if self.depth > _FOLLOWED:
            # Each turn of a loop around others would have all of theirs looked at again.
            inner |= set(carried.values())
        while True:
            seen = told | inner
            self._nodes(body, _GRAPH_NODE, seen)
            further = {name for made, name in carried.items() if made in seen} - inner
            if not further:
                break
            inner |= further
        if kind == "Loop" and given and given[0] in seen:
            self._branches(kind)

    def _function(self, function: Span, inputs: list[str], told: set[str]) -> None:
        names = [self.wire.text(part) for part in self.wire.parts(function, _FUNCTION_INPUTS)]
        places = frozenset(place for place, name in enumerate(inputs) if name in told)
        if (function, places) not in self.called:
            self.called.add((function, places))
            inside = {name for place, name in enumerate(names) if place in places}
            self._nodes(function, _FUNCTION_NODE, inside)


def _text_of(wire: Wire, span: Span, field_: int) -> str:
    return "".join([wire.text(part) for part in wire.parts(span, field_)][-1:])


def _value(wire: Wire, value: Span, found: Stated) -> None:
    shaped = any(True for kind in _tensors(wire, value) for _ in wire.parts(kind, _TENSOR_SHAPE))
    if not shaped:
        found.without_rank |= {wire.text(part) for part in wire.parts(value, _VALUE_NAME)}


def _tensors(wire: Wire, value: Span) -> Iterator[Span]:
    for kind in wire.parts(value, _VALUE_TYPE):
        yield from wire.parts(kind, _TENSOR_TYPE)


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
