"""First runs of a model, before it says that it is ready: they allocate, and they tell how long a run takes."""

from __future__ import annotations

import logging
import time
from typing import Final

import numpy as np

from penstock.protocol.datatypes import DTYPES
from penstock.serving.joining import Joining
from penstock.serving.manifest import DataType, Signature, TensorSpec
from penstock_runtime.engines import Array, Engine

logger = logging.getLogger(__name__)

_REPEATS: Final = 3
_LONG_SECONDS: Final = 0.005
"""Past this a run's exact length decides nothing: it goes to the worker thread."""


def warm_up(engine: Engine, joining: Joining | None, max_rows: int) -> dict[int, float]:
    """Run on zeros with 1 and `max_rows` rows, and for a fast model with the powers of two between.

    Args:
        engine: the model.
        joining: the axes that count rows; None: a run has one request.
        max_rows: of a batch.

    Returns:
        Seconds of a run by number of rows. Empty for a model whose axes are not known or that zeros do not suit.
    """
    measured: dict[int, float] = {}
    for rows in _sizes(max_rows if joining is not None else 1):
        inputs = made_inputs(engine.signature, joining, rows)
        if inputs is None:
            break
        try:
            measured[rows] = _shortest_run(engine, inputs)
        except Exception as error:  # noqa: BLE001 -- a model may refuse zeros and still serve real inputs
            logger.warning("the warm-up on zeros with %d rows failed: %s", rows, error)
            return measured
        if rows == max_rows and measured[rows] > _LONG_SECONDS:
            break
    return measured


def made_inputs(signature: Signature, joining: Joining | None, rows: int) -> dict[str, Array] | None:
    """Zeros with so many rows along the axes that count them; None where other axes are open."""
    axes = joining.inputs if joining is not None else {}
    if any(
        length == -1 and axis != axes.get(spec.name)
        for spec in signature.inputs
        for axis, length in enumerate(spec.shape)
    ):
        return None
    return {spec.name: _zeros(spec, rows, axes.get(spec.name)) for spec in signature.inputs}


def _sizes(max_rows: int) -> list[int]:
    """1, max, and the powers of two between, in that order of use: the two ends matter most."""
    powers = [1 << power for power in range(1, max_rows.bit_length()) if 1 << power < max_rows]
    return [1, *([max_rows] if max_rows > 1 else []), *powers]


def _zeros(spec: TensorSpec, rows: int, batch: int | None) -> Array:
    shape = tuple(rows if axis == batch else length for axis, length in enumerate(spec.shape))
    if spec.datatype is DataType.BYTES:
        return np.full(shape, b"", dtype=object)
    return np.zeros(shape, dtype=DTYPES[spec.datatype])


def _shortest_run(engine: Engine, inputs: dict[str, Array]) -> float:
    first = _time_run(engine, inputs)
    return first if first > _LONG_SECONDS else min(_time_run(engine, inputs) for _ in range(_REPEATS))


def _time_run(engine: Engine, inputs: dict[str, Array]) -> float:
    start = time.monotonic()
    engine.run(inputs)
    return time.monotonic() - start
