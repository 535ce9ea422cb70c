"""Whether company changes an answer: models by numpy, of which some look at their neighbours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.telling import assert_tells

from penstock.api.optimization import AccuracyConstraint
from penstock.optimization.measurements import Company
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_optimizer.accuracy.company import accompany, assess_company
from penstock_optimizer.metrics import Judge, judgements
from penstock_optimizer.samples.arrays import sample_axes

Array = NDArray[Any]
Model = Callable[[Array], dict[str, Array]]
CONSTRAINT = AccuracyConstraint(min_ratio="0.99")
SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", datatype=DataType.FP32, shape=(-1, 16)),),
    outputs=(TensorSpec(name="logits", datatype=DataType.FP32, shape=(-1, 10)),),
)
WEIGHTS = np.random.default_rng(0).normal(size=(16, 10)).astype(np.float32)
SAMPLES = np.random.default_rng(1).normal(size=(120, 16)).astype(np.float32)


def plain(x: Array) -> dict[str, Array]:
    return {"logits": x @ WEIGHTS}


def rounding(x: Array) -> dict[str, Array]:
    """As kernels do that are chosen by the number of rows."""
    return {"logits": x @ WEIGHTS * np.float32(1 + 1e-6 * len(x))}


def coarse(x: Array) -> dict[str, Array]:
    """As bf16 rounds, by kernels that are chosen by the number of rows."""
    return {"logits": x @ WEIGHTS * np.float32(1 + 0.01 * (len(x) > 1))}


def by_sample(x: Array) -> dict[str, Array]:
    """int8 with a scale for each sample."""
    scale = np.abs(x).max(axis=1, keepdims=True) / 127
    return {"logits": np.round(x / np.maximum(scale, 1e-9)) * scale @ WEIGHTS}


def by_run(x: Array) -> dict[str, Array]:
    """int8 with one scale for the whole run, as dynamic quantization has it."""
    scale = np.abs(x).max() / 127
    return {"logits": np.round(x / max(scale, 1e-9)) * scale @ WEIGHTS}


def minus_the_mean(x: Array) -> dict[str, Array]:
    return {"logits": (x - x.mean(axis=0)) @ WEIGHTS}


def by_place(x: Array) -> dict[str, Array]:
    return {"logits": x @ WEIGHTS + np.arange(len(x), dtype=np.float32)[:, None] * np.eye(1, 10, dtype=np.float32)}


def flags(x: Array) -> dict[str, Array]:
    """Scores that nobody changes, and a flag that follows the whole run."""
    return {"logits": x @ WEIGHTS, "unusual": np.full(len(x), np.abs(x).max() > 100)}


def one_number(x: Array) -> dict[str, Array]:
    return {"y": by_run(x)["logits"][:, :1]}


def nothing_more(x: Array) -> dict[str, Array]:
    """Beside its scores an output without elements."""
    return {"logits": x @ WEIGHTS, "found": np.zeros((len(x), 0), np.float32)}


def names(x: Array) -> dict[str, Array]:
    return {"label": np.array(["small", "large"], dtype=object)[(x.sum(axis=1) > 0).astype(int)]}


def seen(model: Model, folder: Path, labels: Array | None = None) -> Company | None:
    """What the guard finds."""
    samples = {"x": SAMPLES} | ({} if labels is None else {"labels": labels})
    accompany(lambda feed: model(feed["x"]), SIGNATURE, samples, 8, folder)
    outputs = {
        name: np.concatenate([part[name] for part in (model(SAMPLES[i : i + 1]) for i in range(len(SAMPLES)))])
        for name in model(SAMPLES)
    }
    chosen = judgements(CONSTRAINT, outputs, labels)
    return assess_company(folder, tuple(outputs), outputs, chosen, Judge(CONSTRAINT, labels))


@pytest.mark.parametrize(
    ("model", "beside"),
    [
        pytest.param(plain, None, id="each row for itself"),
        pytest.param(rounding, None, id="a little rounding"),
        pytest.param(coarse, None, id="coarse rounding, whoever is beside it"),
        pytest.param(by_sample, None, id="int8 by sample"),
        pytest.param(names, None, id="strings"),
        pytest.param(nothing_more, None, id="an output without elements"),
        pytest.param(by_run, "thousand", id="int8 by run"),
        pytest.param(one_number, "thousand", id="int8 by run, one number"),
        pytest.param(minus_the_mean, "", id="less the mean of the batch"),
        pytest.param(by_place, "", id="the place in the batch counts"),
        pytest.param(flags, "thousand", id="a flag of the whole run beside right scores"),
    ],
)
def test_company_that_changes_answers_is_found(model: Model, beside: str | None, tmp_path: Path) -> None:
    found = seen(model, tmp_path)
    assert found is not None
    assert found.subjects == 8
    if beside is None:
        assert found.problem is None
        assert found.change < 1e-2
    else:
        assert found.problem is not None
        assert_tells(found.problem, beside)


def test_the_loss_in_the_metrics_own_terms_counts_where_the_change_is_small(tmp_path: Path) -> None:
    close = np.array([[1.0, 1.0005] + [-1.0] * 8], np.float32)

    def near_tie(x: Array) -> dict[str, Array]:
        nudge = np.float32(0.008) if len(x) > 1 else np.float32(0)
        return {"logits": np.repeat(close, len(x), axis=0) + nudge * np.eye(1, 10, dtype=np.float32)}

    found = seen(near_tie, tmp_path, np.ones(len(SAMPLES), np.int64))
    assert found is not None
    assert found.change < 0.01
    assert found.problem is not None
    assert "others" in found.problem


def test_without_a_look_nothing_is_said(tmp_path: Path) -> None:
    assert assess_company(tmp_path, ("y",), {"y": np.ones((3, 1))}, (), Judge(CONSTRAINT, None)) is None


@pytest.mark.parametrize("dependent", [False, True], ids=["each for itself", "one scale for all"])
def test_samples_that_are_counted_on_other_axes_have_company_too(dependent: bool, tmp_path: Path) -> None:  # noqa: FBT001 (a table)
    signature = Signature(
        inputs=(
            TensorSpec(name="x", datatype=DataType.FP32, shape=(-1, 16)),
            TensorSpec(name="state", datatype=DataType.FP32, shape=(2, -1, 16)),
        ),
        outputs=(TensorSpec(name="next", datatype=DataType.FP32, shape=(2, -1, 16)),),
    )
    if sample_axes(signature) != {"x": 0, "state": 1}:
        pytest.fail(f"the axes are {sample_axes(signature)}")

    def run(feed: dict[str, Array]) -> dict[str, Array]:
        scale = np.abs(feed["x"]).max() if dependent else np.float32(1)
        return {"next": feed["state"] + feed["x"][None] / scale}

    draw = np.random.default_rng(3)
    samples = {"x": SAMPLES, "state": draw.normal(size=(len(SAMPLES), 2, 16)).astype(np.float32)}
    accompany(run, signature, samples, 4, tmp_path)
    outputs = {"next": (samples["state"] + SAMPLES[:, None]).astype(np.float32)}
    found = assess_company(tmp_path, ("next",), outputs, judgements(CONSTRAINT, outputs, None), Judge(CONSTRAINT, None))
    assert found is not None
    assert (found.problem is not None) is dependent
