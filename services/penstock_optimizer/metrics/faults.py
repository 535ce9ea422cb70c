"""What is wrong with a candidate's answers whatever their mean figures are."""

from __future__ import annotations

from typing import Final

import numpy as np

from penstock.optimization.measurements import METRICS, Judgement, Suits
from penstock_optimizer.metrics.classes import is_scores, is_single, predictions_of
from penstock_optimizer.metrics.figures import CHUNK, flat
from penstock_optimizer.metrics.parts import lost_part
from penstock_runtime.engines import Array

_OFTEN: Final = 5
"""So often is a class given that it does not vanish by chance."""
_MANY_VALUES: Final = 20
_FEW_VALUES: Final = 3
"""What had many different answers and has so few is saturated."""
_MOST_CELLS: Final = 20_000_000
_LIKE: Final = (0.9, 1.1)
"""How many times as large answers may be that are to be like the baseline's."""
_LABELLED: Final = (0.6, 1 / 0.6)
"""The same where labels decide, and a model that was trained anew may be surer or less sure."""
_ALIGNED: Final = 0.9
"""The least cosine of all answers that are the same ones but for their size."""
_SUM_OFF: Final = 0.05


def fault_of(judgement: Judgement, ours: Array, theirs: Array) -> str | None:
    """What is wrong, for people; None where nothing is."""
    name, facts = judgement.output, METRICS[judgement.metric]
    if facts.decides_class:
        found = _class_fault(judgement, ours, theirs) or _saturation_fault(ours, theirs)
        if found is not None:
            return f"'{name}': {found}"
    if ours.dtype.kind == "f" and (facts.decides_class or facts.suits is Suits.DIRECTIONS):
        found = _sum_fault(ours, theirs) or _scale_fault(judgement, ours, theirs)
        if found is not None:
            return f"'{name}': {found}"
    if ours.dtype.kind == "f" and not judgement.labelled and facts.one_scale:
        found = lost_part(ours, theirs)
        if found is not None:
            return f"'{name}': {found}"
    return None


def _class_fault(judgement: Judgement, ours: Array, theirs: Array) -> str | None:
    """A class that the baseline gives often, and the candidate never."""
    if not is_scores(ours) and not is_single(ours):
        return None
    classes, counts = np.unique(predictions_of(ours, judgement.threshold), return_counts=True)
    given = np.unique(predictions_of(theirs, judgement.threshold))
    lost = [(each, count) for each, count in zip(classes, counts, strict=True) if count >= _OFTEN and each not in given]
    if not lost:
        return None
    worst, count = max(lost, key=lambda pair: int(pair[1]))
    said = worst.decode(errors="replace") if isinstance(worst, bytes) else worst
    return f"the class {said}, which the model gives for {count} of {len(ours)} samples, is never given"


def _saturation_fault(ours: Array, theirs: Array) -> str | None:
    if ours.dtype.kind != "f" or ours.size > _MOST_CELLS:
        return None
    before, after = (len(np.unique(each.reshape(len(each), -1), axis=0)) for each in (ours, theirs))
    if before < _MANY_VALUES or after > _FEW_VALUES:
        return None
    return f"there are {after} different answers to {len(ours)} samples, where the model itself gives {before}"


def _sum_fault(ours: Array, theirs: Array) -> str | None:
    """What were probabilities, and are none any more."""
    if is_single(ours):
        return _range_fault(ours, theirs)
    if not is_scores(ours) or float(ours.min()) < 0:
        return None
    off = [float(np.abs(each.sum(axis=1, dtype=np.float64) - 1).mean()) for each in (ours, theirs)]
    if off[0] > _SUM_OFF / 5 or off[1] <= _SUM_OFF:
        return None
    return f"its probabilities no longer add up to 1 (off by {off[1]:.2g})"


def _range_fault(ours: Array, theirs: Array) -> str | None:
    if float(ours.min()) < 0 or float(ours.max()) > 1:
        return None
    beyond = float(max(theirs.max() - 1, -theirs.min()))
    return f"it was from 0 to 1, and is now up to {beyond:.2g} beyond" if beyond > _SUM_OFF else None


def _scale_fault(judgement: Judgement, ours: Array, theirs: Array) -> str | None:
    """How many times as large the answers are, by least squares. Scores have no zero: what counts is between them."""
    if is_single(ours):
        return None
    centred = is_scores(ours) and METRICS[judgement.metric].decides_class
    products = squares = others = 0.0
    for start in range(0, len(ours), CHUNK):
        one, other = (flat(each[start : start + CHUNK]) for each in (ours, theirs))
        if centred:
            one, other = (each - each.mean(axis=1, keepdims=True) for each in (one, other))
        products += float((one * other).sum())
        squares += float((one * one).sum())
        others += float((other * other).sum())
    if products <= _ALIGNED * np.sqrt(squares * others):
        return None  # other answers, and not the same ones in another size: that is for the figures
    times = products / squares
    low, high = _LABELLED if judgement.labelled else _LIKE
    return None if low <= times <= high else f"its answers are {times:.3g} times as large as the model's"
