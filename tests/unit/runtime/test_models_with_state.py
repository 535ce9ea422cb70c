"""A model that keeps something for the next run starts each one as its first: no answer holds what another caller sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import openvino as ov
import pytest
from openvino import opset13
from tests.unit.runtime import tflite_files

from penstock.optimization.recipes import EngineName, EngineSettings
from penstock_runtime.engines import load_engine


def a_sum_in_a_variable(folder: Path) -> tuple[Path, EngineName]:
    """OpenVINO: y is x and the sum of all x before it."""
    x = opset13.parameter([-1, 2], np.float32, name="x")
    kept = opset13.read_value(opset13.constant(np.zeros((1, 2), np.float32)), "kept")
    total = opset13.add(kept, opset13.reduce_sum(x, opset13.constant([0]), keep_dims=True))
    y = opset13.add(x, total)
    x.output(0).set_names({"x"})
    y.output(0).set_names({"y"})
    model = ov.Model([opset13.result(y)], [opset13.assign(total, "kept")], [x], "keeps")
    ov.save_model(model, str(folder / "model.xml"), compress_to_fp16=False)
    return folder / "model.xml", EngineName.OPENVINO


def a_recurrent_layer(folder: Path) -> tuple[Path, EngineName]:
    """LiteRT: a running sum over three steps, whose state is a variable, as converters of Keras leave it."""
    tensor = tflite_files.tensor
    tensors = [
        tensor("x", [1, 3, 2]), tensor("w", [2, 2], 1), tensor("again", [2, 2], 1), tensor("b", [2], 2),
        tensor("state", [1, 2], variable=True), tensor("y", [1, 3, 2]),
    ]  # fmt: skip
    path = tflite_files.save(
        folder / "model.tflite", ("UNIDIRECTIONAL_SEQUENCE_RNN", "SequenceRNNOptions", schema.SequenceRNNOptionsT()),
        tensors, 1, (np.eye(2, dtype=np.float32), np.zeros(2, np.float32)),
    )  # fmt: skip
    return path, EngineName.LITERT


MODELS: dict[str, tuple[Callable[[Path], tuple[Path, EngineName]], tuple[int, ...]]] = {
    "a sum in a variable of OpenVINO": (a_sum_in_a_variable, (3, 2)),
    "a recurrent layer of LiteRT": (a_recurrent_layer, (1, 3, 2)),
}


@pytest.mark.parametrize(("save", "shape"), MODELS.values(), ids=MODELS)
def test_an_answer_does_not_hold_what_was_sent_before(
    save: Callable[[Path], tuple[Path, EngineName]], shape: tuple[int, ...], tmp_path: Path
) -> None:
    path, name = save(tmp_path)
    engine = load_engine(path, EngineSettings(name=name))
    x = np.ones(shape, np.float32)
    first = engine.run({"x": x})["y"].copy()
    engine.run({"x": x * 1000})
    np.testing.assert_array_equal(engine.run({"x": x})["y"], first)
    assert first.max() > 1, "the state counts within a run"
