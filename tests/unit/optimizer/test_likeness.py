"""Whether two outputs are the same, whatever they are of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.telling import Telling

from penstock_optimizer.accuracy.likeness import difference_between
from penstock_optimizer.samples.arrays import as_onnxruntime_takes

STRINGS = np.array(["yes", "nö"], dtype=object)


@pytest.mark.parametrize(
    ("ours", "theirs", "facts"),
    [
        pytest.param(np.array([True, False]), np.array([True, False]), None, id="equal flags"),
        pytest.param(np.array([True, False]), np.array([True, True]), "1 of 2", id="another flag"),
        pytest.param(np.array([0], np.uint8), np.array([1], np.uint8), "1 of 1", id="unsigned numbers do not wrap"),
        pytest.param(np.array([1], np.int64), np.array([1], np.int64), None, id="equal whole numbers"),
        pytest.param(STRINGS, STRINGS.copy(), None, id="equal strings"),
        pytest.param(STRINGS, np.array(["yes", "no"], dtype=object), "1 of 2", id="another string"),
        pytest.param(STRINGS, np.array(["yes", "nö"]), None, id="strings of two kinds"),
        pytest.param(np.array([1.0, 2.0]), np.array([1.0, 2.001]), None, id="numbers within the tolerance"),
        pytest.param(np.array([1.0, 2.0]), np.array([1.0, 2.1]), "0.1", id="other numbers"),
        pytest.param(np.array([1.0, np.nan]), np.array([1.0, np.nan]), None, id="NaN at the same place"),
        pytest.param(np.array([1.0, 2.0]), np.array([1.0, np.nan]), "nan", id="NaN where there was none"),
        pytest.param(np.array([1.0, np.inf]), np.array([1.0, -np.inf]), "elsewhere", id="another infinity"),
        pytest.param(np.zeros((2, 3)), np.zeros((3, 2)), "shape (2, 3) (3, 2)", id="another shape"),
        pytest.param(np.zeros((0, 3)), np.zeros((0, 3)), None, id="no elements"),
    ],
)
def test_each_kind_is_compared_in_its_own_way(ours: NDArray[Any], theirs: NDArray[Any], facts: str | None) -> None:
    found = difference_between(ours, theirs)
    assert found == (None if facts is None else Telling(facts))


def test_onnx_runtime_itself_is_given_strings_and_no_bytes() -> None:
    """Of bytes it makes other strings, and says nothing."""
    given = {"words": np.array([[b"a", "ö".encode()]], dtype=object), "x": np.ones(2)}
    taken = as_onnxruntime_takes(given)
    assert taken["words"].tolist() == [["a", "ö"]]
    assert taken["x"] is given["x"]
