"""The demo's figures and pictures."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from tests.telling import assert_tells, telling

from penstock.api.optimization import OptimizationRun
from penstock.serving.manifest import DataType, TensorSpec
from penstock_cli.demo.comparison import print_comparison, rows, search_lines
from penstock_cli.demo.load import HttpAnswer, LoadResult, predicted_class, request_body
from penstock_cli.demo.pictures import picture
from penstock_cli.demo.report import DemoResult, print_report
from penstock_cli.demo.usage import ReplicaUsage, UsageByReplica, read_usage
from penstock_cli.traces.waterfall import Row

GOOD = (HttpAnswer(200, 0.001, 1), HttpAnswer(200, 0.003, 2))


def result(answers: tuple[HttpAnswer, ...] = GOOD, direct: tuple[int, ...] = (1, 2)) -> DemoResult:
    return DemoResult(
        images=np.ones((2, 1, 8, 8), np.float32),
        labels=np.array([1, 3]),
        direct=np.array(direct),
        load=LoadResult(answers, 0.5),
        connections=16,
        mean_batch=2.5,
        cpu_seconds=0.004,
        resident_bytes=100e6,
        size_bytes=2_800_000,
        trace=[Row(0, "gateway", "penstock-gateway", 0, 1_000_000)],
    )


@pytest.mark.parametrize(
    ("shown", "passed"),
    [
        pytest.param(result(), True, id="equal answers pass, wrong labels or not"),
        pytest.param(result(direct=(1, 3)), False, id="an answer that differs fails"),
        pytest.param(result((*GOOD[:1], HttpAnswer(503, 0.1, None))), False, id="an error fails"),
        pytest.param(result(GOOD[:1], (1,)), False, id="a missing answer fails"),
        pytest.param(replace(result(), failed_in_warm_up=1), False, id="an error in the first round fails"),
        pytest.param(replace(result(direct=(1, 3)), may_differ=0.5), True, id="as many may differ as are allowed to"),
    ],
)
def test_what_passes(shown: DemoResult, passed: bool) -> None:  # noqa: FBT001 (a table)
    assert shown.passed is passed


def test_the_report_has_every_part() -> None:
    out = io.StringIO()
    print_report(Console(file=out, width=100), result())
    text = out.getvalue()
    for part in ("1 ✓ (1)", "2 ✗ (3)", "50.00%", "differ", "p99", "4 requests/s", "2.50"):
        assert part in text
    assert "gateway" in text
    assert "█" in text


def test_pictures_pair_two_rows() -> None:
    image = np.array([[1, 0], [0, 0], [1, 1], [1, 0], [0, 1]], np.float32)
    assert picture(image) == ["▀ ", "█▀", " ▀"]


def test_a_request_is_the_protocols() -> None:
    tensor = TensorSpec(name="image", datatype=DataType.FP32, shape=(-1, 1, 1, 2))
    body = request_body(tensor, np.array([[[0.5, 0.25]]], np.float32))
    assert body == b'{"inputs":[{"name":"image","shape":[1,1,1,2],"datatype":"FP32","data":[0.5,0.25]}]}'


@pytest.mark.parametrize("body", [b"{}", b'{"outputs":[]}', b"[]"])
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=telling("not answer")):
        predicted_class(body)


def test_the_class_is_the_largest_output() -> None:
    assert predicted_class(b'{"outputs":[{"data":[0.1,0.9,-3]}]}') == 1


def test_a_replica_s_figures_are_read_from_its_metrics() -> None:
    text = (
        'penstock_batch_rows_bucket{le="1"} 9\npenstock_batch_rows_count{model="m"} 4.0\n'
        'penstock_batch_rows_sum{model="m"} 10.0\nprocess_cpu_seconds_total 1.5\nprocess_resident_memory_bytes 2e+08\n'
    )
    assert read_usage(text) == ReplicaUsage(4, 10, 1.5, 2e8)


def test_only_replicas_that_were_there_before_count() -> None:
    before = UsageByReplica({"a": ReplicaUsage(4, 10, 1.0, 1e8)})
    after = UsageByReplica({"a": ReplicaUsage(8, 30, 1.5, 1.2e8), "new": ReplicaUsage(9, 9, 9.0, 1e8)})
    assert (after.mean_batch_since(before), after.cpu_seconds_since(before)) == (5.0, 0.5)
    assert after.resident_bytes == 1.2e8
    assert after.mean_batch_since(after) == 0.0


def accepted(**figures: str) -> OptimizationRun:
    spec = {"model": {"storageUri": "file:///m", "modelFormat": "onnx"}, "profileRef": {"name": "balanced"}}
    status = {"verdict": "Accepted", "recipe": "quantize Static → OpenVINO", "figures": figures}
    return OptimizationRun.model_validate({"metadata": {"name": "r"}, "spec": spec, "status": status})


def test_before_and_after_are_told_with_the_change() -> None:
    after = replace(
        result(),
        load=LoadResult((HttpAnswer(200, 0.0005, 1), HttpAnswer(200, 0.001, 3)), 0.25),
        cpu_seconds=0.001, resident_bytes=90e6, size_bytes=700_000,
    )  # fmt: skip
    told = {name: words for name, *words in rows(result(), after)}
    assert told["latency p50"] == ["2.00 ms", "0.75 ms", "2.67x better"]
    assert told["requests/s"] == ["4", "8", "2.00x better"]
    assert told["replica's CPU a request"] == ["2.000 ms", "0.500 ms", "4.00x better"]
    assert told["accuracy"] == ["50.00%", "100.00%", "+50.00 points"]
    assert told["size of the model"] == ["2.80 MB", "0.70 MB", "4.00x smaller"]
    assert told["memory of the replica"] == ["100 MB", "90 MB", "-10 MB"]
    assert {name: change for name, _, _, change in rows(after, result())}["requests/s"] == "2.00x worse"


SEARCHED = [
    ("both baselines", {"baseline": "TorchEager fp32", "speedup": "8.40x", "speedupAgainstOnnxRuntime": "2.10x"},
     "8.40x TorchEager fp32 2.10x ONNX Runtime"),
    ("one, where it is the only one",
     {"baseline": "ONNXRuntime fp32", "speedup": "2.10x", "speedupAgainstOnnxRuntime": "2.10x"},
     "2.10x ONNXRuntime fp32"),
]  # fmt: skip


@pytest.mark.parametrize(("figures", "facts"), [row[1:] for row in SEARCHED], ids=[row[0] for row in SEARCHED])
def test_the_search_s_own_speed_ups_name(figures: dict[str, str], facts: str) -> None:
    recipe, line = search_lines(accepted(**figures))
    assert recipe == "Recipe: quantize Static → OpenVINO"
    assert_tells(line, facts)


def test_the_table_fits_a_terminal() -> None:
    out = io.StringIO()
    print_comparison(Console(file=out, width=80), result(), result(), accepted())
    assert max(map(len, out.getvalue().splitlines())) <= 80
    assert "latency p99" in out.getvalue()
