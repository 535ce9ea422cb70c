"""Answers held against the replica's own: by which rule, what of another kind is worth, and what is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from penstock.protocol.datatypes import DTYPES
from penstock.routing.outcomes import Losses
from penstock.serving.manifest import DataType, TensorSpec
from penstock_serving.replica.shadow.comparing import AnsweredTensor, chosen_rule, compare_answers

CHANCE = np.random.default_rng(0)
UNIT = CHANCE.normal(size=(3, 384))
UNIT /= np.linalg.norm(UNIT, axis=1, keepdims=True)
AUTO = Losses.AUTO


def spec(datatype: DataType = DataType.FP32, shape: tuple[int, ...] = (-1, 3), **more: Any) -> TensorSpec:
    return TensorSpec(name="y", datatype=datatype, shape=shape, **more)


def tensor(values: Any, datatype: DataType = DataType.FP32) -> AnsweredTensor:
    return AnsweredTensor(datatype, np.array(values, dtype=DTYPES[datatype]))


@pytest.mark.parametrize(
    ("shape", "own", "classes", "rule"),
    [
        pytest.param((-1, 10), CHANCE.normal(size=(4, 10)), (), Losses.ARGMAX, id="rows of ten numbers"),
        pytest.param((-1, 1000), CHANCE.normal(size=(1, 1000)), (), Losses.ARGMAX, id="of a thousand"),
        pytest.param((-1, 1001), CHANCE.normal(size=(1, 1001)), (), Losses.RELATIVE, id="of more"),
        pytest.param(
            (-1, 1001), CHANCE.normal(size=(1, 1001)), tuple(range(1001)), Losses.ARGMAX, id="of named classes"
        ),
        pytest.param((-1, 1), CHANCE.normal(size=(4, 1)), (), Losses.RELATIVE, id="of one number"),
        pytest.param((-1,), CHANCE.normal(size=4), (), Losses.RELATIVE, id="a number for each row"),
        pytest.param((), np.array(2.0), (), Losses.RELATIVE, id="one number"),
        pytest.param((-1, -1), CHANCE.normal(size=(4, 10)), (), Losses.RELATIVE, id="as many as the request says"),
        pytest.param((-1, 8, 8), CHANCE.normal(size=(2, 8, 8)), (), Losses.RELATIVE, id="pictures"),
        pytest.param((-1, 384), UNIT, (), Losses.COSINE, id="embeddings of length 1"),
        pytest.param((-1, 384), UNIT * 2, (), Losses.ARGMAX, id="of another length: they look as scores do"),
        pytest.param((-1, 2), np.array([[1.0, 0.0]]), (), Losses.ARGMAX, id="two classes, one for certain"),
    ],
)
def test_what_auto_takes(shape: tuple[int, ...], own: Any, classes: tuple[int, ...], rule: Losses) -> None:
    assert chosen_rule(own, spec(shape=shape, classes=classes)) is rule


OWN = np.array([[0.1, 0.7, 0.2], [0.6, 0.3, 0.1]], np.float32)


@pytest.mark.parametrize(
    ("other", "loss", "told"),
    [
        pytest.param(tensor(OWN), 0.0, "", id="the same"),
        pytest.param(tensor(OWN[:, [1, 0, 2]]), 1.0, "output 'y' [2, 3]: 2 of 2 rows differ by Argmax", id="other classes"),
        pytest.param(tensor(OWN[:1]), 1.0, "output 'y' has shape [1, 3], not [2, 3]", id="another shape"),
        pytest.param(tensor(OWN.reshape(3, 2)), 1.0, "output 'y' has shape [3, 2], not [2, 3]", id="as many numbers otherwise"),
        pytest.param(tensor(OWN, DataType.FP64), 1.0, "output 'y' is of FP64, not of FP32", id="another type"),
        pytest.param(None, 1.0, "output 'y' is missing", id="no such output"),
        pytest.param(tensor(np.full_like(OWN, np.nan)), 1.0, "output 'y' [2, 3]: 2 of 2 rows differ by Argmax", id="NaN"),
    ],
)  # fmt: skip
def test_another_answer_has_the_loss(other: AnsweredTensor | None, loss: float, told: str) -> None:
    found = compare_answers({"y": OWN}, {} if other is None else {"y": other}, (spec(),), AUTO)
    assert (found.loss, found.told) == (loss, told)
    assert found.output == ("y" if loss else "")


BITS = (np.array([1.0, -2.0, 3.0], np.float32).view(np.uint32) >> 16).astype(np.uint16)


@pytest.mark.parametrize(
    ("datatype", "rule", "own", "other", "loss"),
    [
        pytest.param(DataType.INT64, AUTO, [1, 2, 3, 4], [1, 2, 0, 0], 0.5, id="whole numbers"),
        pytest.param(DataType.INT64, Losses.RELATIVE, [3, 4, 0], [0, 0, 0], 1.0, id="whole numbers, as sizes"),
        pytest.param(DataType.UINT64, AUTO, [2**63], [2**63 + 1], 1.0, id="whole numbers that no float tells apart"),
        pytest.param(DataType.BOOL, Losses.COSINE, [True, False], [True, True], 0.5, id="flags, whatever the rule"),
        pytest.param(DataType.BYTES, Losses.RANK, [b"a", b"b"], [b"a", b"c"], 0.5, id="texts, whatever the rule"),
        pytest.param(DataType.BYTES, AUTO, ["ä", "b"], ["ä".encode(), b"b"], 0.0, id="texts and their bytes"),
        pytest.param(
            DataType.FP32, Losses.ARGMAX, [[1, 9]], [[1, 2]], 0.0, id="by the greatest alone, where that is asked"
        ),
        pytest.param(DataType.FP32, Losses.ARGMAX, [2.0], [1.0], 1 / 3, id="one number, which has no greatest"),
        pytest.param(DataType.FP32, Losses.RANK, [[1], [2], [3]], [[3], [2], [1]], 1.0, id="the order of a column"),
        pytest.param(DataType.FP16, Losses.RELATIVE, [np.nan, 1], [np.nan, 1], 0.0, id="NaN at the same place"),
        pytest.param(DataType.BF16, Losses.RELATIVE, BITS, BITS ^ 0x8000, 1.0, id="BF16 of the other sign"),
        pytest.param(DataType.FP32, AUTO, np.zeros((0, 3)), np.zeros((0, 3)), 0.0, id="no rows"),
    ],
)
def test_values_of_a_type(datatype: DataType, rule: Losses, own: Any, other: Any, loss: float) -> None:
    values, others = (np.array(each, dtype=DTYPES[datatype]) for each in (own, other))
    described = spec(datatype, tuple(-1 for _ in values.shape))
    found = compare_answers({"y": values}, {"y": AnsweredTensor(datatype, others)}, (described,), rule)
    assert found.loss == pytest.approx(loss)


SCORES, FAR = np.array([[1.0, 9.0]]), np.array([[1.0, 2.0]])


@pytest.mark.parametrize(
    ("rule", "described", "own", "other", "loss"),
    [
        pytest.param(Losses.ARGMAX, spec(shape=(-1, 2)), SCORES, FAR, 0.0, id="scores, by the class alone"),
        pytest.param(Losses.ARGMAX, spec(shape=(-1, -1)), SCORES, FAR, 0.614, id="a row of any length has no classes"),
        pytest.param(Losses.ARGMAX, spec(DataType.INT64, shape=(-1,)), [1, 9], [0, 9], 0.5, id="whole numbers, each by itself"),
        pytest.param(Losses.COSINE, spec(shape=(-1, 2)), SCORES, SCORES * 3, 0.0, id="directions, whatever their length"),
        pytest.param(Losses.COSINE, spec(shape=(-1,)), [1.0, 9.0], [1.0, 2.0], 0.614, id="a number for each row has no direction"),
    ],
)  # fmt: skip
def test_a_rule_that_a_profile_named_holds_for_outputs_that_it_suits(
    rule: Losses, described: TensorSpec, own: Any, other: Any, loss: float
) -> None:
    values, others = (np.array(each, dtype=DTYPES[described.datatype]) for each in (own, other))
    answered = {"y": AnsweredTensor(described.datatype, others)}
    found = compare_answers({"y": values}, answered, (described,), rule, where_it_suits=True)
    assert found.loss == pytest.approx(loss, abs=0.01)


def test_the_output_that_differs_most_counts_and_further_ones_do_not() -> None:
    specs = tuple(TensorSpec(name=name, datatype=DataType.INT32, shape=(-1,)) for name in "abc")
    own = {name: np.arange(4, dtype=np.int32) for name in "abc"}
    other = {
        "a": tensor([0, 1, 2, 3], DataType.INT32),
        "b": tensor([0, 9, 9, 9], DataType.INT32),
        "c": tensor([0, 1, 9, 9], DataType.INT32),
        "d": tensor([1], DataType.INT32),
    }
    found = compare_answers(own, other, specs, AUTO)
    assert (found.output, found.loss, found.numbers) == ("b", 0.75, "element 1 is 1 and 9")
    assert found.told == "output 'b': 3 of 4 elements are others"


def test_the_numbers_that_lie_farthest_apart_are_told_apart_from_the_rest() -> None:
    other = OWN.copy()
    other[0, 1], other[1, 0] = 0.1, np.inf
    found = compare_answers({"y": OWN}, {"y": tensor(other)}, (spec(),), AUTO)
    assert found.numbers == "[1, 0] 0.6 and inf; [0, 1] 0.7 and 0.1"
    assert "0.7" not in found.told
