"""Small ONNX models as variant folders, built without torch: enough to be measured, evaluated and loaded for real."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from penstock.optimization.recipes import EngineName, EngineSettings, Recipe, Step, StepName
from penstock.optimization.variants import VARIANT_FILE, PreparedSource, Variant
from penstock.serving.manifest import DataType, ModelFile, ModelFormat, Signature, TensorSpec

SIGNATURE = Signature(
    inputs=(TensorSpec(name="image", datatype=DataType.FP32, shape=(-1, 1, 8, 8)),),
    outputs=(TensorSpec(name="logits", datatype=DataType.FP32, shape=(-1, 10)),),
)
SOURCE = PreparedSource(
    name="digits",
    digest="sha256:" + "0" * 64,
    format=ModelFormat.ONNX,
    signature=SIGNATURE,
    onnx="model.onnx",
    parameters=37_898,
    size_bytes=151_592,
    files={},
)
_ENGINE = EngineSettings(name=EngineName.ONNX_RUNTIME)
_LAYERS = {"c1": (16, 1, 3, 3), "b1": (16,), "c2": (32, 16, 3, 3), "b2": (32,), "f1": (512, 64), "f2": (64, 10)}
"""Shaped as the demo's digits network: 37,898 parameters but for the last biases."""


def digits_model(batch: int | str = "batch", seed: int = 0, noise: float = 0.0) -> onnx.ModelProto:
    """Random weights; with noise, the same weights a little off, so that the model answers a little differently."""
    generator, other = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    weights = [
        numpy_helper.from_array(_weight(shape, generator, other, noise), name) for name, shape in _LAYERS.items()
    ]
    pads = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["image", "c1", "b1"], ["x1"], **pads),
        helper.make_node("Relu", ["x1"], ["x2"]),
        helper.make_node("Conv", ["x2", "c2", "b2"], ["x3"], **pads),
        helper.make_node("Relu", ["x3"], ["x4"]),
        helper.make_node("MaxPool", ["x4"], ["x5"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["x5"], ["x6"]),
        helper.make_node("MatMul", ["x6", "f1"], ["x7"]),
        helper.make_node("Relu", ["x7"], ["x8"]),
        helper.make_node("MatMul", ["x8", "f2"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 1, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 10])
    graph = helper.make_graph(nodes, "digits", [image], [logits], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _weight(
    shape: tuple[int, ...], generator: np.random.Generator, other: np.random.Generator, noise: float
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    scale = 1 / np.sqrt(np.prod(shape[1:]) if len(shape) > 1 else 100)
    weight = generator.standard_normal(shape) * scale
    return (weight + noise * scale * other.standard_normal(shape)).astype(np.float32)


def variant(
    folder: Path,
    model: onnx.ModelProto,
    *,
    label: str = "",
    body: bytes | None = None,
    engine: EngineSettings = _ENGINE,
    signature: Signature = SIGNATURE,
) -> Path:
    """A variant folder; with a body of its own, one that is no model."""
    folder.mkdir(parents=True)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString() if body is None else body)
    steps = (Step(name=StepName.GRAPH_OPTIMIZE, parameters={"test": label}),) if label else ()
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or -1
    signature = Signature(
        inputs=tuple(spec.model_copy(update={"shape": (batch, *spec.shape[1:])}) for spec in signature.inputs),
        outputs=tuple(spec.model_copy(update={"shape": (batch, *spec.shape[1:])}) for spec in signature.outputs),
    )
    described = Variant(
        recipe=Recipe(steps=steps, engine=engine),
        format=ModelFormat.ONNX,
        entrypoint="model.onnx",
        signature=signature,
        files={
            "model.onnx": ModelFile(
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(), size_bytes=path.stat().st_size
            )
        },
        engine=engine,
        weight_precision="fp32",
    )
    (folder / VARIANT_FILE).write_text(described.model_dump_json())
    return folder


def images(path: Path, count: int, seed: int = 0) -> Path:
    """Random images with random labels."""
    generator = np.random.default_rng(seed)
    pictures = generator.random((count, 1, 8, 8), dtype=np.float32)
    np.savez(path, image=pictures, labels=generator.integers(0, 10, count))
    return path
