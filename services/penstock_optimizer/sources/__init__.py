"""Models as users have them. A further format is one file here and one line in `_READERS`.

Sources are opened in the preparing child (`penstock_optimizer.building.source`), since some of them are code.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Final

from penstock.serving.manifest import ModelFormat
from penstock_optimizer.sources.opening import Opened, Opening, Source

_READERS: Final[Mapping[ModelFormat, str]] = {
    ModelFormat.ONNX: "onnx:OnnxSource",
    ModelFormat.TORCH_EXPORT: "torch_export:TorchExportSource",
    ModelFormat.SAFETENSORS: "safetensors:SafetensorsSource",
    ModelFormat.TORCHSCRIPT: "torchscript:TorchScriptSource",
}
"""By format that a model can come in: a module of this package, and its class. Only the format at hand is loaded."""


def open_model(model_format: ModelFormat, opening: Opening) -> Opened:
    """Write a model in the forms that steps need.

    Raises:
        Invalid: what is wrong with the model, and what to do.
    """
    module, _, name = _READERS[model_format].partition(":")
    source: Source = getattr(import_module(f"{__name__}.{module}"), name)()
    return source.open(opening)
