"""LiteRT's `.tflite`, by `litert_torch` in a Python environment of its own: it pins a torch that fits nothing else.

`PENSTOCK_LITERT_PYTHON` names that environment's interpreter. The program goes there as a `.pt2`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from penstock_optimizer.building.draft import CannotDo

if TYPE_CHECKING:
    from penstock_optimizer.sources.torch_program import Inputs

VARIABLE: Final = "PENSTOCK_LITERT_PYTHON"
_SCRIPT: Final = """
import sys
import litert_torch, numpy, torch
program, samples, target = sys.argv[1:]
with numpy.load(samples, allow_pickle=False) as archive:
    arrays = {name: torch.from_numpy(archive[name]) for name in archive.files}
arguments = tuple(tensor for name, tensor in arrays.items() if name.isdigit())
keywords = {name: tensor for name, tensor in arrays.items() if not name.isdigit()}
module = torch.export.load(program).module()
litert_torch.convert(module, arguments, sample_kwargs=keywords or None).export(target)
"""


def missing_environment() -> str | None:
    """What is missing; None where there is such an environment."""
    python = os.environ.get(VARIABLE)
    if not python:
        return f"LiteRT is converted in an environment of its own: set {VARIABLE} to a Python that has litert_torch"
    if shutil.which(python) is None:
        return f"{VARIABLE} is {python}, which is not there"
    return None


def convert(program: Path, inputs: Inputs, target: Path, deadline: float) -> None:
    """Convert a `.pt2` for a batch of one: LiteRT's shapes are fixed.

    Raises:
        CannotDo: the environment is missing, or the conversion fails.
    """
    problem = missing_environment()
    if problem is not None:
        raise CannotDo(problem)
    one = inputs.first(1)
    arrays = {str(place): tensor.numpy() for place, tensor in enumerate(one.arguments)}
    arrays |= {name: tensor.numpy() for name, tensor in one.keywords.items()}
    samples = target.with_name("litert-samples.npz")
    np.savez(samples, **arrays)  # type: ignore[arg-type]  # numpy's stub takes allow_pickle for one of the arrays
    try:
        ended = subprocess.run(
            [os.environ[VARIABLE], "-c", _SCRIPT, str(program), str(samples), str(target)],
            capture_output=True, text=True, check=False, timeout=max(1.0, deadline - time.monotonic()),
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise CannotDo("LiteRT's conversion did not end within the build's budget") from error
    finally:
        samples.unlink()
    if ended.returncode != 0:
        lines = ended.stderr.strip().splitlines()
        raise CannotDo(f"litert_torch cannot convert the model: {lines[-1][:400] if lines else ended.returncode}")
