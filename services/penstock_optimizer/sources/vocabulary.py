"""How many rows the tables have that a model's inputs index, told from its ONNX graph.

Samples that are made up must be inside them: an id beyond a table's end makes ONNX Runtime refuse the run. An input is followed
through what changes no value (Cast, Reshape, Clip from below, …) or moves all by a constant, into subgraphs too, to where it is
an index.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from penstock.errors import Invalid
from penstock.serving.manifest import DataType, Signature
from penstock_optimizer.samples.arrays import Samples, batches, make_samples

logger = logging.getLogger(__name__)

_KEEPING: Final = frozenset(
    {
        "Cast", "CastLike", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Slice", "Expand", "Tile",
        "Split", "Gather", "GatherElements", "GatherND", "Pad", "Dropout", "Round", "Floor", "Ceil", "Relu", "Abs", "Max",
        "Concat", "Where", "ReduceMax", "ReduceMin", "DepthToSpace", "Trilu",
    }
)  # fmt: skip
"""Operators whose outputs have values of their inputs."""
_BOUNDING: Final = frozenset({"Clip", "Min", "Mod"})
"""With a constant these keep an index inside by themselves."""
_CONDITION: Final = {"Where": (1, 2)}
_FIRST_ONLY: Final = frozenset(
    {"Reshape", "Expand", "Tile", "Slice", "Gather", "GatherElements", "GatherND", "Pad", "Squeeze", "Unsqueeze", "Split",
     "Dropout", "CastLike", "Trilu"}
)  # fmt: skip
_TABLE_KEEPING: Final = frozenset({"Cast", "Identity", "DequantizeLinear", "Transpose", "Dropout"})
_EMBEDDING_INPUTS: Final = {0: 2, 1: 4}
"""Of ONNX Runtime's EmbedLayerNormalization: ids by their tables."""
_ROWS: Final = 8
_MOST_SHOWN: Final = 240


@dataclass
class _Tracing:
    """What is known while a graph is read: which values are ids of which input, and moved by how much."""

    found: dict[str, int] = field(default_factory=dict)
    """Rows by input."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    moved: dict[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    """By value: the inputs that it has values of, and what was added."""

    def limit(self, value: str, rows: int | None) -> None:
        """A value is an index into so many rows."""
        for name, offset in self.moved.get(value, ()):
            if rows is not None and rows > 0:
                self.found[name] = max(1, min(self.found.get(name, rows - offset), rows - offset))


def rows_of_tables(model: onnx.ModelProto) -> dict[str, int]:
    """How many rows an input's ids may choose from, by input; those that index nothing of known length are left out."""
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    tracing = _Tracing()
    weights = {tensor.name for tensor in model.graph.initializer}
    for each in model.graph.input:
        if each.name not in weights:
            tracing.moved[each.name] = ((each.name, 0),)
    _read(model.graph, tracing, _infer_shapes(model))
    return tracing.found


def _infer_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes of values in between, of which only those of a fixed length say anything."""
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception as error:  # noqa: BLE001 -- it fails on models of 2 GiB and some operators; then less is known
        logger.info("no shapes were inferred: %s", error)
        return {}
    return {each.name: _shape(each) for each in (*graph.value_info, *graph.input)}


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(axis.dim_value or -1 for axis in value.type.tensor_type.shape.dim)


def _read(graph: Any, tracing: _Tracing, inferred: Mapping[str, tuple[int, ...]]) -> None:
    tracing.shapes |= inferred
    for tensor in graph.initializer:
        tracing.shapes[tensor.name] = tuple(tensor.dims)
        if int(np.prod(tensor.dims)) <= 1:
            tracing.constants[tensor.name] = numpy_helper.to_array(tensor)
    for node in graph.node:
        _constant(node, tracing)
        _index(node, tracing)
        _pass_on(node, tracing)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _read(attribute.g, tracing, {})


def _constant(node: Any, tracing: _Tracing) -> None:
    if node.op_type == "Constant":
        tensor = next((each.t for each in node.attribute if each.name == "value"), None)
        if tensor is not None:
            tracing.shapes[node.output[0]] = tuple(tensor.dims)
            if int(np.prod(tensor.dims)) <= 1:
                tracing.constants[node.output[0]] = numpy_helper.to_array(tensor)
    elif node.op_type in _TABLE_KEEPING and node.input and node.input[0] in tracing.shapes:
        shape = tracing.shapes[node.input[0]]
        if node.op_type == "Transpose":
            order = next((tuple(each.ints) for each in node.attribute if each.name == "perm"), range(len(shape))[::-1])
            shape = tuple(shape[axis] for axis in order)
        tracing.shapes.setdefault(node.output[0], shape)
        if node.op_type in ("Cast", "Identity") and node.input[0] in tracing.constants:
            tracing.constants[node.output[0]] = tracing.constants[node.input[0]]


def _index(node: Any, tracing: _Tracing) -> None:
    """Where a node takes one of its inputs for an index."""
    axis = next((each.i for each in node.attribute if each.name in ("axis", "gather_axis")), 0)
    table = tracing.shapes.get(node.input[0], ()) if node.input else ()
    match node.op_type:
        case "Gather" | "GatherElements" | "ScatterElements" | "GatherBlockQuantized":
            tracing.limit(node.input[1], table[axis] if -len(table) <= axis < len(table) else None)
        case "GatherND" | "ScatterND":
            tracing.limit(node.input[1], min((length for length in table if length > 0), default=None))
        case "OneHot":
            depth = tracing.constants.get(node.input[1])
            tracing.limit(node.input[0], int(depth.reshape(-1)[0]) if depth is not None else None)
        case "EmbedLayerNormalization":
            for ids, of in _EMBEDDING_INPUTS.items():
                if of < len(node.input):
                    tracing.limit(node.input[ids], next(iter(tracing.shapes.get(node.input[of], ())), None))


def _pass_on(node: Any, tracing: _Tracing) -> None:
    """To what a node gives on the ids that it takes."""
    kept = tuple(_ids_passed_on(node, tracing))
    if kept:
        for output in node.output:
            if output:
                tracing.moved[output] = kept


def _ids_passed_on(node: Any, tracing: _Tracing) -> Iterator[tuple[str, int]]:
    inputs = list(node.input)
    if node.op_type in ("Add", "Sub") and len(inputs) == 2:  # noqa: PLR2004 -- both have two
        sides = ((inputs[0], inputs[1]), (inputs[1], inputs[0])) if node.op_type == "Add" else ((inputs[0], inputs[1]),)
        for ids, by in sides:
            moved = tracing.constants.get(by)
            if ids in tracing.moved and moved is not None and moved.dtype.kind in "iuf":
                step = int(moved.reshape(-1)[0]) * (1 if node.op_type == "Add" else -1)
                yield from ((name, offset + step) for name, offset in tracing.moved[ids])
        return
    if node.op_type == "Clip":
        # From below alone nothing keeps an index from being too great.
        if (len(inputs) > 2 and inputs[2]) or any(each.name == "max" for each in node.attribute):  # noqa: PLR2004 -- its third input
            return
        yield from tracing.moved.get(inputs[0], ())
        return
    if node.op_type not in _KEEPING or node.op_type in _BOUNDING:
        return
    places = _CONDITION.get(node.op_type, (0,) if node.op_type in _FIRST_ONLY else range(len(inputs)))
    for place in places:
        if place < len(inputs):
            yield from tracing.moved.get(inputs[place], ())


def find_limits(
    path: Path, signature: Signature, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, int], str | None]:
    """What is known of the ids that made-up samples may have, tried on the model itself.

    Args:
        path: the ONNX form.
        signature: of it.
        shapes: for axes that it leaves open.

    Returns:
        Rows by input, 1 where only zeros run; and why nothing that is made up runs, if so.
    """
    found = rows_of_tables(onnx.load(str(path), load_external_data=False))
    zeros = {
        spec.name: 1 for spec in signature.inputs if spec.datatype not in (DataType.BYTES, DataType.BF16, DataType.BOOL)
    }
    ids = {
        name: 1
        for name in zeros
        if next(spec for spec in signature.inputs if spec.name == name).datatype.value.startswith(("INT", "UINT"))
    }
    try:
        session = _session(path)
        first: str | None = None
        for limits in (found, found | ids, found | zeros):
            problem = _problem(session, make_samples(signature, shapes, _ROWS, 1 << 24, 0, rows=limits), signature)
            if problem is None:
                return limits, None
            first = first or problem
    except Invalid:
        return found, None  # nothing can be made up, which is said where it is asked for
    except Exception as error:  # noqa: BLE001 -- that the model does not load is for others to say
        logger.info("the model does not load: %s", error)
        return found, None
    return found, first


def _session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    # What fails here is expected, and told in a sentence.
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _problem(session: Any, samples: Samples, signature: Signature) -> str | None:
    try:
        for _, inputs in batches(samples, signature, _ROWS):
            session.run(None, inputs)
    except Exception as error:  # noqa: BLE001 -- ONNX Runtime's errors have no common base of their own
        return " ".join(str(error).split())[:_MOST_SHOWN]
    return None
