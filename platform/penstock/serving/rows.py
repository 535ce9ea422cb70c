"""Rows of arrays on a batch axis. Apart from what names the axes, which the operator reads, whose image has no NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt


def part_rows(array: npt.NDArray[Any], axis: int, start: int, stop: int) -> npt.NDArray[Any]:
    """The rows from `start` to before `stop` on an axis, without a copy."""
    return array[start:stop] if axis == 0 else array[(slice(None),) * axis + (slice(start, stop),)]


def join_rows(each: list[Mapping[str, npt.NDArray[Any]]], axes: Mapping[str, int]) -> dict[str, npt.NDArray[Any]]:
    """Several requests' inputs as those of one run."""
    return {name: np.concatenate([inputs[name] for inputs in each], axis=axis) for name, axis in axes.items()}
