"""The accuracy guard on real variants, run by their engine: ruined ones, flags and strings, and who stands beside whom."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic
from tests.integration.measurement import small_models
from tests.telling import assert_tells

from penstock.api.optimization import AccuracyConstraint
from penstock.optimization.measurements import AccuracyResult
from penstock.optimization.variants import DataSplits
from penstock_optimizer.accuracy.evaluate import evaluate, look_at_baseline
from penstock_optimizer.samples.data import prepare_data
from penstock_optimizer.search.constraints import full_test_problem, why_untold
from penstock_optimizer.sources.onnx import signature_of

CONSTRAINT = AccuracyConstraint(min_ratio="0.97")
WIDTH = 32


def network(*, ruined: bool = False) -> onnx.ModelProto:
    """Scores of four classes, whether the model is sure, the class's name, and one positive number."""
    draw = np.random.default_rng(5)
    first = draw.normal(0, 0.25, (16, WIDTH)).astype(np.float32)
    weights = {"w1": first, "w2": draw.normal(0, 0.4, (WIDTH, 4)).astype(np.float32), "half": np.float32(0.5)}
    if ruined:
        weights["w1"] = np.zeros_like(first)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w2"], ["c"]),
        helper.make_node("Softmax", ["c"], ["probabilities"], axis=1),
        helper.make_node("ReduceMax", ["probabilities"], ["top"], axes=[1], keepdims=0),
        helper.make_node("Greater", ["top", "half"], ["sure"]),
        helper.make_node("ArgMax", ["probabilities"], ["best"], axis=1, keepdims=0),
        helper.make_node(
            "LabelEncoder", ["best"], ["label"], domain="ai.onnx.ml", keys_int64s=[0, 1, 2, 3],
            values_strings=["spring", "summer", "autumn", "winter"],
        ),
        helper.make_node("ReduceLogSumExp", ["c"], ["price"], axes=[1], keepdims=1),
    ]  # fmt: skip
    outputs = [
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 4]),
        helper.make_tensor_value_info("sure", TensorProto.BOOL, ["batch"]),
        helper.make_tensor_value_info("label", TensorProto.STRING, ["batch"]),
        helper.make_tensor_value_info("price", TensorProto.FLOAT, ["batch", 1]),
    ]
    graph = helper.make_graph(
        nodes, "seasons", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 16])], outputs,
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )  # fmt: skip
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The variants, and samples without labels."""
    root = tmp_path_factory.mktemp("seasons")
    onnx.save(network(), str(root / "model.onnx"))
    quantize_dynamic(root / "model.onnx", root / "dynamic.onnx", op_types_to_quantize=["MatMul"], per_channel=True)
    signature = signature_of(root / "model.onnx")
    made = {"baseline": network(), "ruined": network(ruined=True), "dynamic": onnx.load(str(root / "dynamic.onnx"))}
    found: dict[str, Any] = {
        name: small_models.variant(root / name, model, label="" if name == "baseline" else name, signature=signature)
        for name, model in made.items()
    }
    x = np.random.default_rng(6).normal(size=(900, 16)).astype(np.float32)
    np.savez(root / "all.npz", x=x)
    source = small_models.SOURCE.model_copy(update={"signature": signature})
    found["data"] = prepare_data(str(root / "all.npz"), source, root / "data", max_samples=900, seed=0, training=False)
    found["work"] = root / "work"
    return found


def judged(folders: dict[str, Any], name: str) -> AccuracyResult:
    data: DataSplits = folders["data"]
    chosen, controls = look_at_baseline(folders["baseline"], data, CONSTRAINT, limit=64, work=folders["work"])
    assert why_untold(CONSTRAINT, controls) is None
    assert {each.output for each in chosen} == {"probabilities", "sure", "label", "price"}, "none is left out"
    return evaluate(
        folders["baseline"], folders[name], data, CONSTRAINT, split="test", limit=None, work=folders["work"],
        judgements=chosen,
    )  # fmt: skip


def test_the_model_itself_passes_by_flags_strings_and_numbers(folders: dict[str, Any]) -> None:
    found = judged(folders, "baseline")
    assert full_test_problem(CONSTRAINT, found) is None
    assert {each.metric.value for each in (found, *found.others)} == {"Agreement", "R2", "RelativeError"}
    assert found.company is not None
    assert found.company.problem is None


def test_what_always_says_the_same_is_refused(folders: dict[str, Any]) -> None:
    problem = full_test_problem(CONSTRAINT, judged(folders, "ruined"))
    assert problem is not None
    assert problem[0] == "AccuracyLost"


def test_one_scale_for_a_whole_run_is_found_to_depend_on_neighbours(folders: dict[str, Any]) -> None:
    found = judged(folders, "dynamic")
    assert found.company is not None
    assert found.company.change > 0.05
    assert_tells(found.company.problem or "", "thousand")
    assert found.loss < 0.05, "alone, as it would be served, it answers much as the model does"
