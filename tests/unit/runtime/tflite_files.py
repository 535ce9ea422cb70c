"""Small LiteRT files, written without TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import flatbuffers
import numpy as np


def tensor(name: str, shape: list[int], buffer: int = 0, *, rows: bool = False, variable: bool = False) -> Any:
    """A tensor of floats; with `rows`, its first axis is open."""
    made = schema.TensorT()
    made.name, made.shape, made.buffer, made.isVariable = name, shape, buffer, variable
    made.shapeSignature = [-1, *shape[1:]] if rows else None
    made.type = schema.TensorType.FLOAT32
    return made


def save(
    path: Path,
    kind: tuple[str, str, Any],
    tensors: Sequence[Any],
    takes: int,
    constants: Sequence[np.ndarray[Any, Any]] = (),
) -> Path:
    """Write a model of one operator.

    Args:
        path: of the file.
        kind: the operator's name, that of its options' type, and its options.
        tensors: all of them; the first are the model's inputs, the last one is its output, and the operator takes all others.
        takes: how many are the model's inputs.
        constants: buffers 1, 2 and so on.
    """
    model, graph, operator, code = schema.ModelT(), schema.SubGraphT(), schema.OperatorT(), schema.OperatorCodeT()
    model.version = 3
    model.buffers = [schema.BufferT() for _ in range(1 + len(constants))]
    for buffer, values in zip(model.buffers[1:], constants, strict=True):
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    last = len(tensors) - 1
    operator.inputs, operator.outputs = list(range(last)), [last]
    operator.builtinOptionsType, operator.builtinOptions = getattr(schema.BuiltinOptions, kind[1]), kind[2]
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind[0])
    code.version = 1
    graph.tensors, graph.operators = list(tensors), [operator]
    graph.inputs, graph.outputs = list(range(takes)), [last]
    model.subgraphs, model.operatorCodes = [graph], [code]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path
