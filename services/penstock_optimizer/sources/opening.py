"""What a source is given, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from penstock.optimization.variants import SourceRequest
from penstock_optimizer.sources.examples import Examples

EXPORT_FAILED: Final = "ExportFailed"

ONNX_FILE: Final = "model.onnx"
EXPORTED_FILE: Final = "model.pt2"
WEIGHTS_FILE: Final = "model.safetensors"


@dataclass(frozen=True, slots=True)
class Opening:
    """What a source is given."""

    request: SourceRequest
    entry: Path
    """The model's file."""
    examples: Examples
    work: Path
    """For intermediate files."""
    output: Path
    """The source folder in the making. A source writes `ONNX_FILE` there, and what else it has of the files above."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What a source found."""

    parameters: int


class Source(Protocol):
    """One format."""

    def open(self, opening: Opening) -> Opened:
        """Write the model in the forms that steps need.

        Raises:
            Invalid: what is wrong with the model, and what to do.
        """
