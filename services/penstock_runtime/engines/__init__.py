"""What runs a model. A further engine is one file here and one line in `ENGINES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from penstock.serving.manifest import ModelFormat, Signature

Array = npt.NDArray[Any]


class Engine(Protocol):
    """A loaded model. `run` may be called from any one thread at a time."""

    platform: str
    """What the protocol's metadata calls it."""
    signature: Signature

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model once on arrays that fit its signature.

        BF16 tensors are uint16 arrays of their bits; BYTES tensors are object arrays.
        """


def _onnx(path: Path, threads: int) -> Engine:
    from penstock_runtime.engines.onnx import OnnxEngine  # noqa: PLC0415 -- only the engine in use is loaded

    return OnnxEngine(path, threads)


ENGINES: Mapping[ModelFormat, Callable[[Path, int], Engine]] = {ModelFormat.ONNX: _onnx}
"""How each format is loaded, from a file and a number of threads."""

__all__ = ["ENGINES", "Array", "Engine"]
