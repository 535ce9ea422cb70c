"""Scores in one tensor with boxes: a variant that has lost them is refused, however well it keeps the boxes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.telling import Telling

from penstock.api.optimization import AccuracyConstraint
from penstock_optimizer.metrics import Judge, judgements
from penstock_optimizer.metrics.parts import lost_part
from penstock_optimizer.search.constraints import full_test_problem

Array = NDArray[Any]
POINTS: Final = AccuracyConstraint(max_loss_points="1")
_COUNT, _CLASSES, _PLACES = 100, 20, 60
_PIXELS: Final = 640.0


def detector() -> Array:
    """(samples, 4 + classes, places): boxes in pixels at their places, and scores, most of them hardly above 0."""
    generator = np.random.default_rng(1)
    boxes = np.linspace(0, 500, _PLACES) + generator.normal(60, 20, (_COUNT, 4, _PLACES))
    scores = np.exp(generator.normal(-8, 1, (_COUNT, _CLASSES, _PLACES)))
    found = generator.random(scores.shape) < np.geomspace(0.02, 1e-5, _CLASSES)[:, None]
    return np.concatenate([boxes, np.where(found, 0.8, scores)], axis=1).astype(np.float32)


def detections() -> Array:
    """(samples, 10, 6): so many boxes in pixels with a score and a class; zeros for those that there are not."""
    generator = np.random.default_rng(2)
    there = generator.integers(1, 10, _COUNT)[:, None] > np.arange(10)
    found = np.concatenate(
        [generator.uniform(0, 300, (_COUNT, 10, 4)), generator.uniform(0.3, 1, (_COUNT, 10, 1)),
         generator.integers(0, 5, (_COUNT, 10, 1))], axis=2,
    )  # fmt: skip
    return (found * there[..., None]).astype(np.float32)


def int8(array: Array, greatest: float) -> Array:
    scale = greatest / 255
    return np.asarray(np.round(array / scale) * scale, dtype=np.float32)


def scores_apart(array: Array) -> Array:
    """int8 with a scale for boxes and one for scores."""
    return np.concatenate([int8(array[:, :4], _PIXELS), int8(array[:, 4:], 1.0)], axis=1)


def without(array: Array, first: int, axis: int) -> Array:
    """Zeros from there on."""
    kept = np.arange(array.shape[axis]) < first
    return np.asarray(array * np.expand_dims(kept, [other for other in range(array.ndim) if other != axis]))


def with_a_dead_number(array: Array) -> Array:
    return np.where(np.arange(array.shape[1])[:, None] == array.shape[1] - 1, 0, array).astype(np.float32)


DETECTOR, DETECTIONS = detector(), detections()
RUINED: dict[str, tuple[Array, Array]] = {
    "one scale of int8 for boxes and scores": (DETECTOR, int8(DETECTOR, _PIXELS)),
    "the same, places first": (DETECTOR.transpose(0, 2, 1), int8(DETECTOR, _PIXELS).transpose(0, 2, 1)),
    "no scores": (DETECTOR, without(DETECTOR, 4, 1)),
    "all found are of class 0": (DETECTIONS, without(DETECTIONS, 5, 2)),
}
GOOD: dict[str, tuple[Array, Array]] = {
    "a scale for boxes, and one for scores": (DETECTOR, scores_apart(DETECTOR)),
    "the same, places first": (DETECTOR.transpose(0, 2, 1), scores_apart(DETECTOR).transpose(0, 2, 1)),
    "another order of sums": (DETECTIONS, (DETECTIONS * (1 + 1e-6)).astype(np.float32)),
    "a class that is hardly ever found, and never any more": (DETECTOR, with_a_dead_number(DETECTOR)),
}


def problem(baseline: Array, candidate: Array) -> str | None:
    outputs = {"output0": baseline}
    judge = Judge(POINTS, None)
    chosen, _ = judge.fit_judgements(judgements(POINTS, outputs, None), outputs)
    found = full_test_problem(POINTS, judge.judge(chosen, outputs, {"output0": candidate}))
    return found and found[1]


@pytest.mark.parametrize(("baseline", "candidate"), RUINED.values(), ids=RUINED)
def test_lost_scores_are_refused(baseline: Array, candidate: Array) -> None:
    said = problem(baseline, candidate)
    assert said == Telling("smaller others")


@pytest.mark.parametrize(("baseline", "candidate"), GOOD.values(), ids=GOOD)
def test_scores_that_are_kept_are_not(baseline: Array, candidate: Array) -> None:
    assert problem(baseline, candidate) is None


def test_numbers_that_say_the_same_of_all_samples_may_round_otherwise() -> None:
    generator = np.random.default_rng(3)
    large = generator.normal(0, 100, (50, 8))
    same = 0.5 + generator.normal(0, 1e-4, (50, 8))
    baseline = np.concatenate([large, same], axis=1)
    assert lost_part(baseline, np.concatenate([large, np.full_like(same, 0.5)], axis=1)) is None


def test_a_single_number_among_many_may_be_dead() -> None:
    generator = np.random.default_rng(4)
    baseline = generator.normal(0, 1, (50, 8, 64)) * np.where(np.arange(64) == 7, 1e-3, 1.0)
    candidate = baseline * np.where(np.arange(64) == 7, 0.0, 1.0)
    assert lost_part(baseline, candidate) is None
