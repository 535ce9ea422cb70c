"""The best classes of an output in its place, as Triton's classification extension has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from penstock.protocol.datatypes import Array
from penstock.protocol.limits import MOST_CLASSES
from penstock.protocol.refusals import bad_request
from penstock.serving.manifest import DataType, TensorSpec

_UNORDERED: Final = (DataType.BYTES, DataType.BOOL)

_LONG: Final = 64
"""Elements of a row from which on it is faster to look for the best than to put all in order."""


@dataclass(frozen=True, slots=True)
class Classification:
    """How an output becomes classes.

    Args:
        spec: the output.
        count: classes of each row at most.
        axis: counts the output's rows; None: all of it is one row.
    """

    spec: TensorSpec
    count: int
    axis: int | None

    def classify(self, values: Array) -> Array:
        """The highest values of each row with their places, as `value:index`, or `value:index:label` where the model names its classes.

        The first of equal ones goes first, and NaN last. An index counts the elements of a row in row-major order.

        Returns:
            `bytes` of shape `[rows, classes]`, or `[classes]` where there is but one row that no axis counts.
        """
        if self.spec.datatype is DataType.BF16:
            values = (values.astype(np.uint32) << 16).view(np.float32)
        rows = values.reshape(1, -1) if self.axis is None else _to_rows(values, self.axis)
        order = _first(_descending(rows), self.count)
        labels = self.spec.classes if len(self.spec.classes) == rows.shape[1] else ()
        found = np.empty(order.shape, dtype=object)
        best = np.take_along_axis(rows, order, axis=1)
        found.reshape(-1)[:] = [
            _text(value, index, labels) for value, index in zip(best.ravel(), order.ravel().tolist(), strict=True)
        ]
        return found[0] if self.axis is None else found


def read_classification(asked: Any, spec: TensorSpec, axis: int | None, where: str) -> Classification | None:
    """What the parameter `classification` of a requested output says; None where it is 0 or not there.

    Args:
        asked: the parameter.
        spec: the output's.
        axis: that requests are joined along; None: none is known, and of an output with several, the first counts its rows.
        where: names the output in errors.

    Raises:
        Invalid: it is no number of classes, or the output has none.
    """
    if asked is None or (asked == 0 and type(asked) is int):
        return None
    if type(asked) is not int or not 0 < asked <= MOST_CLASSES:
        raise bad_request(
            f"{where}: parameter 'classification' must be a whole number from 0 to {MOST_CLASSES}, not {asked!r}"
        )
    if spec.datatype in _UNORDERED:
        raise bad_request(f"{where}: classification takes outputs of numbers, and this is {spec.datatype}")
    if axis is None and (len(spec.shape) > 1 or spec.any_rank):
        axis = 0
    return Classification(spec, asked, axis)


def _to_rows(values: Array, axis: int) -> Array:
    if values.ndim == 0:
        return values.reshape(1, 1)
    moved = np.moveaxis(values, axis, 0)
    return moved.reshape(moved.shape[0], int(np.prod(moved.shape[1:])))


def _descending(rows: Array) -> Array:
    """Numbers that are ordered the other way round: no two that differ become alike, and none overflows. NaN stays NaN."""
    return -rows if rows.dtype.kind == "f" else ~rows


def _first(keys: Array, count: int) -> Array:
    """The places of each row's lowest keys in their order, the first of equal ones first."""
    if count >= keys.shape[1] or keys.shape[1] < _LONG:
        return np.argsort(keys, axis=1, kind="stable")[:, :count]
    return np.array([_first_of_row(row, count) for row in keys], dtype=np.intp).reshape(-1, count)


def _first_of_row(keys: Array, count: int) -> Array:
    """The same of one long row, without putting all of it in order."""
    last = np.partition(keys, count - 1)[count - 1]
    if last != last:  # noqa: PLR0124 -- NaN: there are too few numbers to end with one
        return np.argsort(keys, kind="stable")[:count]
    below = np.flatnonzero(keys < last)
    found = np.concatenate((below, np.flatnonzero(keys == last)[: count - below.size]))
    return found[np.argsort(keys[found], kind="stable")]


def _text(value: Any, index: int, labels: tuple[str | int, ...]) -> bytes:
    said = f"{value!s}:{index}"
    return (f"{said}:{labels[index]}" if labels else said).encode()
