"""An answer of another replica held against the replica's own: the loss, and how they differ in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock.protocol.datatypes import Array, text_bytes
from penstock.routing.outcomes import Losses
from penstock.serving.manifest import DataType, TensorSpec
from penstock_runtime.joining.judge import ROUNDING, floats
from penstock_serving.replica.shadow.losses import (
    argmax_losses,
    cosine_losses,
    rank_losses,
    relative_losses,
    scores_losses,
    unequal_share,
)

MOST_CLASSES: Final = 1000
"""Numbers of a row that may be scores by class."""
_LEAST_EMBEDDED: Final = 16
"""Numbers of a row of length 1 that is taken for an embedding: a shorter one may be so by chance."""
_UNIT: Final = 1e-3
_SHOWN: Final = 5
"""Numbers that are told."""


@dataclass(frozen=True, slots=True)
class AnsweredTensor:
    """An output as another replica answered it: BF16 as its bits, texts as `bytes`."""

    datatype: DataType
    array: Array


@dataclass(frozen=True, slots=True)
class Difference:
    """How an answer differs: the loss of the output that differs most, and what is to be said of it."""

    loss: float = 0.0
    output: str = ""
    told: str = ""
    numbers: str = ""
    """Where it differs most, for who may see numbers."""


def compare_answers(
    own: Mapping[str, Array],
    other: Mapping[str, AnsweredTensor],
    specs: tuple[TensorSpec, ...],
    rule: Losses,
    *,
    where_it_suits: bool = False,
) -> Difference:
    """The greatest loss of all outputs, since whoever uses one of them has no good of the others. Further outputs are no loss.

    Floats are compared by the rule, and whole numbers by any but `Auto`; everything else by the share of elements that are others.

    Args:
        own: every output by name.
        other: the same of another replica.
        specs: the outputs of the replica's own model.
        rule: how numbers are compared.
        where_it_suits: whether outputs that the rule does not suit are compared by `Auto`.
    """
    worst = Difference()
    for spec in specs:
        if spec.name in own:
            chosen = Losses.AUTO if where_it_suits and not _suits(rule, own[spec.name], spec) else rule
            found = _compare_output(own[spec.name], other.get(spec.name), spec, chosen)
            worst = max(worst, found, key=lambda each: each.loss)
    return worst


def _compare_output(own: Array, other: AnsweredTensor | None, spec: TensorSpec, rule: Losses) -> Difference:
    misfit = _misfit(own, other, spec)
    if misfit or other is None:
        return Difference(1.0, spec.name, f"output '{spec.name}' {misfit}")
    if not own.size:
        return Difference()
    if spec.datatype is DataType.BYTES:
        return _compare_elements(_texts(own), _texts(other.array), spec)
    ours, theirs = floats(own, spec), floats(other.array, spec)
    if ours.dtype.kind == "b" or (rule is Losses.AUTO and ours.dtype.kind != "f"):
        return _compare_elements(ours, theirs, spec)
    return _compare_numbers(ours.astype(np.float64), theirs.astype(np.float64), spec, rule)


def _misfit(own: Array, other: AnsweredTensor | None, spec: TensorSpec) -> str:
    """Why an answer is not even of the own one's kind; empty where it is."""
    if other is None:
        return "is missing"
    if other.datatype is not spec.datatype:
        return f"is of {other.datatype}, not of {spec.datatype}"
    if other.array.shape != own.shape:
        return f"has shape {list(other.array.shape)}, not {list(own.shape)}"
    return ""


def _compare_elements(own: Array, other: Array, spec: TensorSpec) -> Difference:
    loss = unequal_share(own, other)
    if not loss:
        return Difference()
    first = int(np.flatnonzero((own != other).ravel())[0])
    told = f"output '{spec.name}': {round(loss * own.size)} of {own.size} elements are others"
    pair = (str(array.ravel()[first])[:40] for array in (own, other))
    return Difference(loss, spec.name, told, f"element {first} is {' and '.join(pair)}")


def chosen_rule(own: Array, spec: TensorSpec) -> Losses:
    """The rule that `Auto` takes for an output of floats; `Argmax` stands for `scores_losses` then.

    - `Cosine` for rows of length 1 with at least 16 numbers, as embeddings are that were made so;
    - `Argmax` where the model names the classes, or gives rows of a fixed length from 2 to 1000 along two axes;
    - `Relative` for the rest. Embeddings of another length than 1 may look as scores do: say `Cosine` for them.

    Args:
        own: the output, in FP64.
        spec: what the model says of it.
    """
    if own.ndim and own.shape[-1] >= _LEAST_EMBEDDED and not spec.classes:
        lengths = np.sqrt(np.square(own).sum(axis=-1))
        if np.all(np.abs(lengths - 1.0) <= _UNIT):
            return Losses.COSINE
    return Losses.ARGMAX if _gives_classes(spec) and own.ndim else Losses.RELATIVE


def _suits(rule: Losses, own: Array, spec: TensorSpec) -> bool:
    """Whether an output has what the rule looks at: classes, or several floats in a row."""
    if floats(own, spec).dtype.kind != "f":
        return False
    several = own.ndim > 1 and own.shape[-1] > 1
    return _gives_classes(spec) if rule is Losses.ARGMAX else rule is Losses.RELATIVE or several


def _gives_classes(spec: TensorSpec) -> bool:
    fixed = len(spec.shape) == 2 and 2 <= spec.shape[1] <= MOST_CLASSES  # noqa: PLR2004 -- rows and classes; two classes
    return bool(spec.classes) or fixed


def _compare_numbers(own: Array, other: Array, spec: TensorSpec, rule: Losses) -> Difference:
    auto = rule is Losses.AUTO
    chosen = chosen_rule(own, spec) if auto else rule
    if own.size == 1:
        chosen = Losses.RELATIVE  # one number has no order and no direction
    ours, theirs = _rows(own, chosen), _rows(other, chosen)
    rounding = ROUNDING.get(spec.datatype, 0.0)
    match chosen:
        case Losses.ARGMAX:
            losses = (scores_losses if auto else argmax_losses)(ours, theirs, rounding)
        case Losses.COSINE:
            losses = cosine_losses(ours, theirs)
        case Losses.RANK:
            losses = rank_losses(ours, theirs)
        case _:
            losses = relative_losses(ours, theirs)
    loss = float(losses.mean())
    if not loss:
        return Difference()
    told = (
        f"output '{spec.name}' {list(own.shape)}: {np.count_nonzero(losses)} of {losses.size} rows differ by {chosen}"
    )
    return Difference(min(loss, 1.0), spec.name, told, _numbers(ours, theirs))


def _rows(values: Array, rule: Losses) -> Array:
    """Each row of the first axis as a whole where sizes count, since a part of it may be next to nothing; else the last axis.

    Where that has one number, all are one row: of scores of so many documents, the order is theirs.
    """
    if rule is Losses.RELATIVE:
        return values.reshape(values.shape[0] if values.ndim > 1 else 1, -1)
    return values.reshape(1, -1) if not values.ndim or values.shape[-1] == 1 else values.reshape(-1, values.shape[-1])


def _numbers(own: Array, other: Array) -> str:
    """The numbers that lie farthest apart."""
    with np.errstate(invalid="ignore"):
        gaps = np.abs(own - other)
    gaps = np.where((own == other) | (np.isnan(own) & np.isnan(other)), 0.0, np.where(np.isnan(gaps), np.inf, gaps))
    places = np.argsort(-gaps, axis=None, kind="stable")[:_SHOWN]
    rows, columns = np.unravel_index(places, own.shape)
    pairs = (
        f"[{row}, {column}] {own[row, column]:.6g} and {other[row, column]:.6g}"
        for row, column in zip(rows, columns, strict=True)
        if gaps[row, column] > 0
    )
    return "; ".join(pairs)


def _texts(values: Array) -> Array:
    found = np.empty(values.size, dtype=object)
    found[:] = [text_bytes(element) for element in values.ravel()]
    return found
