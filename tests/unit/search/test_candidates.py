"""Which recipes a profile stands for, what they are known by, and whether losses keep a constraint."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.search.search_world import HARDWARE, facts, spec

from penstock.api.optimization import AccuracyConstraint, HardwareSelector
from penstock.optimization.measurements import AccuracyResult, MetricName
from penstock.optimization.recipes import EngineName
from penstock.optimization.report import Outcome
from penstock_optimizer.search.candidates import enumerate_recipes, why_misplaced
from penstock_optimizer.search.constraints import full_test_problem, gate_problem
from penstock_optimizer.search.keys import search_key, trial_key
from penstock_optimizer.search.statistics import loss_bound_binary

TRANSFORMER = {"MatMul": 48, "Softmax": 6}
TRAINED: dict[str, Any] = {
    "steps": {
        "prune": {"methods": ["Structured"], "sparsities": ["0.5", "0.75"]},
        "distil": {},
        **spec().steps.model_dump(by_alias=True, include={"quantize", "graph_optimize"}),
    },
}


def labels(profile: Any, known: Any, threads: int = 1) -> list[str]:
    return [each.label for each in enumerate_recipes(profile, known, threads)]


@pytest.mark.parametrize(
    ("torch", "expected"),
    [
        pytest.param(True, ["TorchEager fp32", "ONNXRuntime fp32"], id="a torch source has two baselines"),
        pytest.param(False, ["ONNXRuntime fp32"], id="an ONNX source has one"),
    ],
)
def test_baselines_go_first(torch: bool, expected: list[str]) -> None:  # noqa: FBT001 (a table)
    assert labels(spec(), facts(torch=torch))[: len(expected)] == expected


@pytest.mark.parametrize(
    ("required", "gpus", "expected"),
    [
        pytest.param(True, True, [("TorchEager", "cuda"), ("ONNXRuntimeCUDA", None)], id="a profile for GPUs, on one"),
        pytest.param(True, False, [("TorchEager", None), ("ONNXRuntime", None)], id="without any the model serves on"),
        pytest.param(False, True, [("TorchEager", None), ("ONNXRuntime", None)], id="a profile for processors"),
    ],
)
def test_baselines_run_on_what_will_serve(required: bool, gpus: bool, expected: list[tuple[str, str | None]]) -> None:  # noqa: FBT001 (a table)
    profile = spec(engines=["ONNXRuntimeCUDA", "TorchCompile"], hardware={"acceleratorRequired": required})
    recipes = enumerate_recipes(profile, facts(gpus=gpus), 1)
    assert [(each.engine.name, each.engine.options.get("device")) for each in recipes[:2]] == expected
    compiled = {each.engine.options.get("device") for each in recipes if each.engine.name is EngineName.TORCH_COMPILE}
    assert compiled == ({"cuda"} if required and gpus else {None})


def test_rapid_tries_each_method_once_on_each_engine() -> None:
    found = labels(spec(), facts(torch=False))[1:]
    assert found == [
        "graphOptimize + quantize Static → ONNXRuntime",
        "graphOptimize + quantize Static → OpenVINO",
        "graphOptimize + quantize BF16 → ONNXRuntime bf16",
        "graphOptimize + quantize BF16 → OpenVINO bf16",
        "graphOptimize + quantize Dynamic → ONNXRuntime",
        "graphOptimize + quantize Dynamic → OpenVINO",
        "graphOptimize → ONNXRuntime fp32",
        "graphOptimize → OpenVINO fp32",
    ]


def test_a_graph_is_rewritten_for_engines_alone_that_are_given_onnx() -> None:
    """LiteRT's models are converted from torch's program; a rewrite of ONNX would make each of its recipes infeasible."""
    found = labels(spec(engines=["ONNXRuntime", "LiteRT"]), facts())
    assert "LiteRT fp32" in found
    assert not any("graphOptimize" in each for each in found if "LiteRT" in each)


def test_transformers_get_int8_and_bf16_together() -> None:
    found = labels(spec(), facts(operators=TRANSFORMER))
    assert "graphOptimize + quantize Static → OpenVINO bf16" in found
    assert "graphOptimize + quantize Static → OpenVINO bf16" not in labels(
        spec(), facts(operators={"Softmax": 1, "Gemm": 2})
    )


def test_thorough_also_tries_knobs() -> None:
    recipes = enumerate_recipes(spec(search={"strategy": "Thorough"}), facts(operators=TRANSFORMER), 1)
    parameters = [step.parameters for recipe in recipes for step in recipe.steps]
    for name, value in (
        ("calibration", "Entropy"),
        ("perChannel", False),
        ("transformer", True),
        ("quantizer", "NNCF"),
        ("preset", "Mixed"),
    ):
        assert any(each.get(name) == value for each in parameters), name


def test_knobs_go_after_the_usual_settings() -> None:
    profile = spec(engines=["OpenVINO"], steps={"graphOptimize": {}, "quantize": {"methods": ["Static", "Dynamic"]}})
    usual = enumerate_recipes(profile, facts(torch=False), 1)
    thorough = profile.model_copy(update={"search": spec(search={"strategy": "Thorough"}).search})
    assert enumerate_recipes(thorough, facts(torch=False), 1)[: len(usual)] == usual


def test_rapid_combines_shrinking_with_the_first_quantization_only() -> None:
    found = labels(spec(**TRAINED), facts())
    assert [each for each in found if "prune" in each] == [
        f"prune Structured + graphOptimize + quantize Static → {engine}" for engine in ("ONNXRuntime", "OpenVINO")
    ]


def test_what_trains_goes_last() -> None:
    found = labels(spec(**TRAINED, search={"strategy": "Thorough"}), facts())
    trained = [("prune" in each) + 2 * ("distil" in each) for each in found]
    assert trained == sorted(trained)
    assert any("distil + prune Structured" in each for each in found)


def test_where_nothing_can_be_trained_one_recipe_tells_why() -> None:
    found = labels(spec(**TRAINED), facts(module=False))
    assert len([each for each in found if "prune" in each]) == 1
    assert len([each for each in found if "distil" in each]) == 1


def test_single_threads_are_tried_where_replicas_share_cores() -> None:
    profile = spec(objective="Throughput", search={"strategy": "Thorough"})
    threads = {each.engine.threads for each in enumerate_recipes(profile, facts(), 2)}
    assert threads == {1, 2}


def test_only_engines_that_compile_are_compiled_for() -> None:
    profile = spec(engines=["ONNXRuntime", "TorchExport"], steps={"compile": {}})
    assert labels(profile, facts()) == ["TorchEager fp32", "ONNXRuntime fp32", "compile → TorchExport fp32"]


def test_no_recipe_stands_twice() -> None:
    recipes = enumerate_recipes(spec(search={"strategy": "Thorough"}, **TRAINED), facts(operators=TRANSFORMER), 2)
    assert len({each.key for each in recipes}) == len(recipes)


@pytest.mark.parametrize(
    ("selector", "said"),
    [
        pytest.param({}, None, id="any machine"),
        pytest.param({"architectures": ["aarch64"]}, "aarch64", id="another architecture"),
        pytest.param({"instructionSets": ["amx_int8"]}, "amx_int8", id="missing instructions"),
        pytest.param({"acceleratorRequired": True}, "accelerator", id="no accelerator"),
        pytest.param({"instructionSets": ["avx512_vnni"]}, None, id="instructions that are there"),
    ],
)
def test_a_profile_for_other_machines(selector: dict[str, Any], said: str | None) -> None:
    found = why_misplaced(HardwareSelector.model_validate(selector), HARDWARE)
    assert found is None if said is None else found is not None and said in found


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"source_digest": "sha256:2"}, id="another model"),
        pytest.param({"data_digest": "sha256:2"}, id="other data"),
        pytest.param({"spec": spec(objective="Memory")}, id="another profile"),
        pytest.param({"settings": {"seed": 1}}, id="another seed"),
        pytest.param({"library_versions": {"torch": "2"}}, id="another library"),
        pytest.param({"hardware": HARDWARE.model_copy(update={"cores": 4})}, id="another machine"),
    ],
)
def test_what_makes_another_search(change: dict[str, Any]) -> None:
    base: dict[str, Any] = {
        "source_digest": "sha256:1",
        "data_digest": "sha256:1",
        "spec": spec(),
        "settings": {"seed": 0},
        "library_versions": {"torch": "1"},
        "hardware": HARDWARE,
    }
    assert search_key(**base) == search_key(**base)
    assert search_key(**base) != search_key(**(base | change))
    assert trial_key(search_key(**base), "a") != trial_key(search_key(**(base | change)), "a")


def accuracy(lost: int, samples: int) -> AccuracyResult:
    return AccuracyResult(
        metric=MetricName.ACCURACY,
        samples=samples,
        baseline=1.0,
        candidate=1 - lost / samples,
        loss=lost / samples,
        loss_bound=loss_bound_binary(lost, 0, samples, 0.95),
        confidence=0.95,
        baseline_right_candidate_wrong=lost,
        candidate_right_baseline_wrong=0,
    )


def likeness(value: float, spread: float = 0.001) -> AccuracyResult:
    return AccuracyResult(
        metric=MetricName.COSINE,
        samples=64,
        baseline=1.0,
        candidate=value,
        loss=1 - value,
        loss_bound=1 - value + spread,
        confidence=0.95,
    )


def error(baseline: float, candidate: float) -> AccuracyResult:
    return AccuracyResult(
        metric=MetricName.MEAN_SQUARED_ERROR,
        samples=100,
        baseline=baseline,
        candidate=candidate,
        loss=candidate - baseline,
        loss_bound=candidate - baseline,
        confidence=0.95,
    )


@pytest.mark.parametrize(
    ("constraint", "result", "outcome"),
    [
        pytest.param({"minRatio": "0.99"}, accuracy(0, 1000), None, id="nothing lost"),
        pytest.param({"minRatio": "0.99"}, accuracy(20, 1000), Outcome.ACCURACY_LOST, id="2 % lost of 1 %"),
        pytest.param({"minRatio": "0.99"}, accuracy(9, 1000), Outcome.NOT_CERTIFIED, id=".9 % lost, and perhaps more"),
        pytest.param({"minRatio": "0.99", "certify": False}, accuracy(9, 1000), None, id="the estimate is enough"),
        pytest.param({"maxLossPoints": "3"}, accuracy(9, 1000), None, id=".9 points of 3"),
        pytest.param(
            {"maxLossPoints": "3", "minRatio": "0.999"}, accuracy(9, 1000), Outcome.ACCURACY_LOST, id="both hold"
        ),
        pytest.param({"minValue": "0.995"}, likeness(0.9972), None, id="a cosine above the least"),
        pytest.param({"minValue": "0.995"}, likeness(0.9935), Outcome.ACCURACY_LOST, id="a cosine below the least"),
        pytest.param({"minValue": "0.995"}, likeness(0.9955), Outcome.NOT_CERTIFIED, id="a cosine that may be below"),
        pytest.param({}, likeness(0.1), None, id="no constraint"),
        pytest.param({"minRatio": "0.9"}, error(1.0, 1.1), None, id="an error a tenth greater"),
        pytest.param({"minRatio": "0.9"}, error(1.0, 1.2), Outcome.ACCURACY_LOST, id="an error a fifth greater"),
        pytest.param({"minValue": "1.05"}, error(1.0, 1.1), Outcome.ACCURACY_LOST, id="an error above the greatest"),
    ],
)
def test_the_full_test(constraint: dict[str, Any], result: AccuracyResult, outcome: Outcome | None) -> None:
    found = full_test_problem(AccuracyConstraint.model_validate(constraint), result)
    assert (found[0] if found else None) is outcome


@pytest.mark.parametrize(
    ("result", "passes"),
    [
        pytest.param(accuracy(3, 150), True, id="3 of 150 lost may be chance"),
        pytest.param(accuracy(12, 150), False, id="12 of 150 lost is none"),
        pytest.param(likeness(0.25), False, id="a ruined transformer"),
        pytest.param(likeness(0.935, 0.01), False, id="a bad transformer"),
        pytest.param(likeness(0.994), True, id="a good transformer"),
    ],
)
def test_the_gate_rejects_only_what_is_lost_for_certain(result: AccuracyResult, passes: bool) -> None:  # noqa: FBT001 (a table)
    assert (gate_problem(AccuracyConstraint(min_ratio="0.99"), result) is None) is passes


def test_engines_that_are_no_candidates_are_none() -> None:
    recipes = enumerate_recipes(spec(engines=["OpenVINO"]), facts(torch=False), 1)
    assert {each.engine.name for each in recipes[1:]} == {EngineName.OPENVINO}
