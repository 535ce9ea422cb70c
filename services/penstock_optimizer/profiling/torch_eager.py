"""torch's own profiler over the eager program, in a child: reading a `.pt2` evaluates expressions from it.

python -m penstock_optimizer.profiling.torch_eager < request.json
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from penstock.errors import Invalid
from penstock.models import Frozen
from penstock.optimization.measurements import OperatorShare
from penstock.optimization.profiling import operator_shares
from penstock.optimization.recipes import EngineName, EngineSettings
from penstock.serving.manifest import Signature
from penstock_optimizer.samples.arrays import Samples, read, write_arrays
from penstock_optimizer.sandbox import run_module
from penstock_runtime.atomic import write_atomically
from penstock_runtime.engines import load_engine

_MODULE: Final = "penstock_optimizer.profiling.torch_eager"
_TIMEOUT: Final = 300.0
_SECONDS: Final = 1.0
_WARM_UP: Final = 3
_FEWEST_RUNS: Final = 3
_MOST_RUNS: Final = 100


class TorchRequest(Frozen):
    """What the child is told."""

    program: str
    """A `.pt2`."""
    signature: Signature
    feeds: str
    """An `.npz`."""
    threads: int
    answer: str
    """The file to write."""


class TorchProfile(Frozen):
    """What it answers."""

    operators: tuple[OperatorShare, ...]
    """By ATen operator, each without those that it calls."""
    milliseconds: float
    """Median wall time of one run without the profiler."""


def profile_torch(program: Path, signature: Signature, feeds: Samples, threads: int, *, isolated: bool) -> TorchProfile:
    """Profile an exported program in eager mode.

    Args:
        program: a `.pt2`.
        signature: of the model; a program names no tensors.
        feeds: an array for each input.
        threads: of torch.
        isolated: whether the child runs in the sandbox.

    Raises:
        Invalid: ProfileFailed: it cannot be loaded or run.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-profile-") as name:
        folder = Path(name)
        write_arrays(feeds, folder / "feeds.npz")
        request = TorchRequest(
            program=str(program.absolute()), signature=signature, feeds=str(folder / "feeds.npz"), threads=threads,
            answer=str(folder / "answer.json"),
        )  # fmt: skip
        ended = run_module(
            _MODULE, request.model_dump_json(), home=folder, isolated=isolated, timeout=_TIMEOUT, threads=threads
        )
        if not Path(request.answer).is_file():
            raise Invalid("ProfileFailed", f"torch could not run {program.name}: {ended.reason}")
        return TorchProfile.model_validate_json(Path(request.answer).read_bytes())


def main() -> None:
    """The child: read a request, profile, and write the answer."""
    request = TorchRequest.model_validate_json(sys.stdin.read())
    write_atomically(Path(request.answer), _profile(request).model_dump_json().encode())


def _profile(request: TorchRequest) -> TorchProfile:
    from torch.profiler import ProfilerActivity, profile  # noqa: PLC0415 -- the parent needs no torch

    settings = EngineSettings(name=EngineName.TORCH_EAGER, threads=request.threads)
    engine = load_engine(Path(request.program), settings, request.signature, trusted=True)
    arrays = read(Path(request.feeds))
    times: list[float] = []
    until = time.perf_counter() + _SECONDS
    while len(times) < _WARM_UP + _FEWEST_RUNS or (time.perf_counter() < until and len(times) < _MOST_RUNS):
        begun = time.perf_counter()
        engine.run(arrays)
        times.append((time.perf_counter() - begun) * 1e3)
    runs = max(_FEWEST_RUNS, len(times) // 2)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(runs):
            engine.run(arrays)
    kernels = [
        (event.name, event.self_cpu_time_total) for event in profiler.events() if event.name.startswith("aten::")
    ]
    return TorchProfile(operators=operator_shares(kernels, runs), milliseconds=statistics.median(times[_WARM_UP:]))


if __name__ == "__main__":
    main()
