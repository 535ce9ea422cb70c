"""Recipes become variants that their engine runs, and whose outputs stay near the source's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from penstock.optimization.recipes import (
    EngineName,
    EngineSettings,
    Precision,
    QuantizeMethod,
    Recipe,
    Step,
    StepName,
)
from penstock.optimization.variants import Broken, BuildRequest, Built, Infeasible, Variant
from penstock.serving.manifest import ModelFormat
from penstock_optimizer.building.variant import build
from penstock_runtime.engines import load_engine
from penstock_runtime.engines.compiler import missing_compiler

SLIM = Step(name=StepName.GRAPH_OPTIMIZE)


def quantize(method: QuantizeMethod, **parameters: str | float | bool) -> Step:
    return Step(name=StepName.QUANTIZE, method=method, parameters=parameters)


def recipe(engine: EngineName, *steps: Step, precision: Precision = Precision.FP32) -> Recipe:
    return Recipe(steps=steps, engine=EngineSettings(name=engine, precision=precision))


def made(small: Any, wanted: Recipe, folder: Path) -> Built:
    request = BuildRequest(source=str(small.folder), data=small.splits, recipe=wanted, output=str(folder))
    return build(request, sandbox=True)


def cosine(small: Any, variant: Variant, folder: Path) -> float:
    with np.load(small.data) as archive:
        feed = {name: archive[name] for name in archive.files}
    reference = load_engine(small.folder / "model.onnx", EngineSettings(name=EngineName.ONNX_RUNTIME))
    ours = reference.run(feed)["scores"]
    theirs = load_engine(folder / variant.entrypoint, variant.engine, trusted=True).run(feed)["scores"]
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(axis=1) / norms).mean())


@pytest.mark.parametrize(
    ("wanted", "kind", "least"),
    [
        pytest.param(recipe(EngineName.ONNX_RUNTIME), (ModelFormat.ONNX, "fp32"), 0.99999, id="the baseline as it is"),
        pytest.param(
            recipe(EngineName.ONNX_RUNTIME, SLIM, quantize(QuantizeMethod.STATIC)), (ModelFormat.ONNX, "int8"), 0.99,
            id="static int8 for ONNX Runtime",
        ),
        pytest.param(
            recipe(EngineName.ONNX_RUNTIME, quantize(QuantizeMethod.STATIC, calibration="Entropy")), (ModelFormat.ONNX, "int8"), 0.95, id="static int8 by entropy",
        ),
        pytest.param(
            recipe(EngineName.ONNX_RUNTIME, quantize(QuantizeMethod.DYNAMIC)), (ModelFormat.ONNX, "int8"), 0.99,
            id="dynamic int8",
        ),
        pytest.param(
            recipe(EngineName.OPENVINO, SLIM, quantize(QuantizeMethod.STATIC)), (ModelFormat.OPENVINO, "int8"), 0.99,
            id="static int8 for OpenVINO",
        ),
        pytest.param(
            recipe(EngineName.TORCH_EAGER), (ModelFormat.TORCH_EXPORT, "fp32"), 0.99999, id="torch's own program"
        ),
    ],
)  # fmt: skip
def test_a_recipe_becomes_a_variant_that_computes_nearly_the_same(
    small: Any, tmp_path: Path, wanted: Recipe, kind: tuple[ModelFormat, str], least: float
) -> None:
    variant = made(small, wanted, tmp_path / "variant")
    assert isinstance(variant, Variant), variant
    assert (variant.format, variant.weight_precision) == kind
    assert Variant.model_validate_json((tmp_path / "variant" / "variant.json").read_bytes()) == variant
    assert cosine(small, variant, tmp_path / "variant") >= least
    assert [path.name for path in tmp_path.iterdir()] == ["variant"], "nothing is left beside it"


@pytest.mark.skipif(missing_compiler() is not None, reason=str(missing_compiler()))
def test_a_program_is_compiled_ahead_of_time(small: Any, tmp_path: Path) -> None:
    compiled = recipe(EngineName.TORCH_EXPORT, Step(name=StepName.COMPILE))
    folder = tmp_path / "variant"
    built = made(small, compiled, folder)
    assert isinstance(built, Variant), built
    with np.load(small.data) as archive:
        feed = {name: archive[name] for name in archive.files}
    reference = load_engine(small.folder / "model.onnx", EngineSettings(name=EngineName.ONNX_RUNTIME))
    outputs = load_engine(folder / built.entrypoint, built.engine, trusted=True).run(feed)
    np.testing.assert_allclose(*outputs.values(), reference.run(feed)["scores"], rtol=1e-3, atol=1e-3)


def test_entropy_gives_other_ranges_than_minmax(small: Any, tmp_path: Path) -> None:
    scales = []
    for calibration in ("MinMax", "Entropy"):
        wanted = recipe(EngineName.ONNX_RUNTIME, quantize(QuantizeMethod.STATIC, calibration=calibration))
        assert isinstance(made(small, wanted, tmp_path / calibration), Variant)
        graph = onnx.load(str(tmp_path / calibration / "model.onnx")).graph
        scales.append({each.name: each.raw_data for each in graph.initializer if each.name.endswith("_scale")})
    assert scales[0].keys() == scales[1].keys()
    assert scales[0] != scales[1]


def test_the_same_build_twice_gives_the_same_bytes_and_the_second_is_free(small: Any, tmp_path: Path) -> None:
    wanted = recipe(EngineName.ONNX_RUNTIME, quantize(QuantizeMethod.STATIC))
    first, second = made(small, wanted, tmp_path / "a"), made(small, wanted, tmp_path / "b")
    assert isinstance(first, Variant)
    assert isinstance(second, Variant)
    assert first.files == second.files
    assert made(small, wanted, tmp_path / "a") == first


def test_what_shows_only_with_the_model_at_hand_is_infeasible_with_its_step(small: Any, tmp_path: Path) -> None:
    steps = (quantize(QuantizeMethod.STATIC, excludeOperators="Conv,Gemm,MatMul,Add,Relu,Reshape,Flatten"),)
    built = made(small, recipe(EngineName.ONNX_RUNTIME, *steps), tmp_path / "variant")
    assert isinstance(built, Infeasible), built
    assert (built.part, (tmp_path / "variant").exists()) == ("quantize Static", False)


def test_a_child_that_is_killed_is_a_broken_trial(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "code" / "onnxslim"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import os\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    built = made(small, recipe(EngineName.ONNX_RUNTIME, SLIM), tmp_path / "variant")
    assert isinstance(built, Broken), built
    assert built.part == "graphOptimize"
    assert "SIGABRT" in built.message or "SIGSEGV" in built.message
