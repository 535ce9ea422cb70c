"""A few rows of the user's data, or shapes, by which a module is traced and an export is checked."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from penstock.errors import Invalid
from penstock_optimizer.samples.arrays import INVALID, LABELS
from penstock_runtime.engines import Array

ROWS: Final = 3
"""More than one and no power of two: an axis of this length is not taken for another."""
_SPLITS: Final = ("calibration", "train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Examples:
    """Arrays of `ROWS` rows by name, without labels; and shapes by name, without the batch axis."""

    arrays: Mapping[str, Array] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def read_examples(data: Path | None, shapes: Mapping[str, tuple[int, ...]]) -> Examples:
    """The first rows of a `.npz` file, or of the first split in a folder.

    Raises:
        Invalid: there is no such file, or it holds pickled objects.
    """
    if data is None:
        return Examples(shapes=dict(shapes))
    file = data
    if data.is_dir():
        file = next((path for split in _SPLITS if (path := data / f"{split}.npz").is_file()), data / "calibration.npz")
    if not file.is_file():
        raise Invalid("DataNotFound", f"{file} is not there: give an .npz file, or a folder of them")
    return Examples(arrays=_first_rows(file), shapes=dict(shapes))


def _first_rows(file: Path) -> dict[str, Array]:
    arrays = {}
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.namelist():
                name = member.removesuffix(".npy")
                if name != LABELS:
                    with archive.open(member) as stream:
                        arrays[name] = _rows(stream, f"{file.name}, array '{name}'")
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise Invalid(INVALID, f"{file.name} is no .npz archive of plain arrays: {error}") from error
    return arrays


def _rows(stream: Any, where: str) -> Array:
    """The first rows of an array in NumPy's format, without reading the others.

    After https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html.
    """
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read_header(stream)
    if dtype.hasobject:
        raise Invalid(INVALID, f"{where} holds pickled objects: write plain arrays")
    if not shape or shape[0] < 1:
        raise Invalid(INVALID, f"{where} has the shape {shape}: its first axis must count samples")
    if by_columns:
        whole = np.frombuffer(stream.read(), dtype).reshape(shape, order="F")
        return np.ascontiguousarray(_fill_rows(whole[:ROWS]))
    rows = min(ROWS, shape[0])
    wanted = (rows, *shape[1:])
    body = stream.read(int(np.prod(wanted)) * dtype.itemsize)
    return _fill_rows(np.frombuffer(body, dtype).reshape(wanted).copy())


def _fill_rows(array: Array) -> Array:
    """`ROWS` rows, by repeating."""
    return array[np.arange(ROWS) % len(array)]
