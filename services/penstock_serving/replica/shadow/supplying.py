"""Samples that a deployment's model or profile names, as inputs that can be shown."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from penstock.protocol.datatypes import DTYPES, Array
from penstock.protocol.refusals import bad_request
from penstock.routing.outcomes import SampleSource
from penstock.serving.manifest import DataType, Signature
from penstock_runtime.fetching import fetch_in_child

MOST_SAMPLES: Final = 1024
"""Of all replicas together."""
ENOUGH_SAMPLES: Final = 300
"""From which on they stand for others like them: of a model that is wrong at 1 %, all of so many are right with a chance of 5 %."""
MOST_BYTES: Final = 64 * 1024 * 1024
"""Of a file that is read, which is whole in memory for a moment."""
_FILE: Final = "test.npz"


@dataclass(frozen=True, slots=True)
class SuppliedSamples:
    """A replica's part of them, a request each."""

    inputs: tuple[Mapping[str, Array], ...]
    enough: bool
    """Whether all parts together are `ENOUGH_SAMPLES`."""


def read_supplied(source: SampleSource, signature: Signature) -> SuppliedSamples:
    """The samples that a replica is to show. Takes as long as the store does.

    Args:
        source: where they lie: arrays by the inputs' names, whose first axes count samples.
        signature: of the model.

    Raises:
        Invalid: they are no such arrays, or larger than `MOST_BYTES`, or the model takes no such requests; or what the storage says.
        Unavailable: the store does not answer.
    """
    uri = source.uri if source.uri.endswith(".npz") else f"{source.uri.rstrip('/')}/{_FILE}"
    with fetch_in_child(uri, os.environ, credentials=source.credentials, most_bytes=MOST_BYTES) as held:
        arrays = _read(held.path, signature)
    count = min(MOST_SAMPLES, *(len(array) for array in arrays.values()))
    places = range(source.part, count, source.parts)
    inputs = tuple({name: array[place : place + 1] for name, array in arrays.items()} for place in places)
    return SuppliedSamples(inputs, enough=count >= ENOUGH_SAMPLES)


def _read(path: Path, signature: Signature) -> dict[str, Array]:
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise bad_request(f"{path.name} has {size >> 20} MiB, and no more than {MOST_BYTES >> 20} are read to be shown")
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = {spec.name: archive[spec.name] for spec in signature.inputs}
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise bad_request(f"{path.name} has no arrays by the names of the model's inputs: {error}") from error
    arrays: dict[str, Array] = {}
    for spec in signature.inputs:
        array = found[spec.name]
        fits = len(spec.shape) == array.ndim and all(
            axis in (-1, length) for axis, length in zip(spec.shape, (1, *array.shape[1:]), strict=True)
        )
        if not fits or not array.ndim:
            raise bad_request(
                f"the samples of input '{spec.name}' have shape {list(array.shape)}, and the model takes {list(spec.shape)}: "
                "of a model whose first axes do not count samples none is shown"
            )
        arrays[spec.name] = array.astype(object if spec.datatype is DataType.BYTES else DTYPES[spec.datatype])
    return arrays
