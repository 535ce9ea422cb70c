"""The judge of answers against a simple one: equal but for rounding, and exactly where there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from penstock.optimization.recipes import Precision
from penstock.serving.manifest import DataType, TensorSpec
from penstock_runtime.joining.judge import AnswerComparer

FLOATS = TensorSpec(name="y", datatype=DataType.FP32, shape=(-1, -1))
WHOLE = TensorSpec(name="y", datatype=DataType.INT64, shape=(-1, -1))


def judge(spec: TensorSpec) -> AnswerComparer:
    return AnswerComparer((spec,), Precision.FP32)


@settings(max_examples=200, derandomize=True)
@given(st.data())
def test_the_parts_of_a_joint_answer_are_judged_as_by_cutting_it_by_hand(data: st.DataObject) -> None:
    integers = data.draw(st.booleans())
    axis = data.draw(st.sampled_from((0, 1)))
    rows = data.draw(st.lists(st.integers(1, 3), min_size=2, max_size=4))
    other = data.draw(st.integers(1, 3))
    elements: Any = st.integers(-5, 5) if integers else st.floats(-100, 100, width=32)
    shape = (sum(rows), other) if axis == 0 else (other, sum(rows))
    joint = data.draw(arrays.arrays(np.int64 if integers else np.float32, shape, elements=elements))
    which = data.draw(st.integers(0, len(rows) - 1))
    start = sum(rows[:which])
    lone = np.take(joint, range(start, start + rows[which]), axis).copy()
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, lone.size - 1))
        lone.ravel()[place] += data.draw(st.sampled_from((1, 50)))
    cut = np.take(joint, range(start, start + rows[which]), axis)
    scale = float(np.max(np.abs(lone), initial=0))
    right = bool(np.array_equal(lone, cut)) if integers else bool(np.max(np.abs(lone - cut)) <= 1e-4 * scale)
    found = judge(WHOLE if integers else FLOATS).compare_part(
        {"y": lone}, {"y": joint}, {"y": axis}, start, rows[which]
    )
    assert (found is None) is right, found


@settings(max_examples=100, derandomize=True)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_rows_are_counted_on_the_one_axis_that_grows(rows: int, more: int, other: int) -> None:
    total = rows + more
    first = judge(FLOATS).axes({"y": np.zeros((rows, other))}, rows, {"y": np.zeros((total, other))}, total)
    second = judge(FLOATS).axes({"y": np.zeros((other, rows))}, rows, {"y": np.zeros((other, total))}, total)
    assert (first, second) == ({"y": 0}, {"y": 1})
    for lone, joint in (
        (np.zeros((rows, rows)), np.zeros((total, total))),
        (np.zeros((rows, other)), np.zeros((rows, other))),
        (np.zeros(()), np.zeros(())),
        (np.zeros(rows), np.zeros((total, 1))),
        (np.zeros((rows, other)), np.zeros((total + 1, other))),
    ):
        assert isinstance(judge(FLOATS).axes({"y": lone}, rows, {"y": joint}, total), str)


SAME: dict[str, tuple[list[float], list[float], bool]] = {
    "equal": ([1, 2], [1, 2], True),
    "rounding": ([1000, 1], [1000.01, 1], True),
    "more than rounding": ([1000, 1], [1001, 1], False),
    "NaN in the same place": ([np.nan, 1], [np.nan, 1], True),
    "NaN in one only": ([1, 1], [np.nan, 1], False),
    "infinities of one sign": ([np.inf, 1], [np.inf, 1], True),
    "infinities of both signs": ([np.inf, 1], [-np.inf, 1], False),
}


@pytest.mark.parametrize(("one", "other", "same"), SAME.values(), ids=SAME)
def test_two_answers_are_the_same_but_for_rounding(one: list[float], other: list[float], *, same: bool) -> None:
    found = judge(FLOATS).compare({"y": np.array([one], np.float32)}, {"y": np.array([other], np.float32)})
    assert (found is None) is same


def test_an_engine_that_rounds_more_is_known_by_a_nudge() -> None:
    coarse = judge(FLOATS)
    before, after = np.array([[1.0, 2.0]], np.float32), np.array([[1.0, 2.01]], np.float32)
    assert coarse.compare({"y": before}, {"y": after}) is not None
    coarse.learn({"y": before}, {"y": after})
    assert coarse.compare({"y": before}, {"y": after}) is None


def test_bits_of_bf16_are_compared_as_numbers() -> None:
    spec = TensorSpec(name="y", datatype=DataType.BF16, shape=(-1,))
    one, near, far = (np.array([bits], np.uint16) for bits in (0x3F80, 0x3F81, 0x4000))
    assert judge(spec).compare({"y": one}, {"y": near}) is None
    assert judge(spec).compare({"y": one}, {"y": far}) is not None


def test_an_output_that_never_was_a_number_is_told() -> None:
    found = judge(FLOATS)
    nothing = {"y": np.full((1, 2), np.nan, np.float32)}
    assert found.compare(nothing, nothing) is None
    assert found.untold == ("y",)
