"""The accuracy guard: ruined variants of every kind of model are refused, and good ones are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.telling import assert_tells, telling

from penstock.api.optimization import AccuracyConstraint
from penstock.errors import Invalid
from penstock.optimization.measurements import MetricName
from penstock_optimizer.metrics import Judge, judgements
from penstock_optimizer.search.constraints import full_test_problem, why_untold

Array = NDArray[Any]
Outputs = dict[str, Array]
BALANCED = AccuracyConstraint(min_ratio="0.99")
POINTS = AccuracyConstraint(max_loss_points="1")
COUNT = 400
NAMES = np.array([b"setosa", b"versicolor", b"virginica"])


@dataclass(frozen=True)
class Kind:
    """A kind of model, by its answers."""

    outputs: Outputs
    labels: Array | None = None


def softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def logits_of(count: int, classes: int, seed: int) -> tuple[Array, Array]:
    """Scores of a good classifier, and the labels."""
    labels = generator(seed).integers(0, classes, count)
    scores = generator(seed + 1).normal(0, 1, (count, classes))
    scores[np.arange(count), labels] += 4
    return scores.astype(np.float32), labels


def classifier(count: int = COUNT) -> Kind:
    scores, labels = logits_of(count, 10, 1)
    return Kind({"logits": scores}, labels)


def unlabelled_classifier(count: int = COUNT) -> Kind:
    return Kind({"probabilities": softmax(logits_of(count, 6, 5)[0])})


def sigmoid(count: int = COUNT) -> Kind:
    labels = generator(2).integers(0, 2, count)
    scores = generator(3).normal(0, 1, count) + np.where(labels, 2.5, -2.5)
    return Kind({"risk": (1 / (1 + np.exp(-scores)))[:, None].astype(np.float32)}, labels)


def price(count: int = COUNT) -> Kind:
    """One positive number a sample, whose cosine is 1 whatever it is."""
    return Kind({"price": (2 + generator(4).gamma(2.0, 1.0, count))[:, None].astype(np.float32)})


def demand(count: int = COUNT) -> Kind:
    true = generator(6).normal(5, 3, count)
    return Kind({"y": (true + generator(7).normal(0, 0.4, count))[:, None].astype(np.float32)}, true.astype(np.float32))


def embedding(count: int = COUNT) -> Kind:
    """Directions that are all near to each other, as those of language models are."""
    groups = generator(8).normal(0, 1, (40, 64))[generator(9).integers(0, 40, count)]
    return Kind({"embedding": (2 + groups + generator(10).normal(0, 0.4, (count, 64))).astype(np.float32)})


def named(count: int = COUNT) -> Kind:
    """Strings beside scores, and true strings as labels."""
    scores, labels = logits_of(count, 3, 11)
    return Kind({"label": NAMES[scores.argmax(axis=1)], "probabilities": softmax(scores)}, NAMES[labels])


def boxes(count: int = COUNT) -> Kind:
    corner = generator(12).uniform(0, 200, (count, 2))
    size = generator(13).uniform(20, 100, (count, 2))
    true = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
    found = (true + generator(14).normal(0, 1, true.shape)).astype(np.float32)
    sure = generator(15).random(count) > 0.4
    return Kind({"boxes": found, "sure": sure}, true)


def ranker(count: int = COUNT) -> Kind:
    grades = generator(16).integers(0, 4, (count, 12))
    return Kind({"relevance": (grades + generator(17).normal(0, 0.5, grades.shape)).astype(np.float32)}, grades)


KINDS: dict[str, Callable[[int], Kind]] = {
    "classifier": classifier, "classifier without labels": unlabelled_classifier, "sigmoid": sigmoid, "price": price,
    "demand": demand, "embedding": embedding, "strings and scores": named, "boxes and a flag": boxes, "ranker": ranker,
}  # fmt: skip


def each(change: Callable[[Array], Array]) -> Callable[[Outputs], Outputs]:
    """A change of all numbers with a fraction; what else there is stays right."""
    return lambda outputs: {
        name: change(array).astype(array.dtype) if array.dtype.kind == "f" else array for name, array in outputs.items()
    }


def all_of(change: Callable[[Array], Array]) -> Callable[[Outputs], Outputs]:
    return lambda outputs: {name: change(array) for name, array in outputs.items()}


def one_class_never(array: Array) -> Array:
    """The class that is given most often gets the least score."""
    changed = array.copy()
    if array.shape[1] == 1:
        return np.minimum(changed, 0.49)
    often = np.bincount(array.argmax(axis=1)).argmax()
    changed[:, often] = array.min()
    return changed


def without_a_name(outputs: Outputs) -> Outputs:
    label = outputs["label"].copy()
    label[label == NAMES[2]] = NAMES[1]
    return outputs | {"label": label}


CONSTANT = all_of(lambda array: np.repeat(array[:1], len(array), axis=0))
MEAN = each(lambda array: np.repeat(array.mean(axis=0)[None], len(array), axis=0))
PERMUTED = all_of(lambda array: np.roll(array, 1, axis=0))
NEVER = each(one_class_never)
SATURATED = each(lambda array: np.where(array > np.median(array), array.max(), array.min()))
TWICE = each(lambda array: array * 2)
TENTH = each(lambda array: array / 10)
NOISE = each(lambda array: array + generator(99).normal(0, array.std(), array.shape))
FLIPPED = all_of(lambda array: ~array if array.dtype.kind == "b" else array)

RUINED = [
    *((kind, "constant", CONSTANT) for kind in KINDS),
    *((kind, "permuted", PERMUTED) for kind in KINDS),
    *((kind, "the mean", MEAN) for kind in KINDS),
    *((kind, "saturated", SATURATED) for kind in KINDS),
    *((kind, "noise as great as the answers", NOISE) for kind in KINDS),
    *((kind, "twice as large", TWICE) for kind in KINDS if kind != "ranker"),
    *((kind, "a tenth", TENTH) for kind in KINDS if kind != "ranker"),
    *((kind, "one class never", NEVER) for kind in ("classifier", "classifier without labels", "sigmoid", "strings and scores")),
    ("strings and scores", "one string never", without_a_name),
    ("boxes and a flag", "another flag", FLIPPED),
]  # fmt: skip
GOOD: dict[str, Callable[[Outputs], Outputs]] = {
    "the same": all_of(np.copy),
    "a little noise": each(lambda array: array + generator(98).normal(0, 3e-4 * array.std(), array.shape)),
    "rounded to fp16": each(lambda array: array.astype(np.float16)),
}


def problem(kind: Kind, change: Callable[[Outputs], Outputs], constraint: AccuracyConstraint) -> str | None:
    """Why the guard refuses a variant."""
    judge = Judge(constraint, kind.labels)
    chosen, controls = judge.fit_judgements(judgements(constraint, kind.outputs, kind.labels), kind.outputs)
    assert why_untold(constraint, controls) is None, "it can tell right from wrong"
    found = full_test_problem(constraint, judge.judge(chosen, kind.outputs, change(kind.outputs)))
    return None if found is None else f"{found[0]}: {found[1]}"


@pytest.mark.parametrize("constraint", [BALANCED, POINTS], ids=["ratio", "points"])
@pytest.mark.parametrize(
    ("kind", "change"), [pytest.param(kind, change, id=f"{kind}: {what}") for kind, what, change in RUINED]
)
def test_what_is_ruined_is_refused(
    kind: str, change: Callable[[Outputs], Outputs], constraint: AccuracyConstraint
) -> None:
    found = problem(KINDS[kind](COUNT), change, constraint)
    assert found is not None
    assert found.startswith("AccuracyLost"), "and not for want of samples"


@pytest.mark.parametrize("count", [60, COUNT], ids=["few samples", "many"])
@pytest.mark.parametrize("what", GOOD)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_good_is_not_refused(kind: str, what: str, count: int) -> None:
    assert problem(KINDS[kind](count), GOOD[what], BALANCED) is None


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        pytest.param("classifier", [("logits", "Accuracy", True)], id="labels are classes"),
        pytest.param(
            "classifier without labels",
            [("probabilities", "Agreement", False), ("probabilities", "R2", False)],
            id="probabilities without labels",
        ),
        pytest.param("sigmoid", [("risk", "Accuracy", True)], id="one sigmoid, by a threshold"),
        pytest.param("price", [("price", "RelativeError", False), ("price", "R2", False)], id="one number, no labels"),
        pytest.param("demand", [("y", "RelativeError", True), ("y", "R2", True)], id="labels are numbers"),
        pytest.param(
            "embedding", [("embedding", "Cosine", False), ("embedding", "Neighbours", False)], id="directions"
        ),
        pytest.param(
            "strings and scores",
            [("label", "Accuracy", True), ("probabilities", "Agreement", False), ("probabilities", "R2", False)],
            id="labels are strings",
        ),
        pytest.param("boxes and a flag", [("boxes", "Overlap", True), ("sure", "Agreement", False)], id="boxes"),
        pytest.param("ranker", [("relevance", "Ranking", True)], id="grades"),
    ],
)
def test_the_metric_follows_from_outputs_and_labels(kind: str, expected: list[tuple[str, str, bool]]) -> None:
    made = KINDS[kind](COUNT)
    found = judgements(BALANCED, made.outputs, made.labels)
    assert [(each.output, each.metric.value, each.labelled) for each in found] == expected
    assert all(each.reason for each in found)


@pytest.mark.parametrize(
    ("outputs", "labels", "metrics"),
    [
        pytest.param({"mask": np.zeros((9, 3, 4, 4), np.float32)}, np.zeros((9, 4, 4), int), ["Overlap"], id="masks"),
        pytest.param({"flag": np.zeros(9, bool)}, None, ["Agreement"], id="flags"),
        pytest.param({"picture": np.zeros((9, 8), np.uint8)}, None, ["Agreement"], id="bytes of a picture"),
        pytest.param({"tokens": np.zeros((9, 5), np.int64)}, None, ["Agreement"], id="ids"),
        pytest.param({"hidden": np.zeros((9, 5, 7), np.float32)}, None, ["Cosine"], id="a row for each token"),
        pytest.param({"y": np.zeros((9, 3), np.float32)}, np.eye(3)[[0, 1, 2] * 3], ["Accuracy"], id="one-hot labels"),
        pytest.param({"y": np.zeros((9, 3), np.float32)}, np.ones((9, 3), int), ["Accuracy"], id="several flags"),
        pytest.param({"y": np.zeros((9, 1), np.float32)}, np.arange(9), ["RelativeError", "R2"], id="counts"),
        pytest.param({"class": np.zeros(9, np.int64)}, np.arange(9), ["Accuracy"], id="classes as they are given"),
        pytest.param({"y": np.zeros((9, 3), np.float32)}, np.ones((9, 3)) / 7, ["RelativeError", "R2"], id="several targets"),
    ],
)  # fmt: skip
def test_other_outputs_and_labels(outputs: Outputs, labels: Array | None, metrics: list[str]) -> None:
    assert [each.metric.value for each in judgements(BALANCED, outputs, labels)] == metrics


def test_labels_that_no_output_is_like_are_told_before_anything_is_judged() -> None:
    with pytest.raises(Invalid, match=telling("labels float32 (9,) output 'y'")):
        judgements(BALANCED, {"y": np.zeros((9, 3), np.float32)}, np.linspace(0, 1, 9, dtype=np.float32))


def test_one_answer_far_away_does_not_hide_that_all_others_are_the_same() -> None:
    """Its error is so much of the variance that R2 sees nothing else."""
    outputs = price().outputs
    outputs["price"][7] = 1e6
    ruined = np.full_like(outputs["price"], 4)
    ruined[7] = 1e6
    judge = Judge(BALANCED, None)
    found = judge.judge(judgements(BALANCED, outputs, None), outputs, {"price": ruined})
    assert found.others[0].loss < 1e-3, "R2"
    problem_found = full_test_problem(BALANCED, found)
    assert problem_found is not None
    assert problem_found[1].startswith("mean relative error")


@pytest.mark.parametrize("metric", [MetricName.COSINE, MetricName.RANK_AGREEMENT])
def test_a_metric_that_was_asked_for_and_cannot_fail_is_found_out(metric: MetricName) -> None:
    constraint = AccuracyConstraint(metric=metric, min_ratio="0.99")
    judge = Judge(constraint, None)
    outputs = price().outputs
    _, controls = judge.fit_judgements(judgements(constraint, outputs, None), outputs)
    assert_tells(why_untold(constraint, controls) or "", "right wrong", metric)


def test_a_constraint_that_allows_everything_is_found_out() -> None:
    constraint = AccuracyConstraint(metric=MetricName.R2)
    outputs = price().outputs
    _, controls = Judge(constraint, None).fit_judgements(judgements(constraint, outputs, None), outputs)
    assert_tells(why_untold(constraint, controls) or "", "allows any loss")


def test_labels_by_which_a_constant_is_as_good_leave_it_to_the_scores() -> None:
    labels = np.zeros(COUNT, np.int64)
    labels[:2] = 1
    scores = (0.05 + 0.1 * generator(20).random(COUNT) + 0.8 * labels)[:, None].astype(np.float32)
    judge = Judge(BALANCED, labels)
    chosen, controls = judge.fit_judgements(judgements(BALANCED, {"risk": scores}, labels), {"risk": scores})
    assert [each.metric for each in chosen] == [MetricName.R2]
    assert_tells(chosen[0].reason, "Accuracy cannot")
    assert why_untold(BALANCED, controls) is None


def test_directions_that_are_all_much_the_same_are_left_to_r2() -> None:
    common = 3 + generator(30).normal(0, 1, (1, 8, 16))
    hidden = (common + generator(31).normal(0, 0.7, (COUNT, 8, 16))).astype(np.float32)
    judge = Judge(BALANCED, None)
    chosen, controls = judge.fit_judgements(judgements(BALANCED, {"hidden": hidden}, None), {"hidden": hidden})
    assert [each.metric for each in chosen] == [MetricName.R2]
    assert why_untold(BALANCED, controls) is None
    half = (hidden + hidden.mean(axis=0)) / 2
    assert full_test_problem(BALANCED, judge.judge(chosen, {"hidden": hidden}, {"hidden": half})) is not None


def test_a_model_that_always_says_the_same_tells_nothing() -> None:
    outputs = {"y": np.ones((COUNT, 1), np.float32)}
    _, controls = Judge(BALANCED, None).fit_judgements(judgements(BALANCED, outputs, None), outputs)
    assert why_untold(BALANCED, controls) is not None


def test_an_output_that_is_always_the_same_leaves_the_decision_to_the_others() -> None:
    outputs = price().outputs | {"version": np.full(COUNT, 3)}
    judge = Judge(BALANCED, None)
    chosen, controls = judge.fit_judgements(judgements(BALANCED, outputs, None), outputs)
    assert why_untold(BALANCED, controls) is None
    assert {each.output for each in controls if not each.told} == {"version"}
    other = full_test_problem(BALANCED, judge.judge(chosen, outputs, outputs | {"version": np.full(COUNT, 4)}))
    assert other is not None, "and yet it is compared"


def test_an_output_without_elements_is_no_trouble() -> None:
    outputs = price().outputs | {"found": np.zeros((COUNT, 0), np.float32), "ids": np.zeros((COUNT, 0), np.int64)}
    judge = Judge(BALANCED, None)
    chosen, controls = judge.fit_judgements(judgements(BALANCED, outputs, None), outputs)
    assert why_untold(BALANCED, controls) is None
    assert full_test_problem(BALANCED, judge.judge(chosen, outputs, dict(outputs))) is None


def test_a_metric_of_the_users_own_has_controls_too() -> None:
    from penstock_optimizer.metrics import Scored  # noqa: PLC0415 -- of this test alone

    constraint = AccuracyConstraint(metric=MetricName.IMPORT_PATH, import_path="mine:metric", min_ratio="0.99")
    outputs = price().outputs

    def judge(fair: bool) -> str | None:  # noqa: FBT001 -- two cases
        def figures(ours: Any, theirs: Any, labels: Array | None) -> Scored:
            del labels
            error = np.abs(ours["price"] - theirs["price"]).ravel() if fair else np.zeros(len(ours["price"]))
            return Scored(np.ones(len(error)), 1 - error.astype(np.float64))

        found = Judge(constraint, None, figures)
        return why_untold(constraint, found.fit_judgements(judgements(constraint, outputs, None), outputs)[1])

    assert judge(fair=True) is None
    assert judge(fair=False) is not None


def test_figures_of_numbers_are_against_the_baseline_where_labels_are_classes() -> None:
    made = classifier()
    found = judgements(AccuracyConstraint(metric=MetricName.R2, min_ratio="0.99"), made.outputs, made.labels)
    assert [(each.metric, each.labelled) for each in found] == [(MetricName.R2, False)]


def test_a_ratio_to_no_error_at_all_is_refused_before_anything_is_built() -> None:
    with pytest.raises(Invalid, match=telling("MeanSquaredError ratio")):
        judgements(AccuracyConstraint(metric=MetricName.MEAN_SQUARED_ERROR, min_ratio="0.99"), price().outputs, None)
    other = AccuracyConstraint(metric=MetricName.MEAN_SQUARED_ERROR, min_value="0.1")
    assert len(judgements(other, price().outputs, None)) == 1
