"""The whole profile of a user's model: opened, run by ONNX Runtime and by torch, set against the machine's peaks."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from penstock.optimization.profiling import Circumstances, ModelProfile, count_tiny, limits_of
from penstock.optimization.variants import PreparedSource, SourceRequest
from penstock_optimizer.building.source import prepare
from penstock_optimizer.profiling.advice import advise
from penstock_optimizer.profiling.onnx import profile_kernels
from penstock_optimizer.profiling.peaks import measure_peak
from penstock_optimizer.profiling.torch_eager import profile_torch
from penstock_optimizer.samples.arrays import Samples, batches, read
from penstock_optimizer.samples.data import prepare_data
from penstock_runtime.hardware import probe


@dataclass(frozen=True, slots=True)
class ProfileRequest:
    """What to profile."""

    model: SourceRequest
    data: str | None
    """Samples as `penstock optimize` takes them; None: made from the signature."""
    batch_size: int
    threads: int
    sandbox: bool = True


def profile_model(request: ProfileRequest, say: Callable[[str], None]) -> ModelProfile:
    """Open a model and profile it.

    Args:
        request: what and how.
        say: told what is being done.

    Raises:
        Invalid: what is wrong with the model or the samples, and what to do.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-profile-") as name:
        folder = Path(name)
        say("Opening the model")
        local = Path(request.data) if request.data is not None and "://" not in request.data else None
        source = prepare(request.model, folder / "source", data=local, sandbox=request.sandbox)
        feeds = _feeds(request, source, folder / "data")
        say("Running it under ONNX Runtime's profiler")
        profiled = profile_kernels(folder / "source" / source.onnx, feeds, request.threads)
        torch = None
        if source.exported is not None:
            say("Running it under torch's profiler")
            program = folder / "source" / source.exported
            torch = profile_torch(program, source.signature, feeds, request.threads, isolated=request.sandbox)
    say("Measuring this machine's peaks")
    moved = sum(kernel.moved_bytes for kernel in profiled.kernels)
    peak, hardware = measure_peak(request.threads, int(moved)), probe()
    limits = limits_of(profiled.kernels, profiled.milliseconds, peak)
    around = Circumstances(hardware, request.batch_size, source.size_bytes, module=source.import_path is not None)
    return ModelProfile(
        model=source.name,
        engine="ONNXRuntime fp32",
        batch_size=len(next(iter(feeds.values()))),
        threads=request.threads,
        milliseconds=profiled.milliseconds,
        operators=profiled.operators,
        torch_operators=torch.operators if torch is not None else (),
        torch_milliseconds=torch.milliseconds if torch is not None else None,
        limits=limits,
        limit=limits.greatest,
        kernels=len(profiled.kernels),
        tiny_kernels=count_tiny(profiled.kernels),
        gigaflops=sum(kernel.flops for kernel in profiled.kernels) / 1e9,
        moved_megabytes=moved / 1e6,
        peak=peak,
        hardware=hardware,
        advice=advise(profiled.kernels, limits, around),
    )


def _feeds(request: ProfileRequest, source: PreparedSource, folder: Path) -> Samples:
    data = prepare_data(
        request.data,
        source,
        folder,
        max_samples=max(request.batch_size, 64),
        seed=0,
        example_shapes=request.model.example_shapes,
    )
    _, feeds = next(batches(read(Path(data.test)), source.signature, request.batch_size))
    return feeds
