"""PyTorch compiled ahead of time: a package that `torch._inductor.aoti_compile_and_package` made on such a machine.

The package holds machine code. It is loaded only from an artifact whose signature fits, on the processor that it was
made for. It has no options.
"""

from __future__ import annotations

from pathlib import Path

from penstock.optimization.hardware import Hardware
from penstock.optimization.recipes import EngineName, EngineSettings
from penstock.serving.manifest import Signature
from penstock_runtime.engines import Engine
from penstock_runtime.engines.compiler import missing_compiler


def why_unavailable(name: EngineName, hardware: Hardware) -> str | None:
    """Packages are made where they run, which needs a C++ compiler. Loading one needs none."""
    del name, hardware
    return missing_compiler()


def load(entrypoint: Path, settings: EngineSettings, signature: Signature | None) -> Engine:
    """Load a package.

    Raises:
        Invalid: ModelInvalid.
    """
    from penstock_runtime.engines.torch_engine import TorchEngine  # noqa: PLC0415 -- torch takes seconds
    from penstock_runtime.engines.torch_program import load_package  # noqa: PLC0415 -- the same

    return TorchEngine(load_package(entrypoint, settings, signature), settings)
