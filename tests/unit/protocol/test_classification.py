"""Classes in an output's place, against numpy's and Python's own ways to order numbers."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy

from penstock.errors import Invalid
from penstock.protocol.datatypes import DTYPES
from penstock.serving.joining import Joining
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_serving.replica.codec.classification import Classification, read_classification
from penstock_serving.replica.codec.documents import RequestDecoder
from penstock_serving.replica.codec.responses import ResponseEncoder

NUMBERS = [each for each in DataType if each not in (DataType.BYTES, DataType.BOOL, DataType.BF16)]
INPUT = TensorSpec(name="x", datatype=DataType.FP32, shape=(1,))


def spec(datatype: DataType = DataType.FP32, shape: tuple[int, ...] = (-1, -1), **more: Any) -> TensorSpec:
    return TensorSpec(name="y", datatype=datatype, shape=shape, **more)


def classes(values: Any, count: int, datatype: DataType = DataType.FP32, axis: int | None = 0, **more: Any) -> Any:
    array = np.asarray(values, DTYPES[datatype])
    return Classification(spec(datatype, **more), count, axis).classify(array)


@pytest.mark.parametrize(
    ("values", "count", "expected"),
    [
        pytest.param([[1.1, 3.3, 0.5, 2.4]], 2, [["3.3:1", "2.4:3"]], id="the specification's example"),
        pytest.param([[1, 5, 10, 4]], 2, [["10.0:2", "5.0:1"]], id="its other example"),
        pytest.param([[1, 2], [2, 1]], 1, [["2.0:1"], ["2.0:0"]], id="each row for itself"),
        pytest.param([[1, 2]], 9, [["2.0:1", "1.0:0"]], id="no more than there are"),
        pytest.param([[7, 7, 7]], 2, [["7.0:0", "7.0:1"]], id="the first of equal ones first"),
        pytest.param([[0.0, -0.0]], 2, [["0.0:0", "-0.0:1"]], id="zeros are equal"),
        pytest.param([[math.nan, 1, -math.inf]], 3, [["1.0:1", "-inf:2", "nan:0"]], id="NaN last"),
        pytest.param([[math.nan, math.inf]], 1, [["inf:1"]], id="infinity first"),
        pytest.param([[[1, 2], [4, 3]]], 2, [["4.0:2", "3.0:3"]], id="a row of several axes"),
        pytest.param(np.zeros((0, 4)), 2, [], id="no rows"),
        pytest.param(np.zeros((2, 0)), 2, [[], []], id="rows without elements"),
    ],
)
def test_the_highest_values_of_each_row(values: Any, count: int, expected: list[list[str]]) -> None:
    found = classes(values, count)
    assert [[each.decode() for each in row] for row in found.tolist()] == expected
    assert found.shape == (len(expected), len(expected[0]) if expected else min(count, 4))


def test_an_output_without_rows_gives_one_list() -> None:
    assert classes([1, 3, 2], 2, axis=None).tolist() == [b"3.0:1", b"2.0:2"]
    assert classes(5, 2, axis=None).tolist() == [b"5.0:0"]


def test_rows_may_be_counted_by_another_axis() -> None:
    assert classes([[1, 9], [2, 3]], 1, axis=1).tolist() == [[b"2.0:1"], [b"9.0:0"]]
    assert classes([4, 5], 1, axis=0).tolist() == [[b"4.0:0"], [b"5.0:0"]]


def test_labels_are_told_where_the_model_names_its_classes() -> None:
    assert classes([[1, 2]], 2, classes=("cat", 7)).tolist() == [[b"2.0:1:7", b"1.0:0:cat"]]
    assert classes([[1, 2, 3]], 1, classes=("cat", "dog")).tolist() == [[b"3.0:2"]], "names of something else"


@given(st.data())
def test_the_order_is_that_of_numpy_and_of_python(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from(NUMBERS))
    dtype = DTYPES[datatype]
    shape = data.draw(st.tuples(st.integers(0, 4), st.one_of(st.integers(0, 12), st.integers(60, 80))))
    few = of_numpy.from_dtype(dtype).filter(lambda each: bool(np.isfinite(each)))
    pool = data.draw(st.lists(few, min_size=1, max_size=3))
    special = [np.nan, np.inf, -np.inf] if dtype.kind == "f" else []
    values = data.draw(of_numpy.arrays(dtype, shape, elements=st.sampled_from([*pool, *special])))
    count = data.draw(st.integers(1, 14) | st.integers(60, 82))
    found = classes(values, count, datatype)
    assert found.shape == (shape[0], min(count, shape[1]))
    for row, got in zip(values, found, strict=True):
        exact = row.tolist()
        order = sorted(
            range(len(exact)), key=lambda i: (exact[i] != exact[i], 0 if exact[i] != exact[i] else -exact[i], i)
        )
        places = [int(each.split(b":")[1]) for each in got]
        assert places == order[:count]
        for each in got:
            text, index = each.decode().split(":")
            assert np.array_equal(
                np.array([float(text) if dtype.kind == "f" else int(text)], dtype),
                row[[int(index)]],
                equal_nan=dtype.kind == "f",
            )
        if dtype.kind == "f":
            assert places == np.argsort(-row, kind="stable")[:count].tolist()


def test_bf16_is_ordered_by_its_values_not_its_bits() -> None:
    bits = (np.array([[1.0, -2.0, 0.5]], np.float32).view(np.uint32) >> 16).astype(np.uint16)
    assert classes(bits, 3, DataType.BF16).tolist() == [[b"1.0:0", b"0.5:2", b"-2.0:1"]]


@pytest.mark.parametrize("asked", [None, 0])
def test_none_asked_for_is_the_tensor(asked: int | None) -> None:
    assert read_classification(asked, spec(), 0, "y") is None


@pytest.mark.parametrize("datatype", [DataType.BYTES, DataType.BOOL])
def test_what_has_no_order_has_no_best_classes(datatype: DataType) -> None:
    with pytest.raises(Invalid, match=str(datatype)):
        read_classification(1, spec(datatype), 0, "outputs[0] 'y'")


@pytest.mark.parametrize(
    ("shape", "joined", "any_rank", "axis"),
    [
        ((-1, 10), {}, False, 0),
        ((10,), {}, False, None),
        ((-1,), {"y": 0}, False, 0),
        ((10, -1), {"y": 1}, False, 1),
        ((), {}, True, 0),
    ],
    ids=["the first of several", "a list", "one number a row", "the axis that is joined", "any rank"],
)
def test_which_axis_counts_rows(
    shape: tuple[int, ...], joined: dict[str, int], axis: int | None, *, any_rank: bool
) -> None:
    found = read_classification(1, spec(shape=shape, any_rank=any_rank), joined.get("y"), "y")
    assert found is not None
    assert found.axis == axis


@pytest.mark.parametrize("binary", [False, True], ids=["JSON", "binary"])
def test_an_answer_has_classes_where_they_are_asked_for_and_tensors_elsewhere(*, binary: bool) -> None:
    outputs = (spec(shape=(-1, 3)), spec(shape=(-1, 3)).model_copy(update={"name": "z"}))
    signature = Signature(inputs=(INPUT,), outputs=outputs)
    asked = [{"name": "z"}, {"name": "y", "parameters": {"classification": 2, "binary_data": binary}}]
    document = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}], "outputs": asked}
    request = RequestDecoder(signature, Joining(inputs={"x": 0}, outputs={"y": 0, "z": 0})).decode(
        json.dumps(document).encode()
    )
    array = np.array([[1, 3, 2]], np.float32)
    body, length = ResponseEncoder("m", "1").encode(request, request.present({"y": array, "z": array}))
    z, y = json.loads(body[:length])["outputs"]
    assert (z["datatype"], z["data"]) == ("FP32", [1, 3, 2])
    assert (y["datatype"], y["shape"]) == ("BYTES", [1, 2])
    if binary:
        assert body[length:] == b"".join(len(each).to_bytes(4, "little") + each for each in (b"3.0:1", b"2.0:2"))
    else:
        assert y["data"] == ["3.0:1", "2.0:2"]
