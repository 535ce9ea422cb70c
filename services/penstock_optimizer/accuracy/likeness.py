"""Whether two outputs are the same, each kind of value in its own way: numbers by distance, all else by equality."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from penstock_runtime.engines import Array

TOLERANCE: Final = 1e-3
"""Of an output's largest magnitude: so far may numbers be apart that mean the same."""
_TINY: Final = 1e-6


def difference_between(ours: Any, theirs: Any) -> str | None:
    """How two outputs differ, in words; None where they are the same.

    Args:
        ours: as it should be: a tensor, or the list or map that ONNX Runtime gives for some operators.
        theirs: of any type and shape. Flags, whole numbers and strings are the same only where they are equal; whole
            numbers are never subtracted, since unsigned ones would wrap around.
    """
    if not isinstance(ours, np.ndarray) or not isinstance(theirs, np.ndarray):
        return None if ours == theirs else "it gives something else than tensors"
    if ours.shape != theirs.shape:
        return f"it is of shape {theirs.shape} instead of {ours.shape}"
    if not fractional(ours):
        different = int((plain(ours) != plain(theirs)).sum())
        return f"{different} of {ours.size} values are others" if different else None
    one, other = (np.asarray(each, dtype=np.float64) for each in (ours, theirs))
    finite = np.isfinite(one)
    # Where ours is not a number, theirs is to be the same one.
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return "infinities or NaN stand elsewhere"
    worst = float(np.abs(one[finite] - other[finite]).max(initial=0.0))
    scale = max(float(np.abs(one[finite]).max(initial=0.0)), _TINY)
    return None if worst <= TOLERANCE * scale else f"its outputs differ by up to {worst:g} of {scale:g}"


def fractional(array: Array) -> bool:
    """Whether its values are numbers with a fraction, which can be nearly the same."""
    return array.dtype.kind == "f"


def plain(array: Array) -> Array:
    """Values that compare: strings of any kind as numpy's byte strings, all else as it is."""
    if array.dtype.kind not in "OSU":
        return array
    if array.dtype.kind == "U":
        return np.strings.encode(array, "utf-8")
    encoded = [each if isinstance(each, bytes) else str(each).encode("utf-8", "surrogateescape") for each in array.flat]
    values: npt.NDArray[Any] = np.array(encoded, dtype=np.bytes_).reshape(array.shape)
    return values
