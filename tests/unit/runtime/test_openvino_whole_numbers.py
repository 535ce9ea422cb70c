"""OpenVINO computes 64-bit whole numbers in 32: what does not fit there is refused, and all else is right to the last digit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.integration.replica_process import save_model
from tests.telling import telling

from penstock.errors import Invalid
from penstock.optimization.recipes import EngineName, EngineSettings
from penstock_runtime.engines import Engine, load_engine

TYPES = {"INT64": (TensorProto.INT64, np.int64), "UINT64": (TensorProto.UINT64, np.uint64)}
TOO_WIDE = {
    "a time in milliseconds": ("INT64", [[1_700_000_000_000, 1]]),
    "a negative number": ("INT64", [[0, -5_000_000_000]]),
    "the first that is too great": ("INT64", [[2**31, 0]]),
    "the first that is too small": ("INT64", [[-(2**31) - 1, 0]]),
    "a hash": ("UINT64", [[2**63 + 5, 1]]),
}
FITTING = {
    "ids": ("INT64", [[0, 101], [30_000, 2]]),
    "the greatest and the smallest": ("INT64", [[2**31 - 1, -(2**31)]]),
    "negative ones": ("INT64", [[-1, -100]]),
    "no rows": ("INT64", np.zeros((0, 2))),
    "without sign": ("UINT64", [[2**31 - 1, 0]]),
}


def loaded(kind: str, folder: Path) -> Engine:
    """y is x less 0."""
    tensor = (TYPES[kind][0], ["n", 2])
    path = save_model(
        folder / "model.onnx", [helper.make_node("Sub", ["x", "zero"], ["y"])],
        {"x": tensor}, {"y": tensor}, {"zero": np.zeros(1, TYPES[kind][1])},
    )  # fmt: skip
    return load_engine(path, EngineSettings(name=EngineName.OPENVINO))


@pytest.mark.parametrize(("kind", "values"), TOO_WIDE.values(), ids=TOO_WIDE)
def test_numbers_that_would_be_cut_are_refused(kind: str, values: list[list[int]], tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=telling("'x' 32 bits")):
        loaded(kind, tmp_path).run({"x": np.array(values, TYPES[kind][1])})


@pytest.mark.parametrize(("kind", "values"), FITTING.values(), ids=FITTING)
def test_numbers_that_fit_are_right(kind: str, values: list[list[int]], tmp_path: Path) -> None:
    x = np.array(values, TYPES[kind][1])
    np.testing.assert_array_equal(loaded(kind, tmp_path).run({"x": x})["y"], x)
