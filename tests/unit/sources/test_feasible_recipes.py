"""Whether a recipe can be built on a machine is told without loading anything."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.telling import Telling

from penstock.optimization.hardware import Gpu, Hardware
from penstock.optimization.recipes import EngineName, EngineSettings, Precision, QuantizeMethod, Recipe, Step, StepName
from penstock.optimization.variants import DataSplits, PreparedSource
from penstock.serving.manifest import DataType, ModelFormat, Signature, TensorSpec
from penstock_optimizer.building.variant import check_feasibility

TENSOR = TensorSpec(name="x", datatype=DataType.FP32, shape=(-1, 4))
ONNX = PreparedSource(
    name="m", digest="sha256:0", format=ModelFormat.ONNX, signature=Signature(inputs=(TENSOR,), outputs=(TENSOR,)),
    onnx="model.onnx", parameters=1, size_bytes=4, files={},
)  # fmt: skip
TORCH = ONNX.model_copy(
    update={"format": ModelFormat.SAFETENSORS, "exported": "model.pt2", "weights": "w", "import_path": "a:b"}
)
DATA = DataSplits(digest="sha256:0", calibration="c.npz", test="t.npz")
PLAIN = Hardware(architecture="x86_64", cpu="Plain", cores=1)
HALF = PLAIN.model_copy(update={"instruction_sets": ("avx512_bf16",)})
GPU = PLAIN.model_copy(update={"gpus": (Gpu(name="Old", memory_bytes=1, compute_capability="8.0"),)})


def quantize(method: QuantizeMethod, **parameters: str | float | bool) -> Step:
    return Step(name=StepName.QUANTIZE, method=method, parameters=parameters)


@pytest.mark.parametrize(
    ("step", "engine", "source", "hardware", "facts"),
    [
        pytest.param(quantize(QuantizeMethod.STATIC), "ONNXRuntime", ONNX, PLAIN, None, id="static int8 runs anywhere"),
        pytest.param(quantize(QuantizeMethod.STATIC), "OpenVINO", ONNX, PLAIN, None, id="on OpenVINO too"),
        pytest.param(
            quantize(QuantizeMethod.STATIC), "TorchEager", TORCH, PLAIN, "QDQ", id="static int8 is not for torch"
        ),
        pytest.param(
            quantize(QuantizeMethod.DYNAMIC), "OpenVINO", ONNX, PLAIN, "no kernels", id="dynamic int8 is ONNX Runtime's"
        ),
        pytest.param(
            quantize(QuantizeMethod.STATIC, calibration="Guess"), "ONNXRuntime", ONNX, PLAIN, "one of MinMax",
            id="an unknown calibration is told",
        ),
        pytest.param(
            quantize(QuantizeMethod.STATIC, sampels=3), "ONNXRuntime", ONNX, PLAIN, "no parameter 'sampels'",
            id="a misspelt parameter is told",
        ),
        pytest.param(quantize(QuantizeMethod.BF16), "OpenVINO", ONNX, HALF, None, id="bf16 runs where it is native"),
        pytest.param(
            quantize(QuantizeMethod.BF16), "OpenVINO", ONNX, PLAIN, "slower than fp32", id="and cannot where it is not"
        ),
        pytest.param(quantize(QuantizeMethod.BF16), "ONNXRuntime", ONNX, HALF, "no bf16", id="ONNX Runtime has no bf16"),
        pytest.param(quantize(QuantizeMethod.FP8), "TorchCompile", TORCH, PLAIN, "has none", id="fp8 takes a GPU"),
        pytest.param(
            quantize(QuantizeMethod.FP8), "TorchCompile", TORCH, GPU, "Old 8.0", id="and one that is new enough"
        ),
        pytest.param(
            quantize(QuantizeMethod.INT4_WEIGHT_ONLY), "TorchCompile", TORCH, GPU, None, id="int4 takes an older one"
        ),
        pytest.param(
            Step(name=StepName.COMPILE), "ONNXRuntime", ONNX, PLAIN, "ONNXRuntime torch compiled", id="torch compiles torch"
        ),
        pytest.param(
            Step(name=StepName.GRAPH_OPTIMIZE, parameters={"transformer": True}), "OpenVINO", ONNX, PLAIN,
            "OpenVINO", id="fused attention is ONNX Runtime's",
        ),
        pytest.param(None, "TorchEager", ONNX, PLAIN, "onnx", id="torch runs no ONNX"),
        pytest.param(None, "LiteRT", TORCH, PLAIN, "litert", id="LiteRT needs its own library"),
    ],
)  # fmt: skip
def test_a_step_says_what_it_lacks(
    step: Step | None, engine: str, source: PreparedSource, hardware: Hardware, facts: str | None
) -> None:
    settings = EngineSettings(name=EngineName(engine), precision=Precision.FP32)
    found = check_feasibility(Recipe(steps=() if step is None else (step,), engine=settings), source, DATA, hardware)
    assert (found and found.reason) == (None if facts is None else Telling(facts))


def test_asking_imports_no_torch() -> None:
    code = "import sys, penstock_optimizer.building.variant as b; [b.step_runner(s) for s in b.STEPS]; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
