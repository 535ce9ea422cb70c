"""Models as users have them. A further format is one file here and one line in `SOURCES`.

Sources are opened in the preparing child (`penstock_optimizer.building.source`), since some of them are code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from penstock.optimization.variants import SourceRequest
from penstock.serving.manifest import ModelFormat
from penstock_optimizer.sources.examples import Examples

MODEL_INVALID: Final = "ModelInvalid"
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


def _onnx() -> Source:
    from penstock_optimizer.sources.onnx import OnnxSource  # noqa: PLC0415 -- only the format at hand is loaded

    return OnnxSource()


def _torch_export() -> Source:
    from penstock_optimizer.sources.torch_export import TorchExportSource  # noqa: PLC0415 -- as above

    return TorchExportSource()


def _safetensors() -> Source:
    from penstock_optimizer.sources.safetensors import SafetensorsSource  # noqa: PLC0415 -- as above

    return SafetensorsSource()


def _torchscript() -> Source:
    from penstock_optimizer.sources.torchscript import TorchScriptSource  # noqa: PLC0415 -- as above

    return TorchScriptSource()


SOURCES: Mapping[ModelFormat, Callable[[], Source]] = {
    ModelFormat.ONNX: _onnx,
    ModelFormat.TORCH_EXPORT: _torch_export,
    ModelFormat.SAFETENSORS: _safetensors,
    ModelFormat.TORCHSCRIPT: _torchscript,
}
"""Those that a model can come in."""

CODE_FORMATS: Final = frozenset({ModelFormat.TORCH_EXPORT, ModelFormat.TORCHSCRIPT})
"""Formats whose reader, or the model itself when it runs, does what the file says: opened isolated only.

torch parses shapes of a `.pt2` with sympy, which evaluates them, and looks up the functions that it names; TorchScript has
operators that read and write files (`aten::from_file`).
"""
