"""The paired accuracy test and the load test, in their real child processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.integration.measurement.conftest import Small
from tests.telling import telling

from penstock.api.optimization import AccuracyConstraint, Workload
from penstock.errors import Invalid
from penstock.optimization.measurements import AccuracyResult, MetricName, Scenario
from penstock_optimizer.accuracy.evaluate import evaluate
from penstock_optimizer.measure.load import load_test
from penstock_optimizer.sandbox import why_unavailable


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


def evaluated(
    small: Small, candidate: Path, work: Path, metric: MetricName = MetricName.COSINE, limit: int | None = None
) -> AccuracyResult:
    constraint = AccuracyConstraint(metric=metric)
    return evaluate(small.baseline, candidate, small.data, constraint, split="test", limit=limit, work=work)


def test_the_baseline_loses_nothing_to_itself(small: Small, work: Path) -> None:
    found = evaluated(small, small.baseline, work, MetricName.ACCURACY)
    assert (found.loss, found.baseline_right_candidate_wrong, found.candidate_right_baseline_wrong) == (0, 0, 0)
    assert found.loss_bound == 0, "the very same scores are no luck of few samples"
    assert (found.samples, found.split) == (200, "test")


def test_a_little_noise_loses_less_than_other_weights(small: Small, work: Path) -> None:
    near, other = (evaluated(small, folder, work) for folder in (small.near, small.other))
    assert 0 < near.loss < near.loss_bound < 0.01 < other.loss


def test_a_model_of_a_fixed_batch_is_compared_all_the_same(small: Small, work: Path) -> None:
    assert evaluated(small, small.fixed, work).loss < 1e-6


def test_outputs_are_computed_once(small: Small, work: Path) -> None:
    evaluated(small, small.near, work)
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*.npy")}
    evaluated(small, small.near, work, MetricName.RANK_AGREEMENT)
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*.npy")} == before
    assert not list(work.glob(".*")), "no scratch folder is left"


def test_the_gate_looks_at_the_first_samples_only(small: Small, work: Path) -> None:
    assert evaluated(small, small.near, work, limit=30).samples == 30


def test_the_validation_split_is_another(small: Small, work: Path) -> None:
    found = evaluate(
        small.baseline, small.near, small.data, AccuracyConstraint(), split="validation", limit=None, work=work
    )
    assert (found.metric, found.samples, found.split) == (MetricName.ACCURACY, 100, "validation")
    without = small.data.model_copy(update={"validation": None})
    found = evaluate(small.baseline, small.near, without, AccuracyConstraint(), split="validation", limit=9, work=work)
    assert found.split == "test"


def test_a_variant_that_cannot_run_is_told(small: Small, work: Path) -> None:
    with pytest.raises(Invalid, match=r"damaged|cannot load model\.onnx") as caught:
        evaluated(small, small.damaged, work)
    assert caught.value.reason == "VariantCannotRun"


METRIC = """
import os, socket
import numpy as np
def margin(outputs, labels):
    top = np.sort(outputs["logits"], axis=1)
    return top[:, -1] - top[:, -2]
def hit(outputs, labels):
    return outputs["logits"].argmax(axis=1) == labels
def short(outputs, labels):
    return [1.0]
def broken(outputs, labels):
    raise RuntimeError("mine")
def online(outputs, labels):
    socket.create_connection(("127.0.0.1", 9), timeout=5)
"""


@pytest.fixture
def metric_path(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "my_metric.py").write_text(METRIC)
    return (str(tmp_path),)


@pytest.mark.skipif(why_unavailable() is not None, reason=f"no sandbox: {why_unavailable()}")
def test_a_metric_of_the_users_own_runs_in_the_sandbox(small: Small, work: Path, metric_path: tuple[str, ...]) -> None:
    def by(name: str) -> AccuracyResult:
        constraint = AccuracyConstraint(import_path=f"my_metric:{name}")
        return evaluate(
            small.baseline, small.near, small.data, constraint, split="test", limit=None, work=work,
            python_path=metric_path,
        )  # fmt: skip

    accuracy = evaluated(small, small.near, work, MetricName.ACCURACY)
    hit = by("hit")
    assert hit.metric is MetricName.IMPORT_PATH
    assert (hit.loss, hit.loss_bound) == (accuracy.loss, accuracy.loss_bound)
    assert np.isfinite(by("margin").loss_bound)
    for name, message in (
        ("short", "one for each"),
        ("broken", "RuntimeError: mine"),
        ("absent", "cannot be imported"),
    ):
        with pytest.raises(Invalid, match=message):
            by(name)
    with pytest.raises(Invalid, match="nreachable"):
        by("online")


@pytest.mark.parametrize("scenario", list(Scenario))
def test_load_tests_tell_a_rate_and_a_curve(small: Small, scenario: Scenario) -> None:
    workload = Workload(scenario=scenario, max_batch_size=6)
    # A bound that is kept on a machine that is busy with other things, too.
    point, curve = load_test(small.baseline, small.data, workload, 5000.0, seconds=1.0)
    assert [each.rows for each in curve] == [1, 2, 4, 6]
    assert all(0 < each.p50_milliseconds <= each.p99_milliseconds for each in curve)
    assert point.requests_per_second > 0
    assert 0 < point.p50_milliseconds <= point.p99_milliseconds
    assert point.cpu_seconds_per_request > 0
    assert point.bound_milliseconds == 5000.0
    assert point.joining is not None, "the artifact's manifest keeps what was proved"
    assert set(point.joining.inputs.values()) == set(point.joining.outputs.values()) == {0}


def test_a_bound_that_nothing_meets_carries_nothing(small: Small) -> None:
    point, _ = load_test(small.baseline, small.data, Workload(max_batch_size=2), 0.0001, seconds=0.5)
    assert point.requests_per_second == 0
    assert point.p99_milliseconds > 0.0001


def test_a_model_of_a_fixed_batch_has_a_curve_of_one_point(small: Small) -> None:
    point, curve = load_test(small.fixed, small.data, Workload(max_batch_size=32), None, seconds=0.5)
    assert [each.rows for each in curve] == [1]
    assert point.joining is None
    assert point.requests_per_second > 0


def test_a_variant_that_cannot_run_under_load_is_told(small: Small) -> None:
    with pytest.raises(Invalid, match=telling("load model.onnx")):
        load_test(small.damaged, small.data, Workload(), None, seconds=0.5)
