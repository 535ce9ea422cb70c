"""The trial's requests as arrays. The same seed gives the same arrays."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from penstock.protocol.datatypes import DTYPES, FLOATS
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_runtime.engines import Array
from penstock_runtime.joining.candidates import Axes, AxisNames
from penstock_runtime.joining.plan import Fill

Lengths = Mapping[tuple[str, int], int]
"""Of open axes beside the batch, by tensor and axis."""

LENGTHS: Final = (8, 32, 3, 64, 224, 1)
"""Of open axes beside the batch, in the order in which they are tried."""
_NARROW: Final = frozenset({DataType.INT8, DataType.UINT8})
"""Types of pixels and quantized values. No index has them, so any value is one that a model takes."""
_WORDS: Final = (b"a", b"b", b"the quick brown fox", b"1")
_DIGITS: Final = (b"0", b"1", b"2", b"17")
_FLAGS: Final = ("mask", "type", "segment")
"""Parts of the names of integers that are 0 or 1."""
_LARGE: Final = 1e4
_SMALL: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Values:
    """From which values requests are made; other ones where the model refuses these."""

    most: int = 2
    """Ids are below this in all but the extreme requests: every table has two rows."""
    extreme: int = 2
    """Ids are below this in extreme requests, and from its negative on. 2: nothing is known to stop a model from reading
    past its table."""
    words: tuple[bytes, ...] = _WORDS


_FILLED: Final[Mapping[Fill, Callable[[Array], Array]]] = {
    Fill.POSITIVE: lambda normal: np.abs(normal) + 0.1,
    Fill.NEGATIVE: lambda normal: -np.abs(normal) - 0.1,
    Fill.ZEROS: np.zeros_like,
    Fill.ONES: np.ones_like,
    Fill.SMALL: lambda normal: normal * _SMALL,
    Fill.LARGE: lambda normal: normal * _LARGE,
    Fill.LARGE_POSITIVE: lambda normal: (np.abs(normal) + 1) * _LARGE,
    Fill.LARGE_NEGATIVE: lambda normal: (np.abs(normal) + 1) * -_LARGE,
    Fill.NAN: lambda normal: np.full_like(normal, np.nan),
    Fill.INFINITE: lambda normal: np.full_like(normal, np.inf),
    Fill.MINUS_INFINITE: lambda normal: np.full_like(normal, -np.inf),
}
"""Floats from normal ones. Any other fill leaves them as they are."""

TEXT: Final = Values()
NUMBERS_AS_TEXT: Final = Values(words=_DIGITS)


def lengths(signature: Signature, names: AxisNames, axes: Axes, base: int, *, spread: bool) -> Lengths:
    """Lengths for all open axes beside the batch.

    Axes of one name get one length. Spread: axes of different names, and unnamed ones at different places, differ.
    """
    known: dict[str | int, int] = {}
    found: dict[tuple[str, int], int] = {}
    for spec in signature.inputs:
        own = names.get(spec.name, ())
        for axis, length in enumerate(spec.shape):
            if length == -1 and axis != axes[spec.name]:
                key = (own[axis] if len(own) == len(spec.shape) else "") or axis
                found[spec.name, axis] = known.setdefault(key, base + len(known) if spread else base)
    return found


def request(
    signature: Signature, axes: Axes, open_axes: Lengths, *, name: str, fill: Fill, rows: int, values: Values
) -> dict[str, Array]:
    """The inputs of one request of the trial; `name` seeds what chance decides."""
    return {
        spec.name: _tensor(spec, _shape(spec, axes[spec.name], open_axes, rows), name, fill, values)
        for spec in signature.inputs
    }


def _shape(spec: TensorSpec, batch: int, open_axes: Lengths, rows: int) -> tuple[int, ...]:
    return tuple(
        rows if axis == batch else length if length >= 0 else open_axes[spec.name, axis]
        for axis, length in enumerate(spec.shape)
    )


def _tensor(spec: TensorSpec, shape: tuple[int, ...], name: str, fill: Fill, values: Values) -> Array:
    generator = np.random.default_rng(zlib.crc32(f"{name} {spec.name}".encode()))
    if spec.datatype is DataType.BYTES:
        return _strings(shape, fill, values, generator)
    dtype = DTYPES[spec.datatype]
    if spec.datatype is DataType.BF16:
        return (_floats(shape, fill, generator).astype(np.float32).view(np.uint32) >> 16).astype(dtype)
    if spec.datatype in FLOATS:
        return _floats(shape, fill, generator).astype(dtype)
    if spec.datatype is DataType.BOOL or any(word in spec.name.lower() for word in _FLAGS):
        return _integers(shape, fill, (0, 1), generator).astype(dtype)
    if spec.datatype in _NARROW:
        limits = np.iinfo(dtype)
        return _integers(shape, fill, (int(limits.min), int(limits.max)), generator).astype(dtype)
    return _ids(shape, fill, values, generator, signed=dtype.kind == "i").astype(dtype)


def _floats(shape: tuple[int, ...], fill: Fill, generator: np.random.Generator) -> Array:
    made = _FILLED.get(fill)
    return generator.standard_normal(shape) if made is None else made(generator.standard_normal(shape))


def _integers(shape: tuple[int, ...], fill: Fill, limits: tuple[int, int], generator: np.random.Generator) -> Array:
    low, high = limits
    match fill:
        case Fill.ZEROS | Fill.NAN:
            return np.zeros(shape, np.int64)
        case Fill.ONES | Fill.SMALL:
            return np.ones(shape, np.int64)
        case Fill.LARGE_POSITIVE | Fill.INFINITE:
            return np.full(shape, high)
        case Fill.LARGE_NEGATIVE:
            return np.full(shape, low)
        case _:
            return generator.integers(low, high, shape, endpoint=True)


def _ids(shape: tuple[int, ...], fill: Fill, values: Values, generator: np.random.Generator, *, signed: bool) -> Array:
    match fill:
        case Fill.ZEROS:
            return np.zeros(shape, np.int64)
        case Fill.ONES | Fill.SMALL:
            return np.ones(shape, np.int64)
        case Fill.WIDE:
            # From 0 on, and the greatest.
            return np.append(np.arange(1, math.prod(shape)) - 1, values.extreme - 1).reshape(shape) % values.extreme
        case Fill.NAN | Fill.INFINITE | Fill.LARGE_POSITIVE:
            return generator.integers(0, values.extreme, shape)
        case Fill.LARGE | Fill.LARGE_NEGATIVE | Fill.MINUS_INFINITE:
            least = -values.extreme if signed and values.extreme > values.most else 0
            return generator.integers(least, values.extreme if fill is Fill.LARGE else max(1 + least // 2, 1), shape)
        case _:
            return generator.integers(0, values.most, shape)


def _strings(shape: tuple[int, ...], fill: Fill, values: Values, generator: np.random.Generator) -> Array:
    made = np.empty(shape, dtype=object)
    words = (b"",) if fill is Fill.ZEROS else (values.words[0],) if fill is Fill.ONES else values.words
    made.ravel()[:] = [words[index] for index in generator.integers(0, len(words), made.size)]
    return made


def nudge(inputs: Mapping[str, Array], signature: Signature) -> dict[str, Array] | None:
    """The same request, its floats a few last digits up: how far answers move then is how exact they are.

    None: the model takes no floats.
    """
    moved = dict(inputs)
    for spec in signature.inputs:
        array = inputs[spec.name]
        if spec.datatype is DataType.BF16:
            moved[spec.name] = array + np.uint16(1)
        elif spec.datatype in FLOATS:
            moved[spec.name] = (array * (1 + 4 * np.finfo(array.dtype).eps)).astype(array.dtype)
    return moved if any(spec.datatype in FLOATS for spec in signature.inputs) else None
