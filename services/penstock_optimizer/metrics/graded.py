"""Figures of answers that labels grade: masks, boxes, and rankings."""

from __future__ import annotations

from typing import Final

import numpy as np

from penstock_optimizer.metrics.figures import Floats, flat
from penstock_runtime.engines import Array

BOX: Final = 4
_SPATIAL: Final = 2


def masks_of(array: Array, labels: Array, threshold: float | None) -> Array | None:
    """An output as a mask of the labels' shape (samples, height, width): whole numbers. None: it is none.

    Args:
        array: (samples, classes, ...) of scores, or one score or class for each place.
        labels: whole numbers of the masks' shape; an axis of one class may stand in them.
        threshold: of a single score.
    """
    wanted = labels.reshape(_shape_without_class(labels)) if labels.ndim > _SPATIAL + 1 else labels
    if array.ndim == wanted.ndim + 1 and array.shape[1] > 1 and _places(array) == wanted.shape:
        classes: Array = array.argmax(axis=1)
        return classes
    single = array.reshape(_shape_without_class(array)) if array.ndim == wanted.ndim + 1 else array
    if single.shape != wanted.shape:
        return None
    return single if single.dtype.kind in "iub" else (single > (threshold or 0.0)).astype(np.int64)


def _shape_without_class(array: Array) -> tuple[int, ...]:
    return (array.shape[0], *array.shape[2:]) if array.shape[1] == 1 else array.shape


def _places(array: Array) -> tuple[int, ...]:
    return (array.shape[0], *array.shape[2:])


def mask_overlaps(mask: Array, labels: Array) -> Floats:
    """Each sample's intersection over union, as the mean over the classes that occur in either; 0 is one of them."""
    wanted = labels.reshape(mask.shape)
    found = np.empty(len(mask), dtype=np.float64)
    for index, (ours, theirs) in enumerate(zip(mask, wanted, strict=True)):
        classes = np.union1d(ours, theirs)
        shares = [
            ((ours == each) & (theirs == each)).sum() / ((ours == each) | (theirs == each)).sum() for each in classes
        ]
        found[index] = float(np.mean(shares)) if shares else 1.0
    return found


def box_overlaps(boxes: Array, labels: Array) -> Floats:
    """Each sample's mean intersection over union of boxes (..., 4) in the labels' order.

    Two corners, where all labels can be read so; otherwise a centre and a size.
    """
    corners = is_corners(labels)
    one, other = (_corners(flat(each).reshape(len(each), -1, BOX), corners=corners) for each in (boxes, labels))
    low, high = np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])
    common = np.clip(high - low, 0, None).prod(axis=-1)
    areas = [np.clip(each[..., 2:] - each[..., :2], 0, None).prod(axis=-1) for each in (one, other)]
    union = areas[0] + areas[1] - common
    shares: Floats = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    means: Floats = shares.mean(axis=1)
    return means


def is_corners(labels: Array) -> bool:
    """Whether boxes can be two corners each: the second is beyond the first."""
    boxes = labels.reshape(-1, BOX)
    return bool((boxes[:, 2:] > boxes[:, :2]).all())


def _corners(boxes: Floats, *, corners: bool) -> Floats:
    if corners:
        return boxes
    centre, half = boxes[..., :2], np.abs(boxes[..., 2:]) / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def gains(scores: Array, grades: Array) -> Floats:
    """Each sample's NDCG (K. Järvelin, J. Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002).

    Items of equal scores share their places, so that scores which are all alike gain nothing by the order of the items.
    """
    given, wanted = flat(scores), flat(grades)
    discounts = 1 / np.log2(np.arange(given.shape[1]) + 2)
    worth = np.exp2(wanted) - 1
    found = np.ones(len(given), dtype=np.float64)
    for index, (row, gain) in enumerate(zip(given, worth, strict=True)):
        best = float(np.sort(gain)[::-1] @ discounts)
        if best > 0:
            _, group, counts = np.unique(-row, return_inverse=True, return_counts=True)
            ends = np.cumsum(counts)
            sums = np.concatenate([[0.0], np.cumsum(discounts)])
            shared = (sums[ends] - sums[ends - counts]) / counts
            found[index] = float(gain @ shared[group]) / best
    return found
