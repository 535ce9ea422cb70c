"""Outputs are kept sample by sample, wherever a model counts samples, and refused where they cannot be compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.telling import telling
from tests.unit.joining.graphs import COUPLED, SEPARATE, Graph

from penstock.errors import Invalid
from penstock.optimization.recipes import EngineName, EngineSettings, Recipe
from penstock.optimization.variants import VARIANT_FILE, Variant
from penstock.serving.manifest import ModelFormat
from penstock_optimizer.accuracy.outputs import OutputsRequest, compute
from penstock_optimizer.samples.arrays import Samples
from penstock_runtime.engines import load_engine

ONNX = EngineSettings(name=EngineName.ONNX_RUNTIME)
_generator = np.random.default_rng(0)
X = _generator.normal(size=(6, 4)).astype(np.float32)
STATE = _generator.normal(size=(6, 2, 4)).astype(np.float32)
RATE = np.arange(6, dtype=np.float32)


def outputs(graph: Graph, samples: Samples, folder: Path) -> dict[str, np.ndarray]:  # type: ignore[type-arg]  # of any type
    engine = load_engine(graph.save(folder / "model.onnx"), ONNX)
    variant = Variant(
        recipe=Recipe(engine=ONNX), format=ModelFormat.ONNX, entrypoint="model.onnx", signature=engine.signature,
        files={}, engine=ONNX, weight_precision="fp32",
    )  # fmt: skip
    (folder / VARIANT_FILE).write_text(variant.model_dump_json())
    np.savez(folder / "samples.npz", **samples)  # type: ignore[arg-type]  # numpy's stub takes allow_pickle for an array
    request = OutputsRequest(
        variant=str(folder), samples=str(folder / "samples.npz"), limit=None, rows=4, subjects=0, output=str(folder)
    )
    return {name: np.load(folder / f"{index}.npy") for index, name in enumerate(compute(request).outputs)}


def test_a_state_with_the_batch_on_its_second_axis(tmp_path: Path) -> None:
    graph = SEPARATE["a state with the batch on its second axis"][0]
    found = outputs(graph, {"x": X, "state": STATE}, tmp_path)
    assert np.allclose(found["y"], X + STATE.mean(axis=1))
    assert np.array_equal(found["next"], 2 * STATE[:, :, None])


def test_a_scalar_beside(tmp_path: Path) -> None:
    found = outputs(COUPLED["a scalar beside"], {"x": X, "rate": RATE}, tmp_path)
    assert np.array_equal(found["y"], X * RATE[:, None])


def test_finds_that_vary_are_refused_and_never_cut(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=telling("'y' 4 samples axis")):
        outputs(COUPLED["finds of a detector"], {"x": np.minimum(X, 0.4)}, tmp_path)
