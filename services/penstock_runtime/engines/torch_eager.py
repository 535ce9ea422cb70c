"""PyTorch, operator by operator: what most people have, and so the first baseline.

It loads `.pt2` files of `torch.export`, TorchScript, and safetensors with the import path of their module. In bf16 the
weights of matrix products and convolutions are kept in bf16, images lie channels-last, and autocast does the rest.

Options: `importPath` (`package.module:callable` that gives the module) and `pythonPath` (folders, separated by `:`) for
safetensors: they run a user's code, so only a sandboxed process gives them; `device` (`cpu`, or `cuda` with an index).
"""

from __future__ import annotations

from pathlib import Path

from penstock.optimization.hardware import Hardware
from penstock.optimization.recipes import EngineName, EngineSettings
from penstock.serving.manifest import Signature
from penstock_runtime.engines import Engine


def why_unavailable(name: EngineName, hardware: Hardware) -> str | None:
    """It runs wherever torch is installed."""
    del name, hardware
    return None


def load(entrypoint: Path, settings: EngineSettings, signature: Signature | None) -> Engine:
    """Load a model. Torch's formats name no tensors, so the signature should be given."""
    from penstock_runtime.engines.torch_engine import TorchEngine  # noqa: PLC0415 -- torch takes seconds
    from penstock_runtime.engines.torch_program import load_program  # noqa: PLC0415 -- the same

    return TorchEngine(load_program(entrypoint, settings, signature), settings)
