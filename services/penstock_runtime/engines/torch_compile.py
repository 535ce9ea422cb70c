"""PyTorch with `torch.compile`: Inductor writes C++ for this machine when the model is loaded and frozen.

It compiles for each batch size at its first run, and for any size from the second size on. Options: those of
`torch_eager`, and `mode` (`default` or `max-autotune`).
"""

from __future__ import annotations

from pathlib import Path

from penstock.optimization.hardware import Hardware
from penstock.optimization.recipes import EngineName, EngineSettings
from penstock.serving.manifest import Signature
from penstock_runtime.engines import Engine
from penstock_runtime.engines.compiler import missing_compiler


def why_unavailable(name: EngineName, hardware: Hardware) -> str | None:
    """It needs a C++ compiler."""
    del name, hardware
    return missing_compiler()


def load(entrypoint: Path, settings: EngineSettings, signature: Signature | None) -> Engine:
    """Load and compile a model.

    Raises:
        Invalid: ModelInvalid, EngineUnavailable.
    """
    from penstock_runtime.engines.torch_engine import compile_program  # noqa: PLC0415 -- torch takes seconds
    from penstock_runtime.engines.torch_program import load_program  # noqa: PLC0415 -- the same

    return compile_program(load_program(entrypoint, settings, signature), settings, missing_compiler())
