"""Engines' profilers, read on a small real model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.telling import telling

from penstock.errors import Invalid
from penstock.optimization.profiling import LimitShares
from penstock.optimization.recipes import EngineName, EngineSettings
from penstock_cli.optimization.profiling import bar, parse_shape
from penstock_optimizer.profiling import profile_onnx
from penstock_optimizer.profiling.onnx import profile_kernels
from penstock_optimizer.profiling.openvino import profile_openvino
from penstock_optimizer.profiling.peaks import measure_peak


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolution and a product, whose weights ONNX Runtime keeps packed."""
    values = np.random.default_rng(0)
    weights = {
        "kernel": values.standard_normal((16, 3, 3, 3), dtype=np.float32),
        "matrix": values.standard_normal((1024, 10), dtype=np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "kernel"], ["map"], pads=[1, 1, 1, 1]),
            helper.make_node("Flatten", ["map"], ["flat"]),
            helper.make_node("MatMul", ["flat", "matrix"], ["logits"]),
        ],
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path = tmp_path_factory.mktemp("profile") / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


FEEDS = {"image": np.ones((2, 3, 8, 8), np.float32)}


def test_operators_of_onnx_runtime(model: Path) -> None:
    shares = profile_onnx(model, FEEDS, threads=1)
    assert {"Conv", "MatMul"} <= {each.operator for each in shares}
    assert sum(each.share for each in shares) == pytest.approx(1)
    assert all(each.calls == 1 for each in shares)


def test_arithmetic_counts_weights_that_kernels_keep_packed(model: Path) -> None:
    found = profile_kernels(model, FEEDS, threads=1)
    flops = {kernel.operator: kernel.flops for kernel in found.kernels}
    assert flops["MatMul"] == 2 * 2 * 1024 * 10
    assert flops["Conv"] == 2 * 2 * 16 * 64 * 27
    moved = {kernel.operator: kernel.moved_bytes for kernel in found.kernels}
    assert moved["MatMul"] == 4 * (2 * 1024 + 1024 * 10 + 2 * 10)
    assert found.milliseconds > 0


def test_operators_of_openvino(model: Path) -> None:
    shares = profile_openvino(model, FEEDS, EngineSettings(name=EngineName.OPENVINO))
    assert "Convolution" in {each.operator for each in shares}


def test_what_does_not_run_says_so(model: Path) -> None:
    with pytest.raises(Invalid, match=telling("model.onnx inputs")):
        profile_onnx(model, {"image": np.ones((2, 4, 8, 8), np.float32)}, threads=1)


def test_what_is_no_model_says_so(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(Invalid, match=telling("load model.onnx")):
        profile_onnx(tmp_path / "model.onnx", FEEDS, threads=1)


def test_peaks_are_of_a_real_machine() -> None:
    peak = measure_peak(threads=1, working_set=1 << 20)
    assert peak.gigaflops > 0.1
    assert peak.gigabytes_per_second > 0.1


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        pytest.param("input_ids=128", ("input_ids", (128,)), id="one axis"),
        pytest.param("image=3x224x224", ("image", (3, 224, 224)), id="three axes"),
    ],
)
def test_shapes(text: str, shape: tuple[str, tuple[int, ...]]) -> None:
    assert parse_shape(text) == shape


@pytest.mark.parametrize("text", ["128", "=128", "image=", "image=3xa", "image=0"])
def test_shapes_that_are_none(text: str) -> None:
    with pytest.raises(Invalid, match="write NAME=LENGTH"):
        parse_shape(text)


@pytest.mark.parametrize(("share", "width"), [(0.0, 0), (0.5, 12), (1.0, 24)])
def test_bars(share: float, width: int) -> None:
    assert bar(share) == "█" * width


def test_limits_name_the_greatest() -> None:
    assert LimitShares(compute=0.2, memory=0.5, overhead=0.3).greatest == "Memory"
