"""The demo's figures and pictures."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from penstock.serving.manifest import DataType, TensorSpec
from penstock.telemetry.waterfall import Row
from penstock_cli.demo.batches import BatchCount, _add
from penstock_cli.demo.load import Answer, LoadResult, predicted_class, request_body
from penstock_cli.demo.pictures import picture
from penstock_cli.demo.report import DemoResult, print_report

GOOD = (Answer(200, 0.001, 1), Answer(200, 0.003, 2))


def result(answers: tuple[Answer, ...] = GOOD, direct: tuple[int, ...] = (1, 2)) -> DemoResult:
    return DemoResult(
        images=np.ones((2, 1, 8, 8), np.float32),
        labels=np.array([1, 3]),
        direct=np.array(direct),
        load=LoadResult(answers, 0.5),
        connections=16,
        mean_batch=2.5,
        trace=[Row(0, "gateway", "penstock-gateway", 0, 1_000_000)],
    )


@pytest.mark.parametrize(
    ("shown", "passed"),
    [
        pytest.param(result(), True, id="equal answers pass, wrong labels or not"),
        pytest.param(result(direct=(1, 3)), False, id="an answer that differs fails"),
        pytest.param(result((*GOOD[:1], Answer(503, 0.1, None))), False, id="an error fails"),
        pytest.param(result(GOOD[:1], (1,)), False, id="a missing answer fails"),
    ],
)
def test_what_passes(shown: DemoResult, passed: bool) -> None:  # noqa: FBT001 (a table)
    assert shown.passed is passed


def test_the_report_has_every_part() -> None:
    out = io.StringIO()
    print_report(Console(file=out, width=100), result())
    text = out.getvalue()
    for part in ("1 ✓ (1)", "2 ✗ (3)", "50.00% through the gateway", "0 answers differ", "p99", "4 requests/s", "2.50"):
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
    with pytest.raises(ValueError, match="not an infer answer"):
        predicted_class(body)


def test_the_class_is_the_largest_output() -> None:
    assert predicted_class(b'{"outputs":[{"data":[0.1,0.9,-3]}]}') == 1


def test_batches_are_summed_over_replicas() -> None:
    text = 'penstock_batch_rows_bucket{le="1"} 9\npenstock_batch_rows_count{model="m"} 4.0\npenstock_batch_rows_sum{model="m"} 10.0\n'
    both = _add(_add(BatchCount(), text), text)
    assert both == BatchCount(8, 20)
    assert both.mean_since(BatchCount(4, 10)) == 2.5
    assert both.mean_since(both) == 0.0
