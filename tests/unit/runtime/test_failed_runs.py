"""A run that fails says so, and is no other request's affair: never the answer of the run before, and the next one is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.integration.replica_process import save_model
from tests.unit.runtime import tflite_files

from penstock.errors import Invalid
from penstock.optimization.recipes import EngineName, EngineSettings
from penstock.protocol.refusals import Refusal
from penstock_runtime.engines import load_engine

Inputs = dict[str, np.ndarray[Any, Any]]
F, I64 = TensorProto.FLOAT, TensorProto.INT64


def a_sum(folder: Path) -> Path:
    rows = (F, ["n", 4])
    return save_model(
        folder / "sum.onnx", [helper.make_node("Add", ["a", "b"], ["y"])], {"a": rows, "b": rows}, {"y": rows}
    )


def a_product(folder: Path) -> Path:
    return save_model(
        folder / "product.onnx", [helper.make_node("MatMul", ["a", "b"], ["y"])],
        {"a": (F, ["n", "k"]), "b": (F, ["k", "m"])}, {"y": (F, ["n", "m"])},
    )  # fmt: skip


def a_form_that_is_asked_for(folder: Path) -> Path:
    return save_model(
        folder / "form.onnx", [helper.make_node("Reshape", ["a", "form"], ["y"])],
        {"a": (F, ["n", 4]), "form": (I64, [2])}, {"y": (F, ["p", "q"])},
    )  # fmt: skip


def a_sum_of_litert(folder: Path) -> Path:
    tensors = [tflite_files.tensor(name, [1, 4], rows=True) for name in ("a", "b", "y")]
    return tflite_files.save(folder / "sum.tflite", ("ADD", "AddOptions", schema.AddOptionsT()), tensors, 2)


def two(first: tuple[int, ...], second: tuple[int, ...]) -> Inputs:
    return {"a": np.full(first, 2, np.float32), "b": np.full(second, 3, np.float32)}


def formed(*form: int) -> Inputs:
    return {"a": np.full((2, 4), 2, np.float32), "form": np.array(form, np.int64)}


@dataclass(frozen=True)
class Model:
    """A model, a request that it takes, all values of that one's answer, and a request that it cannot take."""

    engine: EngineName
    save: Callable[[Path], Path]
    good: Inputs
    value: float
    bad: Inputs


OPENVINO, LITERT = EngineName.OPENVINO, EngineName.LITERT
MODELS: dict[str, Model] = {
    "a sum of other numbers of rows": Model(OPENVINO, a_sum, two((2, 4), (2, 4)), 5, two((2, 4), (3, 4))),
    "a product of matrices that do not fit": Model(OPENVINO, a_product, two((2, 4), (4, 2)), 24, two((2, 5), (3, 2))),
    "a form that has more elements": Model(OPENVINO, a_form_that_is_asked_for, formed(4, 2), 2, formed(5, 2)),
    "other numbers of rows with LiteRT": Model(LITERT, a_sum_of_litert, two((2, 4), (2, 4)), 5, two((2, 4), (3, 4))),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_run_that_fails_is_refused_and_leaves_nothing_behind(model: Model, threads: int, tmp_path: Path) -> None:
    engine = load_engine(model.save(tmp_path), EngineSettings(name=model.engine, threads=threads))
    for _ in range(2):
        assert set(engine.run(model.good)["y"].ravel()) == {model.value}
        with pytest.raises(Invalid, match="the model refuses") as caught:
            engine.run(model.bad)
        assert caught.value.reason == Refusal.MODEL_REFUSED, "a client would answer for it"
    assert set(engine.run(model.good)["y"].ravel()) == {model.value}
