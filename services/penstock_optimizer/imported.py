"""A metric that the user wrote, in the sandbox: `python -m penstock_optimizer.imported`.

The callable gets a model's outputs (arrays by name, the first axis counting samples) and the labels (an array or None), and
gives a figure for each sample; greater is better. The process reads a `FiguresRequest` and writes a file of `Figures`.
"""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from penstock.errors import Invalid
from penstock.models import Frozen
from penstock_runtime.engines import Array

logger = logging.getLogger(__name__)

MODULE: Final = "penstock_optimizer.imported"
METRIC_FAILED: Final = "MetricFailed"


class FiguresRequest(Frozen):
    """Apply a metric to two models' outputs."""

    import_path: str
    python_path: tuple[str, ...] = ()
    baseline: dict[str, str]
    """File by output; `.npy`."""
    candidate: dict[str, str]
    labels: str | None = None
    """A `.npy` file."""
    answer: str
    """The file to write."""


class ImportedFigures(Frozen):
    """One figure a sample, of each model."""

    baseline: tuple[float, ...] = ()
    candidate: tuple[float, ...] = ()
    problem: str | None = None


def figures(request: FiguresRequest) -> ImportedFigures:
    """In the child: import the metric and apply it.

    Raises:
        Invalid: MetricFailed: there is no such callable, or it does not give a finite figure for each sample.
    """
    sys.path[:0] = request.python_path
    module, separator, name = request.import_path.partition(":")
    if not separator:
        raise Invalid(METRIC_FAILED, f"'{request.import_path}' is no import path: write package.module:callable")
    try:
        metric = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise Invalid(METRIC_FAILED, f"{request.import_path} cannot be imported: {error}") from error
    labels = None if request.labels is None else np.load(request.labels, allow_pickle=False)
    return ImportedFigures(
        baseline=_apply(metric, request, request.baseline, labels),
        candidate=_apply(metric, request, request.candidate, labels),
    )


def _apply(metric: Any, request: FiguresRequest, files: dict[str, str], labels: Array | None) -> tuple[float, ...]:
    outputs = {name: np.load(file, allow_pickle=False) for name, file in files.items()}
    count = len(next(iter(outputs.values())))
    try:
        found: npt.NDArray[np.float64] = np.asarray(metric(outputs, labels), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise Invalid(METRIC_FAILED, f"{request.import_path} failed: {type(error).__name__}: {error}") from error
    if found.shape != (count,) or not np.isfinite(found).all():
        raise Invalid(
            METRIC_FAILED,
            f"{request.import_path} gave figures of shape {found.shape}: expected a finite one for each of {count} samples",
        )
    return tuple(found.tolist())


def main() -> None:
    """Answer one request."""
    request = FiguresRequest.model_validate_json(sys.stdin.read())
    try:
        answer = figures(request)
    except Invalid as error:
        answer = ImportedFigures(problem=error.message)
    except Exception as error:
        logger.exception("the metric failed")
        answer = ImportedFigures(problem=f"{request.import_path} failed: {type(error).__name__}: {error}")
    Path(request.answer).write_text(answer.model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
