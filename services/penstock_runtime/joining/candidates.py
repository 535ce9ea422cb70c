"""Which axes could be the batch, the likeliest first. Names and shapes only propose; trial runs decide."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Final

from penstock.serving.manifest import Signature, TensorSpec

AxisNames = Mapping[str, tuple[str, ...]]
"""Names of the axes by tensor, as far as the file or the engine knows them; an empty name is none."""
Axes = Mapping[str, int]
"""The batch axis by input."""

MOST: Final = 6
"""Candidates that are tried: each costs some runs."""
_BATCH: Final = ("batch", "batch_size", "n", "b", "bs", "num_samples", "samples", "rows")
_TIME: Final = ("time", "seq", "len", "frame", "step", "token", "length", "t", "s", "l")


def candidates(signature: Signature, names: AxisNames) -> tuple[Axes, ...]:
    """Axes of the inputs along which requests might be joined. None: an input has no open axis.

    Args:
        signature: of the model.
        names: of its axes.
    """
    inputs = signature.inputs
    if not inputs or any(-1 not in spec.shape for spec in inputs):
        return ()
    found: list[dict[str, int]] = [
        {spec.name: _axis_names(spec, names).index(symbol) for spec in inputs}
        for symbol in _shared_names(inputs, names)
    ]
    found.extend(
        dict.fromkeys((spec.name for spec in inputs), axis)
        for axis in range(max(len(spec.shape) for spec in inputs))
        if all(spec.shape[axis : axis + 1] == (-1,) for spec in inputs)
    )
    each = [[(spec.name, axis) for axis, length in enumerate(spec.shape) if length == -1] for spec in inputs]
    found.extend(dict(chosen) for chosen in itertools.islice(itertools.product(*each), MOST))
    return tuple(axes for index, axes in enumerate(found) if axes not in found[:index])[:MOST]


def _axis_names(spec: TensorSpec, names: AxisNames) -> tuple[str, ...]:
    """The names of the open axes; an empty one for every other."""
    known = names.get(spec.name, ())
    if len(known) != len(spec.shape):
        return ("",) * len(spec.shape)
    return tuple(name if length == -1 else "" for name, length in zip(known, spec.shape, strict=True))


def _shared_names(inputs: tuple[TensorSpec, ...], names: AxisNames) -> list[str]:
    """Names that every input has once, those first that are called as a batch is, those last that are called as time is."""
    every = [_axis_names(spec, names) for spec in inputs]
    common = [name for name in dict.fromkeys(every[0]) if name and all(each.count(name) == 1 for each in every)]
    return sorted(common, key=lambda name: (_rank(name), sum(each.index(name) for each in every)))


def _rank(name: str) -> int:
    low = name.lower()
    if low in _BATCH or "batch" in low:
        return 0
    return 2 if low in _TIME or any(word in low for word in _TIME if len(word) > 1) else 1
