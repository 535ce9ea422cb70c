"""Samples as arrays: reading and writing them, checking them against a signature, making them, and cutting batches."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from penstock.errors import Invalid
from penstock.protocol.datatypes import DTYPES
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_runtime.engines import Array

LABELS: Final = "labels"
"""The array of a split that is no input."""
INVALID: Final = "DataInvalid"
Samples = dict[str, Array]
"""Arrays by name. The first axis of each counts samples."""

_FLOATS: Final = (DataType.FP16, DataType.FP32, DataType.FP64)
_TOKENS: Final = 1000
"""Made token ids are below this: every vocabulary has so many."""
_MASK_NAMES: Final = ("mask",)
_ZERO_NAMES: Final = ("token_type", "segment", "position")
"""Inputs whose other values mean something that chance does not hit; 0 is right for one sequence."""


def read(path: Path) -> Samples:
    """All arrays of an `.npz` file. Pickled objects in it are refused.

    Raises:
        Invalid: it is no such file, or holds pickled objects.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise Invalid(
            INVALID,
            f"{path.name} is no .npz archive of plain arrays ({error}): write it with numpy.savez, without objects",
        ) from error


def write_arrays(samples: Mapping[str, Array], path: Path) -> None:
    """Write arrays as an `.npz` file."""
    np.savez(path, **dict(samples))  # type: ignore[arg-type]  # numpy's stub takes allow_pickle for one of the arrays


def rows_of(samples: Samples, rows: npt.NDArray[np.int64]) -> Samples:
    """The given rows of every array."""
    return {name: array[rows] for name, array in samples.items()}


def sample_axes(signature: Signature) -> dict[str, int | None]:
    """Which axis of each input counts samples in a run; None: a run takes the input of one sample, whole.

    Where all inputs have an open first axis, or all have one of the same length, it is that. Else it is each input's first open
    axis (`state [2, batch, 8]`), and one that has none (a scalar beside) belongs to its sample as it is.
    """
    firsts = {spec.shape[:1] for spec in signature.inputs}
    if len(firsts) == 1 and firsts != {()}:
        return dict.fromkeys((spec.name for spec in signature.inputs), 0)
    return {spec.name: spec.shape.index(-1) if -1 in spec.shape else None for spec in signature.inputs}


def rows_of_run(signature: Signature, rows: int) -> int:
    """How many samples a run has: those asked for, or as many as the model fixes. One where inputs do not share a first axis."""
    if any(axis != 0 for axis in sample_axes(signature).values()):
        return 1
    fixed = signature.inputs[0].shape[0]
    return rows if fixed < 0 else fixed


def run_of(samples: Mapping[str, Array], signature: Signature, take: npt.NDArray[np.int64]) -> dict[str, Array]:
    """The inputs of a run of these samples, as an engine takes them.

    Args:
        samples: by input; the first axis of each counts samples.
        signature: of the model.
        take: which, as many as `rows_of_run` says.
    """
    axes = sample_axes(signature)
    return {
        spec.name: as_engine_takes(_place_axis(samples[spec.name][take], axes[spec.name]), spec)
        for spec in signature.inputs
    }


def _place_axis(array: Array, axis: int | None) -> Array:
    return array[0] if axis is None else array if axis == 0 else np.moveaxis(array, 0, axis)


def _inner(spec: TensorSpec, axis: int | None) -> tuple[int, ...]:
    """The shape of one sample."""
    return spec.shape if axis is None else spec.shape[:axis] + spec.shape[axis + 1 :]


def check_samples(samples: Samples, signature: Signature, where: str) -> Samples:
    """The inputs and, where there are any, the labels, if they fit the signature.

    Raises:
        Invalid: which array, what it is and what is expected.
    """
    missing = [spec.name for spec in signature.inputs if spec.name not in samples]
    unknown = sorted(set(samples) - {spec.name for spec in signature.inputs} - {LABELS})
    if missing or unknown:
        wanted = ", ".join(f"'{spec.name}'" for spec in signature.inputs)
        raise Invalid(
            INVALID,
            f"{where} has the arrays {_list_names(samples)}, but the model takes {wanted}"
            f" (and '{LABELS}', if there are labels): name them so",
        )
    axes = sample_axes(signature)
    for spec in signature.inputs:
        _check_array(samples[spec.name], spec, _inner(spec, axes[spec.name]), f"{where}, array '{spec.name}'")
    counts = {name: len(array) if array.ndim else -1 for name, array in samples.items()}
    if len(set(counts.values())) != 1 or min(counts.values()) < 1:
        listed = ", ".join(f"'{name}' {count}" for name, count in sorted(counts.items()))
        raise Invalid(INVALID, f"{where}: the first axis of every array counts samples, but the lengths are {listed}")
    labels = samples.get(LABELS)
    if labels is not None and labels.dtype.kind not in "iufbSU":
        raise Invalid(INVALID, f"{where}, array '{LABELS}' is {labels.dtype}: expected numbers or strings")
    if labels is not None and labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise Invalid(INVALID, f"{where}, array '{LABELS}' has values that are not finite: leave those samples out")
    return samples


def _list_names(samples: Samples) -> str:
    return ", ".join(f"'{name}'" for name in sorted(samples)) or "none"


def _check_array(array: Array, spec: TensorSpec, inner: tuple[int, ...], where: str) -> None:
    wanted = ("samples", *("any" if axis < 0 else str(axis) for axis in inner))
    shape = f"({', '.join(wanted)})"
    fits = array.ndim == len(inner) + 1 and all(
        axis in (-1, length) for axis, length in zip(inner, array.shape[1:], strict=True)
    )
    if not fits:
        raise Invalid(INVALID, f"{where} has the shape {array.shape}: expected {shape}")
    if spec.datatype is DataType.BYTES:
        if array.dtype.kind not in "SU":
            raise Invalid(INVALID, f"{where} is {array.dtype}: expected strings (numpy's S or U)")
        return
    dtype = DTYPES[spec.datatype]
    if array.dtype != dtype:
        hint = "the bits of the BF16 values as uint16" if spec.datatype is DataType.BF16 else f".astype(numpy.{dtype})"
        raise Invalid(INVALID, f"{where} is {array.dtype}: expected {dtype} for {spec.datatype}; convert it by {hint}")
    if spec.datatype in _FLOATS and not np.isfinite(array).all():
        raise Invalid(INVALID, f"{where} has values that are not finite: expected numbers, without NaN and infinity")


def make_samples(
    signature: Signature,
    example_shapes: Mapping[str, Sequence[int]],
    most: int,
    most_bytes: int,
    seed: int,
    *,
    rows: Mapping[str, int] | None = None,
) -> Samples:
    """Samples from nothing but the signature: normal floats, small token ids, masks of ones.

    Args:
        signature: of the model.
        example_shapes: shape by input, with or without the batch axis, for open axes.
        most: how many samples at most.
        most_bytes: how large at most, in all.
        seed: of the generator.
        rows: of the tables that inputs index, by input: ids are below.

    Raises:
        Invalid: an axis beside the batch is open and no example shape says how long it is, or an input takes strings.
    """
    axes = sample_axes(signature)
    shapes = {
        spec.name: _sample_shape(spec, axes[spec.name], example_shapes.get(spec.name)) for spec in signature.inputs
    }
    each = sum(int(np.prod(shapes[spec.name])) * DTYPES[spec.datatype].itemsize for spec in signature.inputs)
    count = max(8, 4 * rows_of_run(signature, -1), min(most, most_bytes // max(each, 1)))
    generator = np.random.default_rng(seed)
    known = rows or {}
    return {
        spec.name: _make_array(spec, (count, *shapes[spec.name]), generator, known.get(spec.name))
        for spec in signature.inputs
    }


def _sample_shape(spec: TensorSpec, batch: int | None, example: Sequence[int] | None) -> tuple[int, ...]:
    inner = _inner(spec, batch)
    if example is not None:
        for given in _readings_of(spec, batch, tuple(example)):
            if len(given) == len(inner) and all(
                axis in (-1, length) for axis, length in zip(inner, given, strict=True)
            ):
                return given
        raise Invalid(INVALID, f"example shape {tuple(example)} of input '{spec.name}' does not fit its {spec.shape}")
    if -1 in inner:
        raise Invalid(
            INVALID,
            f"input '{spec.name}' of shape {spec.shape} leaves axes open, so no samples can be made for it: give data, or "
            f"an example shape for '{spec.name}'",
        )
    return inner


def _readings_of(spec: TensorSpec, batch: int | None, example: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """What an example may mean: one sample, or the whole with the batch, or the whole without its first axis."""
    yield example
    for whole in (example, (*spec.shape[:1], *example)):
        if batch is not None and len(whole) == len(spec.shape):
            yield whole[:batch] + whole[batch + 1 :]


def _make_array(spec: TensorSpec, shape: tuple[int, ...], generator: np.random.Generator, rows: int | None) -> Array:
    name = spec.name.lower()
    if spec.datatype is DataType.BYTES:
        raise Invalid(INVALID, f"input '{spec.name}' takes strings, for which no samples can be made: give data")
    dtype = DTYPES[spec.datatype]
    if rows is not None and spec.datatype is not DataType.BF16:
        most = rows if dtype.kind in "fb" else min(rows, np.iinfo(dtype).max)
        drawn = generator.integers(0, most, shape).astype(dtype)
        words = any(word in name for word in (*_MASK_NAMES, *_ZERO_NAMES)) and rows > 1
        return _usual_values(name, drawn) if words else drawn
    if spec.datatype is DataType.BF16:
        return (generator.standard_normal(shape, dtype=np.float32).view(np.uint32) >> 16).astype(dtype)
    if spec.datatype is DataType.BOOL or any(word in name for word in _MASK_NAMES):
        return np.ones(shape, dtype)
    if spec.datatype in _FLOATS:
        return generator.standard_normal(shape, dtype=np.float32).astype(dtype)
    if any(word in name for word in _ZERO_NAMES):
        return np.zeros(shape, dtype)
    return generator.integers(0, min(_TOKENS, np.iinfo(dtype).max), shape).astype(dtype)


def _usual_values(name: str, drawn: Array) -> Array:
    """What is right for one whole sequence: masks of ones, and zeros."""
    return np.ones_like(drawn) if any(word in name for word in _MASK_NAMES) else np.zeros_like(drawn)


def batches(samples: Mapping[str, Array], signature: Signature, rows: int) -> Iterator[tuple[int, dict[str, Array]]]:
    """Batches that an engine takes, in order, each with the number of its rows that are samples.

    Batches are as long as `rows_of_run` says. Where the model fixes that, the last is filled up by repeating.
    """
    size, least = rows_of_run(signature, rows), rows_of_run(signature, 1)
    count = len(next(iter(samples.values())))
    for start in range(0, count, size):
        real = min(size, count - start)
        yield real, run_of(samples, signature, np.arange(start, start + max(real, least)) % count)


def as_engine_takes(array: Array, spec: TensorSpec) -> Array:
    """An array as an engine takes it: strings as objects, all else contiguous."""
    if spec.datatype is not DataType.BYTES:
        return np.asarray(array, order="C")  # an array of no axes keeps having none
    encoded = np.strings.encode(array, "utf-8") if array.dtype.kind == "U" else array
    return encoded.astype(object)


def as_onnxruntime_takes(samples: Mapping[str, Array]) -> dict[str, Array]:
    """Samples for a session of ONNX Runtime itself, which takes strings and no bytes."""
    return {name: _decode(array) if array.dtype == object else array for name, array in samples.items()}


def _decode(array: Array) -> Array:
    decoded = np.empty(array.shape, dtype=object)
    decoded.ravel()[:] = [each.decode("utf-8", "surrogateescape") for each in array.ravel()]
    return decoded
