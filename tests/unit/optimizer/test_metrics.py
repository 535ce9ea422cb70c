"""Metrics: figures that pair, losses and their bounds, and what does not suit a metric."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.telling import telling

from penstock.errors import Invalid
from penstock.optimization.measurements import Judgement, MetricName
from penstock_optimizer.metrics import Comparison, Scored, compare, compare_figures
from penstock_optimizer.metrics.answers import cosines
from penstock_optimizer.metrics.classes import f1_macro
from penstock_optimizer.search.statistics import loss_bound_binary

Array = NDArray[Any]
LABELS = np.random.default_rng(0).integers(0, 5, 200)


def scores(classes: Array, second: Array | None = None) -> dict[str, Array]:
    """Logits with one class first and another second."""
    logits = np.zeros((len(classes), 5), np.float32)
    logits[np.arange(len(classes)), classes if second is None else second] = 1
    logits[np.arange(len(classes)), classes] = 2
    return {"logits": logits}


def wrong(rows: slice) -> Array:
    """The labels, with some of them changed."""
    changed = LABELS.copy()
    changed[rows] = (changed[rows] + 1) % 5
    return changed


def compared(
    metric: MetricName, baseline: dict[str, Array], candidate: dict[str, Array], labels: Array | None = LABELS
) -> Comparison:
    judgement = Judgement(metric=metric, output=next(iter(baseline)), labelled=labels is not None)
    return compare(judgement, (baseline, candidate), labels, top_k=2, confidence=0.95)


def test_accuracy_counts_who_lost_what() -> None:
    found = compared(MetricName.ACCURACY, scores(wrong(slice(0, 10))), scores(wrong(slice(8, 22))))
    assert (found.lost, found.won) == (12, 8)
    assert (found.baseline, found.candidate) == (0.95, 0.93)
    assert found.loss == pytest.approx(0.02)
    assert found.loss_bound == loss_bound_binary(12, 8, 200, 0.95)


def test_whole_numbers_are_classes_too() -> None:
    found = compared(MetricName.ACCURACY, {"label": LABELS}, {"label": wrong(slice(0, 20))}, LABELS[:, None])
    assert (found.baseline, found.candidate, found.lost) == (1.0, 0.9, 20)


def test_the_second_guess_counts_for_top_2() -> None:
    missed = scores(wrong(slice(0, 50)), LABELS)
    assert compared(MetricName.ACCURACY, missed, missed).baseline == 0.75
    assert compared(MetricName.TOP_K, missed, scores(wrong(slice(0, 50)), (LABELS + 2) % 5)).lost == 50
    assert compared(MetricName.TOP_K, missed, missed).baseline == 1.0


def test_f1_is_scikit_learns_and_its_bound_is_above_its_loss() -> None:
    from sklearn.metrics import f1_score  # noqa: PLC0415 -- takes seconds, of each worker that collects this file

    ours, theirs = wrong(slice(0, 10)), wrong(slice(0, 40))
    found = compared(MetricName.F1, scores(ours), scores(theirs))
    assert found.baseline == pytest.approx(f1_score(LABELS, ours, average="macro"))
    assert found.candidate == pytest.approx(f1_score(LABELS, theirs, average="macro"))
    assert found.loss < found.loss_bound < found.loss + 0.1
    same = compared(MetricName.F1, scores(ours), scores(ours))
    assert same.loss == 0
    assert same.loss_bound == 0, "the very same scores are the same model's"
    other = compared(MetricName.F1, scores(ours), scores(ours, (ours + 1) % 5))
    assert other.loss_bound == loss_bound_binary(0, 0, 200, 0.95), "200 equal classes do not prove equality"


def test_f1_leaves_out_classes_that_never_occur() -> None:
    assert f1_macro(np.array([0, 0, 3]), np.array([0, 0, 3]), 10) == 1.0


def test_squared_errors_are_against_labels_or_else_the_baseline() -> None:
    generator = np.random.default_rng(0)
    target = generator.normal(size=(100, 3)).astype(np.float32)
    near, far = target + np.float32(0.1), target + np.float32(0.3)
    found = compared(MetricName.MEAN_SQUARED_ERROR, {"y": near}, {"y": far}, target)
    assert (found.baseline, found.candidate) == (pytest.approx(0.01, rel=1e-3), pytest.approx(0.09, rel=1e-3))
    assert found.loss == pytest.approx(0.08, rel=1e-3), "growth of the error is loss"
    assert found.loss_bound >= found.loss
    alone = compared(MetricName.MEAN_SQUARED_ERROR, {"y": near}, {"y": far}, None)
    assert (alone.baseline, alone.candidate) == (0.0, pytest.approx(0.04, rel=1e-3))


def test_cosine_needs_no_labels() -> None:
    one = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]], np.float32)
    other = np.array([[0.0, 1.0], [2.0, 2.0], [0.0, 0.0], [1.0, 0.0]], np.float32)
    np.testing.assert_allclose(cosines(one, other), [0, 1, 1, 0], atol=1e-7)
    few = compared(MetricName.COSINE, {"a": one}, {"a": one + np.float32(0.1)}, None)
    assert few.loss_bound == 2.0, "four samples certify nothing"


def test_rank_agreement_is_the_share_with_the_same_neighbour() -> None:
    angles = np.array([0.0, 0.1, 1.0, 1.1, 2.0, 2.1])
    ours = {"e": np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)}
    moved = np.array([0.0, 0.95, 1.0, 1.1, 2.0, 2.1])
    theirs = {"e": np.stack([np.cos(moved), np.sin(moved)], axis=1).astype(np.float32)}
    found = compared(MetricName.RANK_AGREEMENT, ours, theirs, None)
    assert (found.baseline, found.lost, found.won) == (1.0, 2, 0), "the one that moved, and the one that it moved to"
    assert compared(MetricName.RANK_AGREEMENT, ours, ours, None).lost == 0


def test_figures_of_an_import_path_that_are_0_or_1_are_shares() -> None:
    ones, some = np.ones(50), np.r_[np.zeros(5), np.ones(45)]
    assert compare_figures(Scored(ones, some), 0.95).lost == 5
    assert compare_figures(Scored(ones, some / 2), 0.95).lost is None


@pytest.mark.parametrize(
    ("metric", "outputs", "labels", "facts"),
    [
        pytest.param(MetricName.ACCURACY, scores(LABELS), None, "'labels' array", id="no labels"),
        pytest.param(
            MetricName.ACCURACY, scores(LABELS), LABELS / 2, "labels whole number sample", id="labels of floats"
        ),
        pytest.param(MetricName.F1, {"y": np.zeros((200, 3, 3))}, LABELS, "score class", id="an image as output"),
        pytest.param(
            MetricName.MEAN_SQUARED_ERROR,
            {"y": np.zeros((200, 3))},
            LABELS,
            "labels (200,) (200, 3)",
            id="other labels",
        ),
    ],
)
def test_metrics_that_do_not_suit(
    metric: MetricName, outputs: dict[str, Array], labels: Array | None, facts: str
) -> None:
    with pytest.raises(Invalid, match=telling(facts)):
        compared(metric, outputs, outputs, labels)
